//! Listings of a whole namespace, for who explains it.

use std::net::IpAddr;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::error::HostError;
use super::address::{Address, into_address};
use super::exchange::Rtnl;
use super::link::Mac;

/// What the kernel knows of a neighbour of one of its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's index.
    pub link: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Whether the last attempt to find its hardware address has failed.
    pub failed: bool,
    /// Whether an attempt is being made.
    pub asking: bool,
    /// The hardware address, if it is known.
    pub mac: Option<Mac>,
}

impl Rtnl {
    /// The addresses of all links, both families.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn all_addresses(&self) -> Result<Vec<Address>, HostError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self
            .dump(&request)
            .map_err(|refusal| refusal.during("list addresses"))?;
        Ok(answers.into_iter().filter_map(into_address).collect())
    }

    /// The neighbours of all links, both families.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&self) -> Result<Vec<Neighbour>, HostError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            let answers = self
                .dump(&RouteNetlinkMessage::GetNeighbour(message))
                .map_err(|refusal| refusal.during("list neighbours"))?;
            found.extend(answers.into_iter().filter_map(into_neighbour));
        }
        Ok(found)
    }
}

pub(super) fn into_neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    let address = message.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    });
    Some(Neighbour {
        mac,
        link: message.header.ifindex,
        address,
        failed: message.header.state == NeighbourState::Failed,
        asking: message.header.state == NeighbourState::Incomplete,
    })
}
