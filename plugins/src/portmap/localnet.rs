//! Letting 127.0.0.1 reach containers.
//!
//! The kernel sends nothing from 127.0.0.0/8 out of an interface, and takes nothing to it in, unless the
//! interface's `route_localnet` is on (`ip_route_output`, `ip_route_input_slow`). Where it is on, a neighbour might
//! talk to the services that listen on 127.0.0.1 (CVE-2020-8558), so it is on only where a container needs it, only
//! while it does, and only with rules that drop what comes from outside.
//!
//! Which containers need it by which interface is in the set `portmap/localnet`, from which the last one's DEL
//! learns that it is the last. Where it was on before and the Go plugins, which never switch it
//! off, map ports on this host, it is theirs and left alone. A lock keeps those apart who look and those who switch.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::rules::{self, LOCALNET};
use crate::attach::errors::ignore_not_found;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Family, Nft, ObjectRef, TableRef};
use crate::host::{HostError, Rtnl, Sysctl};
use crate::netfilter::elements::{self, Set};
use crate::netfilter::go_plugins;
use crate::netfilter::table::TABLE;

/// The comment of the rules of iptables that drop what pretends to be localhost.
pub(super) const GUARD_COMMENT: &str = "trestle: localhost is not for neighbours";

/// Letting localhost out by this interface.
pub(super) fn route_localnet(interface: &str) -> Sysctl {
    Sysctl::ipv4_conf(interface, "route_localnet")
}

/// The interface by which localhost is to reach the container with this address, if it is ours to open. `in_use` says
/// whether another container of the own backend has it open.
pub(super) fn to_open(
    nft: &mut Nft,
    address: Ipv4Addr,
    in_use: &dyn Fn(&str) -> bool,
) -> Result<Option<String>, HostError> {
    let Some(interface) = interface_towards(address)? else {
        return Ok(None);
    };
    if route_localnet("all").read()? == "1" {
        return Ok(None);
    }
    let was_on = route_localnet(&interface).read()? == "1";
    let theirs = was_on
        && !in_use(&interface)
        && !is_listed(nft, &interface, &|_| true)?
        && go_plugins::map_ports(nft)?;
    Ok((!theirs).then_some(interface))
}

/// Makes sure that localhost reaches the container with this address. False where the rules are gone that guard it, as
/// somebody flushed them meanwhile.
pub(super) fn ensure(address: Ipv4Addr, comment: &str) -> Result<bool, HostError> {
    let Some(interface) = interface_towards(address)? else {
        return Ok(true);
    };
    let sysctl = route_localnet(&interface);
    let _lock = lock::take_localnet()?;
    let mut nft = Nft::open()?;
    let Some(interface) = to_open(&mut nft, address, &|_| false)? else {
        return Ok(true);
    };
    let mut batch = Batch::new();
    let set = TABLE.object(LOCALNET);
    let element = rules::localnet(address, &interface, comment);
    if let Some(present) = nft.element(set, &element)? {
        // The address is this container's now, whoever had it before.
        batch.delete_elements(set, &[present]);
    }
    batch.add_elements(set, &[element]);
    match nft.commit(batch) {
        Err(error) if error.not_found() || error.already_exists() => return Ok(false),
        outcome => outcome?,
    }
    sysctl.ensure("1")?;
    Ok(true)
}

/// Switches the setting off for the interfaces towards these addresses where no container is listed any more, as after
/// a flush, which takes the list and the guards but not the setting. What is the Go plugins' is left alone.
pub(super) fn close_unlisted(addresses: &BTreeSet<Ipv4Addr>) -> Result<(), HostError> {
    let mut interfaces = BTreeSet::new();
    for address in addresses {
        interfaces.extend(interface_towards(*address)?);
    }
    let mut nft = Nft::open()?;
    for interface in interfaces {
        if !matches!(route_localnet(&interface).read().as_deref(), Ok("1")) {
            continue;
        }
        let _lock = lock::take_localnet()?;
        let others = nft.chain(IPTABLES_SNAT)?.is_some() || go_plugins::map_ports(&mut nft)?;
        if !others {
            close(&mut nft, &interface)?;
        }
    }
    Ok(())
}

/// Switches the setting off, unless a container of the nftables backend needs it.
pub(super) fn close(nft: &mut Nft, interface: &str) -> Result<(), HostError> {
    if is_listed(nft, interface, &|_| true)? {
        return Ok(());
    }
    ignore_not_found(route_localnet(interface).ensure("0"))
}

fn interface_towards(address: Ipv4Addr) -> Result<Option<String>, HostError> {
    let host = Rtnl::new()?;
    let Some(index) = host.link_towards(IpAddr::V4(address))? else {
        return Ok(None);
    };
    Ok(host.link_by_index(index)?.map(|link| link.name))
}

/// The chain that the iptables backend has as long as it maps a port.
const IPTABLES_SNAT: ObjectRef<'static> = ObjectRef {
    table: TableRef {
        family: Family::IPv4,
        name: "nat",
    },
    name: "TRESTLE-PORTS-SNAT",
};

/// Whether a container whose comment `counts` says so of needs the interface.
fn is_listed(
    nft: &mut Nft,
    interface: &str,
    counts: &dyn Fn(&str) -> bool,
) -> Result<bool, HostError> {
    Ok(elements::list(nft, &Set::own(LOCALNET))?
        .iter()
        .any(|element| {
            rules::localnet_interface(element) == Some(interface) && counts(comment(element))
        }))
}

fn comment(element: &Element) -> &str {
    element.comment.as_deref().unwrap_or_default()
}

/// Removes the containers whose comment `selected` says so of, and switches the setting off where no container
/// needs it any more. Where others do and somebody took the guards away, `guard` is called.
///
/// The setting goes first: if this is interrupted, a second DEL still knows what to do.
pub(super) fn remove(
    selected: &dyn Fn(&str) -> bool,
    guard: &dyn Fn() -> Result<(), HostError>,
) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    let (to_remove, rest): (Vec<_>, Vec<_>) = elements::list(&mut nft, &Set::own(LOCALNET))?
        .into_iter()
        .partition(|element| selected(comment(element)));
    if !rest.is_empty() {
        guard()?;
    }
    let interfaces: BTreeSet<&str> = to_remove
        .iter()
        .filter_map(rules::localnet_interface)
        .collect();
    for interface in interfaces {
        let sysctl = route_localnet(interface);
        let _lock = lock::take_localnet()?;
        let others = is_listed(&mut nft, interface, &|comment| !selected(comment))?;
        // A container of the iptables backend may need it too: the last one of them switches it off.
        if !others && nft.chain(IPTABLES_SNAT)?.is_none() {
            ignore_not_found(sysctl.ensure("0"))?;
        }
        let mine = to_remove
            .iter()
            .filter(|element| rules::localnet_interface(element) == Some(interface));
        for element in mine {
            let mut batch = Batch::new();
            batch.delete_elements(TABLE.object(LOCALNET), std::slice::from_ref(element));
            match nft.commit(batch) {
                Err(error) if error.not_found() => {}
                outcome => outcome?,
            }
        }
    }
    Ok(())
}

/// Whether localhost reaches the container with this address, as far as the setting goes.
pub(super) fn is_open(address: Ipv4Addr) -> Result<bool, HostError> {
    let Some(interface) = interface_towards(address)? else {
        return Ok(true);
    };
    let on = |name: &str| -> Result<bool, HostError> { Ok(route_localnet(name).read()? == "1") };
    Ok(on("all")? || on(&interface)?)
}
