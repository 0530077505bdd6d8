//! A route as one asks for it.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteMetric, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;

use super::build::With;
use super::route::{Family, TABLE_MAIN};

/// A route to add. The prefix of length 0 is the default route of its family.
#[derive(Clone, Copy, Debug)]
pub struct NewRoute {
    /// The destination; host bits are cleared.
    pub dst: IpNet,
    /// The next router; none for a destination that is on the link. An IPv6 router may serve IPv4
    /// too.
    pub gateway: Option<IpAddr>,
    /// The index of the link it leaves by.
    pub oif: Option<u32>,
    /// The scope, IPv4 only. Without one: `Universe` with a gateway, `Link` without, as iproute2
    /// does.
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
    /// Whose it is marked as. Without one: `Boot`, as iproute2 and the Go netlink library mark theirs; of whomever, where a
    /// route is deleted.
    pub protocol: Option<RouteProtocol>,
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
            protocol: None,
        }
    }
}

impl NewRoute {
    /// The request to add it where there is none like it, and its flags.
    pub(super) fn request(&self) -> (RouteNetlinkMessage, u16) {
        (self.new_message(), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The request to add it, and its flags.
    pub(super) fn request_beside(&self) -> (RouteNetlinkMessage, u16) {
        (self.new_message(), NLM_F_CREATE)
    }

    pub(super) fn new_message(&self) -> RouteNetlinkMessage {
        let scope = self.scope.unwrap_or(match (self.dst, self.gateway) {
            (IpNet::V4(_), None) => RouteScope::Link,
            _ => RouteScope::Universe,
        });
        let protocol = self.protocol.unwrap_or(RouteProtocol::Boot);
        let route = self.builder().protocol(protocol);
        let route = route.kind(RouteType::Unicast).scope(scope);
        RouteNetlinkMessage::NewRoute(route.build())
    }

    /// The message that deletes the first route like this one in all that is set.
    pub(super) fn deletion(&self) -> RouteNetlinkMessage {
        let scope = self.scope.unwrap_or(RouteScope::NoWhere);
        let protocol = self.protocol.unwrap_or(RouteProtocol::Unspec);
        let route = self.builder().protocol(protocol);
        let route = route.kind(RouteType::Unspec).scope(scope);
        RouteNetlinkMessage::DelRoute(route.build())
    }

    fn builder(&self) -> RouteMessageBuilder {
        type Builder = RouteMessageBuilder;
        let mut route = Builder::new()
            .table_id(self.table.unwrap_or(TABLE_MAIN))
            .with(self.oif, Builder::output_interface)
            .with(self.priority, Builder::priority)
            .when(self.onlink, Builder::onlink);
        // The builder has no metrics, and refuses addresses of two families, of which the kernel is to say whether they
        // go together.
        let message = route.get_mut();
        message.header.address_family = Family::of(self.dst).into_netlink();
        message.header.destination_prefix_length = self.dst.prefix_len();
        message.attributes.extend(self.addresses());
        message.attributes.extend(self.metrics());
        route
    }

    fn addresses(&self) -> impl Iterator<Item = RouteAttribute> {
        let destination = || RouteAttribute::Destination(self.dst.network().into());
        let gateway = self.gateway.map(|gateway| match (self.dst, gateway) {
            (IpNet::V4(_), IpAddr::V6(router)) => RouteAttribute::Via(RouteVia::Inet6(router)),
            _ => RouteAttribute::Gateway(gateway.into()),
        });
        let source = |source: IpAddr| RouteAttribute::PrefSource(source.into());
        let all = [
            (self.dst.prefix_len() > 0).then(destination),
            gateway,
            self.src.map(source),
        ];
        all.into_iter().flatten()
    }

    fn metrics(&self) -> Option<RouteAttribute> {
        let metrics = [
            self.mtu.map(RouteMetric::Mtu),
            self.advmss.map(RouteMetric::Advmss),
        ];
        let metrics: Vec<_> = metrics.into_iter().flatten().collect();
        (!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics))
    }
}
