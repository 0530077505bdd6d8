//! Configurations for plugins with the names of the Go plugin's.

use serde_json::{Value, json};

/// What a plugin of that name is called with.
pub(crate) struct Known {
    pub(crate) conf: Value,
    /// Whether it stands behind another plugin of a list.
    pub(crate) chained: bool,
    /// Shell commands for the host beforehand.
    pub(crate) prepare: String,
}

/// An interface of the host that others can stand on.
const UPLINK: &str =
    "ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up;";

/// The same, where the kernel has links of the kind that the plugin makes: otherwise the plugin can't be judged.
fn uplink(kind: &str) -> String {
    format!("{UPLINK} ip link add link up0 name probe type {kind}; ip link del probe")
}

fn has(kind: &str) -> String {
    format!("ip link add probe type {kind}; ip link del probe")
}

/// The configuration for a name, if it is one of the Go plugin's that needs no daemon.
pub(crate) fn known(name: &str) -> Option<Known> {
    let first = |conf: Value, prepare: String| Known {
        conf,
        chained: false,
        prepare,
    };
    let chained = |conf: Value| Known {
        conf,
        chained: true,
        prepare: String::new(),
    };
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]});
    let mappings = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let nothing = String::new;
    Some(match name {
        "bridge" => first(json!({"isGateway": true, "ipam": ipam}), nothing()),
        "ptp" | "tap" | "host-local" => first(json!({"ipam": ipam}), nothing()),
        "loopback" => first(json!({}), nothing()),
        "static" => first(
            json!({"ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}}),
            nothing(),
        ),
        "dummy" => first(json!({"ipam": ipam}), has("dummy")),
        "macvlan" | "ipvlan" => first(json!({"master": "up0", "ipam": ipam}), uplink(name)),
        "vlan" => first(
            json!({"master": "up0", "vlanId": 5, "ipam": ipam}),
            uplink("vlan id 6"),
        ),
        "host-device" => first(json!({"device": "up0", "ipam": ipam}), UPLINK.to_owned()),
        "portmap" => chained(json!({
            "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mappings}
        })),
        "firewall" => chained(json!({})),
        "tuning" => chained(json!({"mtu": 1400})),
        "bandwidth" => chained(json!({"ingressRate": 8_000_000, "ingressBurst": 800_000})),
        "sbr" => chained(json!({})),
        "vrf" => Known {
            prepare: has("vrf table 9"),
            ..chained(json!({"vrfname": "blue"}))
        },
        _ => return None,
    })
}
