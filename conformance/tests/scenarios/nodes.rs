//! Two nodes joined by a cable, each with routes to the other's pods.

use std::net::SocketAddr;

use conformance::{
    Call, Case, Host, Lab, Need, Program, Protocol, ProxyMode, Service, bridge, case, host_local,
    with, with_prev_result,
};
use serde_json::{Value, json};

use super::{Member, Node, assert_seen, seen, unreachable};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(pods_of_two_nodes_talk_without_nat_and_everything_else_is_masqueraded).ours(),
        case!(every_path_of_a_cluster_passes_filters_that_drop)
            .ours()
            .needs(Need::Plugin("firewall")),
        case!(without_non_masquerade_cidrs_the_other_node_sees_the_node),
        case!(a_cluster_ip_leads_to_the_other_node_without_nat_of_the_client)
            .ours()
            .needs(Need::BridgeNetfilter),
    ]
}

/// The part of the cluster's prefixes that one of two nodes has.
fn network_of(node: u8) -> Value {
    let subnets = [format!("10.1.{node}.0/24"), format!("fd00:1:0:{node}::/64")];
    let ipam = host_local(&[&subnets[0], &subnets[1]]);
    with(
        bridge(ipam),
        json!({"isDefaultGateway": true, "ipMasq": true}),
    )
}

/// What pods may talk to under their own address: the whole cluster.
fn cluster() -> Value {
    json!({"nonMasqueradeCIDRs": ["10.1.0.0/16", "fd00:1::/48"]})
}

/// Nodes 1 and 2, with the addresses 192.0.2.N and 2001:db8:2::N on the cable between them.
fn two_nodes(lab: &Lab, more: Value) -> [Node<'_>; 2] {
    let nodes = [1, 2].map(|number| Node::new(lab, with(network_of(number), more.clone())));
    nodes[0].cable("up0", &nodes[1], "up0");
    for (node, (here, there)) in nodes.iter().zip([(1, 2), (2, 1)]) {
        node.ip(&format!("addr add 192.0.2.{here}/24 dev up0"));
        node.ip(&format!("addr add 2001:db8:2::{here}/64 dev up0 nodad"));
        node.ip(&format!("route add 10.1.{there}.0/24 via 192.0.2.{there}"));
        node.ip(&format!(
            "route add fd00:1:0:{there}::/64 via 2001:db8:2::{there}"
        ));
        node.ip(&format!("route add default via 192.0.2.{there}"));
    }
    nodes
}

fn pods_of_two_nodes_talk_without_nat_and_everything_else_is_masqueraded(lab: &Lab) {
    let nodes = two_nodes(lab, cluster());
    let (a, b) = (nodes[0].join("alice"), nodes[1].join("bob"));
    for at_a in a.ips() {
        let at_b = b.ip_like(at_a);
        assert_seen(&a, &b, at_b, at_a);
        assert_seen(&b, &a, at_a, at_b);
    }
    // The other node itself is outside the cluster's prefixes, and so is what hangs on it.
    assert_seen(&a, &nodes[1], ip("192.0.2.2"), ip("192.0.2.1"));
    assert_seen(&a, &nodes[1], ip("2001:db8:2::2"), ip("2001:db8:2::1"));
    assert_seen(&b, &nodes[0], ip("192.0.2.1"), ip("192.0.2.2"));
    let far = Host::new();
    nodes[1].cable("up1", &far, "eth0");
    nodes[1].ip("addr add 203.0.113.1/24 dev up1");
    far.ip("addr add 203.0.113.2/24 dev eth0");
    far.ip("route add 192.0.2.0/24 via 203.0.113.1");
    assert_seen(&a, &far, ip("203.0.113.2"), ip("192.0.2.1"));
    nodes[1].ip("link del up1");
    nodes[0].part_with(&[&a]);
    nodes[1].part_with(&[&b]);
}

/// Guards of a node that drop what they don't know: Docker's policy, and an administrator's chain of nftables.
const GUARDS: [&str; 2] = [
    "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
    "nft 'add table inet filter
     add chain inet filter forward { type filter hook forward priority 0; policy drop; }'",
];

fn script(node: &Node, text: &str) {
    node.run(Program::new("sh").args(["-ec", text])).succeeded();
}

