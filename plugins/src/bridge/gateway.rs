//! What makes a bridge a gateway: an address of its own that stays, and those of the networks' subnets. Shared by all
//! containers of the network, they are made sure of and never undone by one container.

use std::net::IpAddr;

use cni_conf::error::{Code, Error};
use cni_conf::request::Request;
use ipnet::IpNet;

use super::conf::{Settings, Vlans};
use super::link::set_vlans;
use super::plan;
use crate::attach::{ip_forward, ipam, ipv6, mac};
use crate::host::rtnl::{AddressOptions, Link, LinkChange, NewVeth, VethEnd};
use crate::host::{NetNs, Rtnl};

/// Gives the gateway's interface its addresses and makes the host forward. Returns the interface if it is another one
/// than the bridge.
pub(super) fn ensure_gateway(
    host: &Rtnl,
    settings: &Settings,
    request: &Request,
    bridge: &Link,
    gateways: &[IpNet],
) -> Result<Option<Link>, Error> {
    if gateways.is_empty() {
        if settings.gateway {
            ipv6::judge_advertisements(bridge, false)?;
        }
        return Ok(None);
    }
    let vlan = settings
        .vlans
        .access
        .map(|vid| ensure_vlan_gateway(host, settings, bridge, vid))
        .transpose()?;
    let link = vlan.as_ref().unwrap_or(bridge);
    ensure_addresses(host, settings, request, link, gateways)?;
    if gateways.iter().any(|gateway| gateway.addr().is_ipv4()) {
        ip_forward::ensure_ipv4()?;
    }
    let has_ipv6 = gateways.iter().any(|gateway| gateway.addr().is_ipv6());
    if has_ipv6 {
        ip_forward::ensure_ipv6(host)?;
    }
    for link in [Some(bridge), vlan.as_ref()].into_iter().flatten() {
        ipv6::judge_advertisements(link, has_ipv6)?;
    }
    Ok(vlan)
}

fn ensure_addresses(
    host: &Rtnl,
    settings: &Settings,
    request: &Request,
    link: &Link,
    gateways: &[IpNet],
) -> Result<(), Error> {
    let has: Vec<IpNet> = host
        .addresses(link.index)?
        .into_iter()
        .map(|address| address.net)
        .collect();
    let mut plan = plan::plan_addresses(&has, gateways);
    if !plan.conflicts.is_empty() {
        // One set of ranges may have several subnets: each has its gateway there once somebody has an address of it.
        let own = ipam::subnets(request)?;
        let is_beside = |old: &IpNet, new: &IpNet| old.trunc() != new.trunc();
        plan.conflicts
            .retain(|(old, new)| !(own.contains(&old.trunc()) && is_beside(old, new)));
    }
    if let Some((old, new)) = plan.conflicts.first() {
        if !settings.force_address {
            return Err(conflict(host, link, old, new)?);
        }
        for (old, _) in &plan.conflicts {
            host.delete_address(link.index, *old)?;
        }
    }
    let options = AddressOptions {
        nodad: !settings.dad,
        ..AddressOptions::default()
    };
    for address in plan.add {
        if address.addr().is_ipv6() {
            ipv6::enable(&link.name)?;
        }
        match host.add_address(link.index, address, options) {
            // Another ADD was quicker.
            Err(error) if error.already_exists() => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn conflict(host: &Rtnl, link: &Link, old: &IpNet, new: &IpNet) -> Result<Error, Error> {
    let (name, ports) = (&link.name, host.bridge_ports(link.index)?.len());
    let ports = match ports {
        1 => "1 port".to_owned(),
        ports => format!("{ports} ports"),
    };
    Ok(Error::new(
        Code::Conflict,
        format!("{name} already has the address {old}, but this network needs {new} there; the bridge has {ports}"),
    )
    .with_details(format!(
        "another network uses this bridge, or the subnet was changed: give this network a \"bridge\" of its own, or \
         remove the old address with `ip address delete {old} dev {name}`, or let ADD do that with \
         \"forceAddress\": true; either way running containers that have {} as their gateway are cut off until they \
         are started again",
        old.addr()
    )))
}

/// The gateway of a VLAN: `BRIDGE.VID`, one end of a veth pair whose other end is a port in that VLAN.
fn ensure_vlan_gateway(
    host: &Rtnl,
    settings: &Settings,
    bridge: &Link,
    vid: u16,
) -> Result<Link, Error> {
    let name = format!("{}.{vid}", bridge.name);
    let mut gateway = match host.link_by_name(&name)? {
        Some(link) => link,
        None => create_vlan_gateway(host, settings, bridge, &name)?,
    };
    // It comes up last. So one that is down is new, or was left so by an ADD that was killed, or is another ADD's just now.
    if !gateway.up
        && let Some(mut port) = host.link_by_name(&port_of_vlan_gateway(&name))?
    {
        let vlans = Vlans {
            access: Some(vid),
            trunk: Vec::new(),
            ..settings.vlans
        };
        set_vlans(host, port.index, &vlans)?;
        for link in [&mut port, &mut gateway] {
            ipv6::ignore_advertisements(link)?;
            host.set_link(link.index, &LinkChange::up())?;
        }
    }
    Ok(gateway)
}

fn create_vlan_gateway(
    host: &Rtnl,
    settings: &Settings,
    bridge: &Link,
    name: &str,
) -> Result<Link, Error> {
    let here = NetNs::current()?;
    let new = NewVeth {
        host: VethEnd {
            name: &port_of_vlan_gateway(name),
            mac: Some(mac::random()?.bytes()),
            mtu: settings.mtu,
        },
        alias: Some("trestle: VLAN gateway port"),
        master: Some(bridge.index),
        up: false,
        peer: VethEnd {
            name,
            mac: Some(mac::random()?.bytes()),
            mtu: settings.mtu,
        },
        peer_netns: &here,
    };
    match host.create_veth(&new) {
        Ok(_) => {}
        // Another ADD was quicker.
        Err(error) if error.already_exists() => {}
        Err(error) => return Err(error.into()),
    }
    host.link_by_name(name)?.ok_or_else(|| {
        Error::new(
            Code::Conflict,
            format!("{name} vanished while it was being made"),
        )
    })
}

/// A name for the bridge's port, derived from that of the gateway.
fn port_of_vlan_gateway(gateway: &str) -> String {
    let hash = crate::owner::fnv1a(gateway.as_bytes());
    format!("veth{:08x}", hash & 0xffff_ffff)
}

/// True if the address is one that a gateway has, whatever the prefix length.
pub(super) fn is_gateway_address(address: IpAddr, gateways: &[IpNet]) -> bool {
    gateways.iter().any(|gateway| gateway.addr() == address)
}
