//! Chains behind a bridge, put to ours and to the Go reference: tuning, portmap, firewall and bandwidth.

use std::net::SocketAddr;

use conformance::differential::{chained, compare};
use conformance::{Call, Case, Lab, Need, Program, Protocol, with};
use serde_json::{Value, json};

use crate::common::{ip, plain};

/// What every bridge with host-local shows.
const BRIDGE: [&str; 6] = [
    "alias-on-the-host-end",
    "no-link-local-address-on-the-host-end",
    "queue-length-of-the-host-end",
    "ipv6-usable-at-once",
    "mtu-in-results",
    "index-beside-the-state",
];

type Row = (&'static str, &'static [&'static str], Value);

pub(crate) fn cases() -> Vec<Case> {
    let rows = tuning()
        .into_iter()
        .chain(portmap())
        .chain(firewall())
        .chain(bandwidth());
    rows.map(scenario).collect()
}

fn scenario((name, more, last): Row) -> Case {
    let test = move |lab: &Lab| {
        let expected = crate::differential::expected(&BRIDGE, more);
        compare(lab, &expected, |side| {
            let outside = side.host.pod("outside");
            side.host.cable("up0", &outside, "eth0");
            side.host.ip("addr add 198.51.100.1/24 dev up0");
            outside.ip("addr add 198.51.100.2/24 dev eth0");
            let pod = side.pod("pod");
            side.start();
            let network = with(plain(), json!({"isDefaultGateway": true}));
            side.life(&[network, last.clone()], &Call::of(&pod), |side| {
                let _server = pod.serve(Protocol::Tcp, ip("10.1.0.2"), 80);
                for (what, from, to) in [
                    ("host to pod", &*side.host, "10.1.0.2:80"),
                    ("host port from outside", &outside, "198.51.100.1:8080"),
                    ("host port from the host", &side.host, "198.51.100.1:8080"),
                    ("host port from the pod", &pod, "10.1.0.1:8080"),
                ] {
                    let to: SocketAddr = to.parse().expect("an address");
                    // A port that is not mapped is refused at once.
                    side.probe(what, from, Protocol::Tcp, to);
                }
                for place in [&*side.host, &**pod] {
                    let shown = place.run(Program::new("tc").args(["qdisc", "show"])).text();
                    for line in shown
                        .lines()
                        .filter(|line| line.contains("tbf") || line.contains("ingress"))
                    {
                        side.note("qdisc", line);
                    }
                }
            });
        });
    };
    Case::new(format!("differential::{name}"), test).needs(Need::GoPlugins)
}

fn tuning() -> Vec<Row> {
    let tuning = |more| chained("tuning", more);
    vec![
        (
            "tuning::sysctl",
            &[],
            tuning(
                json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1", "net.ipv4.conf.IFNAME.arp_filter": "1"}}),
            ),
        ),
        (
            "tuning::mac",
            &["backup-says-whose-it-is"],
            tuning(json!({"mac": "02:00:00:00:00:17"})),
        ),
        (
            "tuning::mtu",
            &["backup-says-whose-it-is"],
            tuning(json!({"mtu": 1300})),
        ),
        (
            "tuning::promisc",
            &["backup-says-whose-it-is"],
            tuning(json!({"promisc": true})),
        ),
        (
            "tuning::allmulti",
            &["backup-says-whose-it-is"],
            tuning(json!({"allmulti": true})),
        ),
        (
            "tuning::tx_queue_length",
            &["backup-says-whose-it-is"],
            tuning(json!({"txQLen": 77})),
        ),
        (
            "tuning::args",
            &["backup-says-whose-it-is"],
            tuning(json!({"args": {"cni": {"mac": "02:00:00:00:00:18", "mtu": 1301}}})),
        ),
        (
            "tuning::data_dir",
            &["backup-says-whose-it-is"],
            tuning(json!({"dataDir": "/run/tuning", "mtu": 1300})),
        ),
        ("tuning::nothing", &[], tuning(json!({}))),
    ]
}

fn portmap() -> Vec<Row> {
    let mapped = |more| {
        let mapping = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
        with(chained("portmap", mapping), more)
    };
    vec![
        (
            "portmap::plain",
            &[
                "own-rules",
                "route-localnet-goes-back",
                "host-port-from-the-pod-itself",
            ],
            mapped(json!({})),
        ),
        (
            "portmap::nftables",
            &[
                "own-rules",
                "route-localnet-goes-back",
                "host-port-from-the-pod-itself",
            ],
            mapped(json!({"backend": "nftables"})),
        ),
        (
            "portmap::iptables",
            &[
                "own-rules",
                "route-localnet-goes-back",
                "host-port-from-the-pod-itself",
            ],
            mapped(json!({"backend": "iptables"})),
        ),
        (
            "portmap::without_snat",
            &["own-rules"],
            mapped(json!({"snat": false})),
        ),
        (
            "portmap::masq_all",
            &[
                "own-rules",
                "route-localnet-goes-back",
                "host-port-from-the-pod-itself",
            ],
            mapped(json!({"masqAll": true})),
        ),
        ("portmap::no_mapping", &[], chained("portmap", json!({}))),
    ]
}

fn firewall() -> Vec<Row> {
    let firewall = |more| chained("firewall", more);
    vec![
        ("firewall::plain", &["own-rules"], firewall(json!({}))),
        (
            "firewall::iptables",
            &["own-rules"],
            firewall(json!({"backend": "iptables"})),
        ),
        (
            "firewall::same_bridge",
            &["own-rules"],
            firewall(json!({"ingressPolicy": "same-bridge"})),
        ),
    ]
}

fn bandwidth() -> Vec<Row> {
    let bandwidth = |more| chained("bandwidth", more);
    let faster = json!({"ingressRate": 16_000_000, "ingressBurst": 800_000});
    vec![
        (
            "bandwidth::ingress",
            &["!queue-length-of-the-host-end"],
            bandwidth(json!({"ingressRate": 8_000_000, "ingressBurst": 800_000})),
        ),
        ("bandwidth::nothing", &[], bandwidth(json!({}))),
        (
            "bandwidth::of_the_runtime",
            &["!queue-length-of-the-host-end"],
            bandwidth(json!({"runtimeConfig": {"bandwidth": faster}})),
        ),
        // An administrator's limits are not a pod's to change, not even where they are none.
        (
            "bandwidth::own_before_the_runtimes",
            &["!queue-length-of-the-host-end"],
            bandwidth(
                json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "runtimeConfig": {"bandwidth": faster}}),
            ),
        ),
        (
            "bandwidth::own_zero_before_the_runtimes",
            &[],
            bandwidth(
                json!({"ingressRate": 0, "ingressBurst": 0, "runtimeConfig": {"bandwidth": faster}}),
            ),
        ),
    ]
}
