//! Routes of the host to single addresses of containers.

use std::net::IpAddr;

use cni_conf::error::{Code, Error};
use ipnet::IpNet;

use crate::host::rtnl::{Link, NewRoute, RouteFilter};
use crate::host::{HostError, Rtnl};

/// Makes sure that the host reaches an address over the link of this index, which others may be behind, too.
pub fn ensure(host: &Rtnl, link: u32, address: IpAddr) -> Result<(), Error> {
    match host.add_route(&route(link, address)) {
        Err(error) if error.already_exists() => {
            let present = present(host, address)?;
            if present.is_some_and(|present| present.index == link) {
                return Ok(());
            }
            Err(explain(host, error, address))
        }
        outcome => Ok(outcome?),
    }
}

/// Removes the route to an address over a link. Returns false if there was none.
pub fn remove(host: &Rtnl, link: u32, address: IpAddr) -> Result<bool, HostError> {
    host.delete_route(&route(link, address))
}

fn route(link: u32, address: IpAddr) -> NewRoute {
    NewRoute {
        oif: Some(link),
        ..NewRoute::to(IpNet::from(address))
    }
}

/// The error of a route to a container's address that could not be added: one that is there already leads to somebody
/// else.
pub fn explain(host: &Rtnl, error: HostError, address: IpAddr) -> Error {
    if !error.already_exists() {
        return error.into();
    }
    let (name, owner) = match present(host, address).ok().flatten() {
        Some(link) => (link.name, link.alias),
        None => ("another interface".into(), None),
    };
    Error::new(
        Code::Conflict,
        format!("add route to {address}: the host reaches it over {name} already"),
    )
    .with_details(match owner {
        Some(owner) => format!("{name} belongs to {owner}"),
        None => {
            format!("`ip route get {address}` and `ip -d link show {name}` tell whose it is")
        }
    })
}

/// The link that the route to an address leads over.
fn present(host: &Rtnl, address: IpAddr) -> Result<Option<Link>, HostError> {
    let filter = RouteFilter {
        dst: Some(IpNet::from(address)),
        ..RouteFilter::default()
    };
    let found = host.routes(&filter)?;
    let link = found.first().and_then(|route| route.oif);
    Ok(link
        .map(|index| host.link_by_index(index))
        .transpose()?
        .flatten())
}
