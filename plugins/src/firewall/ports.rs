//! Isolated ports: frames between containers of one bridge, which no rule of the IP layer sees.
//!
//! The kernel forwards nothing between two bridge ports that are both isolated (`br_skb_isolated`), whatever its
//! addresses. The flag belongs to the port and vanishes with it, so there is nothing to undo.

use cni_conf::error::Error;
use cni_conf::result::CniResult;

use super::wanted::BRIDGE;
use crate::host::Rtnl;
use crate::host::rtnl::{Link, PortChange};

/// Isolates the container's port of the bridge.
pub(super) fn isolate(result: &CniResult) -> Result<(), Error> {
    let host = Rtnl::new()?;
    for port in ports(&host, result)? {
        let change = PortChange {
            isolated: Some(true),
            ..PortChange::default()
        };
        host.set_bridge_port(port.index, &change)?;
    }
    Ok(())
}

/// A sentence for each port that is not isolated.
pub(super) fn check(result: &CniResult) -> Result<Vec<String>, Error> {
    let ports = ports(&Rtnl::new()?, result)?;
    let open = ports
        .into_iter()
        .filter(|link| link.port.as_ref().is_some_and(|port| !port.isolated));
    Ok(open
        .map(|link| format!("the bridge port {} is not isolated", link.name))
        .collect())
}

/// The host's interfaces of a result that are ports of the bridge it begins with.
fn ports(host: &Rtnl, result: &CniResult) -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    for interface in result.interfaces.iter().filter(|i| i.sandbox.is_empty()) {
        links.extend(host.link_by_name(&interface.name)?);
    }
    let bridge = links
        .first()
        .filter(|link| link.kind.as_deref() == Some(BRIDGE))
        .map(|link| link.index);
    links.retain(|link| bridge.is_some() && link.master == bridge);
    Ok(links)
}
