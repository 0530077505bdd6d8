//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
pub use netlink_packet_route::route::{RouteProtocol, RouteScope};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use super::super::error::HostError;
use super::build::With;
use super::changes::Change;
use super::exchange::Rtnl;
use super::new_route::NewRoute;

/// The routing table that routes go to unless told otherwise: `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A route that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The destination; a prefix of length 0 for a default route.
    pub dst: IpNet,
    /// The next router, if there is one. For a route with several next hops, that of the first.
    pub gateway: Option<IpAddr>,
    /// The index of the link it leaves by. For a route with several next hops, that of the first.
    pub oif: Option<u32>,
    /// The links of the second and further next hops.
    pub more_oifs: Vec<u32>,
    /// The scope.
    pub scope: RouteScope,
    /// Who made it; `Ra` for the kernel's answer to router advertisements.
    pub protocol: RouteProtocol,
    /// The table.
    pub table: u32,
    /// The priority; lower ones win.
    pub priority: u32,
    /// The MTU towards the destination, if it is set.
    pub mtu: Option<u32>,
    /// The maximal segment size that TCP announces, if it is set.
    pub advmss: Option<u32>,
    /// The preferred source address, if it is set.
    pub src: Option<IpAddr>,
}

/// Which unicast routes to list. `None` means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteFilter {
    /// The family; both if none.
    pub family: Option<Family>,
    /// The table. The default is the main one.
    pub table: Option<u32>,
    /// The index of the link they leave by.
    pub oif: Option<u32>,
    /// The exact destination.
    pub dst: Option<IpNet>,
}

impl Default for RouteFilter {
    fn default() -> Self {
        Self {
            family: None,
            table: Some(TABLE_MAIN),
            oif: None,
            dst: None,
        }
    }
}

/// A default route of the main table, and the link it leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The link's index.
    pub link: u32,
    /// The router.
    pub gateway: Option<IpAddr>,
    /// Whether the kernel made it from a router advertisement. Such a route goes away when
    /// forwarding is switched on, unless the link's `accept_ra` is 2.
    pub from_router_advertisement: bool,
}

impl Rtnl {
    /// Adds a route.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when there is one to the same destination with the same priority.
    pub fn add_route(&self, new: &NewRoute) -> Result<(), HostError> {
        self.make(&Change::Route(*new))
    }

    /// Adds a route, also where there is another one to the same destination with the same priority. In IPv4 the new one
    /// comes before it (`fib_table_insert` in net/ipv4/fib_trie.c), in IPv6 the two become next hops of one
    /// (`fib6_add_rt2node` in net/ipv6/ip6_fib.c).
    ///
    /// # Errors
    /// [`HostError::already_exists`] when there is one with the same next hop too.
    pub fn add_route_beside(&self, new: &NewRoute) -> Result<(), HostError> {
        self.make(&Change::RouteBeside(*new))
    }

    /// Adds a route in place of the one to the same destination with the same priority, if there is
    /// one.
    pub fn replace_route(&self, new: &NewRoute) -> Result<(), HostError> {
        self.ask(new.new_message(), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| error.during(self.route_text("replace", new)))?;
        Ok(())
    }

    /// Deletes the first route that is like this one in all that is set. Returns false when there
    /// is none.
    pub fn delete_route(&self, route: &NewRoute) -> Result<bool, HostError> {
        match self.ask(route.deletion(), 0) {
            Ok(_) => Ok(true),
            Err(error) => match error.errno() {
                Some(Errno::ESRCH | Errno::ENOENT | Errno::ENODEV) => Ok(false),
                _ => Err(error.during(self.route_text("delete", route))),
            },
        }
    }

    pub(super) fn route_text(&self, verb: &str, route: &NewRoute) -> String {
        let mut text = format!("{verb} route {}", route.dst.trunc());
        if let Some(gateway) = route.gateway {
            text += &format!(" via {gateway}");
        }
        if let Some(oif) = route.oif {
            text += &format!(" dev {}", self.describe(oif));
        }
        if let Some(table) = route.table {
            text += &format!(" table {table}");
        }
        text
    }

