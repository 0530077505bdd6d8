//! A pod that reaches itself through a Service, and what promiscuous mode does and doesn't.

use std::net::SocketAddr;

use conformance::{Call, Case, Lab, Need, Program, Protocol, ProxyMode, Service, case, with};
use serde_json::{Value, json};

use super::{BRIDGE_NF, Node, pod_network, seen};
use crate::common::ip;

const PODS: [&str; 2] = ["10.1.0.0/16", "fd00:1::/48"];

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(a_pod_reaches_itself_through_a_cluster_ip_with_hairpin_mode),
        case!(without_hairpin_mode_a_pod_does_not_reach_itself),
        case!(with_promisc_mode_nothing_arrives_twice),
        case!(with_hairpin_mode_nothing_arrives_twice),
    ];
    let needy = |case: Case| case.needs(Need::BridgeNetfilter);
    cases.into_iter().map(needy).collect()
}

/// Services of the first pod of a network.
fn services() -> [Service; 3] {
    [
        Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.0.2:8080"]),
        Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.0.2:53"]),
        Service::new(
            "WEB6",
            Protocol::Tcp,
            "[fd00:96::1]:80",
            &["[fd00:1::2]:8080"],
        ),
    ]
}

fn a_pod_reaches_itself_through_a_cluster_ip_with_hairpin_mode(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        for masquerade in [false, true] {
            let keys = json!({"hairpinMode": true, "ipMasq": masquerade});
            let node = Node::new(lab, with(pod_network(), keys));
            let rules = || node.kube_proxy(mode, &PODS, &services());
            // Whose rules are looked at first follows from who came first.
            let pod = if masquerade {
                let pod = node.join("pod");
                rules();
                pod
            } else {
                rules();
                node.join("pod")
            };
            for service in services() {
                let endpoint = service.endpoints[0];
                let _server = pod.serve(service.protocol, endpoint.ip(), endpoint.port());
                // kube-proxy masquerades a pod's traffic to itself, or it would see its own address as the peer's.
                let gateway = if endpoint.is_ipv4() {
                    "10.1.0.1"
                } else {
                    "fd00:1::1"
                };
                let from = seen(&pod, service.protocol, service.address);
                assert_eq!(from, ip(gateway), "{mode:?} {}", service.name);
            }
            if masquerade {
                node.plugin().del(&node.network, &Call::of(&pod.pod));
                assert!(pod.link("eth0").is_none());
            } else {
                node.part_with(&[&pod]);
            }
        }
    }
}

fn without_hairpin_mode_a_pod_does_not_reach_itself(lab: &Lab) {
    let node = Node::new(lab, pod_network());
    node.kube_proxy(ProxyMode::Iptables, &PODS, &services());
    let pod = node.join("pod");
    for service in services() {
        let endpoint = service.endpoints[0];
        let _server = pod.serve(service.protocol, endpoint.ip(), endpoint.port());
        assert!(
            pod.cannot_reach(service.protocol, service.address),
            "{}",
            service.name
        );
    }
    node.part_with(&[&pod]);
}

fn with_promisc_mode_nothing_arrives_twice(lab: &Lab) {
    nothing_arrives_twice(lab, json!({"promiscMode": true}));
}

fn with_hairpin_mode_nothing_arrives_twice(lab: &Lab) {
    nothing_arrives_twice(lab, json!({"hairpinMode": true}));
}

fn nothing_arrives_twice(lab: &Lab, keys: Value) {
    for bridge_netfilter in ["0", "1"] {
        let keys = with(keys.clone(), json!({"bridgeNetfilter": "off"}));
        let (node, world) = Node::connected(lab, with(pod_network(), keys));
        BRIDGE_NF
            .iter()
            .for_each(|name| node.set_sysctl(name, bridge_netfilter));
        let service = Service::new("UDP", Protocol::Udp, "10.96.0.2:80", &["10.1.0.3:8080"]);
        node.kube_proxy(ProxyMode::Iptables, &PODS, std::slice::from_ref(&service));
        let (a, b) = (node.join("alice"), node.join("bob"));
        world.ip("route add 10.1.0.0/24 via 198.51.100.2");
        let at_b = service.endpoints[0];
        let host = SocketAddr::new(ip("10.1.0.1"), 8080);
        let outside = SocketAddr::new(ip(super::INTERNET[0]), 8080);
        let ways = [
            ("pod to pod", a.copies(at_b, &b, at_b)),
            ("pod to Service", a.copies(service.address, &b, at_b)),
            ("pod to host", a.copies(host, &node, host)),
            ("host to pod", node.copies(at_b, &b, at_b)),
            ("pod to outside", a.copies(outside, &world, outside)),
            ("outside to pod", world.copies(at_b, &b, at_b)),
        ];
        for (way, copies) in ways {
            assert_eq!(
                copies.expect(way),
                1,
                "{way}, bridge netfilter {bridge_netfilter}"
            );
        }
        let ping = ["-n", "-c", "3", "-i", "0.05", "-W", "2", "10.1.0.3"];
        let said = a.run(Program::new("ping").args(ping)).succeeded().text();
        assert!(!said.contains("DUP!"), "{said}");
        node.part_with(&[&a, &b]);
    }
}
