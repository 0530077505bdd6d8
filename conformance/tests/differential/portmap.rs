//! The keys of `portmap`, behind a bridge that is the default gateway of both families.

use conformance::differential::{Side, chained};
use conformance::{Protocol, with};
use serde_json::{Value, json};

use super::scenario::{Scenario, Scene, servers};
use super::{INDEX, ON_A_BRIDGE};
use crate::common::dual;

/// What every use of host ports shows that come from 127.0.0.1, too.
const HOST_PORTS: [&str; 4] = [
    "own-rules",
    "record-of-the-call",
    "route-localnet-goes-back",
    "host-port-from-the-pod-itself",
];

fn portmap(name: &str, more: Value) -> Scenario {
    let bridge = with(dual(), json!({"isDefaultGateway": true}));
    Scenario::new(
        format!("portmap::{name}"),
        vec![bridge, chained("portmap", more)],
    )
    .differs(&ON_A_BRIDGE)
    .differs(&[INDEX, "router-advertisements"])
}

/// Port 8080 of TCP and 8081 of UDP.
fn mapped(name: &str, more: Value) -> Scenario {
    let mappings = json!({"runtimeConfig": {"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "udp"}
    ]}});
    portmap(name, with(mappings, more))
        .differs(&HOST_PORTS)
        .meanwhile(ask)
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        portmap("no_mapping", json!({})),
        mapped("mark_masq_bit", json!({"markMasqBit": 5})).sees(&SEEN),
        mapped(
            "external_set_mark_chain",
            json!({"externalSetMarkChain": "SET-MARK"}),
        )
        .prepared(set_mark)
        .sees(&SEEN),
    ];
    for backend in [None, Some("nftables"), Some("iptables")] {
        scenarios.extend(with_backend(backend));
    }
    scenarios
}

/// Who is seen through the host ports.
const SEEN: [&str; 4] = [
    "from outside by 198.51.100.1:8080 Tcp: seen as 198.51.100.2",
    "from outside by 198.51.100.1:8081 Udp: seen as 198.51.100.2",
    "from outside by [2001:db8:5::1]:8080 Tcp: seen as 2001:db8:5::2",
    "from the host by 127.0.0.1:8080 Tcp: seen as 10.1.0.1",
];

fn with_backend(backend: Option<&str>) -> Vec<Scenario> {
    let (suffix, key) = match backend {
        None => (String::new(), json!({})),
        Some(backend) => (format!("_{backend}"), json!({"backend": backend})),
    };
    // The Go plugin's backend is iptables unless another is asked for.
    let (neighbours, masq_all, conditions): (&[_], &[_], _) = match backend {
        Some("nftables") => (
            &["neighbours-by-host-ports"],
            &["neighbours-by-host-ports", "masq-all-with-nftables"],
            conditions_of_nft(),
        ),
        _ => (&[], &[], conditions_of_iptables()),
    };
    let row = |name: &str, more: Value| mapped(&format!("{name}{suffix}"), with(key.clone(), more));
    let host_ip = |address: &str| {
        let mapping =
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": address});
        json!({"runtimeConfig": {"portMappings": [mapping]}})
    };
    let elsewhere = ["!route-localnet-goes-back", "route-localnet-where-needed"];
    let without_snat = [
        "!route-localnet-goes-back",
        "!host-port-from-the-pod-itself",
    ];
    vec![
        row("plain", json!({})).differs(neighbours).sees(&SEEN),
        row("without_snat", json!({"snat": false}))
            .differs(&without_snat)
            .sees(&SEEN[..3]),
        row("masq_all", json!({"masqAll": true})).differs(masq_all),
        row("host_ip", host_ip("198.51.100.1"))
            .differs(neighbours)
            .differs(&elsewhere)
            .sees(&[SEEN[0], "from outside by 198.51.100.9:8080 Tcp: no answer"]),
        row("host_ip_of_ipv6", host_ip("2001:db8:5::1"))
            .differs(&elsewhere)
            .sees(&[SEEN[2]]),
        row("host_ip_any", host_ip("0.0.0.0"))
            .differs(neighbours)
            .sees(&[SEEN[0]]),
        with_conditions(row("conditions", conditions), backend),
    ]
}

fn conditions_of_iptables() -> Value {
    json!({"conditionsV4": ["-d", "198.51.100.1"], "conditionsV6": ["!", "-d", "2001:db8:5::9"]})
}

fn conditions_of_nft() -> Value {
    json!({"conditionsV4": ["ip", "daddr", "198.51.100.1"], "conditionsV6": ["ip6", "daddr", "2001:db8:5::1"]})
}

fn with_conditions(row: Scenario, backend: Option<&str>) -> Scenario {
    if backend == Some("nftables") {
        return row.differs(&[
            "!route-localnet-goes-back",
            "!record-of-the-call",
            "conditions-of-nft",
        ]);
    }
    row.sees(&[
        SEEN[0],
        SEEN[2],
        "from outside by 198.51.100.9:8080 Tcp: no answer",
        "from outside by [2001:db8:5::9]:8080 Tcp: no answer",
    ])
}

/// Somebody else's chain that sets a mark, and what masquerades packets with the mark.
fn set_mark(side: &Side) {
    for program in ["iptables", "ip6tables"] {
        for rule in [
            "-N SET-MARK",
            "-A SET-MARK -j MARK --or-mark 0x4000",
            "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
        ] {
            side.host.sh(&format!("{program} -w -t nat {rule}"));
        }
    }
}

/// Who gets through to the container by the host's ports, and who it sees.
fn ask(scene: &Scene) {
    let _servers = servers(&scene.pod, &["10.1.0.2", "fd00:1::2"]);
    let near = scene.attach("near", &[with(dual(), json!({"isDefaultGateway": true}))]);
    let (host, pod, outside) = (&*scene.side.host, &*scene.pod, &*scene.outside);
    for (who, from, to) in [
        ("from outside", outside, "198.51.100.1:8080"),
        ("from outside", outside, "198.51.100.9:8080"),
        ("from outside", outside, "[2001:db8:5::1]:8080"),
        ("from outside", outside, "[2001:db8:5::9]:8080"),
        ("from the host", host, "198.51.100.1:8080"),
        ("from the host", host, "127.0.0.1:8080"),
        ("from the host", host, "[2001:db8:5::1]:8080"),
        ("from the pod", pod, "10.1.0.1:8080"),
        ("from the pod", pod, "[fd00:1::1]:8080"),
        ("from a neighbour", &*near, "10.1.0.1:8080"),
        ("from a neighbour", &*near, "198.51.100.1:8080"),
        ("from a neighbour", &*near, "[fd00:1::1]:8080"),
        ("to a port that is not mapped", outside, "198.51.100.1:8079"),
    ] {
        scene.probe(&format!("host port {who}"), from, Protocol::Tcp, to);
    }
    scene.probe(
        "host port from outside",
        outside,
        Protocol::Udp,
        "198.51.100.1:8081",
    );
}
