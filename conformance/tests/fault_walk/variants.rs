//! The plugins whose calls are failed, and what they are called with.

use conformance::{host_local, with};
use serde_json::{Value, json};

/// A plugin and its network.
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) plugin: &'static str,
    /// What the plugin is told beside its network's name, for the container of that name.
    pub(super) conf: fn(&str) -> Value,
    /// The plugin that stands before it, for which nothing goes wrong.
    pub(super) before: Option<fn() -> Value>,
    /// The kind of link that the kernel must have.
    pub(super) kernel: Option<&'static str>,
    /// Whether all errors are tried, or one.
    pub(super) thorough: bool,
    /// How many combinations a sample has; `TRESTLE_FAULT_SAMPLE` is another number.
    pub(super) sample: usize,
}

/// What most have in common.
const USUAL: Variant = Variant {
    name: "",
    plugin: "",
    conf: |_| json!({}),
    before: None,
    kernel: None,
    thorough: false,
    sample: 2,
};

pub(super) const VARIANTS: [Variant; 11] = [
    Variant {
        name: "of_bridge",
        plugin: "bridge",
        conf: |_| masqueraded("nftables"),
        thorough: true,
        sample: 8,
        ..USUAL
    },
    Variant {
        name: "of_bridge_with_iptables",
        plugin: "bridge",
        conf: |_| masqueraded("iptables"),
        sample: 0,
        ..USUAL
    },
    Variant {
        name: "of_ptp",
        plugin: "ptp",
        conf: |_| masqueraded("nftables"),
        sample: 0,
        ..USUAL
    },
    Variant {
        name: "of_macvlan",
        plugin: "macvlan",
        conf: |_| on_up0(),
        ..USUAL
    },
    Variant {
        name: "of_tap",
        plugin: "tap",
        conf: |_| addressed(),
        ..USUAL
    },
    Variant {
        name: "of_host_device",
        plugin: "host-device",
        conf: |container| with(addressed(), json!({"device": format!("of-{container}")})),
        ..USUAL
    },
    Variant {
        name: "of_sbr",
        plugin: "sbr",
        before: Some(|| with(on_up0(), json!({"type": "macvlan"}))),
        ..USUAL
    },
    Variant {
        name: "of_ipvlan",
        plugin: "ipvlan",
        conf: |_| on_up0(),
        kernel: Some("ipvlan"),
        ..USUAL
    },
    Variant {
        name: "of_vlan",
        plugin: "vlan",
        conf: |container| with(on_up0(), json!({"vlanId": container.len()})),
        kernel: Some("vlan"),
        ..USUAL
    },
    Variant {
        name: "of_dummy",
        plugin: "dummy",
        conf: |_| addressed(),
        kernel: Some("dummy"),
        ..USUAL
    },
    Variant {
        name: "of_vrf",
        plugin: "vrf",
        conf: |container| json!({"vrfname": format!("v-{container}")}),
        before: Some(|| with(on_up0(), json!({"type": "macvlan"}))),
        kernel: Some("vrf"),
        ..USUAL
    },
];

fn addressed() -> Value {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    with(
        json!({"ipam": host_local(&["10.1.0.0/24", "fd00:1::/64"])}),
        json!({"ipam": {"routes": routes}}),
    )
}

fn on_up0() -> Value {
    with(addressed(), json!({"master": "up0"}))
}

fn masqueraded(backend: &str) -> Value {
    let bridge =
        json!({"bridge": "cni0", "isGateway": true, "ipMasq": true, "ipMasqBackend": backend});
    with(addressed(), bridge)
}
