//! The rules of port mappings in nftables, as data.
//!
//! The rules are the same whatever is mapped and exist once per host; mappings are elements of maps, which all
//! networks share. So a new connection costs the same with 1 or 10,000 mappings, and two containers that want one
//! port of one address meet in one key, about which the kernel decides.
//!
//! A mapping is an element of `portmap/host-v4` (one address of the host) or `portmap/any-v4` (all of them), and,
//! where its connections may need masquerading, one of `portmap/snat-v4`, which leads to the chain that knows for
//! which sources: `portmap/from/10.1.0.0-24` for localhost and the container's subnet, `portmap/from/anywhere` for
//! `masqAll`. That the subnet needs it is for bridges: a container next door would get its answer straight from
//! the container, under another address than it asked. The key of that map names the port that was asked for (`ct
//! original proto-dst`), because a Service of the cluster may lead to the same container and shall stay as it is.
//!
//! The order among other chains:
//! - Destinations are translated at priority dstnat + 10, behind kube-proxy's and Docker's chains at dstnat (-100):
//!   the first translation of a connection is the only one (`nf_nat_inet_fn`), so a Service's port never goes to a
//!   host port (CVE-2019-9946).
//! - `fib daddr type local` lets only what is addressed to this host get that far (CVE-2025-67499).
//! - A packet from ::1 can't leave the host, and there is no `route_localnet` for IPv6: that address stays with the
//!   host's own services.
//! - Masquerading comes at srcnat - 10, before that of networks; which of them does it makes no difference.
//! - `portmap/localnet` sees packets as they come from the wire, before connection tracking (-200) puts an address
//!   back: there, 127.0.0.0/8 is always somebody who should not be let in (CVE-2020-8558).

mod script;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::conf::{Masquerade, Protocol};
use super::plan::Forward;
use crate::host::nft::{Element, ElementData, KeyBuilder, KeyReader};
use crate::netfilter::elements::Set;

pub(super) use self::script::{script, text};

/// What the names of all objects begin with.
pub(super) const PREFIX: &str = "portmap/";

/// What the names of the chains begin with that masquerade.
pub(super) const FROM_PREFIX: &str = "portmap/from/";

/// The set of containers that localhost reaches, each with the interface it is reached by.
pub(super) const LOCALNET: &str = "portmap/localnet";

/// The set of digests of what stands in the kernel, each with the name of the chain that it is of, or [`FIXED`].
pub(crate) const DIGESTS: &str = "portmap/digests";

/// What the digest of the rules that exist once is called by.
pub(super) const FIXED: &str = "portmap";

/// The chains that exist once, each with the number of its rules. Chains that lead to others come first.
pub(super) const CHAINS: [(&str, usize); 6] = [
    ("portmap/prerouting", 2),
    ("portmap/output", 2),
    ("portmap/postrouting", 2),
    ("portmap/localnet", 2),
    ("portmap/dnat-v4", 2),
    ("portmap/dnat-v6", 2),
];

/// A chain that is there as long as any of the rules are.
pub(super) const POSTROUTING: &str = "portmap/postrouting";

/// A map of ports to containers, or of containers to the chains that masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Map {
    HostV4,
    AnyV4,
    HostV6,
    AnyV6,
    SnatV4,
    SnatV6,
}

impl Map {
    pub(super) const ALL: [Self; 6] = [
        Self::HostV4,
        Self::AnyV4,
        Self::HostV6,
        Self::AnyV6,
        Self::SnatV4,
        Self::SnatV6,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HostV4 => "portmap/host-v4",
            Self::AnyV4 => "portmap/any-v4",
            Self::HostV6 => "portmap/host-v6",
            Self::AnyV6 => "portmap/any-v6",
            Self::SnatV4 => "portmap/snat-v4",
            Self::SnatV6 => "portmap/snat-v6",
        }
    }

    /// It, for netlink.
    pub(super) fn set(self) -> Set {
        Set::own(self.name())
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::HostV6 | Self::AnyV6 | Self::SnatV6)
    }

    /// Whether it gives the container's address and port.
    pub(super) fn forwards(self) -> bool {
        !matches!(self, Self::SnatV4 | Self::SnatV6)
    }

    fn types(self) -> String {
        let address = if self.is_v6() {
            "ipv6_addr"
        } else {
            "ipv4_addr"
        };
        match self {
            Self::HostV4 | Self::HostV6 => {
                format!("{address} . inet_proto . inet_service : {address} . inet_service")
            }
            Self::AnyV4 | Self::AnyV6 => {
                format!("inet_proto . inet_service : {address} . inet_service")
            }
            Self::SnatV4 | Self::SnatV6 => {
                format!("{address} . inet_proto . inet_service : verdict")
            }
        }
    }

    /// The map that a mapping belongs into.
    pub(super) fn of(forward: &Forward) -> Self {
        match (forward.host, forward.to.ip()) {
            (Some(_), IpAddr::V4(_)) => Self::HostV4,
            (None, IpAddr::V4(_)) => Self::AnyV4,
            (Some(_), IpAddr::V6(_)) => Self::HostV6,
            (None, IpAddr::V6(_)) => Self::AnyV6,
        }
    }

    /// The map that holds mappings which overlap with those of this one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::HostV4 => Self::AnyV4,
            Self::AnyV4 => Self::HostV4,
            Self::HostV6 => Self::AnyV6,
            _ => Self::HostV6,
        }
    }
}

