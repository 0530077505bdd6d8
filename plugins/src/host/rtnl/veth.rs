//! Pairs of virtual Ethernet links.
//!
//! One request makes the whole pair: the peer is born in its own namespace with its name, and the host's
//! end comes named, enslaved and up. The peer can't be brought up by that request (the kernel answers
//! `ENOTCONN`, because its other end is not there yet), and is brought up by [`Rtnl::set_link`] in its namespace.

use super::super::error::HostError;
use super::super::netns::NetNs;
use super::exchange::Rtnl;
use super::link::{Link, Mac};

/// One end of a pair to create.
#[derive(Clone, Copy, Debug, Default)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address; random if none. One that is given is left alone by udev.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; 1500 if none.
    pub mtu: Option<u32>,
}

/// A pair to create.
#[derive(Clone, Copy, Debug)]
pub struct NewVeth<'a> {
    /// The end in the namespace of the [`Rtnl`].
    pub host: VethEnd<'a>,
    /// The alias of the host's end, up to 255 bytes.
    pub alias: Option<&'a str>,
    /// The index of the bridge that the host's end becomes a port of; none for a routed pair.
    pub master: Option<u32>,
    /// Whether the host's end is up from the beginning. To set sysctls of its own before that, create it down.
    pub up: bool,
    /// The other end.
    pub peer: VethEnd<'a>,
    /// The namespace of the other end.
    pub peer_netns: &'a NetNs,
}

/// A pair that was created.
#[derive(Clone, Debug)]
pub struct VethPair {
    /// The host's end.
    pub host: Link,
    /// The other end's index in its own namespace.
    pub peer_index: u32,
}

impl Rtnl {
    /// Creates a pair, all or nothing.
    ///
    /// # Errors
    /// [`HostError::is_exists`] when either name is taken in its namespace.
    pub fn create_veth(&self, new: &NewVeth<'_>) -> Result<VethPair, HostError> {
        unimplemented!("{new:?}")
    }
}
