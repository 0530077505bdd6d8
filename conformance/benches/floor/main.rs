//! The floor: what one attachment costs the kernel when nothing around it costs anything.
//!
//! A process that is called like a plugin and does what bridge with host-local does, by hand-packed netlink
//! messages and nothing else. It reads no configuration, checks nothing, undoes nothing and knows one network:
//! the bridge `floor0`, which exists, and 10.77.0.0/16. No real plugin can be faster, so the benchmark measures
//! the others in multiples of it.
//!
//! With a configuration that says `macvlan` it does what macvlan with host-local does, on the interface `up0`.
//!
//! ADD: a locked state file gives the address; one message makes the veth pair with its peer in the container's
//! namespace, names, MACs and MTU, enslaved and up; then alias and hairpin; then address, up and route inside.
//! DEL: the host's end goes, then the state file.

mod netlink;

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
    let macvlan = configuration.contains("macvlan");
    let (netns, ifname) = (variable("CNI_NETNS")?, variable("CNI_IFNAME")?);
    match variable("CNI_COMMAND")?.as_str() {
        "ADD" => add(&container, &netns, &ifname, macvlan),
        "DEL" if macvlan => del_macvlan(&container, &netns, &ifname),
        "DEL" => del(&container),
        other => Err(io::Error::other(format!("no verb {other}"))),
    }
}

fn add(container: &str, netns: &str, ifname: &str, macvlan: bool) -> io::Result<()> {
    let netns = File::open(netns)?;
    let address = allocate(container)?;
    let host = Netlink::open()?;
    let below = find(&host, if macvlan { MASTER } else { BRIDGE })?;
    host.apply(if macvlan {
        make_macvlan(ifname, &netns, below, address)
    } else {
        make_pair(container, ifname, &netns, below, address)
    })?;
    setns(&netns, CloneFlags::CLONE_NEWNET)?;
    Netlink::open()?.apply(configure(address))?;
    let [a, b, c, d] = address;
    writeln!(
        io::stdout(),
        r#"{{"cniVersion":"1.0.0","ips":[{{"address":"{a}.{b}.{c}.{d}/16"}}]}}"#
    )
}

fn del(container: &str) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(RTM_DELLINK, CHANGE, &link_header(0, 0));
    batch.text(IFLA_IFNAME, &host_name(container));
    Netlink::open()?.apply(batch)?;
    let _lock = lock()?;
    fs::remove_file(format!("{STATE}/{container}"))
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
    bridge: u32,
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
    batch.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
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
    let info = batch.open(IFLA_LINKINFO);
    batch.text(IFLA_INFO_SLAVE_KIND, "bridge");
    let data = batch.open(IFLA_INFO_SLAVE_DATA);
    batch.attribute(IFLA_BRPORT_MODE, &[1]);
    batch.close(data);
    batch.close(info);
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

/// Address, up and default route of the container's interface.
fn configure(address: [u8; 4]) -> Batch {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_BROADCAST: u16 = 4;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    // struct rtmsg: main table, protocol boot, universal scope, unicast.
    const DEFAULT_ROUTE: [u8; 12] = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let [a, b, ..] = address;
    let index = index_of(address);
    let mut batch = Batch::default();
    let mut header = [0; 8];
    header[..2].copy_from_slice(&[AF_INET, 16]);
    header[4..].copy_from_slice(&index.to_ne_bytes());
    batch.message(RTM_NEWADDR, CREATE, &header);
    batch.attribute(IFA_LOCAL, &address);
    batch.attribute(IFA_ADDRESS, &address);
    batch.attribute(IFA_BROADCAST, &[a, b, 255, 255]);
    batch.message(RTM_NEWLINK, CHANGE, &link_header(index, IFF_UP));
    batch.message(RTM_NEWROUTE, CREATE, &DEFAULT_ROUTE);
    batch.attribute(RTA_GATEWAY, &GATEWAY);
    batch.attribute(RTA_OIF, &index.to_ne_bytes());
    batch
}
