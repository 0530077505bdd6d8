//! The interface inside the container: opening its namespace, addresses, routes.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::request::Attachment;
use cni_conf::result::{IpConfig, Route};
use ipnet::IpNet;
use nix::errno::Errno;

use super::ipv6;
use crate::host::rtnl::{AddressOptions, Change, LinkChange, NewRoute, RouteScope};
use crate::host::{HostError, NetNs, Procfs, Rtnl};

/// How long duplicate address detection may take. The kernel sends one probe a second after a random delay of up to
/// a second (RFC 4862, section 5.4); `dad_transmits` may ask for a few more.
const DAD_BOUND: Duration = Duration::from_secs(10);

/// A container's namespace, with a netlink socket in it.
pub struct Container {
    /// The namespace.
    pub netns: NetNs,
    /// Speaks to the kernel about that namespace.
    pub rtnl: Rtnl,
    /// By which its sysctls are reached, once there are any to reach.
    procfs: OnceCell<Procfs>,
}

/// Whether a path can't be opened because no namespace can be there: it is below a file, or too long, or a loop of links, or
/// leads to a socket or to a terminal that is gone. That one may not be opened is another thing.
fn leads_nowhere(error: &HostError) -> bool {
    use Errno::{EIO, ELOOP, ENAMETOOLONG, ENODEV, ENOTDIR, ENXIO};
    matches!(error, HostError::NetNsOpen { .. })
        && matches!(
            error.errno(),
            Some(EIO | ELOOP | ENAMETOOLONG | ENODEV | ENOTDIR | ENXIO)
        )
}

