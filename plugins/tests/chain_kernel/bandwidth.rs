//! bandwidth. Traffic is measured against what the same path moves without a limit, with much room for noise.

use cni_conf::result::CniResult;
use plugins::host::rtnl::LinkChange;
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests, addresses};

pub(crate) fn add(tests: &mut Tests) {
    for (name, test) in [
        (
            "bandwidth_limits_what_the_container_receives",
            ingress as fn(&Node),
        ),
        ("bandwidth_limits_what_the_container_sends", egress),
        ("bandwidth_leaves_unshaped_subnets_alone", unshaped_subnets),
        ("bandwidth_limits_shaped_subnets_only", shaped_subnets),
        ("bandwidth_result_lists_the_ifb", result),
        ("bandwidth_del_is_total", del_is_total),
        ("bandwidth_del_removes_the_go_plugins_ifb", go_plugins_ifb),
        ("bandwidth_gc_removes_what_is_not_valid", gc),
        ("bandwidth_check_notices_what_is_missing", check),
        ("bandwidth_without_limits_changes_nothing", no_limits),
        ("bandwidth_add_that_fails_leaves_nothing", failed_add),
        (
            "bandwidth_add_that_fails_keeps_what_others_made",
            failed_add_among_others,
        ),
        ("bandwidth_works_on_a_pair_that_others_made", foreign_pair),
        ("bandwidth_works_behind_bridge", behind_bridge),
    ] {
        tests.add(name, Needs::Shaping, test);
    }
}

/// Bytes in a second.
const RATE: f64 = 1_000_000.0;

pub(crate) fn limits(directions: &[&str]) -> Value {
    let mut conf = json!({});
    for direction in directions {
        conf[format!("{direction}Rate")] = json!(8_000_000);
        conf[format!("{direction}Burst")] = json!(400_000);
    }
    conf
}

pub(crate) fn attached(node: &Node, name: &str) -> (Pod, CniResult) {
    let pod = Pod::new(name);
    let conf = json!({"ipam": node.ipam()});
    let result = node.add("ptp", &conf, &pod, None).unwrap();
    (pod, result)
}

/// A pod with limits, another one, and the addresses of both, IPv4 first.
struct Pair {
    limited: Pod,
    other: Pod,
    at_limited: Vec<std::net::IpAddr>,
    at_other: Vec<std::net::IpAddr>,
}

fn pair(node: &Node, conf: &Value) -> Pair {
    let (limited, previous) = attached(node, "limited");
    let (other, result) = attached(node, "other");
    node.add("bandwidth", conf, &limited, Some(&previous))
        .unwrap();
    Pair {
        limited,
        other,
        at_limited: addresses(&previous),
        at_other: addresses(&result),
    }
}

fn assert_limited(rate: f64) {
    assert!(rate < 2.0 * RATE, "{rate} bytes/s are too fast");
    assert!(rate > 0.1 * RATE, "{rate} bytes/s are too slow");
}

fn assert_free(rate: f64) {
    assert!(rate > 5.0 * RATE, "{rate} bytes/s are limited");
}

fn ingress(node: &Node) {
    let pair = pair(node, &limits(&["ingress"]));
    for index in [0, 1] {
        assert_limited(pair.other.push(&pair.limited, pair.at_limited[index]));
        assert_free(pair.limited.push(&pair.other, pair.at_other[index]));
    }
}

fn egress(node: &Node) {
    let pair = pair(node, &limits(&["egress"]));
    for index in [0, 1] {
        assert_limited(pair.limited.push(&pair.other, pair.at_other[index]));
        assert_free(pair.other.push(&pair.limited, pair.at_limited[index]));
    }
}

fn unshaped_subnets(node: &Node) {
    let mut conf = limits(&["ingress", "egress"]);
    conf["unshapedSubnets"] = json!(["10.7.0.0/24"]);
    let pair = pair(node, &conf);
    assert_free(pair.other.push(&pair.limited, pair.at_limited[0]));
    assert_free(pair.limited.push(&pair.other, pair.at_other[0]));
    assert_limited(pair.other.push(&pair.limited, pair.at_limited[1]));
    assert_limited(pair.limited.push(&pair.other, pair.at_other[1]));
}

