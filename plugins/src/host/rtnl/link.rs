//! Links of every kind: finding, changing and deleting them.

use super::super::error::HostError;
use super::super::netns::NetNs;
use super::bridge::{BridgeInfo, PortInfo};
use super::exchange::Rtnl;

/// A hardware address, in network order.
pub type Mac = [u8; 6];

/// The longest name of an interface, in bytes: `IFNAMSIZ` less the terminating zero.
pub const NAME_MAX: usize = 15;

/// The longest alias of an interface, in bytes: `IFALIASZ` less the terminating zero.
pub const ALIAS_MAX: usize = 255;

/// What the kernel tells about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The number by which everything else refers to it, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The kind it was created as, such as `veth` or `bridge`; none for hardware and `lo`.
    pub kind: Option<String>,
    /// The hardware address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it is operational: up, with a carrier, and not dormant (`IF_OPER_UP`). False for links
    /// whose driver does not tell, `lo` among them.
    pub running: bool,
    /// Whether it was asked to receive frames for all hardware addresses (`IFF_PROMISC`).
    pub promisc: bool,
    /// Whether it was asked to receive all multicast frames (`IFF_ALLMULTI`).
    pub allmulti: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// The index of the bridge (or bond, …) it is a port of.
    pub master: Option<u32>,
    /// Free text that someone attached to it (`ip link set … alias`).
    pub alias: Option<String>,
    /// The index of the link it stands on: a veth's peer, a VLAN's parent. It is an index in the
    /// namespace that `link_netnsid` tells of, if that is set.
    pub link: Option<u32>,
    /// The namespace of `link`, as the number that this namespace knows it by, if it is another one.
    pub link_netnsid: Option<i32>,
    /// The length of its transmit queue in packets.
    pub tx_queue_len: u32,
    /// Its state as a port, if it is a bridge's.
    pub port: Option<PortInfo>,
    /// Its settings as a bridge, if it is one.
    pub bridge: Option<BridgeInfo>,
    /// The VLAN's number, if it is a VLAN device.
    pub vlan_id: Option<u16>,
}

/// What to change about a link. `None` leaves a property alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// Bring it up or down.
    pub up: Option<bool>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// Receive frames for all hardware addresses.
    pub promisc: Option<bool>,
    /// Receive all multicast frames.
    pub allmulti: Option<bool>,
    /// The length of the transmit queue in packets.
    pub tx_queue_len: Option<u32>,
    /// The free text attached to it, up to 255 bytes; an empty one removes it.
    pub alias: Option<&'a str>,
    /// A new name. Most kernels want the link to be down for it.
    pub name: Option<&'a str>,
    /// The index of the bridge to make it a port of; 0 releases it from the one it is on.
    pub master: Option<u32>,
    /// Move it into this namespace, where it keeps its index if that is free there.
    pub netns: Option<&'a NetNs>,
}

impl Rtnl {
    /// The link of this name, or none. A name longer than 15 bytes is no link's.
    pub fn link_by_name(&self, name: &str) -> Result<Option<Link>, HostError> {
        unimplemented!("{name}")
    }

    /// The link with this index, or none.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>, HostError> {
        unimplemented!("{index}")
    }

    /// All links of the namespace.
    pub fn links(&self) -> Result<Vec<Link>, HostError> {
        unimplemented!()
    }

    /// All links of one kind, such as `veth`. The kernel does the filtering.
    pub fn links_of_kind(&self, kind: &str) -> Result<Vec<Link>, HostError> {
        unimplemented!("{kind}")
    }

    /// All links of one kind whose alias begins with `prefix`: how GC finds what this project made.
    pub fn links_with_alias(&self, kind: &str, prefix: &str) -> Result<Vec<Link>, HostError> {
        unimplemented!("{kind}{prefix}")
    }

    /// The ports of a bridge. The kernel does the filtering.
    pub fn bridge_ports(&self, bridge: u32) -> Result<Vec<Link>, HostError> {
        unimplemented!("{bridge}")
    }

    /// Changes a link, everything in one request.
    ///
    /// The kernel applies the changes one by one and stops at the first that fails.
    pub fn set_link(&self, index: u32, change: &LinkChange<'_>) -> Result<(), HostError> {
        unimplemented!("{index}{change:?}")
    }

    /// Deletes a link. Returns false when there was none. The other end of a veth goes with it.
    pub fn delete_link(&self, index: u32) -> Result<bool, HostError> {
        unimplemented!("{index}")
    }

    /// Deletes the link of this name. Returns false when there was none.
    pub fn delete_link_by_name(&self, name: &str) -> Result<bool, HostError> {
        unimplemented!("{name}")
    }
}
