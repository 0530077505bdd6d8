//! What the alias of a bridge says: that it was made here, and whether MAC addresses were asked for on it.
//!
//! On a bridge that was made here each container has the MAC address that belongs to its IP address, until somebody asks
//! for another one. As long as nobody did, nobody can hold a wrong one for an address that is used again, and the news of
//! it, which goes to every container on the bridge, is spared. A bridge that others made has no such label: it had other
//! containers before, or leads to a LAN.

use crate::host::rtnl::{Link, LinkChange};
use crate::host::{HostError, Rtnl};

/// A bridge that was made here.
pub const MADE: &str = "trestle: bridge";

/// The same after somebody asked for a MAC address.
const ASKED_FOR: &str = "trestle: bridge, MAC addresses were asked for";

/// True if the bridge was made here, with an address of its own.
pub fn is_made_here(bridge: &Link) -> bool {
    matches!(bridge.alias.as_deref(), Some(MADE | ASKED_FOR))
}

/// True if every container that the bridge ever had has, or had, the MAC address that belongs to its IP address.
pub fn derives_every_mac(bridge: &Link) -> bool {
    bridge.alias.as_deref() == Some(MADE)
}

/// Notes that a container of the bridge has another MAC address.
///
/// # Errors
/// [`HostError::Netlink`].
pub fn note_other_mac(host: &Rtnl, bridge: &Link) -> Result<(), HostError> {
    if !derives_every_mac(bridge) {
        return Ok(());
    }
    let change = LinkChange {
        alias: Some(ASKED_FOR),
        ..LinkChange::default()
    };
    host.set_link(bridge.index, &change)
}
