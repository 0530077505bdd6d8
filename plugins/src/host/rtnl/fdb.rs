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

impl Rtnl {
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
