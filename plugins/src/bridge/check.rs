//! CHECK.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::CniResult;
use ipnet::IpNet;

use super::conf::Settings;
use super::isolation;
use super::link::KIND;
use crate::attach::chained;
use crate::attach::check::{self, failed};
use crate::attach::container::Container;
use crate::attach::ipam::Ipam;
use crate::host::Rtnl;
use crate::host::rtnl::{Link, PortInfo};
use crate::owner::Owner;

pub(super) fn check(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let settings = Settings::read(request, Some(attachment))?;
    let expected = check::expected(request)?;
    let owner = Owner::of(request, attachment);
    if let Some(name) = settings.ipam.plugin()? {
        Ipam::find(request, name)?.check(attachment)?;
    }
    if let Some(masquerade) = &settings.masquerade {
        masquerade.check(&owner, &expected.ips)?;
    }
    let host = Rtnl::new()?;
    let bridge = bridge(&host, &settings)?;
    settings.netfilter.check(&bridge)?;
    gateway_addresses(&host, &settings, &bridge, expected)?;
    let container = Container::open(attachment)?;
    let inside = check::interface(&container, attachment, expected, !settings.container_down)?;
    let end = check::host_end(&host, &owner, &container, &inside)?;
    port(&settings, &bridge, &end)?;
    if !settings.isolated || expected.ips.is_empty() {
        return Ok(());
    }
    let interface = match settings.vlans.access {
        None => bridge.name,
        Some(vid) => format!("{}.{vid}", bridge.name),
    };
    match chained::mac_of(expected, &attachment.ifname) {
        Some(mac) => isolation::check(&owner, &interface, &expected.ips, mac),
        None => Ok(()),
    }
}

fn bridge(host: &Rtnl, settings: &Settings) -> Result<Link, Error> {
    let name = settings.bridge.as_str();
    match host.link_by_name(name)? {
        None => Err(failed(format!("the bridge {name} is missing"))),
        Some(link) if link.kind.as_deref() != Some(KIND) => {
            Err(failed(format!("{name} is no bridge")))
        }
        Some(link) if !link.up => Err(failed(format!("the bridge {name} is down"))),
        Some(link) if settings.promisc && !link.promisc => {
            Err(failed(format!("the bridge {name} is not promiscuous")))
        }
        Some(link) => Ok(link),
    }
}

fn gateway_addresses(
    host: &Rtnl,
    settings: &Settings,
    bridge: &Link,
    expected: &CniResult,
) -> Result<(), Error> {
    if !settings.gateway {
        return Ok(());
    }
    let interface = match settings.vlans.access {
        None => bridge.clone(),
        Some(vid) => {
            let name = format!("{}.{vid}", bridge.name);
            host.link_by_name(&name)?
                .ok_or_else(|| failed(format!("the VLAN's gateway {name} is missing")))?
        }
    };
    let has: Vec<IpNet> = host
        .addresses(interface.index)?
        .into_iter()
        .map(|address| address.net)
        .collect();
    for ip in &expected.ips {
        if let Some(gateway) = ip.gateway
            && !super::gateway::is_gateway_address(gateway, &has)
        {
            return Err(failed(format!(
                "{} does not have the gateway address {gateway}",
                interface.name
            )));
        }
    }
    Ok(())
}

/// The host's end of the pair is the bridge's port, with the flags that were asked for.
fn port(settings: &Settings, bridge: &Link, end: &Link) -> Result<(), Error> {
    if end.master != Some(bridge.index) {
        return Err(failed(format!(
            "{} is no port of the bridge {}",
            end.name, bridge.name
        )));
    }
    let Some(PortInfo {
        hairpin,
        isolated,
        locked,
        ..
    }) = end.port
    else {
        return Ok(());
    };
    for (name, wanted, is) in [
        ("hairpinMode", settings.hairpin, hairpin),
        ("portIsolation", settings.isolated, isolated),
        ("macspoofchk", settings.mac_spoof_check, locked),
    ] {
        if wanted && !is {
            return Err(failed(format!("{name} is off on the port {}", end.name)));
        }
    }
    Ok(())
}
