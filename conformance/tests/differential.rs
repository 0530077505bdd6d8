//! Each key of each plugin, put to ours and to the Go reference on two hosts: results, kernel and files agree, or
//! differ as `docs/differences.md` says.

use std::net::SocketAddr;

use conformance::differential::{KNOWN, Side, chained, compare};
use conformance::{
    Call, Case, Lab, Need, Pod, Protocol, case, host_local, ipam_network, layer2, with,
};
use serde_json::{Value, json};

use crate::common::{dual, ip, plain};

/// What every attachment to a bridge shows.
const BRIDGE: [&str; 5] = [
    "alias-on-the-host-end",
    "no-link-local-address-on-the-host-end",
    "queue-length-of-the-host-end",
    "ipv6-usable-at-once",
    "mtu-in-results",
];

/// A scenario: its name, the differences it shows beside those of its kind, and the network.
type Row = (&'static str, &'static [&'static str], Value);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case!(every_difference_has_its_reason),
        case!(status_of_a_full_pool).needs(Need::GoPlugins),
    ];
    let kinds: [(&str, &'static [&'static str], Vec<Row>); 5] = [
        ("bridge", &BRIDGE, bridge_rows()),
        ("ptp", &PTP, ptp_rows()),
        ("host_local", &["index-beside-the-state"], host_local_rows()),
        ("static_ipam", &[], static_rows()),
        (
            "loopback",
            &[],
            vec![("up", &[], chained("loopback", json!({})))],
        ),
    ];
    for (plugin, kind, rows) in kinds {
        cases.extend(rows.into_iter().map(|row| scenario(plugin, kind, row)));
    }
    cases
}

fn scenario(plugin: &str, kind: &'static [&'static str], (name, more, network): Row) -> Case {
    let test = move |lab: &Lab| {
        let expected = expected(kind, more);
        compare(lab, &expected, |side| {
            let outside = outside(side);
            let pod = side.pod("pod");
            side.start();
            let call = if network["type"] == "loopback" {
                Call::of(&pod).ifname("lo")
            } else {
                Call::of(&pod)
            };
            side.life(std::slice::from_ref(&network), &call, |side| {
                traffic(side, &pod, &outside)
            });
        });
    };
    Case::new(format!("differential::{plugin}::{name}"), test).needs(Need::GoPlugins)
}

fn status_of_a_full_pool(lab: &Lab) {
    let network = ipam_network(host_local(&["10.1.0.0/30"]));
    let expected = ["index-beside-the-state", "status-of-a-full-pool"];
    compare(lab, &expected, |side| {
        let pod = side.pod("pod");
        side.start();
        side.step("before");
        side.call("STATUS", &network, &Call::default());
        side.life(std::slice::from_ref(&network), &Call::of(&pod), |side| {
            side.step("full");
            side.call("STATUS", &network, &Call::default());
        });
        side.step("after");
        side.call("STATUS", &network, &Call::default());
    });
}

/// The differences of a kind and of one scenario. A name with `!` is one of its kind that it does not show.
pub(crate) fn expected(kind: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    let absent: Vec<&str> = more
        .iter()
        .filter_map(|name| name.strip_prefix('!'))
        .collect();
    let names = kind.iter().chain(more).copied();
    names
        .filter(|name| !name.starts_with('!') && !absent.contains(name))
        .collect()
}

/// A machine beside the host, which knows the way to the containers.
fn outside(side: &Side) -> Pod {
    let outside = side.host.pod("outside");
    side.host.cable("up0", &outside, "eth0");
    side.host.ip("addr add 198.51.100.1/24 dev up0");
    side.host.ip("addr add 2001:db8:5::1/64 dev up0 nodad");
    outside.ip("addr add 198.51.100.2/24 dev eth0");
    outside.ip("addr add 2001:db8:5::2/64 dev eth0 nodad");
    outside.ip("route add 10.0.0.0/8 via 198.51.100.1");
    outside.ip("route add fd00::/8 via 2001:db8:5::1");
    outside
}

/// What gets through between pod, host and outside, and which source address is seen.
fn traffic(side: &Side, pod: &Pod, outside: &Pod) {
    let families = [
        ("10.1.0.1", "10.1.0.2", "198.51.100.2"),
        ("fd00:1::1", "fd00:1::2", "2001:db8:5::2"),
    ];
    for (gateway, address, far) in families {
        let (gateway, address, far) = (ip(gateway), ip(address), ip(far));
        let Ok(_there) = std::panic::catch_unwind(|| pod.serve(Protocol::Tcp, address, 80)) else {
            continue;
        };
        let to = SocketAddr::new(address, 80);
        side.probe("host to pod", &side.host, Protocol::Tcp, to);
        side.note(
            "traffic",
            format!("pod pings gateway {gateway}: {}", pod.pings(gateway)),
        );
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        if pod.ip_json(&format!("{family} route show default")) == json!([]) {
            side.note("traffic", format!("no way out of the pod with {address}"));
            continue;
        }
        side.note(
            "traffic",
            format!("outside pings pod {address}: {}", outside.pings(address)),
        );
        let server = outside.serve(Protocol::Udp, far, 80);
        side.probe("pod to outside", pod, Protocol::Udp, server.address);
    }
}

