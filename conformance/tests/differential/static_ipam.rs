//! The keys of `static`, and every way to ask it for an address.

use conformance::differential::chained;
use conformance::with;
use serde_json::{Value, json};

use super::scenario::Scenario;

fn network(name: &str, ipam: Value, more: Value) -> Scenario {
    let plain = chained("static", json!({"ipam": {"type": "static"}}));
    let network = with(with(plain, json!({"ipam": ipam})), more);
    Scenario::new(format!("static_ipam::{name}"), vec![network])
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let one = json!({"addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]});
    let two = json!({"addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64", "gateway": "fd00:1::1"}]});
    let rest = json!({
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1360, "priority": 3, "table": 205, "scope": 253}
        ],
        "dns": {"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["c"]}
    });
    let plain = |name, more| network(name, one.clone(), more);
    vec![
        plain("one", json!({})),
        network("two_families", two, json!({})),
        network("routes_and_dns", with(one.clone(), rest), json!({}))
            .sees(&["routes[1].advmss=1360", "dns.domain=a.test"]),
        plain(
            "runtime_ips",
            json!({"runtimeConfig": {"ips": ["10.3.0.5/16", "fd00:3::5/64"]}}),
        )
        .sees(&["ips[1].address=fd00:3::5/64"]),
        plain(
            "args_ips",
            json!({"args": {"cni": {"ips": ["10.4.0.5/16"]}}}),
        )
        .sees(&["ips[0].address=10.4.0.5/16"]),
        plain("cni_args", json!({}))
            .args("IgnoreUnknown=1;IP=10.5.0.5/16,fd00:5::5/64;GATEWAY=10.5.0.1,fd00:5::1")
            .sees(&["ips[1].address=10.5.0.5/16", "ips[1].gateway=10.5.0.1"]),
        plain(
            "ips_of_everybody",
            json!({"runtimeConfig": {"ips": ["10.3.0.5/16"]}, "args": {"cni": {"ips": ["10.4.0.5/16"]}}}),
        )
        .args("IP=10.5.0.5/16;GATEWAY=10.3.0.1")
        .differs(&["gateway-of-requested-addresses"])
        .sees(&["ips[0].address=10.3.0.5/16"]),
        network("cni_args_alone", json!({}), json!({})).args("IP=10.5.0.5/16;GATEWAY=10.5.0.1"),
        plain("version_0_4_0", json!({"cniVersion": "0.4.0"})),
        plain("version_0_2_0", json!({"cniVersion": "0.2.0"})),
    ]
}
