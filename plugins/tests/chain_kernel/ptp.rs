//! ptp.

use cni_conf::error::Code;
use cni_conf::result::CniResult;
use plugins::host::Sysctl;
use plugins::host::rtnl::{NewRoute, RouteFilter};
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests, addresses};

pub(crate) fn add(tests: &mut Tests) {
    for (name, test) in [
        (
            "ptp_containers_reach_each_other_through_the_host_at_once",
            connects as fn(&Node),
        ),
        ("ptp_result_is_shaped_like_the_go_plugins", result),
        ("ptp_gateway_is_the_only_neighbour", only_neighbour),
        (
            "cve_2020_10749_ptp_host_ignores_router_advertisements",
            router_advertisements,
        ),
        ("ptp_del_is_total", del_is_total),
        ("ptp_add_that_fails_leaves_nothing", failed_add),
        ("ptp_address_that_another_has_is_explained", conflict),
        ("ptp_check_notices_what_is_missing", check),
        ("ptp_gc_removes_what_is_not_valid", gc),
    ] {
        tests.add(name, Needs::Nothing, test);
    }
    tests.add("ptp_masquerades", Needs::Nft, masquerades);
}

fn conf(node: &Node) -> Value {
    json!({"ipam": node.ipam(), "mtu": 1400})
}

fn attached(node: &Node, name: &str) -> (Pod, CniResult) {
    let pod = Pod::new(name);
    let result = node.add("ptp", &conf(node), &pod, None).unwrap();
    (pod, result)
}

fn connects(node: &Node) {
    let ((a, at_a), (b, at_b)) = (attached(node, "a"), attached(node, "b"));
    for (from, to) in addresses(&at_a).into_iter().zip(addresses(&at_b)) {
        assert_eq!(a.ask(&b, to), from, "no address translation between pods");
    }
    node.check("ptp", &conf(node), &a, &at_a).unwrap();
    node.status("ptp", &conf(node)).unwrap();
}

fn result(node: &Node) {
    let mut with_dns = conf(node);
    with_dns["dns"] = json!({"nameservers": ["10.7.0.1"]});
    let pod = Pod::new("a");
    let result = node.add("ptp", &with_dns, &pod, None).unwrap();
    let [host, container] = result.interfaces.as_slice() else {
        panic!("{:?}", result.interfaces)
    };
    assert!(host.sandbox.is_empty() && host.name.starts_with("veth"));
    assert_eq!((container.name.as_str(), container.mtu), ("eth0", 1400));
    assert_eq!(container.mac, "0a:58:0a:07:00:02");
    assert!(!container.sandbox.is_empty());
    let ips: Vec<_> = result
        .ips
        .iter()
        .map(|ip| {
            (
                ip.interface,
                ip.address.to_string(),
                ip.gateway.unwrap().to_string(),
            )
        })
        .collect();
    assert_eq!(
        ips,
        [
            (Some(1), "10.7.0.2/24".into(), "10.7.0.1".into()),
            (Some(1), "fd07::2/64".into(), "fd07::1".into()),
        ]
    );
    assert_eq!(result.dns.nameservers, ["10.7.0.1"]);
    assert_eq!(result.routes.len(), 2);
    let alias = node.rtnl.link_by_name(&host.name).unwrap().unwrap().alias;
    assert_eq!(alias.as_deref(), Some("trestle:net/a/eth0"));
}

fn only_neighbour(node: &Node) {
    let (a, result) = attached(node, "a");
    let mut routes = a.routes();
    routes.retain(|route| !route.starts_with("fe80"));
    routes.sort();
    assert_eq!(
        routes,
        [
            "0.0.0.0/0 via 10.7.0.1",
            "10.7.0.0/24 via 10.7.0.1",
            "10.7.0.1/32",
            "::/0 via fd07::1",
            "fd07::/64 via fd07::1",
            "fd07::1/128",
        ]
    );
    let end = node
        .rtnl
        .link_by_name(&result.interfaces[0].name)
        .unwrap()
        .unwrap();
    assert!(end.up && end.master.is_none());
    let has = node.rtnl.addresses(end.index).unwrap();
    for gateway in ["10.7.0.1/32", "fd07::1/128"] {
        assert!(
            has.iter().any(|address| address.net.to_string() == gateway),
            "{gateway}"
        );
    }
    assert_eq!(Sysctl::ipv4_forwarding().read().unwrap(), "1");
    assert_eq!(Sysctl::ipv6_forwarding().read().unwrap(), "1");
}