/// A pod of a node whose list has firewall behind the plugin that makes the interface.
fn join_guarded(node: &Node, name: &str, ingress: &Value) -> Member {
    let member = node.join(name);
    let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "firewall"});
    let conf = with(conf, json!({"ingressCIDRs": ingress}));
    let firewall = node.lab.plugin(&node.host, "firewall");
    let call = Call::of(&member.pod);
    firewall.add(&with_prev_result(&conf, &member.result), &call);
    firewall.check(&conf, &member.result, &call).succeeded();
    member
}

fn every_path_of_a_cluster_passes_filters_that_drop(lab: &Lab) {
    for guard in GUARDS {
        let nodes = two_nodes(lab, cluster());
        for node in &nodes {
            script(node, guard);
        }
        let far = Host::new();
        nodes[0].cable("up1", &far, "eth0");
        nodes[0].ip("addr add 203.0.113.1/24 dev up1");
        far.ip("addr add 203.0.113.2/24 dev eth0");
        far.ip("route add default via 203.0.113.1");
        let pods = json!(["10.1.0.0/16", "fd00:1::/48"]);
        let everybody = json!([
            "10.1.0.0/16",
            "fd00:1::/48",
            "192.0.2.0/24",
            "2001:db8:2::/64"
        ]);
        let a = join_guarded(&nodes[0], "alice", &everybody);
        let b = join_guarded(&nodes[1], "bob", &pods);
        for at_a in a.ips() {
            let at_b = b.ip_like(at_a);
            assert_seen(&a, &b, at_b, at_a);
            assert_seen(&b, &a, at_a, at_b);
        }
        // The other node, where it is named and where it is not.
        let at_a = a.ip_like(ip("192.0.2.1"));
        let at_b = b.ip_like(ip("192.0.2.1"));
        assert_seen(&nodes[1], &a, at_a, ip("192.0.2.2"));
        assert!(unreachable(&nodes[0], &b, at_b));
        // A port of node 1 that the other node's pod answers, once that lets node 1 in.
        let node_port = format!(
            "nft 'add table ip np; add chain ip np pre {{ type nat hook prerouting priority dstnat; }}
             add chain ip np post {{ type nat hook postrouting priority srcnat - 5; }}
             add rule ip np pre ip daddr 203.0.113.1 meta l4proto {{ tcp, udp }} th dport 30080 dnat to {at_b}:8080
             add rule ip np post ip daddr {at_b} ct status dnat masquerade'"
        );
        script(&nodes[0], &node_port);
        join_guarded(&nodes[1], "carol", &everybody);
        for protocol in Protocol::BOTH {
            let _server = b.serve(protocol, at_b, 8080);
            let port = SocketAddr::new(ip("203.0.113.1"), 30080);
            assert_eq!(seen(&far, protocol, port), ip("192.0.2.1"), "{guard}");
        }
        // Nobody else gets in.
        nodes[1].ip("route add 203.0.113.0/24 via 192.0.2.1");
        assert!(unreachable(&far, &a, at_a));
    }
}

fn without_non_masquerade_cidrs_the_other_node_sees_the_node(lab: &Lab) {
    let nodes = two_nodes(lab, json!({}));
    let (a, b) = (nodes[0].join("alice"), nodes[1].join("bob"));
    assert_seen(&a, &b, b.ip_like(ip("10.1.2.2")), ip("192.0.2.1"));
    assert_seen(&b, &a, a.ip_like(ip("10.1.1.2")), ip("192.0.2.2"));
    nodes[0].part_with(&[&a]);
    nodes[1].part_with(&[&b]);
}

fn a_cluster_ip_leads_to_the_other_node_without_nat_of_the_client(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let nodes = two_nodes(lab, cluster());
        let services = [
            Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.2.2:8080"]),
            Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.2.2:53"]),
            Service::new(
                "WEB6",
                Protocol::Tcp,
                "[fd00:96::1]:80",
                &["[fd00:1:0:2::2]:8080"],
            ),
        ];
        for node in &nodes {
            node.kube_proxy(mode, &["10.1.0.0/16", "fd00:1::/48"], &services);
        }
        let (client, server) = (nodes[0].join("client"), nodes[1].join("server"));
        for service in &services {
            let endpoint = service.endpoints[0];
            let _server = server.serve(service.protocol, endpoint.ip(), endpoint.port());
            assert_eq!(
                seen(&client, service.protocol, service.address),
                client.ip_like(endpoint.ip()),
                "{mode:?} {}",
                service.name
            );
            // A client on the endpoint's own node reaches it as well, here the node itself.
            seen(&nodes[1], service.protocol, endpoint);
        }
        nodes[0].part_with(&[&client]);
        nodes[1].part_with(&[&server]);
    }
}
