//! IP addresses of links.

use std::net::Ipv4Addr;

use ipnet::IpNet;
pub use netlink_packet_route::address::{AddressFlags, AddressScope};

use super::super::error::HostError;
use super::exchange::Rtnl;

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address and the length of its prefix.
    pub net: IpNet,
    /// How far it is valid; `Link` for fe80::/10.
    pub scope: AddressScope,
    /// The kernel's flags. `Permanent` is missing from those that came from router advertisements or DHCP.
    pub flags: AddressFlags,
    /// The broadcast address, IPv4 only.
    pub broadcast: Option<Ipv4Addr>,
}

impl Address {
    /// Whether duplicate address detection is still under way: the address can't be used yet.
    pub fn is_tentative(&self) -> bool {
        self.flags.contains(AddressFlags::Tentative)
            && !self.flags.contains(AddressFlags::Optimistic)
    }

    /// Whether another host was found to have the address.
    pub fn is_duplicate(&self) -> bool {
        self.flags.contains(AddressFlags::Dadfailed)
    }
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// IPv6: no duplicate address detection, the address can be used at once.
    pub nodad: bool,
    /// Do not add the route to the prefix.
    pub noprefixroute: bool,
}

impl Rtnl {
    /// The addresses of a link, both families. The kernel does the filtering.
    pub fn addresses(&self, link: u32) -> Result<Vec<Address>, HostError> {
        unimplemented!("{link}")
    }

    /// Adds an address. An IPv4 one gets the last address of its prefix as its broadcast address, as with
    /// `ip address add … brd +`, unless the prefix is a /31 or /32.
    ///
    /// # Errors
    /// [`HostError::is_exists`] when the link has the address already.
    pub fn add_address(
        &self,
        link: u32,
        net: IpNet,
        options: AddressOptions,
    ) -> Result<(), HostError> {
        unimplemented!("{link}{net}{options:?}")
    }

    /// Removes an address. Returns false when the link does not have it.
    pub fn delete_address(&self, link: u32, net: IpNet) -> Result<bool, HostError> {
        unimplemented!("{link}{net}")
    }
}