fn shaped_subnets(node: &Node) {
    let mut conf = limits(&["ingress", "egress"]);
    conf["shapedSubnets"] = json!(["192.0.2.0/24", "fd07::/64"]);
    let pair = pair(node, &conf);
    assert_free(pair.other.push(&pair.limited, pair.at_limited[0]));
    assert_free(pair.limited.push(&pair.other, pair.at_other[0]));
    assert_limited(pair.other.push(&pair.limited, pair.at_limited[1]));
    assert_limited(pair.limited.push(&pair.other, pair.at_other[1]));
}

fn result(node: &Node) {
    let (pod, previous) = attached(node, "a");
    let conf = limits(&["ingress", "egress"]);
    let result = node.add("bandwidth", &conf, &pod, Some(&previous)).unwrap();
    let [before @ .., ifb] = result.interfaces.as_slice() else {
        panic!("{result:?}")
    };
    assert_eq!(before, previous.interfaces);
    assert_eq!(
        (&result.ips, &result.routes),
        (&previous.ips, &previous.routes)
    );
    assert!(ifb.name.starts_with("bwp") && ifb.sandbox.is_empty());
    let link = node.rtnl.link_by_name(&ifb.name).unwrap().unwrap();
    assert_eq!(link.alias.as_deref(), Some("trestle:net/a/eth0"));
    assert!(link.up && link.mtu == 1500);
    node.check("bandwidth", &conf, &pod, &result).unwrap();
    node.check("ptp", &json!({"ipam": node.ipam()}), &pod, &result)
        .unwrap();
    node.status("bandwidth", &conf).unwrap();
    let only = node.add(
        "bandwidth",
        &limits(&["ingress"]),
        &attached(node, "b").0,
        Some(&previous),
    );
    assert_eq!(only.unwrap(), previous);
}

fn del_is_total(node: &Node) {
    let conf = limits(&["ingress", "egress"]);
    let (a, previous) = attached(node, "a");
    let result = node.add("bandwidth", &conf, &a, Some(&previous)).unwrap();
    let end = node
        .rtnl
        .link_by_name(&result.interfaces[0].name)
        .unwrap()
        .unwrap();
    node.del("bandwidth", &conf, &a).unwrap();
    assert!(node.links("ifb").is_empty());
    assert_eq!(node.rtnl.token_bucket(end.index).unwrap(), None);
    assert_eq!(node.rtnl.ingress_redirect(end.index).unwrap(), None);
    node.del("bandwidth", &conf, &a).unwrap();

    // A second ADD finds nothing in its way, and a DEL finds its ifb without namespace and veth.
    node.add("bandwidth", &conf, &a, Some(&previous)).unwrap();
    node.del("ptp", &json!({"ipam": node.ipam()}), &a).unwrap();
    node.del_without_netns("bandwidth", &json!({"ingressRate": -1}), &a)
        .unwrap();
    assert!(node.links("ifb").is_empty());
}

/// Network `net` and container `a`: `printf neta | sha512sum`.
fn go_plugins_ifb(node: &Node) {
    node.rtnl.create_ifb("bwpc3a99edf74e2", None, true).unwrap();
    let (a, _) = attached(node, "a");
    node.del("bandwidth", &limits(&["egress"]), &a).unwrap();
    assert!(node.links("ifb").is_empty());
}

fn gc(node: &Node) {
    let conf = limits(&["egress"]);
    let ((a, at_a), (b, at_b)) = (attached(node, "a"), attached(node, "b"));
    node.add("bandwidth", &conf, &a, Some(&at_a)).unwrap();
    let kept = node.add("bandwidth", &conf, &b, Some(&at_b)).unwrap();
    node.rtnl.create_ifb("someoneelses", None, true).unwrap();
    node.gc("bandwidth", &conf, &[&b]).unwrap();
    let mut left = node.links("ifb");
    left.sort();
    assert_eq!(left, [kept.interfaces[2].name.as_str(), "someoneelses"]);
}

