//! Packets that are lost where no rule reports: what is counted, and what may have taken them.

use conformance::{Case, Lab, case};
use serde_json::json;

use super::{INTERNET, Node, at};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_filter_of_traffic_control_that_takes_packets_is_named),
        case!(what_a_link_drops_is_counted),
    ]
}

fn a_filter_of_traffic_control_that_takes_packets_is_named(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    assert!(a.pings(ip("10.1.0.1")));
    node.ip("link add sink0 type veth peer name sink1");
    node.ip("link set sink0 up");
    let end = a.end();
    node.sh(&format!("tc qdisc add dev {end} ingress"));
    node.sh(&format!(
        "tc filter add dev {end} parent ffff: protocol ip u32 match u32 0 0 action mirred egress redirect dev sink0"
    ));
    let trace = node.follow(&a, &at(ip(INTERNET[0]), 80));
    trace.is("not-sent", &["came to no hook"]);
    let unseen = trace.0["unseen"].to_string();
    assert!(
        unseen.contains(&format!("{end}: tc filter u32 on what is received")),
        "{unseen}"
    );
    assert!(unseen.contains("retis"), "{unseen}");
}

fn what_a_link_drops_is_counted(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    // The pod's own end takes less than the host's, which drops what does not fit through the pair.
    b.ip("link set eth0 mtu 1400");
    for to in b.ips() {
        assert!(a.pings(to), "{to}");
        let trace = node.trace(&[&a.netns(), &to.to_string(), "--size", "1500"]);
        trace.is("no-answer", &[&b.end()]);
        let counters = trace.0["counters"].as_array().cloned().unwrap_or_default();
        let is = |it: &serde_json::Value| {
            it["of"] == b.end()
                && it["what"] == "dropped on sending"
                && it["by"].as_u64() >= Some(1)
        };
        assert!(counters.iter().any(is), "{:#}", trace.0);
    }
}
