//! Waiting for the kernel, by its notifications instead of by sleeping.
//!
//! Each wait subscribes before it looks, so that nothing can happen unseen between the two, and is bounded.

use std::time::Duration;

use super::super::error::HostError;
use super::exchange::Rtnl;
use super::link::Link;

impl Rtnl {
    /// Waits until a bridge port forwards frames, which takes a carrier: both ends of a veth must be up.
    /// Returns the link as it is then. A link that is no port is waited for until it is operational.
    ///
    /// # Errors
    /// [`HostError::Timeout`]; [`HostError::LinkMissing`] when the link goes away meanwhile.
    pub fn wait_until_forwarding(&self, link: u32, bound: Duration) -> Result<Link, HostError> {
        unimplemented!("{link}{bound:?}")
    }

    /// Waits until duplicate address detection is over for every IPv6 address of a link.
    ///
    /// # Errors
    /// [`HostError::DuplicateAddress`] when another host has one of them; [`HostError::Timeout`].
    pub fn wait_for_dad(&self, link: u32, bound: Duration) -> Result<(), HostError> {
        unimplemented!("{link}{bound:?}")
    }
}