    /// The unicast routes that the filter lets through. The kernel does the filtering, except by
    /// destination.
    pub fn routes(&self, filter: &RouteFilter) -> Result<Vec<Route>, HostError> {
        let families = match (filter.family, filter.dst) {
            (Some(family), _) => vec![family],
            (None, Some(IpNet::V4(_))) => vec![Family::V4],
            (None, Some(IpNet::V6(_))) => vec![Family::V6],
            (None, None) => vec![Family::V4, Family::V6],
        };
        let mut routes = Vec::new();
        for family in families {
            match self.dump(&RouteNetlinkMessage::GetRoute(filter.message(family))) {
                Ok(answers) => {
                    routes.extend(answers.into_iter().filter_map(into_route).filter(|route| {
                        filter.lets_through(route) && Family::of(route.dst) == family
                    }))
                }
                // A table that no route was ever put into does not exist, nor does a link that is
                // gone.
                Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => {}
                Err(error) => return Err(error.during("list routes")),
            }
        }
        Ok(routes)
    }

    /// The links that default routes of the main table leave by, one entry for each.
    pub fn default_routes(&self, family: Family) -> Result<Vec<DefaultRoute>, HostError> {
        let filter = RouteFilter {
            family: Some(family),
            ..RouteFilter::default()
        };
        let mut defaults = Vec::new();
        for route in self.routes(&filter)? {
            if route.dst.prefix_len() != 0 {
                continue;
            }
            let links = route.oif.into_iter().chain(route.more_oifs);
            defaults.extend(links.map(|link| DefaultRoute {
                link,
                gateway: route.gateway,
                from_router_advertisement: route.protocol == RouteProtocol::Ra,
            }));
        }
        Ok(defaults)
    }
}

impl Family {
    pub(super) fn of(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    pub(super) fn into_netlink(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

impl RouteFilter {
    fn message(&self, family: Family) -> RouteMessage {
        // What is set filters; 0 is any table. The builder marks routes as made by hand, unless told otherwise.
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .table_id(self.table.unwrap_or(0))
            .protocol(RouteProtocol::Unspec)
            .with(self.oif, RouteMessageBuilder::output_interface);
        route.get_mut().header.address_family = family.into_netlink();
        route.build()
    }

    /// Older kernels and requests that are not checked strictly list more than was asked for.
    fn lets_through(&self, route: &Route) -> bool {
        let leaves_by = |link| route.oif == Some(link) || route.more_oifs.contains(&link);
        self.table.is_none_or(|table| route.table == table)
            && self.oif.is_none_or(leaves_by)
            && self.dst.is_none_or(|dst| route.dst == dst.trunc())
    }
}

fn into_route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(RouteMessage {
        header, attributes, ..
    }) = message
    else {
        return None;
    };
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let anywhere = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = Route {
        dst: IpNet::new(anywhere, header.destination_prefix_length).ok()?,
        gateway: None,
        oif: None,
        more_oifs: Vec::new(),
        scope: header.scope,
        protocol: header.protocol,
        table: header.table.into(),
        priority: 0,
        mtu: None,
        advmss: None,
        src: None,
    };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.dst =
                    IpNet::new(into_ip(&address)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(priority) => route.priority = priority,
            RouteAttribute::PrefSource(address) => route.src = into_ip(&address),
            RouteAttribute::Metrics(metrics) => route.take_metrics(&metrics),
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    route.take_hop(&[RouteAttribute::Oif(hop.interface_index)]);
                    route.take_hop(&hop.attributes);
                }
            }
            other => route.take_hop(&[other]),
        }
    }
    Some(route)
}

impl Route {
    /// Reads what belongs to a next hop: the first router, and the links of all.
    fn take_hop(&mut self, attributes: &[RouteAttribute]) {
        for attribute in attributes {
            match attribute {
                RouteAttribute::Oif(link) if self.oif.is_none() => self.oif = Some(*link),
                RouteAttribute::Oif(link) => self.more_oifs.push(*link),
                RouteAttribute::Gateway(address) => {
                    self.gateway = self.gateway.or_else(|| into_ip(address));
                }
                RouteAttribute::Via(RouteVia::Inet6(router)) => {
                    self.gateway = self.gateway.or(Some((*router).into()));
                }
                _ => {}
            }
        }
    }

    fn take_metrics(&mut self, metrics: &[RouteMetric]) {
        for metric in metrics {
            match metric {
                RouteMetric::Mtu(bytes) => self.mtu = Some(*bytes),
                RouteMetric::Advmss(bytes) => self.advmss = Some(*bytes),
                _ => {}
            }
        }
    }
}

fn into_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
