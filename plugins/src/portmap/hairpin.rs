//! Letting a container reach itself by a port of the host where it hangs on a bridge.
//!
//! Where bridged packets go through the rules of the IP layer (br_netfilter), a packet from a container to its own
//! mapped port is translated before the bridge decides where it goes, and is then bridged to the port it came in by
//! (`br_nf_pre_routing_finish`). A bridge does that only for ports in hairpin mode. Without br_netfilter the packet is
//! routed and nothing is needed.

use cni_conf::result::CniResult;

use crate::attach::bridge_netfilter;
use crate::host::rtnl::PortChange;
use crate::host::{HostError, Rtnl};

/// Sets hairpin mode on the ports of bridges among the host's interfaces of an attachment, where it is needed. It goes
/// with the port.
pub(super) fn ensure(attached: &CniResult) -> Result<(), HostError> {
    let host = Rtnl::new()?;
    let interfaces = attached
        .interfaces
        .iter()
        .filter(|interface| interface.sandbox.is_empty());
    for interface in interfaces {
        let Some(link) = host.link_by_name(&interface.name)? else {
            continue;
        };
        let (Some(port), Some(master)) = (link.port, link.master) else {
            continue;
        };
        if port.hairpin {
            continue;
        }
        let bridge = host.link_by_index(master)?;
        if bridge.is_some_and(|bridge| bridge_netfilter::is_on(&bridge)) {
            let change = PortChange {
                hairpin: Some(true),
                ..PortChange::default()
            };
            host.set_bridge_port(link.index, &change)?;
        }
    }
    Ok(())
}
