//! Saying what was found, to whoever reads the plugin's standard error.

use std::net::IpAddr;

use cni_conf::dispatch::warn;
use cni_conf::error::Error;
use cni_conf::names::NetworkName;
use cni_conf::request::Request;
use cni_conf::result::IpConfig;

use super::{Behind, Finding, Path, judge, may_drop};
use crate::attach::{ipam, list};
use crate::host::rtnl::Family;
use crate::host::{HostError, Rtnl};

/// The plugin that lets forwarded packets through.
const FIREWALL: &str = "firewall";

/// ADD: warns where the host's filter rules drop what a container with these addresses sends or gets beyond the host,
/// unless the plugin that takes care of it stands in the network's list. Rules of others are worth a word, but no
/// failure.
pub fn warn_of_dropped_traffic(
    host: &Rtnl,
    network: &NetworkName,
    behind: Behind<'_>,
    ips: &[IpConfig],
) {
    for ipv4 in [true, false] {
        let mut addresses = ips.iter().map(|ip| ip.address.addr());
        if let Some(address) = addresses.find(|address| address.is_ipv4() == ipv4) {
            look(host, network, behind, address);
        }
    }
}

/// STATUS: the same, before there is a container.
///
/// # Errors
/// Those of opening a netlink socket and of reading the configuration of IPAM.
pub fn warn_beforehand(request: &Request, behind: Behind<'_>) -> Result<(), Error> {
    let host = Rtnl::new()?;
    for subnet in ipam::subnets(request)? {
        // Any address of the subnet will do: the second one is no gateway's in most networks.
        if let Some(address) = subnet.hosts().nth(1) {
            look(&host, &request.network, behind, address);
        }
    }
    Ok(())
}

fn look(host: &Rtnl, network: &NetworkName, behind: Behind<'_>, address: IpAddr) {
    match dropped(host, network, behind, address) {
        Ok(findings) => findings.iter().for_each(warn),
        Err(error) => warn(format_args!(
            "the host's filter rules could not be looked at: {error}"
        )),
    }
}

/// Dearest look last: most hosts have no rules that drop, and following them takes a child process.
fn dropped(
    host: &Rtnl,
    network: &NetworkName,
    behind: Behind<'_>,
    address: IpAddr,
) -> Result<Vec<Finding>, HostError> {
    if !may_drop(address)? || list::names_plugin(network, FIREWALL) {
        return Ok(Vec::new());
    }
    let uplink = uplink(host, address)?;
    judge(&Path {
        behind,
        address,
        uplink: uplink.as_deref(),
    })
}

/// The interface of the host's default route.
fn uplink(host: &Rtnl, address: IpAddr) -> Result<Option<String>, HostError> {
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let Some(route) = host.default_routes(family)?.into_iter().next() else {
        return Ok(None);
    };
    Ok(host.link_by_index(route.link)?.map(|link| link.name))
}
