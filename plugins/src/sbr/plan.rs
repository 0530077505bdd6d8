//! What moves into which table: a pure function of addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_conf::result::IpConfig;
use ipnet::IpNet;

use crate::host::rtnl::{NewRoute, Route, RouteScope, TABLE_MAIN};

/// The first table that is taken where the configuration names none.
pub(super) const FIRST_TABLE: u32 = 100;

/// Tables that belong to the kernel: default, main and local (include/uapi/linux/rtnetlink.h).
const KERNELS: std::ops::RangeInclusive<u32> = 253..=255;

/// One address, its table and what goes into that, in this order.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) from: IpAddr,
    pub(super) table: u32,
    pub(super) routes: Vec<NewRoute>,
}

/// What is known of the interface.
pub(super) struct Given<'a> {
    /// Its index.
    pub(super) link: u32,
    /// Its addresses.
    pub(super) ips: &'a [&'a IpConfig],
    /// Its routes in the main table.
    pub(super) routes: &'a [Route],
    /// Gateways that count instead of those of the addresses, at most one of each family.
    pub(super) gateways: &'a [IpAddr],
}

impl Given<'_> {
    /// The branches, with tables that nobody uses.
    pub(super) fn branches(&self, is_used: impl Fn(u32) -> bool) -> Vec<Branch> {
        let mut next = FIRST_TABLE;
        let mut branches = Vec::with_capacity(self.ips.len());
        for ip in self.ips {
            while is_used(next) || KERNELS.contains(&next) {
                next += 1;
            }
            branches.push(self.branch(ip, next));
            next += 1;
        }
        branches
    }

    fn branch(&self, ip: &IpConfig, table: u32) -> Branch {
        let belongs = |route: &&Route| {
            let in_subnet = |address: Option<IpAddr>| {
                address.is_some_and(|address| ip.address.contains(&address))
            };
            is_alike(route.dst, ip.address.addr())
                && (in_subnet(route.src)
                    || in_subnet(route.gateway)
                    || (route.src.is_none() && route.gateway.is_none()))
        };
        let default = self.gateway_of(ip).map(|gateway| NewRoute {
            gateway: Some(gateway),
            oif: Some(self.link),
            table: Some(table),
            ..NewRoute::to(anywhere(gateway))
        });
        let own = self
            .routes
            .iter()
            .filter(belongs)
            .filter(|route| !is_link_local(route));
        let own = own.map(|route| NewRoute {
            table: Some(table),
            ..self.as_new(route)
        });
        let mut routes: Vec<NewRoute> = default.into_iter().chain(own).collect();
        // One default route, which the gateway that was asked for has.
        let mut has_default = false;
        routes.retain(|route| {
            let again = route.dst.prefix_len() == 0 && has_default;
            has_default |= route.dst.prefix_len() == 0;
            !again
        });
        // A gateway must be on the link before anything leads to it.
        routes.sort_by_key(|route| route.gateway.is_some());
        Branch {
            from: ip.address.addr(),
            table,
            routes,
        }
    }

    fn gateway_of(&self, ip: &IpConfig) -> Option<IpAddr> {
        let of_family = |gateway: &&IpAddr| gateway.is_ipv4() == ip.address.addr().is_ipv4();
        self.gateways.iter().find(of_family).copied().or(ip.gateway)
    }

    /// The routes that leave the main table, and those that stay or come there so that whoever has no source address yet
    /// gets the one of the interface.
    pub(super) fn main_table(&self, hints: bool) -> (Vec<NewRoute>, Vec<NewRoute>) {
        let stays = |route: &&Route| is_link_local(route) || (hints && self.is_of_a_subnet(route));
        let leaving = self.routes.iter().filter(|route| !stays(route));
        let hinted = self.ips.iter().filter(|_| hints).map(|ip| {
            let subnet = ip.address.trunc();
            // It takes the place of the one that is there.
            let there = self.routes.iter().find(|route| route.dst == subnet);
            NewRoute {
                oif: Some(self.link),
                src: Some(ip.address.addr()),
                scope: Some(RouteScope::Link),
                priority: there.map(|route| route.priority).filter(|it| *it != 0),
                table: Some(TABLE_MAIN),
                ..NewRoute::to(subnet)
            }
        });
        let leaving = leaving.map(|route| self.as_new(route));
        (leaving.collect(), hinted.collect())
    }

    fn is_of_a_subnet(&self, route: &Route) -> bool {
        route.gateway.is_none() && self.ips.iter().any(|ip| ip.address.trunc() == route.dst)
    }

    fn as_new(&self, route: &Route) -> NewRoute {
        NewRoute {
            gateway: route.gateway,
            oif: Some(self.link),
            scope: Some(route.scope),
            mtu: route.mtu,
            advmss: route.advmss,
            priority: (route.priority != 0).then_some(route.priority),
            table: Some(route.table),
            src: route.src,
            ..NewRoute::to(route.dst)
        }
    }
}