/// The element that forwards.
pub(super) fn forwarding(forward: &Forward, comment: &str) -> Element {
    let key = match forward.host {
        Some(host) => KeyBuilder::default().address(host),
        None => KeyBuilder::default(),
    };
    let to = KeyBuilder::default()
        .address(forward.to.ip())
        .port(forward.to.port());
    Element {
        key: key
            .protocol(forward.protocol.number())
            .port(forward.host_port)
            .finish(),
        data: Some(ElementData::Value(to.finish())),
        comment: Some(comment.to_owned()),
    }
}

/// The mapping that an element of `map` stands for.
pub(super) fn parse_forwarding(map: Map, element: &Element) -> Option<Forward> {
    let Some(ElementData::Value(data)) = &element.data else {
        return None;
    };
    let (mut key, mut data) = (KeyReader::new(&element.key), KeyReader::new(data));
    let address = |reader: &mut KeyReader<'_>| -> Option<IpAddr> {
        if map.is_v6() {
            reader.ipv6().map(IpAddr::from)
        } else {
            reader.ipv4().map(IpAddr::from)
        }
    };
    let host = match map {
        Map::HostV4 | Map::HostV6 => Some(address(&mut key)?),
        _ => None,
    };
    Some(Forward {
        host,
        protocol: Protocol::from_number(key.protocol()?)?,
        host_port: key.port()?,
        to: SocketAddr::new(address(&mut data)?, data.port()?),
    })
}

/// The element that has the connections of a mapping masqueraded, as far as `from` says.
pub(super) fn masquerading(forward: &Forward, from: &Sources, comment: &str) -> (Map, Element) {
    let map = if forward.to.is_ipv4() {
        Map::SnatV4
    } else {
        Map::SnatV6
    };
    let key = KeyBuilder::default()
        .address(forward.to.ip())
        .protocol(forward.protocol.number())
        .port(forward.host_port);
    let element = Element {
        key: key.finish(),
        data: Some(ElementData::Goto(from.chain())),
        comment: Some(comment.to_owned()),
    };
    (map, element)
}

/// The sources whose connections are masqueraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sources {
    /// Localhost and this subnet.
    Near(IpNet),
    /// All.
    Anywhere,
}

impl Sources {
    /// Those of a container with this address, or none.
    pub(super) fn of(masquerade: Masquerade, address: IpNet) -> Option<Self> {
        match masquerade {
            Masquerade::Never => None,
            Masquerade::Nearby => Some(Self::Near(address.trunc())),
            Masquerade::Always => Some(Self::Anywhere),
        }
    }

    /// The name of their chain.
    pub(super) fn chain(&self) -> String {
        match self {
            // Colons and a second slash are no part of an identifier of nft's language.
            Self::Near(subnet) => {
                let label = subnet.to_string().replace(':', "_").replace('/', "-");
                format!("{FROM_PREFIX}{label}")
            }
            Self::Anywhere => format!("{FROM_PREFIX}anywhere"),
        }
    }

    /// Those whose chain has this name.
    pub(super) fn of_chain(name: &str) -> Option<Self> {
        let label = name.strip_prefix(FROM_PREFIX)?;
        if label == "anywhere" {
            return Some(Self::Anywhere);
        }
        let (address, length) = label.rsplit_once('-')?;
        let subnet = format!("{}/{length}", address.replace('_', ":"));
        let found = Self::Near(subnet.parse().ok()?);
        (found.chain() == name).then_some(found)
    }

    /// Its rules: what a packet must match, and a comment.
    fn rules(&self) -> Vec<(String, &'static str)> {
        match self {
            Self::Anywhere => vec![(String::new(), "masqAll")],
            Self::Near(subnet) => {
                let own = "own subnet, the container itself included";
                match subnet {
                    IpNet::V4(_) => vec![
                        ("ip saddr 127.0.0.0/8 ".to_owned(), "localhost"),
                        (format!("ip saddr {subnet} "), own),
                    ],
                    IpNet::V6(_) => vec![(format!("ip6 saddr {subnet} "), own)],
                }
            }
        }
    }

    /// How many rules the chain has.
    pub(super) fn rule_count(&self) -> usize {
        self.rules().len()
    }

    /// One transaction that makes the chain, whatever was there before.
    pub(super) fn script(&self) -> String {
        let chain = self.chain();
        let mut script = format!(
            "add table inet trestle\nadd chain inet trestle {chain}\nflush chain inet trestle {chain}\n"
        );
        for (matches, comment) in self.rules() {
            script += &format!(
                "add rule inet trestle {chain} {matches}masquerade comment \"{comment}\"\n"
            );
        }
        script
    }
}

/// The key that an address has in the set of containers that localhost reaches.
pub(super) fn localnet(address: Ipv4Addr, interface: &str, comment: &str) -> Element {
    let mut key = KeyBuilder::default().address(address.into()).finish();
    key.extend(interface.bytes());
    // `ifname` is IFNAMSIZ bytes, filled up with zeros.
    key.resize(4 + 16, 0);
    Element {
        key,
        data: None,
        comment: Some(comment.to_owned()),
    }
}

/// The interface of an element of that set.
pub(super) fn localnet_interface(element: &Element) -> Option<&str> {
    let name = element.key.get(4..)?;
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    std::str::from_utf8(&name[..end]).ok()
}
