//! VLAN devices.

use rtnetlink::{LinkMessageBuilder, LinkVlan};

use super::super::error::HostError;
use super::build::With;
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

/// What to do when the kernel has no VLANs.
const NO_VLAN: &str = "Load the kernel's module 8021q (CONFIG_VLAN_8021Q): `modprobe 8021q`, or \
    install the distribution's full kernel.";

impl Rtnl {
    /// Creates a VLAN device and returns it.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when the name is taken or the parent has that VLAN already;
    /// [`HostError::Unsupported`] when the kernel has no VLANs.
    pub fn create_vlan(&self, new: &NewVlan<'_>) -> Result<Link, HostError> {
        let message = LinkVlan::new(new.name, new.parent, new.vid)
            .with(new.mac, |vlan, mac| vlan.address(mac.to_vec()))
            .with(new.mtu, LinkMessageBuilder::mtu)
            .when(new.up, LinkMessageBuilder::up)
            .build();
        self.new_link(new.name, message).map_err(|error| {
            let parent = self.describe(new.parent);
            let operation = format!("create VLAN device {} ({} on {parent})", new.name, new.vid);
            error.during_or_unsupported(operation, NO_VLAN)
        })
    }
}
