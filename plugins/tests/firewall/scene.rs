//! A host with two bridges and an outside, calls of the plugin on it, and who talks to whom.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, CniArgs, Request};
use cni_conf::result::{CniResult, Interface, IpConfig};
use cni_conf::version::SpecVersion;
use ipnet::IpNet;
use plugins::firewall::Firewall;
use serde_json::{Value, json};

use crate::scratch;
use testbed::Node;

/// How long one packet may take.
const TIME_LIMIT: Duration = Duration::from_millis(150);

/// Pods `a` and `b` behind the bridge cni0, pod `c` behind the bridge cni1, and an outside that has routes to both.
pub(crate) struct Scene {
    pub(crate) host: Node,
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) c: Node,
    pub(crate) outside: Node,
}

/// The addresses of each, of either version of IP.
pub(crate) const A: [&str; 2] = ["10.1.0.5", "fd00:1::5"];
pub(crate) const B: [&str; 2] = ["10.1.0.6", "fd00:1::6"];
pub(crate) const C: [&str; 2] = ["10.2.0.5", "fd00:2::5"];
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// The same with their subnets.
pub(crate) const A_NET: [&str; 2] = ["10.1.0.5/24", "fd00:1::5/64"];
pub(crate) const B_NET: [&str; 2] = ["10.1.0.6/24", "fd00:1::6/64"];
pub(crate) const C_NET: [&str; 2] = ["10.2.0.5/24", "fd00:2::5/64"];

impl Scene {
    pub(crate) fn new() -> Self {
        let [host, a, b, c, outside] = std::array::from_fn(|_| Node::new());
        host.sh(
            "for n in 1 2; do
               ip link add cni$((n-1)) type bridge; ip link set cni$((n-1)) up
               ip addr add 10.$n.0.1/24 dev cni$((n-1)); ip addr add fd00:$n::1/64 dev cni$((n-1)) nodad
             done
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
        for (node, name, subnet, last) in [(&a, "a", 1, 5), (&b, "b", 1, 6), (&c, "c", 2, 5)] {
            host.sh(&format!(
                "ip link add veth{name} type veth peer name eth0 netns {}
                 ip link set veth{name} master cni{} up",
                node.netns(),
                subnet - 1
            ));
            node.sh(&format!(
                "ip addr add 10.{subnet}.0.{last}/24 dev eth0; ip addr add fd00:{subnet}::{last}/64 dev eth0 nodad
                 ip link set eth0 up
                 ip route add default via 10.{subnet}.0.1; ip route add default via fd00:{subnet}::1"
            ));
        }
        host.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {}; ip link set up0 up
             ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad",
            outside.netns()
        ));
        outside.sh(
            "ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up
             ip route add 10.0.0.0/8 via 192.0.2.1; ip route add fd00::/8 via 2001:db8::1",
        );
        Self {
            host,
            a,
            b,
            c,
            outside,
        }
    }

    /// Asserts that a question from one gets its answer from the other, or that it does not, with both versions of IP.
    #[track_caller]
    pub(crate) fn assert_talks(
        &self,
        from: &Node,
        to: &Node,
        addresses: [&str; 2],
        expected: bool,
    ) {
        for address in addresses {
            assert_eq!(
                talks(from, to, address, 7000, expected),
                expected,
                "towards {address}"
            );
        }
    }

    fn add(
        &self,
        conf: &Value,
        container: &'static str,
        pod: &Node,
        links: [&'static str; 2],
        addresses: &'static [&'static str],
    ) {
        let (conf, netns) = (conf.clone(), scratch::netns(pod));
        self.host.run(move || {
            add_inside(&conf, container, Some(netns), links, addresses)
                .map(drop)
                .unwrap()
        });
    }

    /// ADD of pod `a` with its subnets, as IPAM tells them.
    pub(crate) fn add_a_in_subnet(&self, conf: &Value) {
        self.add(conf, "a", &self.a, ["cni0", "vetha"], &A_NET);
    }

    /// ADD of pod `b` with its subnets.
    pub(crate) fn add_b_in_subnet(&self, conf: &Value) {
        self.add(conf, "b", &self.b, ["cni0", "vethb"], &B_NET);
    }

    /// ADD of pod `c` with its subnets.
    pub(crate) fn add_c_in_subnet(&self, conf: &Value) {
        self.add(conf, "c", &self.c, ["cni1", "vethc"], &C_NET);
    }

    /// CHECK of pod `a`, of whose subnets IPAM has told.
    pub(crate) fn check_a_in_subnet(&self, conf: &Value) -> Result<(), Error> {
        let conf = conf.clone();
        self.host
            .run(move || check(&conf, "a", "cni0", "vetha", &A_NET))
    }

    /// ADD of pod `a`, which must succeed.
    pub(crate) fn add_a(&self, conf: &Value) {
        self.add(conf, "a", &self.a, ["cni0", "vetha"], &A);
    }

    /// ADD of pod `b`, which must succeed.
    pub(crate) fn add_b(&self, conf: &Value) {
        self.add(conf, "b", &self.b, ["cni0", "vethb"], &B);
    }

    /// ADD of pod `c`, which must succeed.
    pub(crate) fn add_c(&self, conf: &Value) {
        self.add(conf, "c", &self.c, ["cni1", "vethc"], &C);
    }

    pub(crate) fn del(&self, conf: &Value, container: &'static str) {
        let conf = conf.clone();
        self.host.run(move || del(&conf, container).unwrap());
    }

    /// CHECK of pod `a`.
    pub(crate) fn check_a(&self, conf: &Value) -> Result<(), Error> {
        let conf = conf.clone();
        self.host
            .run(move || check(&conf, "a", "cni0", "vetha", &A))
    }

    /// All rules of the host, however they are kept; without counters.
    pub(crate) fn rules(&self) -> String {
        self.host.sh("nft -s list ruleset")
    }
}

