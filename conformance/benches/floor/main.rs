//! The floor: what one attachment costs the kernel when nothing around it costs anything.
//!
//! A process that is called like a plugin and does what bridge with host-local does, by hand-packed netlink
//! messages and nothing else. It reads no configuration, checks nothing, undoes nothing and knows one network:
//! the bridge `floor0`, which exists, and 10.77.0.0/16. The benchmark measures the others in multiples of it.
//!
//! It is linked with what Rust links with by default, on most machines glibc, whose start alone takes a good part of its time in a
//! virtual machine (docs/decisions/static-binary.md). A program without that can be faster than the floor by so much.
//!
//! A configuration may name another kind ([`Kind`]): macvlan on the interface `up0`, addresses of both families, whole lists
//! of plugins whose rules it adds in one transaction, masquerading by one child.
//!
//! ADD: a locked state file gives the address; one message makes the veth pair with its peer in the container's
//! namespace, names, MACs and MTU, enslaved and up; then alias and hairpin; then address, up and route inside.
//! DEL: the host's end goes, then the state file.

mod netlink;
mod rules;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use netlink::{Batch, CHANGE, CREATE, Netlink, link_header};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns};

const BRIDGE: &str = "floor0";
const MASTER: &str = "up0";
const GATEWAY: [u8; 4] = [10, 77, 0, 1];
/// fd00:77::1
const GATEWAY_6: [u8; 16] = [0xfd, 0, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const STATE: &str = "/var/lib/cni/floor";
const MTU: u32 = 1500;

/// Where the indexes of interfaces start, far above those that the kernel gives out by itself.
const INDEXES: u32 = 1 << 24;

const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let variable = |name| std::env::var(name).map_err(io::Error::other);
    let container = variable("CNI_CONTAINERID")?;
    let mut configuration = String::new();
    io::stdin().read_to_string(&mut configuration)?;
    let kind = Kind::of(&configuration);
    let (netns, ifname) = (variable("CNI_NETNS")?, variable("CNI_IFNAME")?);
    match variable("CNI_COMMAND")?.as_str() {
        "ADD" => add(&container, &netns, &ifname, &kind),
        "DEL" if kind.macvlan => del_macvlan(&container, &netns, &ifname),
        "DEL" => del(&container, &kind),
        other => Err(io::Error::other(format!("no verb {other}"))),
    }
}

/// What is made beside the pair with an IPv4 address.
struct Kind {
    /// No pair: macvlan.
    macvlan: bool,
    /// The host's end is no port of the bridge, and has the gateway's address and a route.
    ptp: bool,
    /// An IPv6 address as well.
    dual_stack: bool,
    /// A rule of iptables.
    iptables: bool,
    /// How many elements of sets there are for the container.
    elements: u16,
}

