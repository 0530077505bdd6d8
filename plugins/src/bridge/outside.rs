//! Containers whose gateway lies outside their subnet, such as 203.0.113.7/32 behind 169.254.1.1. No address of the bridge
//! brings a route to them, so the host has one for each. It leads over the bridge and stays when the port is gone, so DEL
//! and GC remove it.

use std::net::IpAddr;

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use ipnet::IpNet;
use serde_json::Value;

use super::conf;
use crate::attach::{gateway, host_route, ipam, veth};
use crate::host::Rtnl;
use crate::host::rtnl::{RouteFilter, RouteProtocol};
use crate::owner::Owner;

/// DEL, before the addresses are given back: removes the routes to those that are the attachment's still. Another
/// container may have had them since an earlier DEL.
pub(super) fn del(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let Some(interface) = conf::gateway_of(request).filter(|_| is_possible(request)) else {
        return Ok(());
    };
    let host = Rtnl::new()?;
    let Some(link) = host.link_by_name(&interface)? else {
        return Ok(());
    };
    for address in addresses(&host, request, attachment)? {
        host_route::remove(&host, link.index, address)?;
    }
    Ok(())
}

fn addresses(
    host: &Rtnl,
    request: &Request,
    attachment: &Attachment,
) -> Result<Vec<IpAddr>, Error> {
    if let Some(result) = &request.prev_result
        && veth::find(host, &Owner::of(request, attachment))?.is_some()
    {
        let outside = result.ips.iter().filter(|ip| gateway::is_outside(ip));
        return Ok(outside.map(|ip| ip.address.addr()).collect());
    }
    let id = attachment.id();
    // A configuration that has become invalid is no reason to fail.
    let own = ipam::leases(request).unwrap_or_default().into_iter();
    let own = own.filter(|(holder, _)| *holder == id);
    Ok(own
        .flat_map(|(_, nets)| nets)
        .map(|net| net.addr())
        .collect())
}

/// GC, after the addresses were given back: removes the routes to those of the network's subnets that nobody holds.
pub(super) fn gc(request: &Request) -> Result<(), Error> {
    let Some(interface) = conf::gateway_of(request).filter(|_| is_possible(request)) else {
        return Ok(());
    };
    let (Ok(subnets), Ok(held)) = (ipam::subnets(request), ipam::leases(request)) else {
        return Ok(());
    };
    let host = Rtnl::new()?;
    let Some(link) = host.link_by_name(&interface)? else {
        return Ok(());
    };
    let is_held = |address: IpAddr| {
        let mut nets = held.iter().flat_map(|(_, nets)| nets);
        nets.any(|net| net.addr() == address)
    };
    let routes = host.routes(&RouteFilter {
        oif: Some(link.index),
        ..RouteFilter::default()
    })?;
    for route in routes {
        let address = route.dst.addr();
        let is_ours = route.protocol == RouteProtocol::Boot
            && route.gateway.is_none()
            && route.dst.prefix_len() == route.dst.max_prefix_len()
            && subnets.iter().any(|subnet| subnet.contains(&address));
        if is_ours && !is_held(address) {
            host_route::remove(&host, link.index, address)?;
        }
    }
    Ok(())
}

/// Whether the network may have such containers: what spares the others the search.
fn is_possible(request: &Request) -> bool {
    let told = request.prev_result.as_ref();
    told.is_some_and(|result| result.ips.iter().any(gateway::is_outside))
        || request.conf.get("ipam").is_some_and(names_gateway_outside)
}

/// Whether an object somewhere in it has a gateway outside of its subnet.
fn names_gateway_outside(section: &Value) -> bool {
    let text = |key| section.get(key).and_then(Value::as_str);
    let gateway: Option<IpAddr> = text("gateway").and_then(|text| text.parse().ok());
    let net: Option<IpNet> = text("subnet")
        .or(text("address"))
        .and_then(|text| text.parse().ok());
    if let (Some(gateway), Some(net)) = (gateway, net)
        && !net.contains(&gateway)
    {
        return true;
    }
    match section {
        Value::Object(all) => all.values().any(names_gateway_outside),
        Value::Array(all) => all.iter().any(names_gateway_outside),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gateway_outside_is_found_wherever_it_stands() {
        for (ipam, expected) in [
            (json!({}), false),
            (
                json!({"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}),
                false,
            ),
            (
                json!({"subnet": "203.0.113.0/28", "gateway": "169.254.1.1"}),
                true,
            ),
            (
                json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24", "gateway": "10.1.0.1"}]]}),
                true,
            ),
            (
                json!({"addresses": [{"address": "203.0.113.7/32", "gateway": "169.254.1.1"}]}),
                true,
            ),
            (json!({"subnet": 7, "gateway": "x"}), false),
        ] {
            assert_eq!(names_gateway_outside(&ipam), expected, "{ipam}");
        }
    }
}
