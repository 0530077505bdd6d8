//! What filters, sysctls and routes of the host stop.

use conformance::{Case, Lab, Protocol, case};
use serde_json::json;

use super::{INTERNET, Node, UPLINK, at};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(what_is_masqueraded_comes_back),
        case!(a_pod_of_another_node_sees_the_pods_own_address),
        case!(a_forward_policy_of_iptables_drops_it),
        case!(a_forward_policy_of_nft_drops_it),
        case!(a_rule_that_drops_the_answer_is_found),
        case!(forwarding_that_is_off_is_said),
        case!(forwarding_that_is_off_on_one_interface_is_said),
        case!(a_reverse_path_rule_is_named_in_both_families),
        case!(a_missing_route_of_the_host_is_said),
        case!(a_missing_route_of_the_pod_is_said),
        case!(the_reverse_path_filter_is_said),
        case!(a_next_hop_that_is_gone_does_not_answer),
        case!(a_rule_of_iptables_legacy_is_named_as_unseen),
    ]
}

fn what_is_masqueraded_comes_back(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    for (world, own) in INTERNET.into_iter().zip(UPLINK) {
        let _server = node.world.serve(Protocol::Tcp, ip(world), 8080);
        node.follow(&a, &at(ip(world), 8080))
            .is("answered", &[])
            .has("there", &format!("route to {world}: a neighbour on up0"))
            .has(
                "there",
                &format!("becomes {}", at(ip(own), 0).trim_end_matches('0')),
            )
            .has("there", "leaves by up0")
            .has("back", "prerouting in up0")
            .has("back", &format!("leaves by {}", a.end()));
        node.follow(&a, world).is("answered", &[]);
    }
}

fn a_pod_of_another_node_sees_the_pods_own_address(lab: &Lab) {
    let cluster = json!({"nonMasqueradeCIDRs": ["10.1.0.0/16", "fd00:1::/48"]});
    let node = Node::new(lab, cluster);
    let a = node.join("a");
    for (there, prefix, world, own) in [
        ("10.1.5.2", "10.1.0.0/24", INTERNET[0], UPLINK[0]),
        ("fd00:1:0:5::2", "fd00:1::/64", INTERNET[1], UPLINK[1]),
    ] {
        let length = if ip(there).is_ipv4() { 32 } else { 128 };
        node.world
            .ip(&format!("addr add {there}/{length} dev eth0 nodad"));
        node.ip(&format!("route add {there} via {world}"));
        let _server = node.world.serve(Protocol::Tcp, ip(there), 8080);
        // No way back: the answer never comes.
        node.world.ip(&format!("route add unreachable {prefix}"));
        node.follow(&a, &at(ip(there), 8080))
            .is("no-answer", &["left by up0"]);
        node.world.ip(&format!("route del unreachable {prefix}"));
        node.world.ip(&format!("route add {prefix} via {own}"));
        node.follow(&a, &at(ip(there), 8080))
            .is("answered", &[])
            .has("there", &format!("next hop {world} by up0"))
            .lacks("becomes");
    }
}

fn a_forward_policy_of_iptables_drops_it(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    for (program, family, world) in [
        ("iptables", "ip", INTERNET[0]),
        ("ip6tables", "ip6", INTERNET[1]),
    ] {
        node.sh(&format!("{program} -P FORWARD DROP"));
        node.follow(&a, &at(ip(world), 80))
            .is(
                "dropped",
                &[&format!("the policy of {family} filter FORWARD")],
            )
            .has("there", "prerouting in cni0")
            .finds("forward-dropped");
    }
}

fn a_forward_policy_of_nft_drops_it(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.sh("nft add table inet admin");
    node.sh("nft add chain inet admin forwarded { type filter hook forward priority 0 ; policy drop ; }");
    for world in INTERNET {
        node.follow(&a, &at(ip(world), 80))
            .is("dropped", &["the policy of inet admin forwarded"])
            .finds("forward-dropped");
    }
}

fn a_rule_that_drops_the_answer_is_found(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.sh("nft add table inet admin");
    node.sh("nft add chain inet admin forwarded { type filter hook forward priority 0 ; }");
    node.sh("nft add rule inet admin forwarded iifname up0 drop comment no-entry");
    for world in INTERNET {
        let _server = node.world.serve(Protocol::Tcp, ip(world), 8080);
        node.follow(&a, &at(ip(world), 8080))
            .is("answer-dropped", &["inet admin forwarded"])
            .has("back", "(no-entry): drop");
    }
}

