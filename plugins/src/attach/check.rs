//! CHECK: comparing what the kernel has with what ADD reported.

use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, Request};
use cni_conf::result::CniResult;

use super::chained;
use super::container::Container;
use super::veth;
use crate::host::Rtnl;
use crate::host::rtnl::{Link, RouteFilter};
use crate::owner::Owner;

/// A difference between result and reality.
pub fn failed(msg: impl Into<String>) -> Error {
    Error::new(Code::CheckFailed, msg)
        .with_details("something changed it after ADD; delete the container and start it again")
}

/// `prevResult`, which CHECK is never called without.
pub fn expected(request: &Request) -> Result<&CniResult, Error> {
    request
        .prev_result
        .as_ref()
        .ok_or_else(|| Error::config("CHECK needs the result of ADD in \"prevResult\""))
}

/// Compares the container's interface with the result: there, up unless it is to be down, MAC address, addresses and
/// routes. Returns it.
pub fn interface(
    container: &Container,
    attachment: &Attachment,
    expected: &CniResult,
    up: bool,
) -> Result<Link, Error> {
    let name = attachment.ifname.as_str();
    let found = expected
        .interfaces
        .iter()
        .enumerate()
        .find(|(_, interface)| interface.name == name && !interface.sandbox.is_empty());
    let Some((index, interface)) = found else {
        return Err(failed(format!(
            "prevResult has no interface {name} in the container"
        )));
    };
    let Some(link) = container.rtnl.link_by_name(name)? else {
        return Err(failed(format!(
            "interface {name} is missing in the container"
        )));
    };
    if link.up != up {
        return Err(failed(format!(
            "interface {name} is {}",
            if link.up { "up" } else { "down" }
        )));
    }
    if let Some(mac) = interface.mac_addr()
        && link.mac != Some(mac.bytes())
    {
        return Err(failed(format!(
            "interface {name} does not have the MAC address {mac}"
        )));
    }
    addresses(&container.rtnl, &link, expected, index)?;
    routes(&container.rtnl, &link, expected)?;
    Ok(link)
}

/// The host's end of the attachment's pair, whose other end must be the container's interface.
pub fn host_end(
    host: &Rtnl,
    owner: &Owner,
    container: &Container,
    inside: &Link,
) -> Result<Link, Error> {
    let Some(end) = chained::host_end(host, owner, container, inside)? else {
        return Err(failed(format!(
            "interface {} has no peer on the host",
            inside.name
        )));
    };
    if !veth::are_joined(host, &end, container, inside)? {
        return Err(failed(format!(
            "interface {} is not the other end of {}",
            inside.name, end.name
        )));
    }
    Ok(end)
}

fn addresses(
    rtnl: &Rtnl,
    link: &Link,
    expected: &CniResult,
    interface: usize,
) -> Result<(), Error> {
    let has = rtnl.addresses(link.index)?;
    let missing = expected
        .ips
        .iter()
        .filter(|ip| ip.interface == Some(interface))
        .find(|ip| !has.iter().any(|address| address.net == ip.address));
    match missing {
        Some(ip) => Err(failed(format!(
            "interface {} does not have the address {}",
            link.name, ip.address
        ))),
        None => Ok(()),
    }
}

fn routes(rtnl: &Rtnl, link: &Link, expected: &CniResult) -> Result<(), Error> {
    for route in &expected.routes {
        let leads = |table: Option<u32>| {
            let has = rtnl.routes(&RouteFilter {
                family: None,
                table,
                oif: Some(link.index),
                dst: Some(route.dst.trunc()),
            })?;
            // A gateway 0.0.0.0 says that there is none, to the kernel too.
            let gateway = route.gw.filter(|gateway| !gateway.is_unspecified());
            let mut gateways = has.iter().map(|found| found.gateway);
            Ok::<_, Error>(gateways.any(|found| route.gw.is_none() || found == gateway))
        };
        let default = RouteFilter::default();
        // `sbr` and `vrf` move routes into a table of their own.
        let moved = route.table.is_none().then_some(None);
        let places = [Some(route.table.or(default.table)), moved];
        let mut found = false;
        for table in places.into_iter().flatten() {
            found = found || leads(table)?;
        }
        if !found {
            return Err(failed(format!(
                "the route to {} is missing in the container",
                route.dst
            )));
        }
    }
    Ok(())
}