/// Whether a question to `port` gets an answer. A link that has just come up may lose the first ones, so where an answer
/// is expected it is awaited longer.
pub(crate) fn talks(from: &Node, to: &Node, address: &str, port: u16, expected: bool) -> bool {
    asks(from, to, [address, address], [port, port], expected)
}

/// The same where the first address and port become the second ones on the way.
pub(crate) fn asks(
    from: &Node,
    to: &Node,
    addresses: [&str; 2],
    ports: [u16; 2],
    expected: bool,
) -> bool {
    let [asked, address] = addresses.map(|text| text.parse::<IpAddr>().unwrap());
    let server = to.run(move || UdpSocket::bind(SocketAddr::new(address, ports[1])).unwrap());
    let any = if asked.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let client = from.run(move || UdpSocket::bind(any).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(TIME_LIMIT)).unwrap();
    }
    let mut buffer = [0; 16];
    (0..if expected { 60 } else { 3 }).any(|_| {
        // An ICMP error of the packet before counts as no answer.
        let _ = client.send_to(b"question", SocketAddr::new(asked, ports[0]));
        let Ok((_, peer)) = server.recv_from(&mut buffer) else {
            return false;
        };
        server.send_to(b"answer", peer).unwrap();
        client.recv_from(&mut buffer).is_ok()
    })
}

/// A configuration of network `podnet`.
pub(crate) fn conf(more: Value) -> Value {
    named("podnet", more)
}

/// A configuration of another network.
pub(crate) fn named(network: &str, more: Value) -> Value {
    let mut conf = json!({"cniVersion": "1.1.0", "name": network, "type": "firewall", "dataDir": scratch::shared()});
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

fn request(conf: &Value, prev_result: Option<CniResult>) -> Request {
    Request {
        version: SpecVersion::LATEST,
        network: conf["name"].as_str().unwrap().try_into().unwrap(),
        plugin: "firewall".try_into().unwrap(),
        conf: conf.clone(),
        cni_path: Vec::new(),
        prev_result,
    }
}

/// Of `container`, or of `container@ifname`.
fn attachment(container: &str) -> Attachment {
    let (container, ifname) = container.split_once('@').unwrap_or((container, "eth0"));
    Attachment {
        container: container.try_into().unwrap(),
        ifname: ifname.try_into().unwrap(),
        netns: None,
        args: CniArgs::default(),
        netns_override: false,
    }
}

/// `10.1.0.5/24`, or an address without a subnet.
fn prefix(text: &str) -> IpNet {
    let address = || text.parse::<IpAddr>().unwrap().into();
    text.parse().unwrap_or_else(|_| address())
}

/// The result of a bridge plugin.
pub(crate) fn result(bridge: &str, veth: &str, addresses: &[&str]) -> CniResult {
    let interface = |name: &str, sandbox: &str| Interface {
        name: name.into(),
        sandbox: sandbox.into(),
        ..Interface::default()
    };
    let mut interfaces = vec![
        interface(bridge, ""),
        interface(veth, ""),
        interface("eth0", "/run/netns/x"),
    ];
    interfaces.retain(|interface| !interface.name.is_empty());
    let index = interfaces.len() - 1;
    CniResult {
        ips: addresses
            .iter()
            .map(|address| IpConfig {
                interface: Some(index),
                address: prefix(address),
                gateway: None,
            })
            .collect(),
        interfaces,
        ..CniResult::default()
    }
}

pub(crate) fn add(
    conf: &Value,
    container: &str,
    bridge: &str,
    veth: &str,
    addresses: &[&str],
) -> Result<CniResult, Error> {
    add_inside(conf, container, None, [bridge, veth], addresses)
}

/// ADD of a container in this namespace.
pub(crate) fn add_inside(
    conf: &Value,
    container: &str,
    netns: Option<PathBuf>,
    [bridge, veth]: [&str; 2],
    addresses: &[&str],
) -> Result<CniResult, Error> {
    let previous = result(bridge, veth, addresses);
    let attachment = Attachment {
        netns,
        ..attachment(container)
    };
    let passed_on = Firewall.add(&request(conf, Some(previous.clone())), &attachment)?;
    assert_eq!(passed_on, previous);
    Ok(passed_on)
}

pub(crate) fn add_alone(conf: &Value) -> Error {
    Firewall
        .add(&request(conf, None), &attachment("a"))
        .unwrap_err()
}

pub(crate) fn del(conf: &Value, container: &str) -> Result<(), Error> {
    Firewall.del(&request(conf, None), &attachment(container))
}

pub(crate) fn check(
    conf: &Value,
    container: &str,
    bridge: &str,
    veth: &str,
    addresses: &[&str],
) -> Result<(), Error> {
    let previous = result(bridge, veth, addresses);
    Firewall.check(&request(conf, Some(previous)), &attachment(container))
}

pub(crate) fn gc(conf: &Value, valid: &[&str]) -> Result<(), Error> {
    let valid: Vec<AttachmentId> = valid
        .iter()
        .map(|container| attachment(container).id())
        .collect();
    Firewall.gc(&request(conf, None), &valid)
}

pub(crate) fn status(conf: &Value) -> Result<(), Error> {
    Firewall.status(&request(conf, None))
}
