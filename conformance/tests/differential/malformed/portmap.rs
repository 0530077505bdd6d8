//! Port mappings and the other keys of `portmap`.

use conformance::with;
use serde_json::{Value, json};

use super::Input::{self, Keys};
use super::{Row, refused, refused_by_ours, row, taken};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("portmap", keys);
    let ports = |mapping: Value| keys(json!({"runtimeConfig": {"portMappings": [mapping]}}));
    vec![
        refused_by_ours(
            "host IP with leading zeros",
            ports(
                json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.01"}),
            ),
            7,
        ),
        refused(
            "portmap without prevResult",
            keys(json!({"prevResult": null})),
            7,
        ),
        taken("portmap without mappings", keys(json!({}))),
        refused(
            "mappings is a text",
            keys(json!({"runtimeConfig": {"portMappings": "80"}})),
            7,
        ),
        refused(
            "host port 0",
            ports(json!({"hostPort": 0, "containerPort": 80, "protocol": "tcp"})),
            7,
        ),
        refused(
            "host port is negative",
            ports(json!({"hostPort": -1, "containerPort": 80, "protocol": "tcp"})),
            7,
        ),
        refused_by_ours(
            "host port is too large",
            ports(json!({"hostPort": 65536, "containerPort": 80, "protocol": "tcp"})),
            7,
        ),
        refused(
            "host port is a text",
            ports(json!({"hostPort": "80", "containerPort": 80, "protocol": "tcp"})),
            7,
        ),
        refused(
            "container port 0",
            ports(json!({"hostPort": 80, "containerPort": 0, "protocol": "tcp"})),
            7,
        ),
        refused_by_ours(
            "container port is too large",
            ports(json!({"hostPort": 80, "containerPort": 70000, "protocol": "tcp"})),
            7,
        ),
        refused_by_ours(
            "protocol is unknown",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
            7,
        ),
        taken(
            "protocol is missing",
            ports(json!({"hostPort": 80, "containerPort": 80})),
        ),
        taken(
            "protocol in capitals",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "TCP"})),
        ),
        refused_by_ours(
            "host IP of nonsense",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "x"})),
            7,
        ),
        refused(
            "portmap with an unknown backend",
            keys(
                json!({"backend": "pf", "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}),
            ),
            7,
        ),
        refused(
            "markMasqBit is too large",
            keys(
                json!({"markMasqBit": 32, "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}),
            ),
            7,
        ),
        refused(
            "markMasqBit and externalSetMarkChain",
            keys(
                json!({"markMasqBit": 5, "externalSetMarkChain": "X", "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}),
            ),
            7,
        ),
        conditions("--help"),
        conditions("-6"),
        conditions("-jDROP"),
        never_answers("host IP ::1", json!({"hostIP": "::1"})),
        never_answers("link-local host IP", json!({"hostIP": "fe80::1"})),
        never_answers("multicast host IP", json!({"hostIP": "224.0.0.1"})),
        never_answers("broadcast host IP", json!({"hostIP": "255.255.255.255"})),
        refused("snat is a text", keys(json!({"snat": "yes"})), 7),
        refused(
            "conditionsV4 is a text",
            keys(json!({"conditionsV4": "-d"})),
            7,
        ),
    ]
}

/// A port with these conditions.
fn conditioned(conditions: Value) -> Input {
    let mapping = json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp"});
    Keys(
        "portmap",
        json!({"conditionsV4": conditions, "runtimeConfig": {"portMappings": [mapping]}}),
    )
}

/// iptables does nothing with it, and reports success.
fn conditions(option: &'static str) -> Row {
    let input = conditioned(json!([option]));
    row(option, input, (7, 0), "conditions-are-matches")
}

/// An address of the host that leads to no container.
fn never_answers(what: &'static str, address: Value) -> Row {
    let mapping = json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp"});
    let mappings = json!({"runtimeConfig": {"portMappings": [with(mapping, address)]}});
    let reason = "host-ips-that-can-not-answer";
    row(what, Keys("portmap", mappings), (7, 0), reason)
}
