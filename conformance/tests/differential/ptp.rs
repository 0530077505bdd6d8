//! The keys of `ptp`.

use conformance::differential::chained;
use conformance::{host_local, with};
use serde_json::{Value, json};

use super::INDEX;
use super::scenario::{Scenario, traffic};

/// What every point-to-point attachment shows.
const PTP: [&str; 6] = [
    "ptp-routes",
    "gratuitous-arp",
    "alias-on-the-host-end",
    "queue-length-of-the-host-end",
    "mtu-in-results",
    INDEX,
];

fn ptp(name: &str, subnets: &[&str], more: Value) -> Scenario {
    let network = with(chained("ptp", json!({"ipam": host_local(subnets)})), more);
    let of_ipv6: &[_] = if subnets.len() > 1 {
        &["ipv6-usable-at-once", "router-advertisements"]
    } else {
        &[]
    };
    Scenario::new(format!("ptp::{name}"), vec![network])
        .differs(&PTP)
        .differs(of_ipv6)
        .meanwhile(traffic)
}

pub(super) fn scenarios() -> Vec<Scenario> {
    const V4: &[&str] = &["10.1.0.0/24"];
    const DUAL: &[&str] = &["10.1.0.0/24", "fd00:1::/64"];
    let ways_out = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}});
    let routes = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.1", "mtu": 1400}]}});
    let dns = json!({"dns": {"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["ndots:2"]}});
    let masquerading = |name, more| {
        let masq = with(ways_out.clone(), json!({"ipMasq": true}));
        ptp(name, DUAL, with(masq, more))
            .differs(&["own-rules"])
            .sees(&[
                "pod to outside Udp: seen as 198.51.100.1",
                "pod to outside Udp: seen as 2001:db8:5::",
            ])
    };
    vec![
        ptp("plain", V4, json!({})),
        ptp(
            "default_route",
            V4,
            json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}),
        )
        .sees(&["seen as 10.1.0.2"]),
        ptp("dual_stack", DUAL, ways_out.clone()),
        ptp("mtu", V4, json!({"mtu": 1400})).sees(&["link eth0 mtu=1400"]),
        masquerading("ip_masq", json!({})),
        masquerading("ip_masq_nftables", json!({"ipMasqBackend": "nftables"}))
            .differs(&["del-with-nftables"]),
        masquerading("ip_masq_iptables", json!({"ipMasqBackend": "iptables"})),
        ptp("dns", V4, dns).sees(&["dns.domain=a.test"]),
        ptp("routes", V4, routes).differs(&["route-mtu-and-advmss"]),
    ]
}
