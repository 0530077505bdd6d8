//! Bridges and their ports.
//!
//! A bridge made here does not speak the spanning tree protocol, as is the kernel's default; a port
//! then forwards as soon as it has a carrier, whatever `forward_delay` says (net/bridge/br_stp.c).

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoKind, InfoPortData,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::build::With;
use super::exchange::Rtnl;
use super::link::{Link, Mac};
use super::link_change::LinkChange;

/// A bridge to create.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address. One that is given at creation is never changed by the kernel when
    /// ports come and go, nor by udev.
    pub mac: Option<Mac>,
    /// Its MTU in bytes until it has ports; then it follows the smallest of theirs. One that is set
    /// by [`Rtnl::set_link`] stays (net/bridge/br_if.c, `br_mtu_auto_adjust`).
    pub mtu: Option<u32>,
    /// Whether it is up from the beginning. To set sysctls of its own before that, create it down.
    pub up: bool,
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: bool,
    /// The VLAN of untagged frames on ports that join later; 0 for none. The kernel's default is 1.
    pub vlan_default_pvid: Option<u16>,
    /// Whether it listens to who joins multicast groups, to send to those alone once it hears a querier. The kernel's
    /// default is on.
    pub multicast_snooping: Option<bool>,
    /// Pass its traffic through iptables' hooks even when the host-wide sysctl is off.
    pub nf_call_iptables: bool,
    /// The same for ip6tables.
    pub nf_call_ip6tables: bool,
}

/// What to change about a bridge. `None` leaves a property alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct BridgeChange {
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: Option<bool>,
    /// The VLAN of untagged frames on ports that join later; 0 for none.
    pub vlan_default_pvid: Option<u16>,
    /// Whether it listens to who joins multicast groups. A kernel without CONFIG_BRIDGE_IGMP_SNOOPING takes no notice.
    pub multicast_snooping: Option<bool>,
    /// Pass its traffic through iptables' hooks even when the host-wide sysctl is off.
    pub nf_call_iptables: Option<bool>,
    /// The same for ip6tables.
    pub nf_call_ip6tables: Option<bool>,
}

/// A bridge's settings. `None` where the kernel was built without the feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeInfo {
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: Option<bool>,
    /// The VLAN of untagged frames on ports that join; 0 for none.
    pub vlan_default_pvid: Option<u16>,
    /// Whether it passes its traffic through iptables' hooks by itself.
    pub nf_call_iptables: Option<bool>,
    /// The same for ip6tables.
    pub nf_call_ip6tables: Option<bool>,
    /// Whether it speaks the spanning tree protocol.
    pub stp: bool,
}

/// A port's state in the spanning tree. Without the protocol a port is either disabled or
/// forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortState {
    /// No carrier, or removed of service.
    #[default]
    Disabled,
    /// Listening, not yet learning.
    Listening,
    /// Learning addresses, not yet forwarding.
    Learning,
    /// In service.
    Forwarding,
    /// Kept out of service by the protocol.
    Blocking,
}

/// A link's state as a port of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortInfo {
    /// Its state in the spanning tree.
    pub state: PortState,
    /// Whether frames may leave by the port they came in by.
    pub hairpin: bool,
    /// Whether it may not talk to other isolated ports.
    pub isolated: bool,
    /// Whether only frames from addresses in the forwarding database may come in (Linux 5.18).
    pub locked: bool,
    /// Whether addresses are learned from its traffic.
    pub learning: bool,
    /// Whether frames for unknown addresses are sent to it.
    pub unicast_flood: bool,
}

/// What to change about a port. `None` leaves a property alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Whether frames may leave by the port they came in by.
    pub hairpin: Option<bool>,
    /// Whether it may not talk to other isolated ports.
    pub isolated: Option<bool>,
    /// Whether only frames from addresses in the forwarding database may come in (Linux 5.18; older kernels
    /// take no notice).
    pub locked: Option<bool>,
    /// Whether addresses are learned from its traffic.
    pub learning: Option<bool>,
    /// Whether frames for unknown addresses are sent to it.
    pub unicast_flood: Option<bool>,
}

/// What to do when the kernel has no bridges.
const NO_BRIDGE: &str = "Load the kernel's module bridge (CONFIG_BRIDGE): `modprobe bridge`, or \
    install the distribution's full kernel.";

/// What to do when bridges can't filter VLANs.
pub(super) const NO_VLAN_FILTERING: &str = "VLAN keys need a kernel built with \
    CONFIG_BRIDGE_VLAN_FILTERING and CONFIG_VLAN_8021Q, as those of the distributions are.";

/// What to do when bridges can't call netfilter.
const NO_NETFILTER: &str =
    "Load the kernel's module br_netfilter (CONFIG_BRIDGE_NETFILTER): `modprobe br_netfilter`.";

impl Rtnl {
    /// Creates a bridge and returns it.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when a link of that name is there already, of whatever kind.
    /// [`HostError::Unsupported`] when the kernel has no bridges, or when VLAN filtering or
    /// netfilter calls were asked for and it was built without them; then nothing is left behind.
    pub fn create_bridge(&self, new: &NewBridge<'_>) -> Result<Link, HostError> {
        let operation = || format!("create bridge {}", new.name);
        let change = BridgeChange {
            vlan_filtering: new.vlan_filtering.then_some(true),
            vlan_default_pvid: new.vlan_default_pvid,
            multicast_snooping: new.multicast_snooping,
            nf_call_iptables: new.nf_call_iptables.then_some(true),
            nf_call_ip6tables: new.nf_call_ip6tables.then_some(true),
        };
        let bridge = LinkMessageBuilder::<LinkBridge>::new(new.name)
            .with(new.mac, |bridge, mac| bridge.address(mac.to_vec()))
            .with(new.mtu, LinkMessageBuilder::mtu)
            .when(new.up, LinkMessageBuilder::up);
        let link = self
            .new_link(new.name, change.append_to(bridge).build())
            .map_err(|error| change.refused(error, operation()))?;
        if let Err(error) = change.verify(&link, operation) {
            self.delete_link(link.index)?;
            return Err(error);
        }
        Ok(link)
    }

