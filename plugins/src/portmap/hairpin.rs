//! Letting a container reach itself by a port of the host where it hangs on a bridge.
//!
//! Where bridged packets go through the rules of the IP layer (br_netfilter), a packet from a container to its own
//! mapped port is translated before the bridge decides where it goes, and is then bridged to the port it came in by
//! (`br_nf_pre_routing_finish`). A bridge does that only for ports in hairpin mode. Without br_netfilter the packet is
//! routed and nothing is needed.

use cni_conf::error::Error;
use cni_conf::result::CniResult;

use crate::attach::{bridge_netfilter, veth};
use crate::host::rtnl::{Link, PortChange};
use crate::host::{HostError, Rtnl};
use crate::owner::Owner;

/// Sets hairpin mode on the host ends of an attachment that are ports of a bridge, where it is needed. It goes with the
/// port.
///
/// Our own host end is found by its alias. Of other plugins' attachments the result names the host's interfaces, of which
/// none counts that is another attachment's by its alias. Nothing that stands in the container's namespace is asked.
pub(super) fn ensure(owner: &Owner, attached: &CniResult) -> Result<(), Error> {
    let host = Rtnl::new()?;
    if let Some(link) = veth::find(&host, owner)? {
        return Ok(set(&host, &link)?);
    }
    let interfaces = attached.interfaces.iter();
    for interface in interfaces.filter(|interface| interface.sandbox.is_empty()) {
        let link = host.link_by_name(&interface.name)?;
        let anothers = |link: &Link| link.alias.as_deref().is_some_and(Owner::alias_is_ours);
        if let Some(link) = link.filter(|link| !anothers(link)) {
            set(&host, &link)?;
        }
    }
    Ok(())
}

fn set(host: &Rtnl, link: &Link) -> Result<(), HostError> {
    let (Some(port), Some(master)) = (link.port, link.master) else {
        return Ok(());
    };
    if port.hairpin {
        return Ok(());
    }
    let bridge = host.link_by_index(master)?;
    if bridge.is_some_and(|bridge| bridge_netfilter::is_on(&bridge)) {
        let change = PortChange {
            hairpin: Some(true),
            ..PortChange::default()
        };
        host.set_bridge_port(link.index, &change)?;
    }
    Ok(())
}
