//! A packet that comes in by an interface of the host, as from outside.

use std::net::IpAddr;

use ipnet::IpNet;

use super::links::{Links, towards};
use super::{Asked, CannotLook};
use crate::host::conntrack::Tuple;
use crate::host::inject::{self, Injector};
use crate::host::rtnl::{Family, Link, RouteFilter, RouteLookup};
use crate::host::{HostError, Rtnl};

/// A packet that is ready to come in.
pub(super) struct Outsider {
    injector: Injector,
    pub(super) tuple: Tuple,
    packet: Vec<u8>,
}

/// Where dynamic ports begin (RFC 6335, section 6).
const PORTS: u16 = 49_152;

impl Outsider {
    /// Prepares it.
    pub(super) fn prepare(
        links: &Links,
        asked: &Asked<'_>,
        name: &str,
    ) -> Result<Self, CannotLook> {
        let link = links.named(name)?;
        let link = link.ok_or_else(|| CannotLook::NoInterface(name.to_owned()))?;
        fits(links, &link)?;
        let to = asked.to();
        let source = stranger(&links.rtnl, &link, to.ip())?
            .ok_or_else(|| refusal(name, "no route leads out by it, so nobody is behind it"))?;
        let number = u16::try_from(std::process::id() % u32::from(u16::MAX - PORTS)).unwrap_or(0);
        let tuple = Tuple {
            source,
            destination: to.ip(),
            protocol: asked.number(),
            source_port: PORTS + number,
            destination_port: to.port(),
        };
        Ok(Self {
            injector: Injector::open(&links.rtnl, &link)?,
            tuple,
            packet: inject::packet(&tuple, &asked.kind(), asked.size()),
        })
    }

    pub(super) fn send(&self) -> Result<(), HostError> {
        self.injector.inject(&self.packet)
    }

    /// Ends a connection that came about.
    pub(super) fn end(&self) {
        if self.tuple.protocol == 6 {
            // It is a courtesy: without, the server waits for a while.
            let _ = self.injector.inject(&inject::reset(&self.tuple));
        }
    }
}

fn refusal(name: &str, why: &str) -> CannotLook {
    CannotLook::NoWayIn {
        name: name.to_owned(),
        why: why.to_owned(),
    }
}

/// Whether packets can come in by a link.
fn fits(links: &Links, link: &Link) -> Result<(), CannotLook> {
    let master = link.master.and_then(|index| links.get(index));
    // A port learns who is behind it, and would send others' packets there.
    let owner = master.filter(|it| it.kind.as_deref() != Some("vrf"));
    match owner {
        _ if link.loopback => Err(refusal(
            &link.name,
            "what comes in by it is this host's own",
        )),
        _ if !link.up => Err(refusal(&link.name, "it is down")),
        Some(owner) => {
            let why = format!("it is a port of {}: name that", owner.name);
            Err(refusal(&link.name, &why))
        }
        None => Ok(()),
    }
}

/// An address that somebody behind a link may have: the next router's, else one of its subnet, else one that a route leads
/// to by it. Answers have to leave by the same link.
fn stranger(rtnl: &Rtnl, link: &Link, to: IpAddr) -> Result<Option<IpAddr>, HostError> {
    let v6 = to.is_ipv6();
    let filter = RouteFilter {
        family: Some(if v6 { Family::V6 } else { Family::V4 }),
        oif: Some(link.index),
        ..RouteFilter::default()
    };
    let routes = rtnl.routes(&filter)?;
    let addresses = rtnl.addresses(link.index)?;
    let own = |address: &IpAddr| addresses.iter().any(|it| it.net.addr() == *address);
    let nets = addresses
        .iter()
        .map(|it| it.net)
        .chain(routes.iter().map(|it| it.dst));
    let candidates: Vec<IpAddr> = routes
        .iter()
        .filter_map(|route| route.gateway)
        .chain(nets.filter_map(first_but).flatten())
        .collect();
    let is_usable = |address: &&IpAddr| {
        let local =
            matches!(address, IpAddr::V6(it) if it.is_unicast_link_local() || it.is_multicast());
        address.is_ipv6() == v6
            && !local
            && !own(address)
            && **address != to
            && leads(rtnl, link, **address)
    };
    Ok(candidates.iter().find(is_usable).copied())
}

/// The first addresses of a subnet, or some of the documentation's (RFC 5737, RFC 3849) for all the world.
fn first_but(net: IpNet) -> Option<Vec<IpAddr>> {
    if net.prefix_len() == 0 {
        let text = if net.addr().is_ipv6() {
            "2001:db8::1"
        } else {
            "192.0.2.1"
        };
        return Some(vec![text.parse().ok()?]);
    }
    Some(net.trunc().hosts().take(3).collect())
}

fn leads(rtnl: &Rtnl, link: &Link, to: IpAddr) -> bool {
    let way = rtnl.look_up_route(&towards(to), None, 0);
    matches!(way, Ok(RouteLookup::Out { link: by, .. }) if by == link.index)
}