impl Kind {
    /// By the words of a configuration: `{"kind": "ptp", "elements": 3}`.
    fn of(configuration: &str) -> Self {
        let is = |kind: &str| configuration.contains(&format!(r#""kind":"{kind}""#));
        let elements = configuration.split_once(r#""elements":"#);
        let digits = elements.map_or("", |(_, rest)| rest);
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next();
        Self {
            macvlan: is("macvlan"),
            ptp: is("ptp"),
            dual_stack: is("dual stack"),
            iptables: is("iptables"),
            elements: digits.and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}

fn add(container: &str, netns: &str, ifname: &str, kind: &Kind) -> io::Result<()> {
    let netns = File::open(netns)?;
    let address = allocate(container)?;
    let host = Netlink::open()?;
    let pair = |master| make_pair(container, ifname, &netns, master, address);
    if kind.macvlan {
        host.apply(make_macvlan(ifname, &netns, find(&host, MASTER)?, address))?;
    } else if kind.ptp {
        host.apply(pair(None))?;
        host.apply(lead_to(address))?;
    } else {
        host.apply(pair(Some(find(&host, BRIDGE)?)))?;
    }
    if kind.elements > 0 {
        rules::add(address, kind.elements)?;
    }
    if kind.iptables {
        rules::iptables("-A", address)?;
    }
    setns(&netns, CloneFlags::CLONE_NEWNET)?;
    Netlink::open()?.apply(configure(address, kind.dual_stack))?;
    let [a, b, c, d] = address;
    writeln!(
        io::stdout(),
        r#"{{"cniVersion":"1.0.0","ips":[{{"address":"{a}.{b}.{c}.{d}/16"}}]}}"#
    )
}

fn del(container: &str, kind: &Kind) -> io::Result<()> {
    let state = format!("{STATE}/{container}");
    let address = || -> io::Result<[u8; 4]> {
        let address: Result<std::net::Ipv4Addr, _> = fs::read_to_string(&state)?.parse();
        Ok(address.map_err(io::Error::other)?.octets())
    };
    let _rules = match kind.elements {
        0 => None,
        count => Some(rules::delete(address()?, count)?),
    };
    if kind.iptables {
        rules::iptables("-D", address()?)?;
    }
    let mut batch = Batch::default();
    batch.message(RTM_DELLINK, CHANGE, &link_header(0, 0));
    batch.text(IFLA_IFNAME, &host_name(container));
    Netlink::open()?.apply(batch)?;
    let _lock = lock()?;
    fs::remove_file(state)
}

/// The interface is in the container alone.
fn del_macvlan(container: &str, netns: &str, ifname: &str) -> io::Result<()> {
    setns(&File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    let mut batch = Batch::default();
    batch.message(RTM_DELLINK, CHANGE, &link_header(0, 0));
    batch.text(IFLA_IFNAME, ifname);
    Netlink::open()?.apply(batch)?;
    let _lock = lock()?;
    fs::remove_file(format!("{STATE}/{container}"))
}

/// The next address in turn, remembered under the container's ID.
fn allocate(container: &str) -> io::Result<[u8; 4]> {
    let mut lock = lock()?;
    let mut last = String::new();
    lock.read_to_string(&mut last)?;
    let next = last
        .trim()
        .parse::<u16>()
        .unwrap_or(1)
        .wrapping_add(1)
        .max(2);
    let [high, low] = next.to_be_bytes();
    let mut owner = File::create_new(format!("{STATE}/{container}"))?;
    owner.write_all(format!("10.77.{high}.{low}").as_bytes())?;
    // Five digits always, so that one write replaces the whole.
    nix::sys::uio::pwrite(&*lock, format!("{next:05}").as_bytes(), 0)?;
    Ok([10, 77, high, low])
}

fn lock() -> io::Result<Flock<File>> {
    let path = format!("{STATE}/lock");
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    let file = options.open(&path).or_else(|_| {
        fs::create_dir_all(STATE)?;
        options.open(&path)
    })?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

fn find(netlink: &Netlink, name: &str) -> io::Result<u32> {
    let mut batch = Batch::default();
    batch.message(RTM_GETLINK, CHANGE, &link_header(0, 0));
    batch.text(IFLA_IFNAME, name);
    let answer = netlink.ask(batch)?;
    let index = answer.get(20..24).and_then(|bytes| bytes.try_into().ok());
    index
        .map(u32::from_ne_bytes)
        .ok_or_else(|| io::Error::other("short answer"))
}

/// The host's name of the interface: `fl` and 8 digits of an FNV hash of the container's ID.
fn host_name(container: &str) -> String {
    let hash = container.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("fl{hash:08x}")
}

/// The index of both ends of the pair of this address.
fn index_of([.., c, d]: [u8; 4]) -> u32 {
    INDEXES + u32::from(u16::from_be_bytes([c, d]))
}

fn make_pair(
    container: &str,
    ifname: &str,
    netns: &File,
    bridge: Option<u32>,
    [a, b, c, d]: [u8; 4],
) -> Batch {
    let host = host_name(container);
    let mut batch = Batch::default();
    // Both ends get an index of our choice, which saves asking for the peer's; the kernel takes both or none.
    let index = index_of([a, b, c, d]);
    batch.message(RTM_NEWLINK, CREATE, &link_header(index, 0));
    batch.text(IFLA_IFNAME, &host);
    batch.attribute(IFLA_ADDRESS, &[0x0a, 0x59, a, b, c, d]);
    batch.attribute(IFLA_MTU, &MTU.to_ne_bytes());
    if let Some(bridge) = bridge {
        batch.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
    }
    let info = batch.open(IFLA_LINKINFO);
    batch.text(IFLA_INFO_KIND, "veth");
    let data = batch.open(IFLA_INFO_DATA);
    let peer = batch.open(VETH_INFO_PEER);
    batch.fixed(&link_header(index, 0));
    batch.text(IFLA_IFNAME, ifname);
    batch.attribute(IFLA_ADDRESS, &[0x0a, 0x58, a, b, c, d]);
    batch.attribute(IFLA_MTU, &MTU.to_ne_bytes());
    batch.attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    batch.close(peer);
    batch.close(data);
    batch.close(info);

    // Attributes that the kernel takes only for an interface that exists.
    batch.message(RTM_NEWLINK, CHANGE, &link_header(0, 0));
    batch.text(IFLA_IFNAME, &host);
    batch.text(IFLA_IFALIAS, &format!("floor {container} {ifname}"));
    if bridge.is_some() {
        let info = batch.open(IFLA_LINKINFO);
        batch.text(IFLA_INFO_SLAVE_KIND, "bridge");
        let data = batch.open(IFLA_INFO_SLAVE_DATA);
        batch.attribute(IFLA_BRPORT_MODE, &[1]);
        batch.close(data);
        batch.close(info);
    }
    let families = batch.open(IFLA_AF_SPEC);
    let inet6 = batch.open(AF_INET6);
    batch.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    batch.close(inet6);
    batch.close(families);

    batch.message(RTM_NEWLINK, CHANGE, &link_header(index, IFF_UP));
    batch
}

fn make_macvlan(ifname: &str, netns: &File, master: u32, address: [u8; 4]) -> Batch {
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, CREATE, &link_header(index_of(address), 0));
    batch.text(IFLA_IFNAME, ifname);
    batch.attribute(IFLA_LINK, &master.to_ne_bytes());
    batch.attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    let info = batch.open(IFLA_LINKINFO);
    batch.text(IFLA_INFO_KIND, "macvlan");
    let data = batch.open(IFLA_INFO_DATA);
    batch.attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes());
    batch.close(data);
    batch.close(info);
    batch
}

/// The gateway's address on the host's end of a pair, and the route to the container.
fn lead_to(address: [u8; 4]) -> Batch {
    // struct rtmsg: 32 bits of destination, main table, protocol boot, scope link, unicast.
    const HOST_ROUTE: [u8; 12] = [AF_INET, 32, 0, 0, 254, 3, 253, 1, 0, 0, 0, 0];
    let index = index_of(address);
    let mut batch = Batch::default();
    batch.message(RTM_NEWADDR, CREATE, &address_header(AF_INET, 32, index));
    batch.attribute(IFA_LOCAL, &GATEWAY);
    batch.message(RTM_NEWROUTE, CREATE, &HOST_ROUTE);
    batch.attribute(RTA_DST, &address);
    batch.attribute(RTA_OIF, &index.to_ne_bytes());
    batch
}

/// Addresses, up and default routes of the container's interface.
fn configure(address: [u8; 4], dual_stack: bool) -> Batch {
    // struct rtmsg: main table, protocol boot, universal scope, unicast.
    const DEFAULT_ROUTE: [u8; 12] = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    const DEFAULT_ROUTE_6: [u8; 12] = [AF_INET6 as u8, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let [a, b, c, d] = address;
    let index = index_of(address);
    let mut batch = Batch::default();
    batch.message(RTM_NEWADDR, CREATE, &address_header(AF_INET, 16, index));
    batch.attribute(IFA_LOCAL, &address);
    batch.attribute(IFA_ADDRESS, &address);
    batch.attribute(IFA_BROADCAST, &[a, b, 255, 255]);
    batch.message(RTM_NEWLINK, CHANGE, &link_header(index, IFF_UP));
    batch.message(RTM_NEWROUTE, CREATE, &DEFAULT_ROUTE);
    batch.attribute(RTA_GATEWAY, &GATEWAY);
    batch.attribute(RTA_OIF, &index.to_ne_bytes());
    if dual_stack {
        let mut own = GATEWAY_6;
        own[12..].copy_from_slice(&[a, b, c, d]);
        batch.message(
            RTM_NEWADDR,
            CREATE,
            &address_header(AF_INET6 as u8, 64, index),
        );
        batch.attribute(IFA_LOCAL, &own);
        batch.attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
        batch.message(RTM_NEWROUTE, CREATE, &DEFAULT_ROUTE_6);
        batch.attribute(RTA_GATEWAY, &GATEWAY_6);
        batch.attribute(RTA_OIF, &index.to_ne_bytes());
    }
    batch
}

/// `struct ifaddrmsg`
fn address_header(family: u8, length: u8, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, length, 0, 0, a, b, c, d]
}
