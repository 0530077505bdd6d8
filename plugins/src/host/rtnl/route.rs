//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
pub use netlink_packet_route::route::{RouteProtocol, RouteScope};

use super::super::error::HostError;
use super::exchange::Rtnl;

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

/// A route to add. The prefix of length 0 is the default route of its family.
#[derive(Clone, Copy, Debug)]
pub struct NewRoute {
    /// The destination; host bits are cleared.
    pub dst: IpNet,
    /// The next router; none for a destination that is on the link. An IPv6 router may serve IPv4 too.
    pub gateway: Option<IpAddr>,
    /// The index of the link it leaves by.
    pub oif: Option<u32>,
    /// The scope, IPv4 only. Without one: `Universe` with a gateway, `Link` without, as iproute2 does.
    pub scope: Option<RouteScope>,
    /// The MTU towards the destination in bytes.
    pub mtu: Option<u32>,
    /// The maximal segment size that TCP announces, in bytes.
    pub advmss: Option<u32>,
    /// The priority; lower ones win. Without one: 0 for IPv4, 1024 for IPv6.
    pub priority: Option<u32>,
    /// The table; the main one if none.
    pub table: Option<u32>,
    /// The preferred source address.
    pub src: Option<IpAddr>,
    /// Take the gateway to be on the link, though no address says so.
    pub onlink: bool,
}

impl NewRoute {
    /// A route to `dst` that has nothing else set.
    pub fn to(dst: IpNet) -> Self {
        Self {
            dst,
            gateway: None,
            oif: None,
            scope: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            src: None,
            onlink: false,
        }
    }
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
    /// Whether the kernel made it from a router advertisement. Such a route goes away when forwarding is
    /// switched on, unless the link's `accept_ra` is 2.
    pub from_router_advertisement: bool,
}

impl Rtnl {
    /// Adds a route.
    ///
    /// # Errors
    /// [`HostError::is_exists`] when there is one to the same destination with the same priority (IPv4), or
    /// the very same one (IPv6).
    pub fn add_route(&self, new: &NewRoute) -> Result<(), HostError> {
        unimplemented!("{new:?}")
    }

    /// Adds a route in place of the one to the same destination with the same priority, if there is one.
    pub fn replace_route(&self, new: &NewRoute) -> Result<(), HostError> {
        unimplemented!("{new:?}")
    }

    /// Deletes the first route that is like this one in all that is set. Returns false when there is none.
    pub fn delete_route(&self, route: &NewRoute) -> Result<bool, HostError> {
        unimplemented!("{route:?}")
    }

    /// The unicast routes that the filter lets through. The kernel does the filtering, except by destination.
    pub fn routes(&self, filter: &RouteFilter) -> Result<Vec<Route>, HostError> {
        unimplemented!("{filter:?}")
    }

    /// The links that default routes of the main table leave by, one entry for each.
    pub fn default_routes(&self, family: Family) -> Result<Vec<DefaultRoute>, HostError> {
        unimplemented!("{family:?}")
    }
}