fn check(node: &Node) {
    let conf = limits(&["ingress", "egress"]);
    let (pod, previous) = attached(node, "a");
    let result = node.add("bandwidth", &conf, &pod, Some(&previous)).unwrap();
    let error = |conf: &Value| {
        node.check("bandwidth", conf, &pod, &result)
            .unwrap_err()
            .msg
    };
    let mut faster = conf.clone();
    faster["ingressRate"] = json!(16_000_000);
    assert!(
        error(&faster).contains("8000000 bits/s"),
        "{}",
        error(&faster)
    );
    let end = node
        .rtnl
        .link_by_name(&result.interfaces[0].name)
        .unwrap()
        .unwrap();
    let ifb = node
        .rtnl
        .link_by_name(&result.interfaces[2].name)
        .unwrap()
        .unwrap();
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    node.rtnl.set_link(ifb.index, &down).unwrap();
    assert!(error(&conf).contains("is down"));
    node.rtnl.stop_ingress_redirect(end.index).unwrap();
    node.rtnl.delete_link(ifb.index).unwrap();
    assert!(error(&conf).contains("ifb"));
    node.rtnl.stop_shaping(end.index).unwrap();
    assert!(error(&conf).contains("is not limited"));
}

fn no_limits(node: &Node) {
    let (pod, previous) = attached(node, "a");
    let conf = json!({"runtimeConfig": {"bandwidth": {}}});
    let result = node.add("bandwidth", &conf, &pod, Some(&previous)).unwrap();
    assert_eq!(result, previous);
    node.check("bandwidth", &conf, &pod, &result).unwrap();
    assert!(node.links("ifb").is_empty());
}

fn failed_add(node: &Node) {
    let (pod, previous) = attached(node, "a");
    let end = node
        .rtnl
        .link_by_name(&previous.interfaces[0].name)
        .unwrap()
        .unwrap();
    // Somebody else redirects what the host's end receives.
    let other = node.rtnl.create_ifb("other", None, true).unwrap();
    node.rtnl.redirect_ingress(end.index, other.index).unwrap();
    let conf = limits(&["ingress", "egress"]);
    let error = node
        .add("bandwidth", &conf, &pod, Some(&previous))
        .unwrap_err();
    assert!(error.msg.contains(&end.name), "{error}");
    assert_eq!(node.links("ifb"), ["other"]);
    assert_eq!(node.rtnl.token_bucket(end.index).unwrap(), None);
}

fn behind_bridge(node: &Node) {
    let bridge = json!({"bridge": "br0", "isDefaultGateway": true, "ipam": node.ipam()});
    let conf = limits(&["egress"]);
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let at_a = node.add("bridge", &bridge, &a, None).unwrap();
    let at_b = node.add("bridge", &bridge, &b, None).unwrap();
    let result = node.add("bandwidth", &conf, &a, Some(&at_a)).unwrap();
    assert_limited(a.push(&b, addresses(&at_b)[0]));
    assert_free(b.push(&a, addresses(&at_a)[0]));
    node.check("bandwidth", &conf, &a, &result).unwrap();
    node.del("bandwidth", &conf, &a).unwrap();
    assert_free(a.push(&b, addresses(&at_b)[0]));
}

fn failed_add_among_others(node: &Node) {
    let (pod, previous) = attached(node, "a");
    let end = node.end_of(&pod);
    let other = node.rtnl.create_ifb("other", None, true).unwrap();
    node.rtnl.redirect_ingress(end.index, other.index).unwrap();
    for directions in [&["egress"][..], &["ingress", "egress"]] {
        let conf = limits(directions);
        node.add("bandwidth", &conf, &pod, Some(&previous))
            .unwrap_err();
        let redirect = node.rtnl.ingress_redirect(end.index).unwrap();
        assert_eq!(redirect, Some(other.index), "somebody else's redirect");
    }
}

fn foreign_pair(node: &Node) {
    let conf = limits(&["ingress", "egress"]);
    let (pod, previous) = attached(node, "a");
    let end = node.end_of(&pod);
    node.make_foreign(&end, "theirs");
    let result = node.add("bandwidth", &conf, &pod, Some(&previous)).unwrap();
    node.check("bandwidth", &conf, &pod, &result).unwrap();
    assert!(node.rtnl.token_bucket(end.index).unwrap().is_some());
    node.del("bandwidth", &conf, &pod).unwrap();
    assert_eq!(node.rtnl.token_bucket(end.index).unwrap(), None);
    assert_eq!(node.rtnl.ingress_redirect(end.index).unwrap(), None);
    assert!(node.links("ifb").is_empty());
}
