//! The socket: sending a request and taking in the answers.

use super::super::error::HostError;
use super::super::netns::NetNs;

/// A route netlink socket of one network namespace.
///
/// Handles are cheap: one socket each, one event loop for all handles of a thread. A handle stays on
/// the thread that made it.
pub struct Rtnl {}

impl Rtnl {
    /// A socket in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`HostError::System`] when there are no more descriptors or memory.
    pub fn new() -> Result<Self, HostError> {
        unimplemented!()
    }

    /// A socket in another namespace. The thread enters it only to open the socket.
    ///
    /// # Errors
    /// As [`Rtnl::new`]; also when the namespace can't be entered.
    pub fn in_netns(netns: &NetNs) -> Result<Self, HostError> {
        netns.enter(Self::new)?
    }
}
