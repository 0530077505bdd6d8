//! VLAN devices.

use super::super::error::HostError;
use super::exchange::Rtnl;
use super::link::{Link, Mac};

/// A VLAN device (802.1Q) to create.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewVlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The index of the link it stands on.
    pub parent: u32,
    /// The VLAN's number, 1 to 4094.
    pub vid: u16,
    /// Its hardware address; the parent's if none.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; the parent's if none.
    pub mtu: Option<u32>,
    /// Whether it is up from the beginning.
    pub up: bool,
}

impl Rtnl {
    /// Creates a VLAN device and returns it.
    ///
    /// # Errors
    /// [`HostError::is_exists`]; [`HostError::Unsupported`] when the kernel has no VLANs.
    pub fn create_vlan(&self, new: &NewVlan<'_>) -> Result<Link, HostError> {
        unimplemented!("{new:?}")
    }
}
