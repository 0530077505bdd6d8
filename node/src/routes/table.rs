//! The agent's routes in the kernel's main table: those that carry its protocol number, and no others.

use std::collections::BTreeMap;

use ipnet::IpNet;
use plugins::host::rtnl::{NewRoute, Route, RouteFilter, RouteProtocol};
use plugins::host::{HostError, Rtnl};

use super::host::HostView;
use super::plan::NextHop;

/// A socket for the main table.
pub(crate) struct Table {
    rtnl: Rtnl,
    protocol: RouteProtocol,
}

/// What a change of the table came to.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) added: u64,
    pub(crate) replaced: u64,
    pub(crate) removed: u64,
    pub(crate) kept: u64,
    pub(crate) failures: Vec<(IpNet, HostError)>,
}

impl Table {
    /// In the namespace of the calling thread.
    pub(crate) fn new(protocol: u8) -> Result<Self, HostError> {
        Ok(Self {
            rtnl: Rtnl::new()?,
            protocol: RouteProtocol::from(protocol),
        })
    }

    /// What the host's routes and addresses say, and the routes that are the agent's.
    pub(crate) fn look(&self) -> Result<(HostView, Vec<Route>), HostError> {
        let mut view = HostView::default();
        let mut own = Vec::new();
        for route in self.rtnl.routes(&RouteFilter::default())? {
            match route.protocol == self.protocol {
                true => own.push(route),
                false => view.add_route(route.dst, route.gateway, route.oif.unwrap_or(0)),
            }
        }
        for address in self.rtnl.addresses(0)? {
            view.add_address(address.net.addr(), address.link);
        }
        Ok((view, own))
    }

    /// The MTU of a link in bytes.
    pub(crate) fn mtu_of(&self, link: u32) -> Result<Option<u32>, HostError> {
        let link = self.rtnl.link_by_index(link)?;
        Ok(link.map(|link| link.mtu))
    }

    /// Makes the agent's routes what they should be. A destination that stays keeps a route all the time.
    pub(crate) fn apply(&self, own: &[Route], wanted: &BTreeMap<IpNet, NextHop>) -> Applied {
        let mut applied = Applied::default();
        let mut there: BTreeMap<IpNet, &Route> = BTreeMap::new();
        let mut surplus = Vec::new();
        for route in own {
            let better = wanted
                .get(&route.dst)
                .is_some_and(|hop| leads_to(route, *hop));
            match there.get(&route.dst) {
                // Two to one destination, with different metrics, were made by hand.
                Some(other)
                    if !better
                        || wanted
                            .get(&route.dst)
                            .is_some_and(|hop| leads_to(other, *hop)) =>
                {
                    surplus.push(route);
                }
                _ => surplus.extend(there.insert(route.dst, route)),
            }
        }
        for (dst, hop) in wanted {
            let new = self.route(*dst, *hop);
            let (outcome, count) = match there.get(dst) {
                Some(route) if leads_to(route, *hop) => {
                    applied.kept += 1;
                    continue;
                }
                Some(_) => (self.rtnl.replace_route(&new), &mut applied.replaced),
                None => (self.rtnl.add_route(&new), &mut applied.added),
            };
            match outcome {
                Ok(()) => *count += 1,
                Err(error) => applied.failures.push((*dst, error)),
            }
        }
        let gone = there.iter().filter(|(dst, _)| !wanted.contains_key(dst));
        for route in gone.map(|(_, route)| *route).chain(surplus) {
            match self.rtnl.delete_route(&self.same(route)) {
                Ok(deleted) => applied.removed += u64::from(deleted),
                Err(error) => applied.failures.push((route.dst, error)),
            }
        }
        applied
    }

    fn route(&self, dst: IpNet, hop: NextHop) -> NewRoute {
        NewRoute {
            gateway: Some(hop.via),
            oif: Some(hop.link),
            protocol: Some(self.protocol),
            ..NewRoute::to(dst)
        }
    }

    fn same(&self, route: &Route) -> NewRoute {
        NewRoute {
            gateway: route.gateway,
            oif: route.oif.filter(|_| route.more_oifs.is_empty()),
            priority: Some(route.priority),
            protocol: Some(self.protocol),
            ..NewRoute::to(route.dst)
        }
    }
}

fn leads_to(route: &Route, hop: NextHop) -> bool {
    route.gateway == Some(hop.via) && route.oif == Some(hop.link) && route.more_oifs.is_empty()
}
