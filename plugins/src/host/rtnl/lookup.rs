//! Asking the kernel where it would send a packet.

use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::super::error::HostError;
use super::exchange::Rtnl;

impl Rtnl {
    /// The index of the link by which a packet of this host's own to `address` would leave, by all rules and
    /// tables. None when there is no route.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn link_towards(&self, address: IpAddr) -> Result<Option<u32>, HostError> {
        let mut message = RouteMessage::default();
        let (family, length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        let route = match self.get(RouteNetlinkMessage::GetRoute(message)) {
            Ok(RouteNetlinkMessage::NewRoute(route)) => route,
            Ok(_) => return Ok(None),
            Err(error) => {
                return match error.errno() {
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ESRCH) => Ok(None),
                    _ => Err(error.during(format!("look up the route to {address}"))),
                };
            }
        };
        Ok(route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(link) => Some(*link),
                _ => None,
            }))
    }
}
