//! From port mappings and the container's addresses to what is to be forwarded.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use cni_conf::names::IfName;
use cni_conf::result::CniResult;
use ipnet::IpNet;

use super::conf::{HostAddress, Mapping, Protocol};

/// One port of the host, on one address or on all of a family, that leads to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    /// The host's address; none for all of the family of `to`.
    pub(super) host: Option<IpAddr>,
    pub(super) protocol: Protocol,
    pub(super) host_port: u16,
    pub(super) to: SocketAddr,
}

impl Forward {
    /// Whether a connection to 127.0.0.1 can be meant.
    pub(super) fn answers_localhost(&self) -> bool {
        self.to.is_ipv4() && self.host.is_none_or(|host| host.is_loopback())
    }

    /// The mapping that reads `text` and leads to `to`.
    pub(super) fn parse(text: &str, to: SocketAddr) -> Option<Self> {
        let (address, protocol) = text.split_once('/')?;
        let address: SocketAddr = address.parse().ok()?;
        Some(Self {
            host: Some(address.ip()).filter(|host| !host.is_unspecified()),
            protocol: Protocol::from_name(protocol)?,
            host_port: address.port(),
            to,
        })
    }

    /// Whether a packet may be meant for this mapping and for the other one.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let same_host = match (self.host, other.host) {
            (Some(one), Some(other)) => one == other,
            _ => self.to.is_ipv4() == other.to.is_ipv4(),
        };
        same_host && (self.protocol, self.host_port) == (other.protocol, other.host_port)
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.host_port;
        match self.host {
            Some(host) => write!(f, "{}", SocketAddr::new(host, port))?,
            None if self.to.is_ipv4() => write!(f, "0.0.0.0:{port}")?,
            None => write!(f, "[::]:{port}")?,
        }
        write!(f, "/{}", self.protocol.name())
    }
}

/// The addresses of the container that ports are forwarded to: the first of each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) v4: Option<IpNet>,
    pub(super) v6: Option<IpNet>,
}

impl Addresses {
    /// Those of a result. An address that stands on another interface than the container's own is not meant;
    /// one that says nothing about its interface is.
    pub(super) fn of(result: &CniResult, ifname: &IfName) -> Self {
        let mut addresses = Self::default();
        for ip in &result.ips {
            let interface = ip.interface.and_then(|index| result.interfaces.get(index));
            let elsewhere = interface.is_some_and(|interface| {
                interface.name != ifname.as_str() || interface.sandbox.is_empty()
            });
            if !elsewhere {
                let family = match ip.address {
                    IpNet::V4(_) => &mut addresses.v4,
                    IpNet::V6(_) => &mut addresses.v6,
                };
                family.get_or_insert(ip.address);
            }
        }
        addresses
    }

    /// The address with the prefix that it has, by the bare address.
    pub(super) fn subnet_of(self, address: IpAddr) -> Option<IpNet> {
        [self.v4, self.v6]
            .into_iter()
            .flatten()
            .find(|net| net.addr() == address)
    }
}

/// What the mappings come to for these addresses. Mappings whose host address is of a family that the container
/// has none of come to nothing: runtimes ask for `0.0.0.0` and `::` in one go.
pub(super) fn forwards(mappings: &[Mapping], addresses: Addresses) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for address in [addresses.v4, addresses.v6].into_iter().flatten() {
        let covered = mappings
            .iter()
            .filter(|mapping| mapping.host.covers_family(address.addr().is_ipv6()));
        for mapping in covered {
            let forward = Forward {
                host: match mapping.host {
                    HostAddress::One(host) => Some(host),
                    HostAddress::Any | HostAddress::AnyOf(_) => None,
                },
                protocol: mapping.protocol,
                host_port: mapping.host_port,
                to: SocketAddr::new(address.addr(), mapping.container_port),
            };
            if !forwards.contains(&forward) {
                forwards.push(forward);
            }
        }
    }
    forwards
}
