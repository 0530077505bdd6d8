//! Ways to containers and other machines, and addresses that are somebody else's too.

use conformance::{Case, Lab, Protocol, ProxyMode, Service, case, host_local};
use serde_json::json;

use super::{Node, bridge, list, with};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_gateway_that_lost_its_address_is_found),
        case!(a_lost_route_to_a_container_of_ptp_is_found),
        case!(strict_filtering_of_what_comes_the_other_way_is_found),
        case!(a_router_that_does_not_answer_is_found),
        case!(lists_with_the_same_addresses_are_found),
        case!(a_subnet_of_the_hosts_own_network_is_found),
        case!(a_subnet_of_services_is_found),
        case!(an_address_that_two_have_is_found),
    ]
}

fn a_gateway_that_lost_its_address_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.ip("addr flush dev cni0");
    let found = node.finds(
        "route-missing",
        "fail",
        &["10.1.0.2 is behind cni0", "goes to up0"],
    );
    assert_eq!(
        found["remedy"]["command"],
        "ip address add 10.1.0.1/24 dev cni0"
    );
    node.ip("address add 10.1.0.1/24 dev cni0");
    node.assert_healthy("after the remedy");
}

fn a_lost_route_to_a_container_of_ptp_is_found(lab: &Lab) {
    let plugin = json!({"type": "ptp", "ipMasq": true, "ipam": host_local(&["10.1.0.0/24"])});
    let node = Node::new(lab, &list(json!([plugin])));
    let (one, two) = (node.join("one"), node.join("two"));
    node.ip(&format!("route del 10.1.0.2 dev {}", one.end()));
    let found = node.finds("route-missing", "fail", &["10.1.0.2", &one.end()]);
    assert!(!found.to_string().contains(&two.end()), "{found:#}");
    node.sh(found["remedy"]["command"].as_str().expect("a command"));
    node.assert_not_found("route-missing");
}

fn strict_filtering_of_what_comes_the_other_way_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.set_sysctl("net/ipv4/conf/cni0/rp_filter", "1");
    node.assert_healthy("its way back is the way it came");
    node.ip("route add 10.1.0.0/25 via 198.51.100.9");
    node.finds(
        "reverse-path-filter",
        "fail",
        &["comes in by cni0", "leads to up0"],
    );
    node.set_sysctl("net/ipv4/conf/cni0/rp_filter", "0");
    node.set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    node.finds("route-missing", "fail", &["goes to up0"]);
    node.assert_not_found("reverse-path-filter");
}

fn a_router_that_does_not_answer_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.ip("route add 10.1.7.0/24 via 198.51.100.77");
    node.assert_not_found("next-hop-unreachable");
    // Nobody has that address: the kernel asks three times, a second each.
    assert!(!node.pings("10.1.7.1".parse().expect("an address")));
    crate::common::wait_until("the kernel gives up", || {
        node.sh("ip neigh show 198.51.100.77").contains("FAILED")
    });
    node.finds(
        "next-hop-unreachable",
        "fail",
        &["10.1.7.0/24 via 198.51.100.77", "FAILED"],
    );
}

fn lists_with_the_same_addresses_are_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let other = with(
        bridge(),
        json!({"bridge": "cni1", "ipam": host_local(&["10.1.0.0/16"])}),
    );
    let other = with(list(json!([other])), json!({"name": "other"}));
    node.configure("20-other.conflist", &other.to_string());
    node.finds(
        "subnet-overlap",
        "fail",
        &["10.1.0.0/16", "10.1.0.0/24", "20-other.conflist"],
    );
}

fn a_subnet_of_the_hosts_own_network_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    // How overlay networks name a node is no trouble.
    node.ip("link add vx0 type ifb");
    node.ip("addr add 10.1.0.0/32 dev vx0");
    node.assert_healthy("a single address");
    node.ip("addr add 10.1.5.1/16 dev up0");
    node.finds(
        "subnet-overlap",
        "fail",
        &["up0 has 10.1.5.1/16", "10.1.0.0/24"],
    );
}

fn a_subnet_of_services_is_found(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let node = Node::new(lab, &list(json!([bridge()])));
        let service = Service::new("WEB", Protocol::Tcp, "10.1.0.96:80", &["10.1.0.2:8080"]);
        node.kube_proxy(mode, &["10.1.0.0/16"], &[service]);
        node.finds("subnet-overlap", "fail", &["Service 10.1.0.96"]);
    }
}

fn an_address_that_two_have_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.ip("addr add 10.1.0.2/32 dev lo");
    node.finds(
        "address-twice",
        "fail",
        &["10.1.0.2", "lo of this host", "of net"],
    );
}
