//! The forwarding database of bridges.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use nix::errno::Errno;

use super::exchange::Rtnl;
use super::link::Mac;
use crate::host::error::HostError;

/// Where a bridge sends what goes to a hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Out of the port with this index.
    Port(u32),
    /// Up, into this host: the address is the bridge's own, or that of a port.
    Host,
}

impl Rtnl {
    /// Looks an address up in a bridge's forwarding database, in a VLAN where the bridge knows those (Linux 5.0). None if it
    /// is unknown, so that the bridge sends to all ports.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn find_fdb(
        &self,
        bridge: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<Option<Behind>, HostError> {
        let mut request = message(0, mac);
        let attributes = &mut request.attributes;
        attributes.push(NeighbourAttribute::Controller(bridge));
        attributes.extend(vlan.map(NeighbourAttribute::Vlan));
        match self.get(RouteNetlinkMessage::GetNeighbour(request)) {
            Ok(RouteNetlinkMessage::NewNeighbour(entry)) => {
                let (port, state) = (entry.header.ifindex, entry.header.state);
                let own = port == bridge || state == NeighbourState::Permanent;
                Ok(Some(if own {
                    Behind::Host
                } else {
                    Behind::Port(port)
                }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.during(format!(
                "look up a MAC address in the forwarding database of {}",
                self.describe(bridge)
            ))),
        }
    }

    /// Binds an address to a port for as long as both exist, as `bridge fdb replace MAC dev PORT master static` does.
    /// With a locked port, frames from other addresses are dropped (net/bridge/br_input.c).
    pub fn add_static_fdb(&self, port: u32, mac: Mac) -> Result<(), HostError> {
        let mut message = message(port, mac);
        message.header.state = NeighbourState::Noarp;
        self.ask(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map_err(|error| error.during(format!("bind a MAC address to bridge port {port}")))?;
        Ok(())
    }
    /// Takes an address that was bound to a port off it. Returns false if it was not bound.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn delete_fdb(&self, port: u32, mac: Mac) -> Result<bool, HostError> {
        match self.ask(RouteNetlinkMessage::DelNeighbour(message(port, mac)), 0) {
            Ok(_) => Ok(true),
            Err(refusal) if matches!(refusal.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => {
                Ok(false)
            }
            Err(refusal) => {
                Err(refusal.during(format!("take a MAC address off bridge port {port}")))
            }
        }
    }
}

/// An entry of the bridge that the port belongs to.
fn message(port: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.flags = NeighbourFlags::Controller;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}
