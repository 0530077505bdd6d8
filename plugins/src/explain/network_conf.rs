//! What a network's list asks of the host, as far as it can be compared with it.
//!
//! Defaults are those of the plugins. A value that does not fit is reported by the check of lists; here it counts as absent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cni_conf::json;
use cni_conf::result::Route;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::list::{Member, Network};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NetworkConf {
    bridge: String,
    is_gateway: bool,
    pub(crate) is_default_gateway: bool,
    pub(crate) force_address: bool,
    pub(crate) hairpin_mode: bool,
    pub(crate) promisc_mode: bool,
    pub(crate) vlan: u16,
    pub(crate) vlan_trunk: Vec<Trunk>,
    pub(crate) preserve_default_vlan: Option<bool>,
    pub(crate) mtu: u32,
    pub(crate) ip_masq: bool,
    #[serde(rename = "nonMasqueradeCIDRs")]
    non_masquerade: Vec<String>,
    pub(crate) bridge_netfilter: String,
    pub(crate) disable_container_interface: bool,
    pub(crate) ipam: Ipam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ipam {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) routes: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Trunk {
    pub(crate) id: Option<u16>,
    #[serde(rename = "minID")]
    pub(crate) min: Option<u16>,
    #[serde(rename = "maxID")]
    pub(crate) max: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capable {
    capabilities: BTreeMap<String, Value>,
}

/// What connects the containers of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Main {
    /// A bridge of this name.
    Bridge(String),
    /// A pair each, with routes on the host.
    Ptp,
    /// Something of which nothing is known here.
    Other,
}

impl NetworkConf {
    /// What the first plugin of a network wants, which makes the interface.
    pub(crate) fn of(network: &Network) -> Self {
        let first = network.members.first();
        first
            .and_then(|member| json::from_value(&member.request.conf).ok())
            .unwrap_or_default()
    }

    /// What connects the containers.
    pub(crate) fn main(&self, network: &Network) -> Main {
        let first = network.members.first();
        match first.map(|member| member.request.plugin.as_str()) {
            Some("bridge") if self.bridge.is_empty() => Main::Bridge("cni0".into()),
            Some("bridge") => Main::Bridge(self.bridge.clone()),
            Some("ptp") => Main::Ptp,
            _ => Main::Other,
        }
    }

    /// Whether the bridge is to have the gateways' addresses.
    pub(crate) fn is_gateway(&self) -> bool {
        self.is_gateway || self.is_default_gateway
    }

    /// Destinations that keep the container's address.
    pub(crate) fn non_masquerade(&self) -> Vec<IpNet> {
        let read = |text: &String| text.parse::<IpNet>().ok();
        self.non_masquerade.iter().filter_map(read).collect()
    }

    /// Whether containers are given a default route of a family.
    pub(crate) fn leads_out(&self, v6: bool) -> bool {
        let is_default =
            |route: &Route| route.dst.prefix_len() == 0 && route.dst.addr().is_ipv6() == v6;
        self.is_default_gateway || self.ipam.routes.iter().any(is_default)
    }

    /// Whether packets within the bridge are to meet the rules of the IP layer.
    pub(crate) fn wants_bridge_netfilter(&self) -> bool {
        match self.bridge_netfilter.as_str() {
            "" => self.is_gateway(),
            "off" => false,
            _ => true,
        }
    }

    /// The VLANs of a container's port.
    pub(crate) fn vlans(&self) -> Vec<(u16, u16)> {
        let single = (self.vlan > 0).then_some((self.vlan, self.vlan));
        let trunk = self.vlan_trunk.iter().flat_map(|trunk| {
            let range = trunk.min.zip(trunk.max);
            [range, trunk.id.map(|id| (id, id))]
        });
        single.into_iter().chain(trunk.flatten()).collect()
    }
}

/// Whether a plugin's configuration says that the runtime may give it something.
pub(crate) fn has_capability(member: &Member, name: &str) -> bool {
    let Capable { capabilities } = json::from_value(&member.request.conf).unwrap_or_default();
    capabilities.get(name) == Some(&Value::Bool(true))
}

/// Whether an address is one that the internet does not route (RFC 1918, RFC 6598, RFC 4193).
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(address) => address.octets()[0] & 0xfe == 0xfc,
    }
}
