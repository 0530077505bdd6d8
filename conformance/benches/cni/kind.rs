//! What implementations are asked for.

use serde_json::{Value, json};

/// A network or a list of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// bridge + host-local
    Bridge,
    /// The same with masquerade in nftables.
    Nftables,
    /// The same with masquerade in iptables.
    Iptables,
    /// ptp + host-local, portmap with one port.
    PtpPortmap,
    /// The list that is made where there is none: bridge + host-local with masquerade in nftables, portmap with two
    /// ports, firewall.
    List,
    /// bridge + host-local with an IPv6 address as well.
    DualStack,
    /// bridge + host-local + firewall.
    Firewall,
    /// macvlan + host-local.
    Macvlan,
}

impl Kind {
    /// What a container alone is attached to.
    pub(crate) const EACH: [Self; 7] = [
        Self::Bridge,
        Self::Nftables,
        Self::Iptables,
        Self::PtpPortmap,
        Self::List,
        Self::DualStack,
        Self::Macvlan,
    ];

    /// Whether the floor does it, too. Others are compared with its bridge.
    pub(crate) fn has_floor(self) -> bool {
        !matches!(self, Self::Nftables | Self::Firewall)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Nftables => "bridge, nftables masquerade",
            Self::Iptables => "bridge, iptables masquerade",
            Self::PtpPortmap => "ptp + portmap",
            Self::List => "bridge + portmap + firewall",
            Self::DualStack => "bridge, dual stack",
            Self::Firewall => "bridge + firewall",
            Self::Macvlan => "macvlan",
        }
    }

    /// What the floor does for it, in one process. The numbers are those of our own elements for a container.
    pub(super) fn floor(self) -> Value {
        match self {
            Self::Bridge | Self::Nftables | Self::Firewall => json!({"type": "floor"}),
            Self::Iptables => json!({"type": "floor", "kind": "iptables"}),
            Self::PtpPortmap => json!({"type": "floor", "kind": "ptp", "elements": 3}),
            Self::List => json!({"type": "floor", "elements": 6}),
            Self::DualStack => json!({"type": "floor", "kind": "dual stack"}),
            Self::Macvlan => json!({"type": "floor", "kind": "macvlan"}),
        }
    }

    /// The plugins in the order of ADD, with their configuration.
    pub(super) fn plugins(self) -> Vec<Value> {
        let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]});
        let mut routed = ipam.clone();
        routed["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let mut bridge = json!({
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipam": ipam
        });
        let portmap = |protocols: &[&str]| {
            let mapping =
                |protocol| json!({"hostPort": 0, "containerPort": 80, "protocol": protocol});
            let mappings: Vec<Value> = protocols.iter().map(mapping).collect();
            json!({"type": "portmap", "runtimeConfig": {"portMappings": mappings}})
        };
        let masquerade = |mut bridge: Value, backend: &str| {
            bridge["ipMasq"] = json!(true);
            bridge["ipMasqBackend"] = json!(backend);
            bridge
        };
        let firewall = json!({"type": "firewall"});
        match self {
            Self::Bridge => vec![bridge],
            Self::Firewall => vec![bridge, firewall],
            Self::DualStack => {
                bridge["ipam"]["ranges"] =
                    json!([[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]);
                vec![bridge]
            }
            Self::Nftables => vec![masquerade(bridge, "nftables")],
            Self::Iptables => vec![masquerade(bridge, "iptables")],
            Self::PtpPortmap => vec![json!({"type": "ptp", "ipam": routed}), portmap(&["tcp"])],
            Self::List => vec![
                masquerade(bridge, "nftables"),
                portmap(&["tcp", "tcp"]),
                firewall,
            ],
            Self::Macvlan => vec![json!({"type": "macvlan", "master": "up0", "ipam": routed})],
        }
    }

    pub(super) fn masquerades(self) -> bool {
        matches!(self, Self::Nftables | Self::Iptables | Self::List)
    }
}
