//! CHECK.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::CniResult;
use ipnet::IpNet;

use super::conf::Settings;
use crate::attach::check::{self, failed};
use crate::attach::container::Container;
use crate::attach::ipam::Ipam;
use crate::host::Rtnl;
use crate::host::rtnl::{Link, RouteFilter};
use crate::owner::Owner;

pub(super) fn check(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let settings = Settings::read(request)?;
    let expected = check::expected(request)?;
    let owner = Owner::of(request, attachment);
    Ipam::find(request, settings.ipam_plugin)?.check(attachment)?;
    if let Some(masquerade) = &settings.masquerade {
        masquerade.check(&owner, &expected.ips)?;
    }
    let container = Container::open(attachment)?;
    let inside = check::interface(&container, attachment, expected, true)?;
    let host = Rtnl::new()?;
    let end = check::host_end(&host, &owner, &container, &inside)?;
    if !end.up {
        return Err(failed(format!("the host's end {} is down", end.name)));
    }
    host_side(&host, &end, expected)
}

/// The host's end has the gateways' addresses, and the routes to the container's.
fn host_side(host: &Rtnl, end: &Link, expected: &CniResult) -> Result<(), Error> {
    let has = host.addresses(end.index)?;
    for ip in &expected.ips {
        if let Some(gateway) = ip.gateway
            && !has.iter().any(|address| address.net.addr() == gateway)
        {
            return Err(failed(format!(
                "{} does not have the gateway address {gateway}",
                end.name
            )));
        }
        let address = ip.address.addr();
        let routes = host.routes(&RouteFilter {
            oif: Some(end.index),
            dst: Some(IpNet::from(address)),
            ..RouteFilter::default()
        })?;
        if routes.is_empty() {
            return Err(failed(format!(
                "the host has no route to {address} over {}",
                end.name
            )));
        }
    }
    Ok(())
}
