//! Links, neighbours and routes of the host, each asked for when it is needed: what a trace costs does not depend on how
//! many there are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use crate::explain::kernel::state;
use crate::host::conntrack::Tuple;
use crate::host::rtnl::{Link, RouteLookup};
use crate::host::{HostError, Rtnl};

/// The host's links.
pub(super) struct Links {
    pub(super) rtnl: Rtnl,
    known: RefCell<BTreeMap<u32, Option<Rc<Link>>>>,
}

impl Links {
    pub(super) fn new() -> Result<Self, HostError> {
        Ok(Self {
            rtnl: Rtnl::new()?,
            known: RefCell::default(),
        })
    }

    pub(super) fn get(&self, index: u32) -> Option<Rc<Link>> {
        let look = || self.rtnl.link_by_index(index).ok().flatten().map(Rc::new);
        let mut known = self.known.borrow_mut();
        known.entry(index).or_insert_with(look).clone()
    }

    pub(super) fn named(&self, name: &str) -> Result<Option<Rc<Link>>, HostError> {
        let link = self.rtnl.link_by_name(name)?.map(Rc::new);
        if let Some(link) = &link {
            let mut known = self.known.borrow_mut();
            known.insert(link.index, Some(Rc::clone(link)));
        }
        Ok(link)
    }

    /// The name of a link for a message.
    pub(super) fn name(&self, index: u32) -> String {
        self.get(index)
            .map_or_else(|| format!("link {index}"), |link| link.name.clone())
    }

    /// The bridge that a link is a port of.
    pub(super) fn bridge(&self, link: &Link) -> Option<Rc<Link>> {
        link.port?;
        self.get(link.master?)
    }

    /// What a port of a bridge or another link is like.
    pub(super) fn describe(&self, link: &Link) -> String {
        let up = if link.up { "" } else { " is down" };
        match self.bridge(link) {
            Some(bridge) => format!(
                "{}{up}, port of {} ({})",
                link.name,
                bridge.name,
                port(link)
            ),
            None => format!("{}{up}, routed", link.name),
        }
    }

    /// The next hop of a packet, if nobody answers for its hardware address.
    pub(super) fn silent(&self, to: IpAddr, mark: u32) -> Option<IpAddr> {
        silent(&self.rtnl, to, mark)
    }
}

/// A packet to there from nobody in particular.
pub(super) fn towards(to: IpAddr) -> Tuple {
    let source = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Tuple {
        source,
        destination: to,
        protocol: 0,
        source_port: 0,
        destination_port: 0,
    }
}

/// The next hop towards an address from where a socket belongs to, if nobody answers for its hardware address.
pub(super) fn silent(rtnl: &Rtnl, to: IpAddr, mark: u32) -> Option<IpAddr> {
    let RouteLookup::Out { link, gateway, .. } =
        rtnl.look_up_route(&towards(to), None, mark).ok()?
    else {
        return None;
    };
    let hop = gateway.unwrap_or(to);
    let neighbour = rtnl.neighbour(link, hop).ok()??;
    (neighbour.failed || neighbour.asking).then_some(hop)
}

/// `forwarding, hairpin off, isolated`.
pub(super) fn port(link: &Link) -> String {
    let port = link.port.unwrap_or_default();
    let hairpin = if port.hairpin { "on" } else { "off" };
    let isolated = if port.isolated { ", isolated" } else { "" };
    format!("{}, hairpin {hairpin}{isolated}", state(port.state))
}

/// A hardware address as everybody writes it.
pub(super) fn spelled(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