fn every_difference_has_its_reason(_: &Lab) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md");
    let text = std::fs::read_to_string(path).expect("docs/differences.md");
    let written: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    for difference in KNOWN {
        assert!(
            written.contains(&difference.name),
            "{} has no reason in docs/differences.md",
            difference.name
        );
    }
}

fn bridge_rows() -> Vec<Row> {
    let dns = json!({"dns": {"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["ndots:2"]}});
    let default = json!({"isDefaultGateway": true});
    let asked_twice = json!({"isDefaultGateway": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}});
    let routes = json!({"ipam": {"routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "192.0.2.0/24", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360},
        {"dst": "198.51.101.0/24", "gw": "10.1.0.9", "priority": 50},
        {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "table": 205},
        {"dst": "2001:db8:7::/48", "gw": "fd00:1::1", "priority": 7}
    ]}});
    let mac = json!({"runtimeConfig": {"mac": "02:00:00:00:00:07"}});
    let ips = json!({"runtimeConfig": {"ips": ["10.1.0.2"]}, "args": {"cni": {"mac": "02:00:00:00:00:08"}}});
    const IPAM: &[&str] = &["index-beside-the-state"];
    const IPV6: &[&str] = &["index-beside-the-state", "router-advertisements"];
    vec![
        ("layer_2", &["layer-2-check"], layer2()),
        ("gateway", IPAM, plain()),
        ("dual_stack", IPV6, dual()),
        (
            "ipv6",
            IPV6,
            conformance::bridge(host_local(&["fd00:1::/64"])),
        ),
        (
            "no_gateway",
            IPAM,
            with(plain(), json!({"isGateway": false})),
        ),
        ("default_gateway", IPV6, with(dual(), default)),
        (
            "default_route_twice",
            &["index-beside-the-state", "default-route-once"],
            with(plain(), asked_twice),
        ),
        (
            "mtu",
            &["index-beside-the-state", "mtu-of-the-bridge-stays"],
            with(plain(), json!({"mtu": 1400})),
        ),
        ("hairpin", IPAM, with(plain(), json!({"hairpinMode": true}))),
        ("promisc", IPAM, with(plain(), json!({"promiscMode": true}))),
        (
            "port_isolation",
            IPAM,
            with(plain(), json!({"portIsolation": true})),
        ),
        (
            "macspoofchk",
            &["index-beside-the-state", "locked-port"],
            with(plain(), json!({"macspoofchk": true})),
        ),
        (
            "enabledad",
            &[
                "!ipv6-usable-at-once",
                "index-beside-the-state",
                "router-advertisements",
            ],
            with(dual(), json!({"enabledad": true})),
        ),
        (
            "disable_container_interface",
            &["layer-2-check"],
            with(layer2(), json!({"disableContainerInterface": true})),
        ),
        ("mac", IPAM, with(plain(), mac)),
        ("requested_address", IPAM, with(plain(), ips)),
        (
            "ip_masq",
            &[
                "index-beside-the-state",
                "router-advertisements",
                "own-rules",
            ],
            with(dual(), json!({"ipMasq": true})),
        ),
        (
            "ip_masq_nftables",
            &["index-beside-the-state", "own-rules", "del-with-nftables"],
            with(
                plain(),
                json!({"ipMasq": true, "ipMasqBackend": "nftables"}),
            ),
        ),
        (
            "ip_masq_iptables",
            &["index-beside-the-state", "own-rules"],
            with(
                plain(),
                json!({"ipMasq": true, "ipMasqBackend": "iptables"}),
            ),
        ),
        (
            "routes",
            &[
                "index-beside-the-state",
                "router-advertisements",
                "route-mtu-and-advmss",
                "check-of-routes",
            ],
            with(dual(), routes),
        ),
        ("dns", IPAM, with(plain(), dns)),
        (
            "other_name",
            IPAM,
            with(plain(), json!({"bridge": "br-other"})),
        ),
        (
            "version_0_3_1",
            &["!mtu-in-results", "index-beside-the-state"],
            with(plain(), json!({"cniVersion": "0.3.1"})),
        ),
        (
            "version_0_2_0",
            &["!mtu-in-results", "index-beside-the-state"],
            with(plain(), json!({"cniVersion": "0.2.0"})),
        ),
        (
            "version_1_0_0",
            &[
                "!mtu-in-results",
                "index-beside-the-state",
                "router-advertisements",
            ],
            with(dual(), json!({"cniVersion": "1.0.0"})),
        ),
    ]
}

/// What every point-to-point attachment shows.
const PTP: [&str; 7] = [
    "ipv6-usable-at-once",
    "ptp-routes",
    "gratuitous-arp",
    "alias-on-the-host-end",
    "queue-length-of-the-host-end",
    "index-beside-the-state",
    "mtu-in-results",
];

fn ptp_rows() -> Vec<Row> {
    let ptp = |more| {
        with(
            chained("ptp", json!({"ipam": host_local(&["10.1.0.0/24"])})),
            more,
        )
    };
    let both = |more| {
        with(
            chained(
                "ptp",
                json!({"ipam": host_local(&["10.1.0.0/24", "fd00:1::/64"])}),
            ),
            more,
        )
    };
    let routes = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.1", "mtu": 1400}]}});
    vec![
        ("plain", &[], ptp(json!({}))),
        (
            "default_route",
            &[],
            ptp(json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}})),
        ),
        ("dual_stack", &["router-advertisements"], both(json!({}))),
        ("mtu", &[], ptp(json!({"mtu": 1400}))),
        (
            "ip_masq",
            &["own-rules"],
            ptp(json!({"ipMasq": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}})),
        ),
        (
            "dns",
            &[],
            ptp(json!({"dns": {"nameservers": ["192.0.2.53"]}})),
        ),
        ("routes", &["route-mtu-and-advmss"], ptp(routes)),
    ]
}

