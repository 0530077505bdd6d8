//! Each key of each plugin, put to ours and to the Go reference on two hosts: results, kernel and files agree, or
//! differ as `docs/differences.md` says.

use conformance::differential::{Side, chained, compare};
use conformance::{Call, Case, Lab, Need, Place, Protocol, host_local, layer2, with};
use serde_json::{Value, json};

use crate::common::{dual, ip, plain};

/// What every attachment to a bridge with host-local shows.
const BRIDGE: [&str; 0] = [];

/// A scenario: its name, the differences it shows beside those of its kind, and what is done.
type Row = (&'static str, &'static [&'static str], Value);

pub(crate) fn cases() -> Vec<Case> {
    let rows = bridge_rows().into_iter().map(|row| scenario("bridge", &BRIDGE, row));
    rows.collect()
}

fn scenario(plugin: &str, kind: &'static [&'static str], (name, more, network): Row) -> Case {
    let test = move |lab: &Lab| {
        let expected = [kind, more].concat();
        compare(lab, &expected, |side| {
            let pod = side.pod("pod");
            side.life(&[network.clone()], &Call::of(&pod), |_| {});
        });
    };
    Case::new(format!("differential::{plugin}::{name}"), test).needs(Need::GoPlugins)
}

fn bridge_rows() -> Vec<Row> {
    vec![
        ("layer_2", &[], layer2()),
        ("gateway", &[], plain()),
        ("dual_stack", &[], dual()),
        ("no_gateway", &[], with(plain(), json!({"isGateway": false}))),
        ("default_gateway", &[], with(dual(), json!({"isDefaultGateway": true}))),
        (
            "default_gateway_and_route",
            &[],
            with(
                plain(),
                json!({"isDefaultGateway": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}),
            ),
        ),
        ("mtu", &[], with(plain(), json!({"mtu": 1400}))),
        ("hairpin", &[], with(plain(), json!({"hairpinMode": true}))),
        ("promisc", &[], with(plain(), json!({"promiscMode": true}))),
        ("port_isolation", &[], with(plain(), json!({"portIsolation": true}))),
        ("macspoofchk", &[], with(plain(), json!({"macspoofchk": true}))),
        ("enabledad", &[], with(dual(), json!({"enabledad": true}))),
        (
            "disable_container_interface",
            &[],
            with(layer2(), json!({"disableContainerInterface": true})),
        ),
        (
            "mac",
            &[],
            with(plain(), json!({"runtimeConfig": {"mac": "02:00:00:00:00:07"}})),
        ),
        ("ip_masq", &[], with(dual(), json!({"ipMasq": true}))),
        (
            "ip_masq_iptables",
            &[],
            with(dual(), json!({"ipMasq": true, "ipMasqBackend": "iptables"})),
        ),
        (
            "routes",
            &[],
            with(
                dual(),
                json!({"ipam": {"routes": [
                    {"dst": "0.0.0.0/0"},
                    {"dst": "192.0.2.0/24", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360},
                    {"dst": "198.51.100.0/24", "gw": "10.1.0.9", "priority": 50},
                    {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "table": 205},
                    {"dst": "203.0.114.0/24", "scope": 253},
                    {"dst": "2001:db8::/32", "gw": "fd00:1::1", "priority": 7}
                ]}}),
            ),
        ),
        (
            "dns",
            &[],
            with(plain(), json!({"dns": {"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["ndots:2"]}})),
        ),
    ]
}