fn forwarding_that_is_off_is_said(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.set_sysctl("net/ipv4/ip_forward", "0");
    node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    for world in INTERNET {
        node.follow(&a, &at(ip(world), 80))
            .is("not-forwarded", &["does not forward", "is 0"])
            .finds("forwarding-off");
    }
}

fn forwarding_that_is_off_on_one_interface_is_said(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.set_sysctl("net/ipv4/conf/cni0/forwarding", "0");
    node.follow(&a, &at(ip(INTERNET[0]), 80))
        .is("not-forwarded", &["net.ipv4.conf.cni0.forwarding is 0"])
        .finds("forwarding-off");
}

/// IPv6 has no setting for it, so hosts have rules.
fn a_reverse_path_rule_is_named_in_both_families(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.sh("nft add table inet admin");
    node.sh("nft add chain inet admin raw { type filter hook prerouting priority -300 ; }");
    node.sh("nft add rule inet admin raw fib saddr . iif oif missing drop comment rpfilter");
    let pods = ["10.1.0.2/32", "fd00:1::2/128"];
    for (pod, world) in pods.into_iter().zip(INTERNET) {
        node.follow(&a, &at(ip(world), 80))
            .has("there", "leaves by up0");
        node.ip(&format!("route add {pod} dev up0"));
        node.follow(&a, &at(ip(world), 80))
            .is("dropped", &["inet admin raw"])
            .has("there", "(rpfilter): drop");
        node.ip(&format!("route del {pod} dev up0"));
    }
}

fn a_missing_route_of_the_host_is_said(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.ip("route del default");
    node.ip("-6 route del default");
    for nowhere in ["203.0.113.1", "2001:db8:77::1"] {
        node.follow(&a, &at(ip(nowhere), 80))
            .is("no-route", &[&format!("no route to {nowhere}")]);
    }
}

fn a_missing_route_of_the_pod_is_said(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    a.ip("route del default");
    a.ip("-6 route del default");
    for world in INTERNET {
        node.follow(&a, &at(ip(world), 80))
            .is("not-sent", &["no route"]);
    }
}

fn the_reverse_path_filter_is_said(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    assert!(a.pings(ip("10.1.0.1")));
    // The way to the pod leads elsewhere, so it can't come from there.
    node.ip("route add 10.1.0.2/32 dev up0");
    node.set_sysctl("net/ipv4/conf/cni0/rp_filter", "1");
    node.follow(&a, &at(ip(INTERNET[0]), 80))
        .is("not-forwarded", &["reverse path filter", "10.1.0.2"]);
    // It drops the question for the gateway's hardware address, too.
    a.ip("neigh flush all");
    node.follow(&a, &at(ip(INTERNET[0]), 80))
        .is("not-sent", &["hardware address of 10.1.0.1"]);
}

fn a_next_hop_that_is_gone_does_not_answer(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.ip("route add 203.0.113.0/24 via 198.51.100.9");
    node.trace(&[&a.netns(), "203.0.113.1:80", "--timeout", "6"])
        .is("no-answer", &["198.51.100.9", "hardware address"])
        .has("there", "next hop 198.51.100.9 by up0");
}

fn a_rule_of_iptables_legacy_is_named_as_unseen(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    let legacy = conformance::Program::new("iptables-legacy").args(["-P", "FORWARD", "DROP"]);
    if !std::path::Path::new("/usr/sbin/iptables-legacy").exists() || !node.run(legacy).ok() {
        return;
    }
    node.follow(&a, &at(ip(INTERNET[0]), 80))
        .is("dropped", &["forward", "filter: -P FORWARD DROP"]);
    node.sh("iptables-legacy -P FORWARD ACCEPT");
    node.sh("iptables-legacy -A FORWARD -p tcp --dport 81 -m comment --comment other -j DROP");
    node.sh("iptables-legacy -A FORWARD -p tcp --dport 80 -j DROP");
    let trace = node.follow(&a, &at(ip(INTERNET[0]), 80));
    trace.is("dropped", &["iptables-legacy", "--dport 80 -j DROP"]);
    assert!(
        trace.0["unseen"].to_string().contains("iptables-legacy"),
        "{:#}",
        trace.0
    );
}
