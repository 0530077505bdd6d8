//! The keys of `firewall`, behind a bridge on a host that forwards nothing by itself.

use conformance::differential::{Side, chained};
use conformance::{Protocol, host_local, with};
use serde_json::{Value, json};

use super::scenario::{Scenario, Scene, servers};
use super::{INDEX, ON_A_BRIDGE};
use crate::common::dual;

fn firewall(name: &str, more: Value) -> Scenario {
    let bridge = with(dual(), json!({"isDefaultGateway": true}));
    Scenario::new(
        format!("firewall::{name}"),
        vec![bridge, chained("firewall", more)],
    )
    .differs(&ON_A_BRIDGE)
    .differs(&[
        INDEX,
        "router-advertisements",
        "own-rules",
        "record-of-the-call",
    ])
    .prepared(drop_forwarded)
    .meanwhile(|scene| ask(scene, Value::Null))
}

/// What the containers' rules let through.
const SEEN: [&str; 4] = [
    "pod to outside by 198.51.100.2:80 Tcp: seen as 10.1.0.2",
    "pod to outside by [2001:db8:5::2]:80 Tcp: seen as fd00:1::2",
    "from outside to the pod by 10.1.0.2:80: timed_out true",
    "from outside to the pod by [fd00:1::2]:80: timed_out true",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        firewall("plain", json!({})).sees(&SEEN),
        firewall("iptables", json!({"backend": "iptables"})).sees(&SEEN),
        firewall("open", json!({"ingressPolicy": "open"}))
            .meanwhile(|scene| ask(scene, json!({"ingressPolicy": "open"})))
            .sees(&SEEN),
        firewall("same_bridge", json!({"ingressPolicy": "same-bridge"}))
            .meanwhile(|scene| ask(scene, json!({"ingressPolicy": "same-bridge"})))
            .sees(&SEEN),
        firewall(
            "ingress_cidrs",
            json!({"ingressCIDRs": ["198.51.100.0/24"]}),
        )
        .differs(&["ingress-cidrs"])
        .meanwhile(|scene| ask(scene, json!({"ingressCIDRs": ["198.51.100.0/24"]})))
        .sees(&SEEN[..2]),
        firewall("nothing_drops", json!({}))
            .differs(&["!own-rules", "rules-of-a-network"])
            .prepared(|_| {}),
        firewall("isolated", json!({"ingressPolicy": "isolated"}))
            .meanwhile(|scene| ask(scene, json!({"ingressPolicy": "isolated"})))
            .differs(&["isolated-ports"])
            .sees(&SEEN),
        firewall(
            "admin_chain",
            json!({"backend": "iptables", "iptablesAdminChainName": "ADMIN"}),
        )
        .prepared(|side| {
            drop_forwarded(side);
            for program in ["iptables", "ip6tables"] {
                side.host.sh(&format!("{program} -w -N ADMIN"));
                let rule = "-A ADMIN -p tcp --dport 80 -j REJECT --reject-with tcp-reset";
                side.host.sh(&format!("{program} -w {rule}"));
            }
        })
        .sees(&["pod to outside by 198.51.100.2:80 Tcp: no answer"]),
        firewall(
            "zone",
            json!({"backend": "iptables", "firewalldZone": "work"}),
        )
        .sees(&SEEN),
        firewall(
            "firewalld_that_is_absent",
            json!({"backend": "firewalld", "firewalldZone": "work"}),
        )
        .differs(&[
            "own-error-codes",
            "!own-rules",
            "!record-of-the-call",
            "del-without-firewalld",
        ])
        .sees(&["firewall ADD pod failed"]),
    ]
}

/// The policy that Docker sets.
fn drop_forwarded(side: &Side) {
    side.host.sh("iptables -w -P FORWARD DROP");
    side.host.sh("ip6tables -w -P FORWARD DROP");
}

/// Who gets through to the container: the world, a container of the same bridge, and one of another network's bridge,
/// which has the same policy.
fn ask(scene: &Scene, policy: Value) {
    let _servers = servers(&scene.pod, &["10.1.0.2", "fd00:1::2"]);
    let firewall = chained(
        "firewall",
        if policy.is_null() { json!({}) } else { policy },
    );
    let bridge = with(dual(), json!({"isDefaultGateway": true}));
    let other = with(
        bridge.clone(),
        json!({"name": "other", "bridge": "cni1", "ipam": host_local(&["10.2.0.0/24", "fd00:2::/64"])}),
    );
    let near = scene.attach("near", &[bridge, firewall.clone()]);
    let far = scene.attach("far", &[other, with(firewall, json!({"name": "other"}))]);
    let (host, outside) = (&*scene.side.host, &*scene.outside);
    let _far = servers(outside, &["198.51.100.2", "2001:db8:5::2"]);
    for to in ["198.51.100.2:80", "[2001:db8:5::2]:80"] {
        scene.probe("pod to outside", &scene.pod, Protocol::Tcp, to);
    }
    for to in ["10.1.0.2:80", "[fd00:1::2]:80"] {
        scene.probe("host to pod", host, Protocol::Tcp, to);
        for (who, from) in [
            ("outside", outside),
            ("the same bridge", &near),
            ("another bridge", &far),
        ] {
            let address = to.parse().expect("an address and a port");
            // A busy machine may be late with an answer; who drops packets never gives one.
            let timed_out = from.cannot_reach(Protocol::Tcp, address)
                && from.ask(Protocol::Tcp, address).is_err();
            let what = format!("from {who} to the pod by {to}: timed_out {timed_out}");
            scene.side.note("traffic", what);
        }
    }
}
