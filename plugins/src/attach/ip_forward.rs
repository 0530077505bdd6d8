//! Making the host forward packets.

use std::collections::BTreeSet;

use cni_conf::error::Error;

use crate::host::rtnl::Family;
use crate::host::{Rtnl, Sysctl};

/// Switches IPv4 forwarding on, if it is off.
pub fn ensure_ipv4() -> Result<(), Error> {
    Sysctl::ipv4_forwarding().ensure("1")?;
    Ok(())
}

/// Switches IPv6 forwarding on, if it is off.
///
/// A host that forwards ignores router advertisements, unless `accept_ra` is 2 (Documentation/networking/ip-sysctl.rst):
/// an uplink whose default route came from one gets that first, so that the host keeps its route.
pub fn ensure_ipv6(host: &Rtnl) -> Result<(), Error> {
    let forwarding = Sysctl::ipv6_forwarding();
    if forwarding.read()? == "1" {
        return Ok(());
    }
    let uplinks: BTreeSet<u32> = host
        .default_routes(Family::V6)?
        .into_iter()
        .filter(|route| route.from_router_advertisement)
        .map(|route| route.link)
        .collect();
    for index in uplinks {
        if let Some(link) = host.link_by_index(index)? {
            let accept_ra = Sysctl::ipv6_conf(&link.name, "accept_ra");
            if accept_ra.read()? == "1" {
                accept_ra.write("2")?;
            }
        }
    }
    forwarding.ensure("1")?;
    Ok(())
}
