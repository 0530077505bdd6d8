//! What CHECK finds missing on the host, put back while the container lives: what others flush or switch off.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use super::conf::Settings;
use super::isolation;
use super::link::KIND;
use crate::attach::{chained, check, veth};
use crate::host::Rtnl;
use crate::host::rtnl::{Link, PortChange};
use crate::owner::Owner;

/// Bridge netfilter, the port's settings, masquerading and isolation. What belongs to a container that goes meanwhile is
/// removed again.
pub(super) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let settings = Settings::read(request, Some(attachment))?;
    let expected = check::expected(request)?;
    let owner = Owner::of(request, attachment);
    let host = Rtnl::new()?;
    let bridge = host.link_by_name(settings.bridge.as_str())?;
    let Some(bridge) = bridge.filter(|link| link.kind.as_deref() == Some(KIND)) else {
        return Ok(());
    };
    settings.netfilter.ensure(&host, &bridge)?;
    let Some(end) = veth::find(&host, &owner)? else {
        return Ok(());
    };
    port(&host, &settings, &bridge, &end)?;
    if let Some(masquerade) = &settings.masquerade {
        masquerade.repair(request, &owner, &expected.ips)?;
    }
    if !settings.isolated || expected.ips.is_empty() {
        return Ok(());
    }
    let interface = match settings.vlans.access {
        None => bridge.name,
        Some(vid) => format!("{}.{vid}", bridge.name),
    };
    if let Some(mac) = chained::mac_of(expected, &attachment.ifname) {
        isolation::ensure(request, &owner, &interface, &expected.ips, mac)?;
        if veth::find(&host, &owner)?.is_none() {
            isolation::remove(&owner)?;
        }
    }
    Ok(())
}

fn port(host: &Rtnl, settings: &Settings, bridge: &Link, end: &Link) -> Result<(), Error> {
    let change = PortChange {
        hairpin: settings.hairpin.then_some(true),
        isolated: settings.isolated.then_some(true),
        locked: settings.mac_spoof_check.then_some(true),
        ..PortChange::default()
    };
    if end.master == Some(bridge.index) && change != PortChange::default() {
        host.set_bridge_port(end.index, &change)?;
    }
    Ok(())
}
