//! Pairs of virtual Ethernet links.
//!
//! One request makes the whole pair: the peer is born in its own namespace with its name, and the
//! host's end comes named, enslaved and up. The peer can't be brought up by that request (the
//! kernel answers `ENOTCONN`, because its other end is not there yet), and is brought up by
//! [`Rtnl::set_link`] in its namespace. Nor does the kernel look at an alias in it
//! (net/core/rtnetlink.c, `rtnl_create_link`).

use std::os::fd::AsRawFd;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::super::netns::NetNs;
use super::build::With;
use super::exchange::Rtnl;
use super::link::{Link, Mac};
use super::link_change::LinkChange;

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
    /// The alias of the host's end, up to 255 bytes. It costs a second request, which also brings
    /// the link up; a caller that has to follow up with [`Rtnl::set_link`] anyway does better to
    /// give it there.
    pub alias: Option<&'a str>,
    /// The index of the bridge that the host's end becomes a port of; none for a routed pair.
    pub master: Option<u32>,
    /// Whether the host's end is up from the beginning. To set sysctls of its own before that,
    /// create it down.
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

/// What to do when the kernel has no veth.
const NO_VETH: &str = "Load the kernel's module veth (CONFIG_VETH): `modprobe veth`, or install \
    the distribution's full kernel.";

impl Rtnl {
    /// Creates a pair, all or nothing.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when either name is taken in its namespace; the message says which.
    pub fn create_veth(&self, new: &NewVeth<'_>) -> Result<VethPair, HostError> {
        let mut host = self
            .new_link(new.host.name, new.message())
            .map_err(|error| self.veth_error(error, new))?;
        // The kernel's answer is from before the link became a port.
        host.master = new.master;
        if new.alias.is_some() {
            self.finish_veth(new, &mut host)?;
        }
        let peer_index = host.link.ok_or_else(|| HostError::Protocol {
            operation: format!("create veth {}", new.host.name),
            problem: "the kernel did not tell the peer's index",
        })?;
        Ok(VethPair { host, peer_index })
    }

    /// Attaches the alias, and brings the link up only then: an operational link tells whose it is.
    fn finish_veth(&self, new: &NewVeth<'_>, host: &mut Link) -> Result<(), HostError> {
        let up = new.up.then_some(true);
        let change = LinkChange {
            alias: new.alias,
            up,
            ..LinkChange::default()
        };
        if let Err(error) = self.set_link(host.index, &change) {
            self.delete_link(host.index)?;
            return Err(error);
        }
        host.alias = new.alias.map(str::to_owned);
        host.up = new.up;
        Ok(())
    }

    /// The error of a pair that was not created. The kernel does not say which of the names is
    /// taken.
    fn veth_error(&self, error: NetlinkError, new: &NewVeth<'_>) -> HostError {
        let host = format!("create veth {}", new.host.name);
        let netns = new.peer_netns.path().display();
        if error.errno() != Some(Errno::EEXIST) {
            let operation = format!("{host} with peer {} in {netns}", new.peer.name);
            return error.during_or_unsupported(operation, NO_VETH);
        }
        match self.link_by_name(new.host.name) {
            Ok(Some(_)) => error.during(host),
            _ => error.during(format!("create interface {} in {netns}", new.peer.name)),
        }
    }
}

impl NewVeth<'_> {
    fn message(&self) -> LinkMessage {
        let peer = LinkMessageBuilder::<LinkUnspec>::new();
        let peer = self.peer.append_to(peer);
        let peer = peer.setns_by_fd(self.peer_netns.fd().as_raw_fd()).build();
        // LinkVeth::new would give the peer a name and nothing else.
        let host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
        self.host
            .append_to(host)
            .with(self.master, LinkMessageBuilder::controller)
            .when(self.up && self.alias.is_none(), LinkMessageBuilder::up)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build()
    }
}

impl VethEnd<'_> {
    fn append_to<T>(&self, link: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        link.name(self.name)
            .with(self.mac, |link, mac| link.address(mac.to_vec()))
            .with(self.mtu, LinkMessageBuilder::mtu)
    }
}
