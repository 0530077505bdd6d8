//! Being told when routes, addresses or links of the host change.

use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkFlags;
use nix::libc::{
    RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK,
};

use super::super::error::HostError;
use super::exchange::Rtnl;

/// What may change which routes there are. IPv4 does not tell of routes that go because a link or an address does
/// (`fib_table_flush` in net/ipv4/fib_trie.c), so links and addresses are listened to as well.
const GROUPS: [u32; 5] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
];

/// A socket that listens to changes of routes, addresses and links in the namespace that it was opened in.
#[derive(Debug)]
pub struct RouteWatch {
    rtnl: Rtnl,
}

impl RouteWatch {
    /// Listens from now on, in the calling thread's namespace.
    ///
    /// # Errors
    /// [`HostError::System`] when the socket can't be had.
    pub fn begin() -> Result<Self, HostError> {
        let rtnl = Rtnl::new()?;
        for group in GROUPS {
            rtnl.listen(group).map_err(|source| HostError::System {
                operation: "listen to changes of routes".into(),
                source,
            })?;
        }
        Ok(Self { rtnl })
    }

    /// Waits for a change; true also where notifications were lost, because they may have told of one. False when there
    /// is none in time.
    ///
    /// # Errors
    /// [`HostError::System`].
    pub fn wait(&self, bound: Duration) -> Result<bool, HostError> {
        self.rtnl
            .next_notification(Instant::now() + bound, is_a_change)
            .map_err(|error| error.during("wait for changes of routes"))
    }
}

/// A link's counters, MTU or alias say nothing about routes; that it goes up, down or away does.
fn is_a_change(notification: &RouteNetlinkMessage) -> bool {
    match notification {
        RouteNetlinkMessage::NewLink(link) => link.header.change_mask.contains(LinkFlags::Up),
        _ => true,
    }
}
