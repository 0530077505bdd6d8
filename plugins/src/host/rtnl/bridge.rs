//! Bridges and their ports.
//!
//! A bridge made here does not speak the spanning tree protocol, as is the kernel's default; a port then
//! forwards as soon as it has a carrier, whatever `forward_delay` says (net/bridge/br_stp.c).

use super::super::error::HostError;
use super::exchange::Rtnl;
use super::link::{Link, Mac};

/// A bridge to create.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address. One that is given at creation is never changed by the kernel when ports come
    /// and go, nor by udev.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; without one it follows its ports, down to the smallest of theirs.
    pub mtu: Option<u32>,
    /// Whether it is up from the beginning. To set sysctls of its own before that, create it down.
    pub up: bool,
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: bool,
    /// The VLAN of untagged frames on ports that join later; 0 for none. The kernel's default is 1.
    pub vlan_default_pvid: Option<u16>,
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
    /// The VLAN of untagged frames on ports that join later; 0 for none. Settable only while VLAN filtering is off.
    pub vlan_default_pvid: Option<u16>,
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

/// A port's state in the spanning tree. Without the protocol a port is either disabled or forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortState {
    /// No carrier, or taken out of service.
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
    /// Whether addresses are learned from its traffic.
    pub learning: bool,
    /// Whether frames for unknown addresses are sent to it.
    pub unicast_flood: bool,
}

/// What to change about a port. `None` leaves a property alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortChange {
    /// Whether frames may leave by the port they came in by.
    pub hairpin: Option<bool>,
    /// Whether it may not talk to other isolated ports.
    pub isolated: Option<bool>,
    /// Whether addresses are learned from its traffic.
    pub learning: Option<bool>,
    /// Whether frames for unknown addresses are sent to it.
    pub unicast_flood: Option<bool>,
}

impl Rtnl {
    /// Creates a bridge and returns it.
    ///
    /// # Errors
    /// [`HostError::is_exists`] when a link of that name is there already, of whatever kind.
    /// [`HostError::Unsupported`] when the kernel has no bridges, or when VLAN filtering or netfilter
    /// calls were asked for and it was built without them; then nothing is left behind.
    pub fn create_bridge(&self, new: &NewBridge<'_>) -> Result<Link, HostError> {
        unimplemented!("{new:?}")
    }

    /// Changes a bridge's own settings.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel was built without what was asked for.
    pub fn set_bridge(&self, index: u32, change: &BridgeChange) -> Result<(), HostError> {
        unimplemented!("{index}{change:?}")
    }

    /// Changes a bridge port's settings.
    pub fn set_bridge_port(&self, index: u32, change: &PortChange) -> Result<(), HostError> {
        unimplemented!("{index}{change:?}")
    }
}