fn is_alike(net: IpNet, address: IpAddr) -> bool {
    net.addr().is_ipv4() == address.is_ipv4()
}

/// What neighbours of the link find each other by.
fn is_link_local(route: &Route) -> bool {
    match route.dst {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.addr().segments()[0] & 0xffc0 == 0xfe80 || net.addr().is_multicast(),
    }
}

/// The prefix of length 0 of an address's family.
fn anywhere(address: IpAddr) -> IpNet {
    let zero = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new(zero, 0).unwrap_or(IpNet::from(zero))
}

#[cfg(test)]
mod tests {
    use crate::host::rtnl::RouteProtocol;

    use super::*;

    fn ip(address: &str, gateway: Option<&str>) -> IpConfig {
        IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        }
    }

    fn route(dst: &str, gateway: Option<&str>, src: Option<&str>) -> Route {
        Route {
            dst: dst.parse().unwrap(),
            gateway: gateway.map(|it| it.parse().unwrap()),
            oif: Some(7),
            more_oifs: Vec::new(),
            scope: RouteScope::Universe,
            protocol: RouteProtocol::Boot,
            table: TABLE_MAIN,
            priority: 0,
            mtu: None,
            advmss: None,
            src: src.map(|it| it.parse().unwrap()),
        }
    }

    fn text(route: &NewRoute) -> String {
        match route.gateway {
            None => route.dst.to_string(),
            Some(gateway) => format!("{} via {gateway}", route.dst),
        }
    }

    #[test]
    fn each_address_has_its_own_table() {
        let (a, b) = (
            ip("10.1.0.2/24", Some("10.1.0.1")),
            ip("10.2.0.2/24", Some("10.2.0.1")),
        );
        let six = ip("fd00::2/64", None);
        let routes = [
            route("0.0.0.0/0", Some("10.1.0.1"), None),
            route("10.1.0.0/24", None, Some("10.1.0.2")),
            route("10.2.0.0/24", None, Some("10.2.0.2")),
            route("192.0.2.0/24", Some("10.2.0.9"), None),
            route("fd00::/64", None, None),
            route("fe80::/64", None, None),
        ];
        let ips = [&a, &b, &six];
        let given = Given {
            link: 7,
            ips: &ips,
            routes: &routes,
            gateways: &[],
        };
        let branches = given.branches(|table| table == 101);
        let seen: Vec<_> = branches
            .iter()
            .map(|branch| {
                let routes: Vec<_> = branch.routes.iter().map(text).collect();
                (branch.table, routes.join(", "))
            })
            .collect();
        assert_eq!(
            seen,
            [
                (100, "10.1.0.0/24, 0.0.0.0/0 via 10.1.0.1".into()),
                (
                    102,
                    "10.2.0.0/24, 0.0.0.0/0 via 10.2.0.1, 192.0.2.0/24 via 10.2.0.9".into()
                ),
                (103, "fd00::/64".to_owned()),
            ]
        );
        let (leaving, hinted) = given.main_table(false);
        assert_eq!(
            (leaving.len(), hinted.len()),
            (5, 0),
            "link-local routes stay"
        );
    }

    #[test]
    fn a_gateway_of_ones_own_counts_and_subnets_may_stay() {
        let ips = [&ip("10.1.0.2/24", Some("10.1.0.1"))];
        let routes = [
            route("0.0.0.0/0", Some("10.1.0.1"), None),
            route("10.1.0.0/24", None, None),
        ];
        let gateways = ["fd00::9".parse().unwrap(), "10.1.0.9".parse().unwrap()];
        let given = Given {
            link: 7,
            ips: &ips,
            routes: &routes,
            gateways: &gateways,
        };
        let routes: Vec<_> = given.branches(|_| false)[0]
            .routes
            .iter()
            .map(text)
            .collect();
        assert_eq!(routes, ["10.1.0.0/24", "0.0.0.0/0 via 10.1.0.9"]);
        let (leaving, hinted) = given.main_table(true);
        assert_eq!(text(&leaving[0]), "0.0.0.0/0 via 10.1.0.1");
        assert_eq!((leaving.len(), text(&hinted[0])), (1, "10.1.0.0/24".into()));
        assert_eq!(hinted[0].src, Some("10.1.0.2".parse().unwrap()));
    }
}
