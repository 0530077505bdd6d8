//! The VLANs that a filtering bridge lets through its ports and to itself.

use std::ops::RangeInclusive;

use super::super::error::HostError;
use super::exchange::Rtnl;

/// Consecutive VLANs of one port, or of the bridge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeVlan {
    /// The VLANs' numbers, 1 to 4094.
    pub vids: RangeInclusive<u16>,
    /// Untagged frames that come in belong to this VLAN. Only for a single one.
    pub pvid: bool,
    /// Frames of these VLANs go out without a tag.
    pub untagged: bool,
}

/// Whose VLANs are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanOwner {
    /// The port with this index.
    Port(u32),
    /// The bridge with this index, as an interface of the host.
    Bridge(u32),
}

impl Rtnl {
    /// Lets VLANs through; what is there already stays. One request for all of them.
    pub fn add_bridge_vlans(
        &self,
        owner: VlanOwner,
        vlans: &[BridgeVlan],
    ) -> Result<(), HostError> {
        unimplemented!("{owner:?}{vlans:?}")
    }

    /// Takes VLANs away. One request for all of them.
    pub fn delete_bridge_vlans(
        &self,
        owner: VlanOwner,
        vids: &[RangeInclusive<u16>],
    ) -> Result<(), HostError> {
        unimplemented!("{owner:?}{vids:?}")
    }

    /// The VLANs of one port or bridge, in ascending order, consecutive ones of a kind in one range.
    pub fn bridge_vlans(&self, index: u32) -> Result<Vec<BridgeVlan>, HostError> {
        unimplemented!("{index}")
    }
}
