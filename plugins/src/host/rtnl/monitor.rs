//! Waiting for the kernel, by its notifications instead of by sleeping.
//!
//! Each wait subscribes before it looks, so that nothing can happen unseen between the two, and is
//! bounded.

use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use nix::libc::{RTNLGRP_IPV6_IFADDR, RTNLGRP_LINK};

use super::super::error::HostError;
use super::bridge::{PortInfo, PortState};
use super::exchange::Rtnl;
use super::link::Link;

impl Rtnl {
    /// Waits until a bridge port forwards frames, which takes a carrier: both ends of a veth must
    /// be up. Returns the link as it is then. A link that is no port is waited for until it is
    /// operational.
    ///
    /// A port can be in the forwarding state for a moment before its lack of a carrier is noticed,
    /// and a link with a carrier drops what is sent until that is noticed (net/core/link_watch.c),
    /// so a port must be operational too.
    ///
    /// # Errors
    /// [`HostError::Timeout`]; [`HostError::LinkMissing`] when the link goes away meanwhile.
    pub fn wait_until_forwarding(&self, link: u32, bound: Duration) -> Result<Link, HostError> {
        let operation = || format!("wait until {} forwards", self.describe(link));
        self.wait(RTNLGRP_LINK, link, bound, operation, || {
            let now = self
                .link_by_index(link)?
                .ok_or_else(|| HostError::LinkMissing {
                    operation: operation(),
                })?;
            let in_service = |port: PortInfo| port.state == PortState::Forwarding;
            let ready = now.running && now.port.is_none_or(in_service);
            Ok(ready.then_some(now))
        })
    }

    /// Waits until duplicate address detection is over for every IPv6 address of a link.
    ///
    /// # Errors
    /// [`HostError::DuplicateAddress`] when another host has one of them; [`HostError::Timeout`].
    pub fn wait_for_dad(&self, link: u32, bound: Duration) -> Result<(), HostError> {
        let operation = || {
            format!(
                "wait for duplicate address detection on {}",
                self.describe(link)
            )
        };
        self.wait(RTNLGRP_IPV6_IFADDR, link, bound, operation, || {
            let addresses = self.addresses(link)?;
            if let Some(duplicate) = addresses.iter().find(|address| address.is_duplicate()) {
                return Err(HostError::DuplicateAddress {
                    address: duplicate.net,
                    link: self.describe(link),
                });
            }
            Ok(addresses
                .iter()
                .all(|address| !address.is_tentative())
                .then_some(()))
        })
    }

    /// Looks, and looks again after each notification about the link, until there is something to
    /// return.
    fn wait<T>(
        &self,
        group: u32,
        link: u32,
        bound: Duration,
        operation: impl Fn() -> String,
        look: impl Fn() -> Result<Option<T>, HostError>,
    ) -> Result<T, HostError> {
        // Mostly there is nothing to wait for, and a subscriber is told of every link that others make meanwhile.
        if let Some(found) = look()? {
            return Ok(found);
        }
        let deadline = Instant::now() + bound;
        let failed = |source| HostError::System {
            operation: operation(),
            source,
        };
        let subscription = self.subscribe(group).map_err(failed)?;
        loop {
            match look() {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                // The reply was lost among notifications, and what they say with it.
                Err(HostError::Protocol { .. }) if Instant::now() < deadline => continue,
                Err(error) => return Err(error),
            }
            let notified = subscription
                .wait(deadline, |notification| is_about(notification, link))
                .map_err(|error| error.during(operation()))?;
            if !notified {
                return Err(HostError::Timeout {
                    operation: operation(),
                    waited: bound,
                });
            }
        }
    }
}

/// Whether a notification may mean a change of this link.
fn is_about(notification: &RouteNetlinkMessage, link: u32) -> bool {
    match notification {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
            message.header.index == link
        }
        RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
            message.header.index == link
        }
        _ => false,
    }
}
