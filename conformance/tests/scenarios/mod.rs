//! Stories of traffic: what a cluster's users do, told with real connections between hosts and pods.
//!
//! Every story begins on a [`Node`] whose bridge netfilter is off, as a fresh machine may leave it, and ends with
//! [`Node::part_with`]: when the pods have gone, no rule, element, interface or file is left.

mod bridge_netfilter;
mod cluster_ip;
mod filter;
mod hairpin;
mod isolation;
mod masquerade;
mod nodes;
mod outside;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::OnceLock;

use conformance::{
    Call, Case, Host, Lab, Place, Plugin, Pod, Protocol, Snapshot, Subject, addresses, bridge,
    host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::common::ip;

pub(crate) fn cases() -> Vec<Case> {
    [
        outside::cases(),
        nodes::cases(),
        cluster_ip::cases(),
        hairpin::cases(),
        isolation::cases(),
        bridge_netfilter::cases(),
        masquerade::cases(),
        filter::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The sysctls of bridge netfilter, for IPv4 and IPv6.
const BRIDGE_NF: [&str; 2] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];

/// The node's addresses on its uplink and those of the machine at the other end, which has no route to any pod.
const UPLINK: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
const INTERNET: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];

/// A dual-stack network whose pods have the bridge as their default gateway.
fn pod_network() -> Value {
    let network = bridge(host_local(&["10.1.0.0/24", "fd00:1::/64"]));
    with(network, json!({"isDefaultGateway": true}))
}

/// A machine that pods are put on, all of one network.
struct Node<'l> {
    lab: &'l Lab,
    host: Host,
    network: Value,
    /// How it looked before the first pod.
    before: OnceLock<Snapshot>,
}

impl Deref for Node<'_> {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl<'l> Node<'l> {
    fn new(lab: &'l Lab, network: Value) -> Self {
        let host = Host::new();
        // What IPv6 adds to cables in its own time would be taken for something left behind.
        host.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        // The Go plugin leaves bridge netfilter to the administrator.
        let value = if lab.subject == Subject::Go { "1" } else { "0" };
        for name in BRIDGE_NF {
            // Missing where the module is; what can't do without it is skipped.
            if host.read(&format!("/proc/sys/{name}")).is_some() {
                host.set_sysctl(name, value);
            }
        }
        Self {
            lab,
            host,
            network,
            before: OnceLock::new(),
        }
    }

    /// A node with an uplink, and what is at the other end of it.
    fn connected(lab: &'l Lab, network: Value) -> (Self, Host) {
        let (node, world) = (Self::new(lab, network), Host::new());
        node.cable("up0", &world, "eth0");
        for (place, device, ends) in [(&*node.host, "up0", UPLINK), (&*world, "eth0", INTERNET)] {
            place.ip(&format!("addr add {}/24 dev {device}", ends[0]));
            place.ip(&format!("addr add {}/64 dev {device} nodad", ends[1]));
        }
        node.ip(&format!("route add default via {}", INTERNET[0]));
        node.ip(&format!("-6 route add default via {}", INTERNET[1]));
        (node, world)
    }

    fn plugin(&self) -> Plugin<'_> {
        let name = self.network["type"].as_str().expect("a type");
        self.lab.plugin(&self.host, name)
    }

    /// A new pod of that name on the network.
    #[track_caller]
    fn join(&self, name: &str) -> Member {
        let pod = self.pod(name);
        self.before.get_or_init(|| self.observe());
        let result = self.plugin().add(&self.network, &Call::of(&pod));
        Member { pod, result }
    }

    /// DEL these pods, and find nothing left of them; then once more, as runtimes do.
    #[track_caller]
    fn part_with(&self, members: &[&Member]) {
        self.del_all(members);
        self.assert_nothing_left(members);
        self.del_all(members);
    }

    #[track_caller]
    fn del_all(&self, members: &[&Member]) {
        for member in members {
            let network = with_prev_result(&self.network, &member.result);
            self.plugin().del(&network, &Call::of(&member.pod));
        }
    }

    #[track_caller]
    fn assert_nothing_left(&self, members: &[&Member]) {
        let names: Vec<_> = members.iter().map(|member| &*member.pod.name).collect();
        let before = self.before.get().expect("somebody joined");
        self.host.assert_nothing_left(before, &names);
        let after = self.observe();
        let (then, now) = (firewall(before), firewall(&after));
        assert_eq!(now, then, "the firewall is as it was");
    }
}

/// What a snapshot knows of the firewall, without tables and built-in chains that are empty.
fn firewall(snapshot: &Snapshot) -> Vec<&str> {
    let empty = |line: &str| {
        line.starts_with("nft table")
            || line.contains("\"hook\"") && !line.contains("trestle")
            || line.contains("tables-save") && line.ends_with(" ACCEPT")
    };
    let lines = snapshot.lines();
    lines
        .filter(|line| line.starts_with("nft ") || line.contains("tables-save "))
        .filter(|line| !empty(line))
        .collect()
}

/// A pod on a [`Node`], with what ADD said about it.
struct Member {
    pod: Pod,
    result: Value,
}

impl Deref for Member {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

impl Member {
    /// Its addresses, IPv4 first.
    fn ips(&self) -> Vec<IpAddr> {
        addresses(&self.result)
    }

    /// Its address of the family of this one.
    #[track_caller]
    fn ip_like(&self, other: IpAddr) -> IpAddr {
        let ips = self.ips();
        let mut same = ips.iter().filter(|ip| ip.is_ipv4() == other.is_ipv4());
        *same.next().expect("an address of that family")
    }
}

/// Ask a server; the address it says it was asked from.
#[track_caller]
fn seen(asker: &Place, protocol: Protocol, to: SocketAddr) -> IpAddr {
    let answer = asker.ask(protocol, to);
    answer.unwrap_or_else(|error| panic!("{protocol:?} to {to}: {error}"))
}

/// Serve at these addresses of a place by TCP and UDP, let another ask, and compare what the server sees with `expected`.
#[track_caller]
fn assert_seen(asker: &Place, server: &Place, at: IpAddr, expected: IpAddr) {
    for protocol in Protocol::BOTH {
        let server = server.serve(protocol, at, 8080);
        let from = seen(asker, protocol, server.address);
        assert_eq!(from, expected, "{protocol:?} to {at} is seen to come from");
    }
}

/// Whether nobody gets an answer from there, by TCP or UDP.
fn unreachable(asker: &Place, server: &Place, at: IpAddr) -> bool {
    Protocol::BOTH.into_iter().all(|protocol| {
        let server = server.serve(protocol, at, 8080);
        asker.cannot_reach(protocol, server.address)
    })
}

/// Both ends of the uplink: where the world is asked, and who it should see.
fn beyond_the_uplink() -> [(IpAddr, IpAddr); 2] {
    [0, 1].map(|family| (ip(INTERNET[family]), ip(UPLINK[family])))
}
