//! Asking the kernel what it would do with a packet that came in.

use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::super::error::HostError;
use super::exchange::Rtnl;
use crate::host::conntrack::Tuple;

/// What the routes say of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteLookup {
    /// It leaves by this link, to this next hop or to its destination itself.
    Out {
        /// The link's index.
        link: u32,
        /// The next hop; none where the destination is a neighbour.
        gateway: Option<IpAddr>,
        /// The number of the table that says so.
        table: u32,
        /// The MTU of the way in bytes, where it is another one than the link's: set by hand, or told by a router.
        mtu: Option<u32>,
    },
    /// It is for this host itself.
    Local,
    /// There is no way, and why: `ENETUNREACH` or `EHOSTUNREACH` for no route, `EINVAL` or `EXDEV` where a source
    /// address can't have come in by that link (reverse path filter).
    Unreachable(Errno),
}

impl Rtnl {
    /// What becomes of a packet that came in by a link (or that the host sends itself) with this mark, by all rules and
    /// tables. Its source may be unspecified; one that is not the host's own needs a link.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn look_up_route(
        &self,
        packet: &Tuple,
        iif: Option<u32>,
        mark: u32,
    ) -> Result<RouteLookup, HostError> {
        let mut message = RouteMessage::default();
        let (family, length) = match packet.destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(packet.destination.into()));
        if !packet.source.is_unspecified() {
            attributes.push(RouteAttribute::Source(packet.source.into()));
            message.header.source_prefix_length = length;
        }
        attributes.extend(iif.map(RouteAttribute::Iif));
        if mark != 0 {
            attributes.push(RouteAttribute::Mark(mark));
        }
        if matches!(packet.protocol, 6 | 17) {
            attributes.push(RouteAttribute::IpProto(packet.protocol));
            attributes.push(RouteAttribute::Sport(packet.source_port));
            attributes.push(RouteAttribute::Dport(packet.destination_port));
        }
        match self.get(RouteNetlinkMessage::GetRoute(message)) {
            Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(read(&route)),
            Ok(_) => Ok(RouteLookup::Unreachable(Errno::ENETUNREACH)),
            Err(error) => match error.errno() {
                Some(
                    errno @ (Errno::ENETUNREACH
                    | Errno::EHOSTUNREACH
                    | Errno::ESRCH
                    | Errno::EACCES
                    | Errno::EINVAL
                    | Errno::EXDEV),
                ) => Ok(RouteLookup::Unreachable(errno)),
                _ => Err(error.during(format!("look up the route to {}", packet.destination))),
            },
        }
    }
}

fn read(route: &RouteMessage) -> RouteLookup {
    match route.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
            return RouteLookup::Local;
        }
        RouteType::BlackHole => return RouteLookup::Unreachable(Errno::EINVAL),
        RouteType::Unreachable => return RouteLookup::Unreachable(Errno::EHOSTUNREACH),
        RouteType::Prohibit => return RouteLookup::Unreachable(Errno::EACCES),
        _ => {}
    }
    let (mut link, mut gateway, mut mtu) = (None, None, None);
    let mut table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some((*ip).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some((*ip).into()),
            RouteAttribute::Via(RouteVia::Inet(ip)) => gateway = Some((*ip).into()),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => gateway = Some((*ip).into()),
            _ => {}
        }
    }
    match link {
        Some(link) => RouteLookup::Out {
            link,
            gateway,
            table,
            mtu,
        },
        None => RouteLookup::Unreachable(Errno::ENETUNREACH),
    }
}
