//! The keys of `tuning`, behind a bridge.

use conformance::differential::chained;
use serde_json::{Value, json};

use super::scenario::Scenario;
use super::{INDEX, ON_A_BRIDGE};
use crate::common::plain;

fn tuning(name: &str, more: Value) -> Scenario {
    let chain = vec![plain(), chained("tuning", more)];
    Scenario::new(format!("tuning::{name}"), chain)
        .differs(&ON_A_BRIDGE)
        .differs(&[INDEX])
}

/// Changes of the interface, which DEL takes back.
fn changed(name: &str, more: Value) -> Scenario {
    tuning(name, more).differs(&["backup-says-whose-it-is"])
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let everything = json!({"sysctl": {"net.core.somaxconn": "300"}, "args": {"cni": {
        "mac": "02:00:00:00:00:18", "mtu": 1301, "promisc": true, "allmulti": true, "txQLen": 78,
        "sysctl": {"net.core.somaxconn": "301"}
    }}});
    vec![
        tuning(
            "sysctl",
            json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1", "net.ipv4.conf.IFNAME.arp_filter": "1"}}),
        )
        .sees(&["log_martians=1", "eth0/arp_filter=1"]),
        tuning(
            "sysctl_with_slashes",
            json!({"sysctl": {"net/ipv4/conf/all/log_martians": "1"}}),
        )
        .sees(&["log_martians=1"]),
        changed("mac", json!({"mac": "02:00:00:00:00:17"})).sees(&["eth0 address=02:00:00:00:00:17"]),
        changed(
            "mac_of_the_runtime",
            json!({"mac": "02:00:00:00:00:17", "runtimeConfig": {"mac": "02:00:00:00:00:19"}}),
        )
        .sees(&["eth0 address=02:00:00:00:00:19"]),
        changed("mac_of_cni_args", json!({"mac": "02:00:00:00:00:17"}))
            .args("IgnoreUnknown=1;MAC=02:00:00:00:00:20")
            .sees(&["eth0 address=02:00:00:00:00:20"]),
        changed("mtu", json!({"mtu": 1300})).sees(&["eth0 mtu=1300"]),
        changed("promisc", json!({"promisc": true})).sees(&["PROMISC"]),
        tuning("promisc_off", json!({"promisc": false})),
        changed("allmulti", json!({"allmulti": true})).sees(&["ALLMULTI"]),
        changed("allmulti_off", json!({"allmulti": false})),
        changed("tx_queue_length", json!({"txQLen": 77})).sees(&["eth0 txqlen=77"]),
        changed("args", everything).sees(&[
            "eth0 address=02:00:00:00:00:18",
            "eth0 mtu=1301",
            "eth0 txqlen=78",
            "somaxconn=301",
        ]),
        changed("data_dir", json!({"dataDir": "/run/tuning", "mtu": 1300}))
            .sees(&["file /run/tuning/pod_eth0.json"]),
        tuning("nothing", json!({})),
    ]
}
