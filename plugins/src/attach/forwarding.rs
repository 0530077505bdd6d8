//! Saying what was found, to whoever reads the plugin's standard error.

use std::net::IpAddr;

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use cni_conf::names::NetworkName;
use cni_conf::request::Request;
use cni_conf::result::IpConfig;
use ipnet::IpNet;

use super::list::{self, List};
use super::{ipam, veth};
use crate::host::nft::Nft;
use crate::host::rtnl::Family;
use crate::host::{HostError, Rtnl};
use crate::netfilter::forward_hook::{Behind, Finding, Path, judge, may_drop, names};
use crate::owner::Owners;
use crate::owner::network::label;

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
            look(host, network, behind, address, When::Add);
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
            look(&host, &request.network, behind, address, When::Status);
        }
    }
    Ok(())
}

/// STATUS of `firewall`, and the others where it is in the list: warns where other nodes' containers are to see the
/// containers' own addresses and can't open connections to them, because something drops forwarded packets and the
/// firewall is not told of them.
pub fn warn_of_closed_cluster(network: &NetworkName, known: &List) {
    let Some(firewall) = known.plugin(FIREWALL) else {
        return;
    };
    let let_in = list::key(firewall, "ingressCIDRs").and_then(|value| value.as_array());
    if let_in.is_some_and(|prefixes| !prefixes.is_empty()) {
        return;
    }
    let dropped = |prefix: &IpNet| may_drop(prefix.addr()).unwrap_or(false);
    let elsewhere: Vec<String> = known
        .elsewhere()
        .iter()
        .filter(|prefix| dropped(prefix))
        .map(ToString::to_string)
        .collect();
    if !elsewhere.is_empty() {
        warn(format_args!(
            "the host's filter rules drop forwarded packets, and the plugin `firewall` of network {network} is not told \
             to let other nodes' containers in: set its \"ingressCIDRs\", as to {elsewhere:?} of \"nonMasqueradeCIDRs\" \
             and the nodes' own prefix"
        ));
    }
}

/// Which call it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Add,
    Status,
}

fn look(host: &Rtnl, network: &NetworkName, behind: Behind<'_>, address: IpAddr, when: When) {
    match dropped(host, network, behind, address, when) {
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
    when: When,
) -> Result<Vec<Finding>, HostError> {
    if !may_drop(address)? {
        return Ok(Vec::new());
    }
    match List::find(network) {
        Some(list) if list.plugin(FIREWALL).is_some() => {
            warn_of_closed_cluster(network, &list);
            return Ok(Vec::new());
        }
        Some(_) => {}
        None => {
            // A runtime that keeps its lists elsewhere. The plugin has rules for a network that it takes care of; before
            // the first container's firewall was called, nothing tells.
            let first = when == When::Add && !has_others(host, network)?;
            if first || is_served(network)? {
                return Ok(Vec::new());
            }
        }
    }
    let uplink = uplink(host, address)?;
    judge(&Path {
        behind,
        address,
        uplink: uplink.as_deref(),
    })
}

/// Whether the network has pairs on this host besides the one that is being made.
fn has_others(host: &Rtnl, network: &NetworkName) -> Result<bool, HostError> {
    let all = Owners::all(network);
    let links = host.links_of_kind(veth::KIND)?;
    let aliases = links.iter().filter_map(|link| link.alias.as_deref());
    Ok(aliases
        .filter(|alias| all.has_alias(alias))
        .nth(1)
        .is_some())
}

/// Whether the plugin has rules for the network.
fn is_served(network: &NetworkName) -> Result<bool, HostError> {
    let own = [names::way(network), names::guard_chain(&label(network))];
    let mut nft = Nft::open()?;
    for table in nft.tables()? {
        for name in &own {
            if nft.chain(table.reference().object(name))?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
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