fn host_local_rows() -> Vec<Row> {
    let network = |more| {
        with(
            chained("host-local", json!({"ipam": {"type": "host-local"}})),
            more,
        )
    };
    let ranges = |ranges: Value| network(json!({"ipam": {"ranges": ranges}}));
    vec![
        (
            "old_form",
            &[],
            network(
                json!({"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.254"}}),
            ),
        ),
        (
            "ranges",
            &[],
            ranges(
                json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:1::/64"}]]),
            ),
        ),
        (
            "small_subnets",
            &[],
            ranges(json!([[{"subnet": "10.1.0.0/30"}], [{"subnet": "fd00:1::/126"}]])),
        ),
        (
            "routes",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.7", "mtu": 1400, "priority": 3}]}}),
            ),
        ),
        (
            "data_dir",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"ipam": {"dataDir": "/run/networks"}}),
            ),
        ),
        (
            "runtime_ips",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"runtimeConfig": {"ips": ["10.1.0.77/24"]}}),
            ),
        ),
        (
            "args_ips",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"args": {"cni": {"ips": ["10.1.0.78"]}}}),
            ),
        ),
        (
            "runtime_ranges",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}}),
            ),
        ),
        (
            "runtime_ranges_alone",
            &[],
            network(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}})),
        ),
        (
            "resolv_conf",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"ipam": {"resolvConf": "/etc/host.conf"}}),
            ),
        ),
        (
            "version_0_2_0",
            &[],
            with(
                ranges(json!([[{"subnet": "10.1.0.0/24"}]])),
                json!({"cniVersion": "0.2.0"}),
            ),
        ),
    ]
}

fn static_rows() -> Vec<Row> {
    let network = |ipam: Value| {
        chained(
            "static",
            json!({"ipam": with(json!({"type": "static"}), ipam)}),
        )
    };
    let one = json!({"addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]});
    vec![
        ("one", &[], network(one.clone())),
        (
            "two_families",
            &[],
            network(
                json!({"addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64", "gateway": "fd00:1::1"}]}),
            ),
        ),
        (
            "routes_and_dns",
            &[],
            network(with(
                one.clone(),
                json!({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1400}], "dns": {"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["c"]}}),
            )),
        ),
        (
            "runtime_ips",
            &[],
            with(
                network(one.clone()),
                json!({"runtimeConfig": {"ips": ["10.3.0.5/16", "fd00:3::5/64"]}}),
            ),
        ),
        (
            "args_ips",
            &[],
            with(
                network(one.clone()),
                json!({"args": {"cni": {"ips": ["10.4.0.5/16"]}}}),
            ),
        ),
        (
            "version_0_4_0",
            &[],
            with(network(one), json!({"cniVersion": "0.4.0"})),
        ),
    ]
}