impl Container {
    /// Opens the namespace that the attachment names. The host's own is refused, unless the runtime insists
    /// (`CNI_NETNS_OVERRIDE`).
    pub fn open(attachment: &Attachment) -> Result<Self, Error> {
        let netns = NetNs::open(attachment.netns()?)?;
        if !attachment.netns_override && netns.is_current()? {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_NETNS: {} is the network namespace that the plugin itself runs in", netns.path().display()),
            )
            .with_details("give the container's own namespace; a container on the host's network needs no plugin"));
        }
        let container = Self::inside(netns)?;
        // Records of what the container gets say which namespace it was.
        container.netns.note_cookie(container.rtnl.as_fd());
        Ok(container)
    }

    /// Opens the namespace for DEL: `None` where it is not given or gone, which is no error there.
    pub fn open_if_there(attachment: &Attachment) -> Result<Option<Self>, Error> {
        if attachment.netns.is_none() {
            return Ok(None);
        }
        match attachment.netns().map(NetNs::open)? {
            Ok(netns) if !attachment.netns_override && netns.is_current()? => Ok(None),
            Ok(netns) => Self::inside(netns).map(Some),
            // The bind mount of a namespace that was removed leaves an empty file.
            Err(HostError::NetNsMissing { .. } | HostError::NotANetNs { .. }) => Ok(None),
            Err(error) if leads_nowhere(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A namespace that is open already.
    pub fn inside(netns: NetNs) -> Result<Self, Error> {
        Ok(Self {
            rtnl: Rtnl::in_netns(&netns)?,
            netns,
            procfs: OnceCell::new(),
        })
    }

    /// Runs what reads and writes sysctls of the container, inside its namespace and by the procfs that it is handed.
    ///
    /// # Errors
    /// When the namespace can't be entered, and those of `work`.
    pub fn with_sysctls<T>(
        &self,
        work: impl FnOnce(&Procfs) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        self.netns.enter(|| work(self.procfs()))?
    }

    fn procfs(&self) -> &Procfs {
        self.procfs.get_or_init(Procfs::private)
    }

    /// Fails if the container has an interface of this name.
    pub fn require_free(&self, ifname: &str) -> Result<(), Error> {
        if !self.rtnl.has_link(ifname)? {
            return Ok(());
        }
        Err(Error::new(
            Code::Conflict,
            format!("interface {ifname} exists already in the container ({})", self.netns.path().display()),
        )
        .with_details("the container is attached under this name: run DEL first, or choose another CNI_IFNAME"))
    }

    /// Gives the interface its addresses and routes and brings it up. Everything works when this returns, IPv6
    /// addresses included, unless duplicate address detection was asked for: then that is waited for.
    pub fn configure(&self, link: u32, ifname: &str, layer3: &Layer3) -> Result<(), Error> {
        if layer3.has_ipv6() {
            self.netns.enter(|| {
                ipv6::set_up(self.procfs(), ifname, layer3.dad, layer3.heeds_routers)
            })??;
        }
        let mut plan = layer3.interface(link);
        if layer3.dad && layer3.has_ipv6() {
            self.apply(&plan)?;
            self.rtnl.wait_for_dad(link, DAD_BOUND)?;
            plan.clear();
        }
        plan.extend(layer3.all_routes(link));
        self.apply(&plan)
    }

    /// Tells the neighbours by gratuitous ARP where the interface's IPv4 addresses are now, and by unsolicited
    /// advertisements where its IPv6 addresses are if [`ipv6::notify`] was called. The kernel does so when the MAC address
    /// is set, to the same one too (`netif_set_mac_address` in net/core/dev.c).
    pub fn announce(&self, link: u32, mac: MacAddr) -> Result<(), Error> {
        let change = LinkChange {
            mac: Some(mac.bytes()),
            ..LinkChange::default()
        };
        Ok(self.rtnl.set_link(link, &change)?)
    }

    fn apply(&self, plan: &[Change<'_>]) -> Result<(), Error> {
        self.rtnl
            .apply(plan)
            .map_err(|(place, error)| match plan.get(place) {
                Some(Change::RouteBeside(new)) => explain_route(error, new),
                _ => error.into(),
            })
    }
}

/// Addresses and routes of a container's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer3 {
    /// Addresses, with the gateway of each subnet.
    pub ips: Vec<IpConfig>,
    /// Routes. One without `gw` goes to the first gateway of its family, if there is one.
    pub routes: Vec<Route>,
    /// Detect duplicate IPv6 addresses, which takes a second or two.
    pub dad: bool,
    /// The gateway is the only neighbour: everything else in the subnets is reached through it.
    pub through_gateway: bool,
    /// Routers of the network outside are listened to, as the kernel does where nobody says otherwise. Where the host is the
    /// only router, their advertisements are ignored.
    pub heeds_routers: bool,
}

impl Layer3 {
    /// True if an IPv6 address is among the addresses.
    pub fn has_ipv6(&self) -> bool {
        self.ips.iter().any(|ip| ip.address.addr().is_ipv6())
    }

    /// True if an IPv4 address is among the addresses.
    pub fn has_ipv4(&self) -> bool {
        self.ips.iter().any(|ip| ip.address.addr().is_ipv4())
    }

    /// What brings the interface up with its addresses.
    ///
    /// IPv6 addresses come after `up`: of those that are there before, the kernel makes the routes while it must not wait
    /// for memory (`addrconf_permanent_addr` in net/ipv6/addrconf.c), and when there is none at hand they are missing
    /// without a word.
    fn interface(&self, link: u32) -> Vec<Change<'static>> {
        let options = AddressOptions {
            nodad: !self.dad,
            noprefixroute: self.through_gateway,
        };
        let of_version = |ipv6: bool| {
            let ips = self.ips.iter();
            ips.filter(move |ip| ip.address.addr().is_ipv6() == ipv6)
                .map(move |ip| Change::Address {
                    link,
                    net: ip.address,
                    options,
                })
        };
        let change = LinkChange {
            arp_notify: true,
            ..LinkChange::up()
        };
        of_version(false)
            .chain([Change::Link { link, change }])
            .chain(of_version(true))
            .collect()
    }

    /// Every route.
    fn all_routes(&self, link: u32) -> Vec<Change<'static>> {
        let of_subnets = self.routes_of_subnets().into_iter().map(|new| {
            let oif = Some(link);
            Change::Route(NewRoute { oif, ..new })
        });
        // A container on two networks may get a default route from each, as with `podman network connect`.
        let others = self.routes.iter().map(|route| {
            Change::RouteBeside(NewRoute {
                gateway: self.gateway_for(route),
                oif: Some(link),
                scope: route.scope.map(RouteScope::from),
                mtu: route.mtu,
                advmss: route.advmss,
                priority: route.priority,
                table: route.table,
                ..NewRoute::to(route.dst)
            })
        });
        of_subnets.chain(others).collect()
    }

    /// Routes that make no use of another one. Where the gateway is the only neighbour they stand in for those that the
    /// kernel would make of the addresses: the gateway itself is on the link, its subnet behind it. Otherwise a gateway
    /// outside its subnet is on the link all the same.
    pub fn routes_of_subnets(&self) -> Vec<NewRoute> {
        let mut routes: Vec<NewRoute> = Vec::new();
        let gateways = self.ips.iter().filter_map(|ip| Some((ip, ip.gateway?)));
        for (ip, gateway) in gateways.filter(|(ip, _)| self.through_gateway || self.is_apart(ip)) {
            let on_link = NewRoute {
                src: Some(ip.address.addr()),
                ..NewRoute::to(IpNet::from(gateway))
            };
            let behind = NewRoute {
                gateway: Some(gateway),
                ..on_link
            };
            let subnet = ip.address.trunc();
            let has_others = self.through_gateway && subnet.prefix_len() < subnet.max_prefix_len();
            let behind = has_others.then_some(NewRoute {
                dst: subnet,
                ..behind
            });
            for route in [on_link].into_iter().chain(behind) {
                // Two addresses of one subnet have one gateway.
                if !routes.iter().any(|known| known.dst == route.dst) {
                    routes.push(route);
                }
            }
        }
        routes
    }

    /// True if no subnet of the interface has the gateway of this address in it.
    fn is_apart(&self, ip: &IpConfig) -> bool {
        let link_local = |gateway: IpAddr| match gateway {
            IpAddr::V6(gateway) => gateway.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        ip.gateway.is_some_and(|gateway| {
            !link_local(gateway) && !self.ips.iter().any(|ip| ip.address.contains(&gateway))
        })
    }

    /// A route that is asked for twice is one route.
    pub fn drop_doubles(&mut self) {
        let key = |route: &Route| {
            (
                route.dst.trunc(),
                self.gateway_for(route),
                route.table,
                route.priority,
            )
        };
        let mut seen = Vec::with_capacity(self.routes.len());
        let keep: Vec<bool> = self
            .routes
            .iter()
            .map(|route| {
                let new = !seen.contains(&key(route));
                seen.push(key(route));
                new
            })
            .collect();
        let mut keep = keep.into_iter();
        self.routes.retain(|_| keep.next().unwrap_or(true));
    }

    /// Where a route leads: to its own gateway, else to the first one of its family.
    pub fn gateway_for(&self, route: &Route) -> Option<IpAddr> {
        if route.gw.is_some() {
            return route.gw;
        }
        let ipv4 = route.dst.addr().is_ipv4();
        self.ips
            .iter()
            .filter_map(|ip| ip.gateway)
            .find(|gateway| gateway.is_ipv4() == ipv4)
    }
}

fn explain_route(error: HostError, route: &NewRoute) -> Error {
    let gateway = route.gateway;
    let unreachable = matches!(
        error.errno(),
        Some(
            nix::errno::Errno::ENETUNREACH
                | nix::errno::Errno::EHOSTUNREACH
                | nix::errno::Errno::EINVAL
        )
    );
    let exists = error.already_exists();
    let report = Error::from(error);
    match gateway {
        Some(gateway) if unreachable => report.with_details(format!(
            "the gateway {gateway} must lie in the subnet of one of the container's addresses; correct \"gateway\" or the \
             route's \"gw\""
        )),
        _ if exists => report.with_details(format!(
            "the container has a route to {} already: give one of them another \"priority\" or \"table\"",
            route.dst
        )),
        _ => report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_come_after_up() {
        let ip = |address: &str| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: None,
        };
        let layer3 = Layer3 {
            ips: vec![ip("fd00::5/64"), ip("10.1.0.5/24"), ip("fd01::5/64")],
            ..Layer3::default()
        };
        let text = |change: &Change<'_>| match change {
            Change::Address { net, .. } => net.to_string(),
            Change::Link { change, .. } => change.to_string(),
            Change::Route(_) | Change::RouteBeside(_) => "route".to_owned(),
        };
        let changes: Vec<_> = layer3.interface(7).iter().map(text).collect();
        assert_eq!(
            changes,
            [
                "10.1.0.5/24",
                "set up, arp_notify",
                "fd00::5/64",
                "fd01::5/64"
            ]
        );
    }

    #[test]
    fn subnets_lie_behind_the_gateway_where_it_is_the_only_neighbour() {
        let ip = |address: &str, gateway: &str| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        };
        let mut layer3 = Layer3 {
            ips: vec![
                ip("10.1.0.5/24", "10.1.0.1"),
                ip("10.1.0.6/24", "10.1.0.1"),
                ip("10.9.0.7/32", "169.254.1.1"),
                ip("fd00::5/64", "fd00::1"),
            ],
            through_gateway: true,
            ..Layer3::default()
        };
        let text = |route: &NewRoute| match route.gateway {
            None => format!("{} on link", route.dst),
            Some(gateway) => format!("{} via {gateway}", route.dst),
        };
        let routes: Vec<_> = layer3.routes_of_subnets().iter().map(text).collect();
        assert_eq!(
            routes,
            [
                "10.1.0.1/32 on link",
                "10.1.0.0/24 via 10.1.0.1",
                "169.254.1.1/32 on link",
                "fd00::1/128 on link",
                "fd00::/64 via fd00::1",
            ]
        );
        layer3.through_gateway = false;
        let routes: Vec<_> = layer3.routes_of_subnets().iter().map(text).collect();
        assert_eq!(routes, ["169.254.1.1/32 on link"]);
    }
}
