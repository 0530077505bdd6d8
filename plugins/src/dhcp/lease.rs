//! What a server grants: taken out of its answer with suspicion, and turned into a result.

use std::net::{IpAddr, Ipv4Addr};

use cni_conf::result::{Dns, IpConfig, Route};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::message::Reply;
use super::names;
use super::options::code;
use crate::host::rtnl::Mac;

/// The most routes that are taken from a server.
const ROUTES_MAX: usize = 256;

/// The most name servers and search domains.
const NAMES_MAX: usize = 32;

/// A lease of an IPv4 address. Times are in seconds from when it was asked for; a lease without an end never has to be
/// extended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lease {
    /// The address, with the length of its subnet's prefix.
    pub(super) address: Ipv4Net,
    /// The server's identifier, where it is sent to directly.
    pub(super) server: Ipv4Addr,
    /// The neighbour by which the server is reached.
    pub(super) via: Mac,
    pub(super) times: Option<Times>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Dns,
}

/// When a lease has to be extended, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Times {
    /// T1: its server is asked.
    pub(super) renew: u32,
    /// T2: any server is asked.
    pub(super) rebind: u32,
    /// It is over.
    pub(super) end: u32,
}

impl Times {
    /// The times that a server gave, where they make sense: T1 before T2 before the end. Otherwise half and seven eighths (RFC
    /// 2131, section 4.4.5).
    pub(super) fn new(renew: Option<u32>, rebind: Option<u32>, end: u32) -> Self {
        let usual = Self {
            renew: end / 2,
            rebind: end - end / 8,
            end,
        };
        let given = Self {
            renew: renew.unwrap_or(usual.renew),
            rebind: rebind.unwrap_or(usual.rebind),
            end,
        };
        if 0 < given.renew && given.renew <= given.rebind && given.rebind <= end {
            given
        } else {
            usual
        }
    }
}

impl Lease {
    /// The lease in an OFFER or an ACK, or why it is of no use, in words that follow "the server at X".
    pub(super) fn read(reply: &Reply) -> Result<Self, String> {
        let address = reply.address;
        if !is_usable(address) {
            return Err(format!("gives {address}, which is no host's address"));
        }
        let Some(mask) = reply.address_in(code::SUBNET_MASK) else {
            return Err(format!("gives {address} without a subnet mask"));
        };
        let Ok(net) = Ipv4Net::with_netmask(address, mask) else {
            return Err(format!(
                "gives {address} with the subnet mask {mask}, which is none"
            ));
        };
        if net.prefix_len() == 0 {
            return Err(format!(
                "gives {address} with a subnet that is the whole Internet"
            ));
        }
        let server = reply.address_in(code::SERVER);
        let Some(server) = server.filter(|server| is_usable(*server)) else {
            return Err(format!("gives {address} and does not say who it is"));
        };
        let times = match reply.seconds(code::LEASE_TIME) {
            None => return Err(format!("gives {address} without saying for how long")),
            Some(0) => return Err(format!("gives {address} for no time at all")),
            Some(u32::MAX) => None,
            Some(end) => Some(Times::new(
                reply.seconds(code::RENEWAL),
                reply.seconds(code::REBINDING),
                end,
            )),
        };
        let routers = reply.addresses(code::ROUTERS);
        let gateway = routers.into_iter().find(|router| is_usable(*router));
        Ok(Self {
            address: net,
            server,
            via: reply.via,
            times,
            gateway,
            routes: routes(reply, net, gateway),
            dns: dns(reply),
        })
    }

    /// The address for a result.
    pub(super) fn ip(&self) -> IpConfig {
        IpConfig {
            interface: None,
            address: IpNet::V4(self.address),
            gateway: self.gateway.map(IpAddr::V4),
        }
    }
}

/// Whether a host can have this address.
fn is_usable(address: Ipv4Addr) -> bool {
    let reserved = address.octets()[0] == 0 || address.octets()[0] >= 240;
    !(reserved || address.is_loopback() || address.is_multicast())
}

/// The routes of an answer: the classless ones, or where there are none (RFC 3442) those to single networks and the default
/// one. What lies on the link by the address's own subnet needs no route.
fn routes(reply: &Reply, own: Ipv4Net, gateway: Option<Ipv4Addr>) -> Vec<Route> {
    let classless = [code::CLASSLESS_ROUTES, code::CLASSLESS_ROUTES_MS]
        .into_iter()
        .filter_map(|code| reply.option(code))
        .map(classless)
        .find(|routes| !routes.is_empty());
    let pairs = classless.unwrap_or_else(|| {
        let mut pairs = classful(&reply.addresses(code::STATIC_ROUTES));
        pairs.extend(gateway.map(|gateway| (Ipv4Net::default(), gateway)));
        pairs
    });
    let needed = pairs.into_iter().filter(|(dst, router)| {
        let on_link = router.is_unspecified();
        !(on_link && own.contains(dst))
    });
    needed
        .take(ROUTES_MAX)
        // A router 0.0.0.0, which says that the destination is on the link, is what the kernel takes it for too.
        .map(|(dst, router)| Route::new(IpNet::V4(dst), Some(IpAddr::V4(router))))
        .collect()
}