/// CVE-2020-10749.
fn router_advertisements(node: &Node) {
    let (_pod, result) = attached(node, "a");
    let accept_ra = Sysctl::ipv6_conf(&result.interfaces[0].name, "accept_ra");
    assert_eq!(accept_ra.read().unwrap(), "0");
}

fn del_is_total(node: &Node) {
    let ((a, _), (b, _)) = (attached(node, "a"), attached(node, "b"));
    assert_eq!(node.leases("net"), 4);
    node.del("ptp", &conf(node), &a).unwrap();
    assert!(a.rtnl.link_by_name("eth0").unwrap().is_none());
    assert_eq!((node.links("veth").len(), node.leases("net")), (1, 2));
    node.del("ptp", &conf(node), &a).unwrap();
    node.del_without_netns("ptp", &conf(node), &b).unwrap();
    assert_eq!((node.links("veth").len(), node.leases("net")), (0, 0));
    let left = node.rtnl.routes(&RouteFilter::default()).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

fn failed_add(node: &Node) {
    let mut conf = conf(node);
    conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]);
    let pod = Pod::new("a");
    let error = node.add("ptp", &conf, &pod, None).unwrap_err();
    assert!(error.msg.contains("192.0.2.0/24"), "{error}");
    assert!(error.details.contains("198.51.100.1"), "{error}");
    assert_eq!((node.links("veth").len(), node.leases("net")), (0, 0));
    assert!(pod.rtnl.link_by_name("eth0").unwrap().is_none());
    // Nothing is in the way of the next attempt.
    attached(node, "a");
}

fn conflict(node: &Node) {
    // Held, or the pair goes away with the namespace.
    let _a = attached(node, "a");
    let mut other = conf(node);
    other["ipam"]["dataDir"] = json!(node.path("other"));
    let error = node.add("ptp", &other, &Pod::new("b"), None).unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.msg.contains("10.7.0.2"), "{error}");
    assert!(error.details.contains("trestle:net/a/eth0"), "{error}");
    assert_eq!(node.links("veth").len(), 1);
}

fn check(node: &Node) {
    let (a, result) = attached(node, "a");
    let conf = conf(node);
    let end = node
        .rtnl
        .link_by_name(&result.interfaces[0].name)
        .unwrap()
        .unwrap();
    let route = NewRoute {
        oif: Some(end.index),
        ..NewRoute::to("10.7.0.2/32".parse().unwrap())
    };
    assert!(node.rtnl.delete_route(&route).unwrap());
    let error = node.check("ptp", &conf, &a, &result).unwrap_err();
    assert!(error.msg.contains("10.7.0.2"), "{error}");
    node.rtnl.add_route(&route).unwrap();
    node.check("ptp", &conf, &a, &result).unwrap();
    node.rtnl
        .delete_address(end.index, "fd07::1/128".parse().unwrap())
        .unwrap();
    let error = node.check("ptp", &conf, &a, &result).unwrap_err();
    assert!(error.msg.contains("fd07::1"), "{error}");
}

fn gc(node: &Node) {
    let ((a, _), (b, _)) = (attached(node, "a"), attached(node, "b"));
    node.gc("ptp", &conf(node), &[&b]).unwrap();
    assert!(a.rtnl.link_by_name("eth0").unwrap().is_none());
    assert!(b.eth0().up);
    assert_eq!((node.links("veth").len(), node.leases("net")), (1, 2));
}

fn masquerades(node: &Node) {
    let mut conf = conf(node);
    conf["ipMasq"] = json!(true);
    let pod = Pod::new("a");
    let result = node.add("ptp", &conf, &pod, None).unwrap();
    node.check("ptp", &conf, &pod, &result).unwrap();
    let ruleset = || {
        let listed = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    assert!(
        ruleset().contains("10.7.0.2") && ruleset().contains("net/a/eth0"),
        "{}",
        ruleset()
    );
    node.del("ptp", &conf, &pod).unwrap();
    assert!(!ruleset().contains("10.7.0.2"), "{}", ruleset());
}
