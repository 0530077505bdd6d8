//! The socket: requests in the packet crate's types over the shared transport.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::{NLM_F_ACK, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::super::error::HostError;
use super::super::netlink::{NetlinkError, Transport};
use super::super::netns::NetNs;

/// A route netlink socket of one network namespace.
pub struct Rtnl {
    transport: Transport,
}

impl std::fmt::Debug for Rtnl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rtnl").finish_non_exhaustive()
    }
}

/// For calls that are no messages.
impl AsFd for Rtnl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

impl Rtnl {
    /// A socket in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`HostError::System`] when there are no more descriptors or memory.
    pub fn new() -> Result<Self, HostError> {
        let transport = Transport::open(NETLINK_ROUTE).map_err(|source| HostError::System {
            operation: "open a route netlink socket".to_owned(),
            source,
        })?;
        Ok(Self { transport })
    }

    /// A socket in another namespace. The thread enters it only to open the socket.
    ///
    /// # Errors
    /// As [`Rtnl::new`]; also when the namespace can't be entered.
    pub fn in_netns(netns: &NetNs) -> Result<Self, HostError> {
        netns.enter(Self::new)?
    }

    /// Makes a request that is acknowledged, and returns the messages that came before the
    /// acknowledgement.
    pub(super) fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut requests = self.transport.requests();
        requests.push(request, NLM_F_ACK | flags);
        let mut found = Vec::new();
        self.transport.transact(&requests, |header, payload| {
            found.extend(parse(header, payload));
        })?;
        Ok(found)
    }

    /// Makes several requests, in one message. The kernel carries them out in their order, each whether those before
    /// it failed or not. The error is the first one's, with the request's place.
    pub(super) fn ask_all(&self, all: Vec<(RouteNetlinkMessage, u16)>) -> Result<(), NetlinkError> {
        let mut requests = self.transport.requests();
        let count = all.len();
        for (number, (request, flags)) in (1..).zip(all) {
            let ack = if number == count { NLM_F_ACK } else { 0 };
            requests.push(request, flags | ack);
        }
        self.transport.transact(&requests, |_, _| {})
    }

    /// Asks for one object, which is the reply.
    pub(super) fn get(
        &self,
        request: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let mut requests = self.transport.requests();
        requests.push(request, 0);
        self.transport
            .get(&requests, parse)?
            .ok_or(NetlinkError::Malformed)
    }

    /// Asks for a list. Begins anew when the kernel says that the list changed while it was made.
    pub(super) fn dump(
        &self,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.transport.filter_strictly();
        self.transport.dump(request, |found, header, payload| {
            found.extend(parse(header, payload));
        })
    }

    /// Subscribes this socket to a multicast group, `RTNLGRP_*`, until the guard is dropped. Meanwhile the reply to a
    /// request may get lost: [`NetlinkError::Unanswered`].
    pub(super) fn subscribe(&self, group: u32) -> std::io::Result<Subscription<'_>> {
        let subscription = Subscription { rtnl: self, group };
        self.transport.subscribe(group)?;
        Ok(subscription)
    }

    /// Subscribes this socket to a multicast group for good. It is of no use for requests then.
    pub(super) fn listen(&self, group: u32) -> std::io::Result<()> {
        self.transport.subscribe(group)
    }

    /// Waits for a notification that `is_wanted`, or one that may have been. False when there is none in time.
    pub(super) fn next_notification(
        &self,
        deadline: Instant,
        is_wanted: impl Fn(&RouteNetlinkMessage) -> bool,
    ) -> Result<bool, NetlinkError> {
        self.transport
            .wait_for_notification(deadline, |header, payload| {
                parse(header, payload).is_none_or(|message| is_wanted(&message))
            })
    }
}

/// A subscription to a multicast group.
pub(super) struct Subscription<'a> {
    rtnl: &'a Rtnl,
    group: u32,
}

impl Subscription<'_> {
    /// Waits for a notification that `is_wanted`, or one that may have been. False when there is none in time.
    pub(super) fn wait(
        &self,
        deadline: Instant,
        is_wanted: impl Fn(&RouteNetlinkMessage) -> bool,
    ) -> Result<bool, NetlinkError> {
        self.rtnl.next_notification(deadline, is_wanted)
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.rtnl.transport.unsubscribe(self.group);
    }
}

/// What the packet crate makes of a message; none for one it can't read, which is passed over in a listing.
fn parse(header: &NetlinkHeader, payload: &[u8]) -> Option<RouteNetlinkMessage> {
    RouteNetlinkMessage::deserialize(header, payload).ok()
}