/// Option 121: for each route the length of its prefix, as many bytes of it as that needs, and the router. None at all if it is
/// malformed: half a table of routes is worse than none.
fn classless(mut value: &[u8]) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let mut routes = Vec::new();
    while let [length, rest @ ..] = value {
        let bytes = usize::from(length.div_ceil(8));
        let mut octets = [0; 4];
        let (Some(prefix), Some(router)) = (rest.get(..bytes), rest.get(bytes..bytes + 4)) else {
            return Vec::new();
        };
        let Some(place) = octets.get_mut(..bytes) else {
            return Vec::new();
        };
        place.copy_from_slice(prefix);
        let router: [u8; 4] = router.try_into().unwrap_or_default();
        let Ok(net) = Ipv4Net::new(octets.into(), *length) else {
            return Vec::new();
        };
        if !is_usable(router.into()) && router != [0; 4] {
            return Vec::new();
        }
        routes.push((net.trunc(), router.into()));
        value = &rest[bytes + 4..];
    }
    routes
}

/// Option 33: destinations with their routers. The length of a destination's prefix is the one that networks had before there
/// was any choice.
fn classful(addresses: &[Ipv4Addr]) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let (pairs, _) = addresses.as_chunks::<2>();
    let useful = pairs
        .iter()
        .filter(|[dst, router]| is_usable(*dst) && is_usable(*router));
    useful
        .filter_map(|[dst, router]| {
            let length = match dst.octets()[0] {
                0..128 => 8,
                128..192 => 16,
                192..=255 => 24,
            };
            // A destination with bits beyond that is a single host.
            let net = Ipv4Net::new(*dst, length).ok()?;
            let net = if net.trunc() == net {
                net
            } else {
                (*dst).into()
            };
            Some((net, *router))
        })
        .collect()
}

