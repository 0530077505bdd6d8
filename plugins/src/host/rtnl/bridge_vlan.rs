//! The VLANs that a filtering bridge lets through its ports and to itself.

use std::ops::RangeInclusive;

use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::bridge::NO_VLAN_FILTERING;
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
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel's bridges don't filter VLANs.
    pub fn add_bridge_vlans(
        &self,
        owner: VlanOwner,
        vlans: &[BridgeVlan],
    ) -> Result<(), HostError> {
        self.ask(RouteNetlinkMessage::SetLink(owner.message(vlans)), 0)
            .map_err(|error| self.vlan_error(error, owner, "let through", vlans))?;
        Ok(())
    }

    /// Takes VLANs away. One request for all of them. Those that are not there are no error.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel's bridges don't filter VLANs.
    pub fn delete_bridge_vlans(
        &self,
        owner: VlanOwner,
        vids: &[RangeInclusive<u16>],
    ) -> Result<(), HostError> {
        let plain = |vids: &RangeInclusive<u16>| BridgeVlan {
            vids: vids.clone(),
            pvid: false,
            untagged: false,
        };
        let vlans: Vec<_> = vids.iter().map(plain).collect();
        self.ask(RouteNetlinkMessage::DelLink(owner.message(&vlans)), 0)
            .map_err(|error| self.vlan_error(error, owner, "take away", &vlans))?;
        Ok(())
    }

    fn vlan_error(
        &self,
        error: NetlinkError,
        owner: VlanOwner,
        verb: &str,
        vlans: &[BridgeVlan],
    ) -> HostError {
        let ranges: Vec<_> = vlans.iter().map(range_text).collect();
        let owner = match owner {
            VlanOwner::Port(index) => format!("bridge port {}", self.describe(index)),
            VlanOwner::Bridge(index) => format!("bridge {}", self.describe(index)),
        };
        error.during_or_unsupported(
            format!("{verb} VLAN {} on {owner}", ranges.join(", ")),
            NO_VLAN_FILTERING,
        )
    }

    /// The VLANs of one port or bridge, in ascending order, consecutive ones of a kind in one
    /// range.
    ///
    /// The kernel's filter for one link came later than this request, so it lists those of all
    /// bridges.
    pub fn bridge_vlans(&self, index: u32) -> Result<Vec<BridgeVlan>, HostError> {
        let mut request = LinkMessage::default();
        request.header.interface_family = AddressFamily::Bridge;
        request.attributes.push(LinkAttribute::ExtMask(vec![
            LinkExtentMask::BrvlanCompressed,
        ]));
        let answers = self
            .dump(&RouteNetlinkMessage::GetLink(request))
            .map_err(|error| error.during(format!("list VLANs of {}", self.describe(index))))?;
        let specs = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) if link.header.index == index => Some(link),
            _ => None,
        });
        let mut vlans = Vec::new();
        for attribute in specs.flat_map(|link| link.attributes) {
            if let LinkAttribute::AfSpecBridge(spec) = attribute {
                take_ranges(spec, &mut vlans);
            }
        }
        Ok(vlans)
    }
}

impl VlanOwner {
    fn message(self, vlans: &[BridgeVlan]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        let mut spec = Vec::new();
        match self {
            Self::Port(index) => message.header.index = index,
            Self::Bridge(index) => {
                message.header.index = index;
                // The kernel's BRIDGE_FLAGS_SELF: this link, rather than the bridge it is a port
                // of.
                spec.push(AfSpecBridge::Flags(BridgeFlag::LowerDev));
            }
        }
        spec.extend(vlans.iter().flat_map(BridgeVlan::entries));
        message.attributes.push(LinkAttribute::AfSpecBridge(spec));
        message
    }
}

impl BridgeVlan {
    /// One entry for a single VLAN, two for a range.
    fn entries(&self) -> Vec<AfSpecBridge> {
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, self.pvid);
        flags.set(BridgeVlanInfoFlags::Untagged, self.untagged);
        let entry = |flags, vid| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
        let (first, last) = (*self.vids.start(), *self.vids.end());
        if first == last {
            return vec![entry(flags, first)];
        }
        vec![
            entry(flags | BridgeVlanInfoFlags::RangeBegin, first),
            entry(flags | BridgeVlanInfoFlags::RangeEnd, last),
        ]
    }
}

fn take_ranges(spec: Vec<AfSpecBridge>, vlans: &mut Vec<BridgeVlan>) {
    let mut begin = None;
    for entry in spec {
        let AfSpecBridge::VlanInfo(info) = entry else {
            continue;
        };
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begin = Some(info.vid);
            continue;
        }
        vlans.push(BridgeVlan {
            vids: begin.take().unwrap_or(info.vid)..=info.vid,
            pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
            untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
        });
    }
}

fn range_text(vlan: &BridgeVlan) -> String {
    match (vlan.vids.start(), vlan.vids.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}