    /// Changes a bridge's own settings.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel was built without what was asked for.
    pub fn set_bridge(&self, index: u32, change: &BridgeChange) -> Result<(), HostError> {
        let operation = || format!("change settings of bridge {}", self.describe(index));
        let bridge = LinkMessageBuilder::new_with_info_kind(InfoKind::Bridge).index(index);
        let request = RouteNetlinkMessage::NewLink(change.append_to(bridge).build());
        self.ask(request, 0)
            .map_err(|error| change.refused(error, operation()))?;
        // A kernel without the feature takes no notice of the attribute.
        let link = self
            .link_by_index(index)?
            .ok_or_else(|| HostError::LinkMissing {
                operation: operation(),
            })?;
        change.verify(&link, operation)
    }

    /// Changes a bridge port's settings. [`Rtnl::set_link`] can do it together with other changes.
    pub fn set_bridge_port(&self, index: u32, change: &PortChange) -> Result<(), HostError> {
        self.set_link(
            index,
            &LinkChange {
                port: Some(*change),
                ..LinkChange::default()
            },
        )
    }
}

impl PortChange {
    pub(super) fn settings(self) -> InfoPortData {
        let settings = [
            self.hairpin.map(InfoBridgePort::HairpinMode),
            self.isolated.map(InfoBridgePort::Isolated),
            self.locked.map(InfoBridgePort::Locked),
            self.learning.map(InfoBridgePort::Learning),
            self.unicast_flood.map(InfoBridgePort::UnicastFlood),
        ];
        InfoPortData::BridgePort(settings.into_iter().flatten().collect())
    }
}

impl BridgeChange {
    fn append_to(&self, bridge: LinkMessageBuilder<LinkBridge>) -> LinkMessageBuilder<LinkBridge> {
        type Builder = LinkMessageBuilder<LinkBridge>;
        bridge
            .with(self.vlan_default_pvid, Builder::vlan_default_pvid)
            .with(self.vlan_filtering, Builder::vlan_filtering)
            .with(self.multicast_snooping, Builder::mcast_snooping)
            .with(self.nf_call_iptables, Builder::nf_call_iptables)
            .with(self.nf_call_ip6tables, Builder::nf_call_ip6tables)
    }

    /// The error of a refused change. The kernel has one number for all that it was built without.
    fn refused(&self, error: NetlinkError, operation: String) -> HostError {
        let asks_for_vlans = self.vlan_filtering.is_some() || self.vlan_default_pvid.is_some();
        let remedy = if asks_for_vlans && !error.is_unknown_kind() {
            NO_VLAN_FILTERING
        } else {
            NO_BRIDGE
        };
        error.during_or_unsupported(operation, remedy)
    }

    /// Whether the bridge now is as it was to become.
    fn verify(&self, link: &Link, operation: impl Fn() -> String) -> Result<(), HostError> {
        let is = link.bridge.unwrap_or_default();
        let differs = |wanted: Option<bool>, is: Option<bool>| wanted.is_some() && wanted != is;
        let unsupported = |remedy| HostError::Unsupported {
            operation: operation(),
            remedy,
        };
        if differs(self.vlan_filtering, is.vlan_filtering)
            || (self.vlan_default_pvid.is_some() && self.vlan_default_pvid != is.vlan_default_pvid)
        {
            return Err(unsupported(NO_VLAN_FILTERING));
        }
        if differs(self.nf_call_iptables, is.nf_call_iptables)
            || differs(self.nf_call_ip6tables, is.nf_call_ip6tables)
        {
            return Err(unsupported(NO_NETFILTER));
        }
        Ok(())
    }
}

impl From<Vec<InfoBridge>> for BridgeInfo {
    fn from(settings: Vec<InfoBridge>) -> Self {
        let mut info = Self::default();
        for setting in settings {
            match setting {
                InfoBridge::VlanFiltering(on) => info.vlan_filtering = Some(on),
                InfoBridge::VlanDefaultPvid(vid) => info.vlan_default_pvid = Some(vid),
                InfoBridge::NfCallIpTables(on) => info.nf_call_iptables = Some(on),
                InfoBridge::NfCallIp6Tables(on) => info.nf_call_ip6tables = Some(on),
                InfoBridge::StpState(state) => info.stp = state != BridgeStpState::Disabled,
                _ => {}
            }
        }
        info
    }
}

impl From<Vec<InfoBridgePort>> for PortInfo {
    fn from(settings: Vec<InfoBridgePort>) -> Self {
        let mut info = Self::default();
        for setting in settings {
            match setting {
                InfoBridgePort::State(state) => info.state = PortState::from(state),
                InfoBridgePort::HairpinMode(on) => info.hairpin = on,
                InfoBridgePort::Isolated(on) => info.isolated = on,
                InfoBridgePort::Locked(on) => info.locked = on,
                InfoBridgePort::Learning(on) => info.learning = on,
                InfoBridgePort::UnicastFlood(on) => info.unicast_flood = on,
                _ => {}
            }
        }
        info
    }
}

impl From<BridgePortState> for PortState {
    fn from(state: BridgePortState) -> Self {
        match state {
            BridgePortState::Listening => Self::Listening,
            BridgePortState::Learning => Self::Learning,
            BridgePortState::Forwarding => Self::Forwarding,
            BridgePortState::Blocking => Self::Blocking,
            _ => Self::Disabled,
        }
    }
}