fn dns(reply: &Reply) -> Dns {
    let servers = reply.addresses(code::NAME_SERVERS);
    let domain = reply.option(code::DOMAIN_NAME).and_then(names::text);
    let search = reply.option(code::DOMAIN_SEARCH).map(names::list);
    let mut search = search.unwrap_or_default();
    search.truncate(NAMES_MAX);
    Dns {
        nameservers: servers
            .into_iter()
            .filter(|server| is_usable(*server) || server.is_loopback())
            .take(NAMES_MAX)
            .map(|server| server.to_string())
            .collect(),
        domain: domain.unwrap_or_default(),
        search,
        options: Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::tests::{MAC, answer};
    use super::*;

    /// A reply that is an offer of 10.0.0.5/24 for ten minutes by 10.0.0.1, with these options instead or in addition.
    pub(crate) fn reply(kind: u8, xid: u32, address: [u8; 4], more: &[(u8, &[u8])]) -> Reply {
        let kind = [kind];
        let mut options: Vec<(u8, &[u8])> = vec![
            (53, &kind),
            (1, &[255, 255, 255, 0]),
            (51, &[0, 0, 2, 88]),
            (54, &[10, 0, 0, 1]),
        ];
        options.retain(|(code, _)| more.iter().all(|(other, _)| other != code));
        options.extend(more.iter().filter(|(_, value)| !value.is_empty()));
        Reply::read(&answer(xid, address, &options), MAC).unwrap()
    }

    fn read(more: &[(u8, &[u8])]) -> Result<Lease, String> {
        Lease::read(&reply(2, 1, [10, 0, 0, 5], more))
    }

    fn routes_of(more: &[(u8, &[u8])]) -> Vec<String> {
        let routes = read(more).unwrap().routes;
        let text = |route: &Route| format!("{} via {}", route.dst, route.gw.unwrap());
        routes.iter().map(text).collect()
    }

    #[test]
    fn a_lease_has_address_times_and_server() {
        let lease = read(&[(3, &[10, 0, 0, 1, 10, 0, 0, 2])]).unwrap();
        assert_eq!(lease.address.to_string(), "10.0.0.5/24");
        assert_eq!(lease.server, Ipv4Addr::new(10, 0, 0, 1));
        let times = lease.times.unwrap();
        assert_eq!((times.renew, times.rebind, times.end), (300, 525, 600));
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(lease.ip().gateway.unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn times_that_make_no_sense_are_not_kept() {
        let times = |t1, t2| {
            let times = Times::new(t1, t2, 800);
            (times.renew, times.rebind)
        };
        assert_eq!(times(Some(100), Some(200)), (100, 200));
        assert_eq!(times(None, None), (400, 700));
        for (t1, t2) in [
            (0, 200),
            (300, 200),
            (100, 900),
            (u32::MAX, u32::MAX),
            (0, 0),
        ] {
            assert_eq!(times(Some(t1), Some(t2)), (400, 700), "{t1} {t2}");
        }
        // The shortest lease there is still has an order.
        assert_eq!(Times::new(None, None, 1).rebind, 1);
        assert_eq!(read(&[(51, &[255; 4])]).unwrap().times, None);
    }

    #[test]
    fn what_is_no_lease_is_refused_with_the_reason() {
        for (more, problem) in [
            (&[(1, &[][..])][..], "without a subnet mask"),
            (&[(1, &[255, 0, 255, 0])], "which is none"),
            (&[(1, &[0, 0, 0, 0])], "whole Internet"),
            (&[(1, &[255, 255])], "without a subnet mask"),
            (&[(51, &[])], "for how long"),
            (&[(51, &[0; 4])], "for no time at all"),
            (&[(51, &[1])], "for how long"),
            (&[(54, &[])], "who it is"),
            (&[(54, &[0; 4])], "who it is"),
        ] {
            let error = read(more).unwrap_err();
            assert!(error.contains(problem), "{more:?}: {error}");
        }
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            Lease::read(&reply(2, 1, address, &[])).unwrap_err();
        }
    }

    #[test]
    fn classless_routes_replace_the_others() {
        let router = (3, &[10, 0, 0, 1][..]);
        assert_eq!(routes_of(&[router]), ["0.0.0.0/0 via 10.0.0.1"]);
        let classful: (u8, &[u8]) = (
            33,
            &[192, 168, 7, 0, 10, 0, 0, 2, 172, 16, 5, 9, 10, 0, 0, 3],
        );
        assert_eq!(
            routes_of(&[router, classful]),
            [
                "192.168.7.0/24 via 10.0.0.2",
                "172.16.5.9/32 via 10.0.0.3",
                "0.0.0.0/0 via 10.0.0.1"
            ]
        );
        let table: &[u8] = &[
            24, 10, 9, 8, 10, 0, 0, 4, // a subnet
            0, 10, 0, 0, 5, // the default route
            32, 169, 254, 169, 254, 0, 0, 0, 0, // on the link
            24, 10, 0, 0, 0, 0, 0, 0, // the subnet itself, needless
        ];
        let expected = [
            "10.9.8.0/24 via 10.0.0.4",
            "0.0.0.0/0 via 10.0.0.5",
            "169.254.169.254/32 via 0.0.0.0",
        ];
        assert_eq!(routes_of(&[router, classful, (121, table)]), expected);
        assert_eq!(routes_of(&[router, (249, table)]), expected);
    }

    #[test]
    fn a_malformed_table_of_routes_is_none() {
        let router = (3, &[10, 0, 0, 1][..]);
        let whole: &[u8] = &[24, 10, 9, 8, 10, 0, 0, 4];
        for length in 1..whole.len() {
            let cut = (121, &whole[..length]);
            assert_eq!(routes_of(&[router, cut]), ["0.0.0.0/0 via 10.0.0.1"]);
        }
        for bad in [
            &[33, 1, 2, 3, 4, 5, 10, 0, 0, 4][..],
            &[255; 40],
            &[8, 10, 127, 0, 0, 1],
        ] {
            assert_eq!(routes_of(&[router, (121, bad)]), ["0.0.0.0/0 via 10.0.0.1"]);
        }
    }

    #[test]
    fn resolver_settings_have_nothing_that_a_file_could_be_broken_with() {
        let dns = read(&[
            (6, &[10, 0, 0, 53, 0, 0, 0, 0]),
            (15, b"example.org\0"),
            (119, &[1, b'a', 3, b'o', b'r', b'g', 0, 1, b'b', 0xc0, 2]),
        ])
        .unwrap()
        .dns;
        assert_eq!(dns.nameservers, ["10.0.0.53"]);
        assert_eq!(dns.domain, "example.org");
        assert_eq!(dns.search, ["a.org", "b.org"]);
        let hostile = read(&[(15, b"x\nnameserver 6.6.6.6"), (6, &[1, 2, 3])]).unwrap();
        assert_eq!(hostile.dns, Dns::default());
    }
}
