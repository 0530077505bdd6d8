//! The keys of `sbr` and `vrf`, behind `macvlan` on the cable to the machine outside.

use conformance::differential::chained;
use conformance::{Need, with};
use serde_json::{Value, json};

use super::macvlan::{ADDRESSED, ADDRESSED_V6, NDISC, outside, reach_outside};
use super::scenario::Scenario;

fn behind(plugin: &str, name: &str, families: &[&str], more: Value) -> Scenario {
    let routes = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "198.51.100.9"}]}});
    let network = with(
        chained("macvlan", json!({"master": "up0"})),
        outside(families),
    );
    let chain = vec![with(network, routes), chained(plugin, more)];
    let of_ipv6 = if families.contains(&"6") {
        ADDRESSED_V6
    } else {
        NDISC
    };
    Scenario::new(format!("{plugin}::{name}"), chain)
        .differs(&ADDRESSED)
        .differs(&[of_ipv6, "check-of-moved-routes"])
        .meanwhile(reach_outside)
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let sbr = |name: &str, families: &[&str], more| {
        behind("sbr", name, families, more).differs(&["moved-routes"])
    };
    let vrf = |name: &str, families: &[&str], more| {
        behind("vrf", name, families, more).needs(Need::LinkKind("vrf"))
    };
    vec![
        sbr("plain", &["4"], json!({})).sees(&["table=100"]),
        sbr("dual_stack", &["4", "6"], json!({})).sees(&["table=100", "table=101"]),
        sbr("table", &["4"], json!({"table": 5000}))
            .differs(&["!check-of-moved-routes", "!moved-routes"])
            .sees(&["\"table\":\"5000\""]),
        vrf("plain", &["4"], json!({"vrfname": "blue"})).sees(&["link eth0 master=blue"]),
        vrf("dual_stack", &["4", "6"], json!({"vrfname": "blue"})),
        vrf("table", &["4"], json!({"vrfname": "blue", "table": 7})).sees(&["table=7"]),
    ]
}
