//! The numbers by which one network namespace knows others.

use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::super::error::HostError;
use super::super::netns::NetNs;
use super::exchange::Rtnl;

impl Rtnl {
    /// The number by which the namespace of this socket knows another one; [`super::Link::link_netnsid`] is such a
    /// number. None where it has none, as for the socket's own. The kernel gives it out, and nobody in the other
    /// namespace has a say in it.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn netns_id(&self, netns: &NetNs) -> Result<Option<i32>, HostError> {
        let failed = || {
            format!(
                "look up the id of network namespace {}",
                netns.path().display()
            )
        };
        let Ok(descriptor) = u32::try_from(netns.fd().as_raw_fd()) else {
            return Ok(None);
        };
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(descriptor));
        let answers = self
            .ask(RouteNetlinkMessage::GetNsId(message), 0)
            .map_err(|error| error.during(failed()))?;
        let ids = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => Some(message.attributes),
            _ => None,
        });
        // NETNSA_NSID_NOT_ASSIGNED is -1.
        Ok(ids.flatten().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) => Some(id).filter(|id| *id >= 0),
            _ => None,
        }))
    }
}
