//! Pods among themselves, with their host, and with a world that knows no pod.

use conformance::{Call, Case, Lab, Need, Protocol, case, with};
use serde_json::json;

use super::{Node, assert_seen, beyond_the_uplink, pod_network, seen, unreachable};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(pods_and_host_on_one_bridge_see_each_others_own_addresses).ours(),
        case!(the_outside_sees_the_host_and_needs_no_route_back),
        case!(without_ip_masq_the_outside_finds_no_way_back),
        case!(dual_stack_goes_out_through_nat66_the_moment_add_returns).ours(),
        case!(bridged_traffic_is_not_masqueraded_with_bridge_netfilter_on)
            .needs(Need::BridgeNetfilter),
    ]
}

fn pods_and_host_on_one_bridge_see_each_others_own_addresses(lab: &Lab) {
    let node = Node::new(lab, with(pod_network(), json!({"ipMasq": true})));
    let (a, b) = (node.join("alice"), node.join("bob"));
    for (at_a, gateway) in a.ips().into_iter().zip([ip("10.1.0.1"), ip("fd00:1::1")]) {
        let at_b = b.ip_like(at_a);
        assert_seen(&a, &b, at_b, at_a);
        assert_seen(&b, &a, at_a, at_b);
        assert_seen(&a, &node, gateway, at_a);
        assert_seen(&node, &a, at_a, gateway);
    }
    node.part_with(&[&a, &b]);
}

fn the_outside_sees_the_host_and_needs_no_route_back(lab: &Lab) {
    let (node, world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
    let (a, b) = (node.join("alice"), node.join("bob"));
    let [(outside, uplink), _] = beyond_the_uplink();
    assert_seen(&a, &world, outside, uplink);
    assert_seen(&b, &world, outside, uplink);
    let name_server = world.serve(Protocol::Dns, outside, 53);
    assert_eq!(seen(&a, Protocol::Dns, name_server.address), uplink);
    // And when one of them has gone, the other stays connected.
    let network = &node.network;
    node.plugin().del(network, &Call::of(&a.pod));
    assert_seen(&b, &world, outside, uplink);
    node.part_with(&[&a, &b]);
}

fn without_ip_masq_the_outside_finds_no_way_back(lab: &Lab) {
    let (node, world) = Node::connected(lab, pod_network());
    let pod = node.join("pod");
    for (outside, _) in beyond_the_uplink() {
        assert!(unreachable(&pod, &world, outside), "{outside}");
    }
    // It is the way back that is missing.
    for (pods, uplink) in [
        ("10.1.0.0/24", "198.51.100.2"),
        ("fd00:1::/64", "2001:db8:1::2"),
    ] {
        world.ip(&format!("route add {pods} via {uplink}"));
    }
    for (outside, _) in beyond_the_uplink() {
        assert_seen(&pod, &world, outside, pod.ip_like(outside));
    }
    node.part_with(&[&pod]);
}

fn dual_stack_goes_out_through_nat66_the_moment_add_returns(lab: &Lab) {
    for _ in 0..3 {
        let (node, world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
        let servers = beyond_the_uplink().map(|(outside, uplink)| {
            let serve = |protocol| world.serve(protocol, outside, 8080);
            (Protocol::BOTH.map(serve), uplink)
        });
        let pod = node.join("pod");
        // The first packets ever, IPv6 before IPv4.
        for (servers, uplink) in servers.iter().rev() {
            for (server, protocol) in servers.iter().zip(Protocol::BOTH) {
                assert_eq!(seen(&pod, protocol, server.address), *uplink);
            }
        }
        drop(servers);
        node.part_with(&[&pod]);
    }
}

fn bridged_traffic_is_not_masqueraded_with_bridge_netfilter_on(lab: &Lab) {
    let node = Node::new(lab, with(pod_network(), json!({"ipMasq": true})));
    super::BRIDGE_NF
        .iter()
        .for_each(|name| node.set_sysctl(name, "1"));
    let (a, b) = (node.join("alice"), node.join("bob"));
    for at_a in a.ips() {
        assert_seen(&a, &b, b.ip_like(at_a), at_a);
    }
    node.part_with(&[&a, &b]);
}
