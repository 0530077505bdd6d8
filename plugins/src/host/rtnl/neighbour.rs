//! What the host remembers of its neighbours: the MAC addresses of IP addresses.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::exchange::Rtnl;
use super::link::Mac;
use super::whole::{Neighbour, into_neighbour};
use crate::host::error::HostError;

impl Rtnl {
    /// What is known of a neighbour behind a link, asked for alone (Linux 5.0); none if it is unknown.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn neighbour(&self, link: u32, address: IpAddr) -> Result<Option<Neighbour>, HostError> {
        match self.get(RouteNetlinkMessage::GetNeighbour(message(link, address))) {
            Ok(answer) => Ok(into_neighbour(answer)),
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => Ok(None),
            Err(error) => Err(error.during(format!(
                "look up the neighbour {address} of {}",
                self.describe(link)
            ))),
        }
    }

    /// Corrects the MAC address of a neighbour behind a link, if there is an entry for it. Returns false if there is none.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn correct_neighbour(
        &self,
        link: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<bool, HostError> {
        let mut message = message(link, address);
        // As after a gratuitous ARP: asked about again when it is used.
        message.header.state = NeighbourState::Stale;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        match self.ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_REPLACE) {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.errno() == Some(Errno::ENOENT) => Ok(false),
            Err(refusal) => Err(refusal.during(format!(
                "correct the neighbour {address} of {}",
                self.describe(link)
            ))),
        }
    }

    /// Forgets a neighbour behind a link. Returns false if there is no entry for it.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn forget_neighbour(&self, link: u32, address: IpAddr) -> Result<bool, HostError> {
        let message = message(link, address);
        match self.ask(RouteNetlinkMessage::DelNeighbour(message), 0) {
            Ok(_) => Ok(true),
            Err(refusal) if matches!(refusal.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => {
                Ok(false)
            }
            Err(refusal) => Err(refusal.during(format!(
                "forget the neighbour {address} of {}",
                self.describe(link)
            ))),
        }
    }
}

fn message(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = link;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    message
}
