//! From port mappings and the container's addresses to what is to be forwarded.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use cni_conf::names::IfName;
use cni_conf::result::CniResult;
use ipnet::IpNet;

use super::conf::{HostAddress, Mapping, Protocol};

/// One port of the host, on one address or on all of a family, that leads to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    let (mut forwards, mut known) = (Vec::new(), BTreeSet::new());
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
            if known.insert(forward) {
                forwards.push(forward);
            }
        }
    }
    forwards
}

#[cfg(test)]
mod tests {
    use cni_conf::result::{Interface, IpConfig};

    use super::*;

    fn mapping(host: HostAddress) -> Mapping {
        Mapping {
            host,
            protocol: Protocol::Tcp,
            host_port: 8080,
            container_port: 80,
        }
    }

    fn texts(mappings: &[Mapping], v4: Option<&str>, v6: Option<&str>) -> Vec<String> {
        let net = |text: &str| text.parse().unwrap();
        let addresses = Addresses {
            v4: v4.map(net),
            v6: v6.map(net),
        };
        forwards(mappings, addresses)
            .iter()
            .map(|forward| format!("{forward} -> {}", forward.to))
            .collect()
    }

    #[test]
    fn a_mapping_comes_to_one_forward_for_each_family_it_covers() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (v4, v6) = (Some("10.1.0.5/24"), Some("fd00::5/64"));
        let all = [mapping(HostAddress::Any)];
        let to_v4 = "0.0.0.0:8080/tcp -> 10.1.0.5:80";
        let to_v6 = "[::]:8080/tcp -> [fd00::5]:80";
        assert_eq!(texts(&all, v4, v6), [to_v4, to_v6]);
        assert_eq!(texts(&all, v4, None), [to_v4]);
        assert_eq!(
            texts(&[mapping(HostAddress::AnyOf(ip("::")))], v4, v6),
            [to_v6]
        );
        let one = mapping(HostAddress::One(ip("192.0.2.1")));
        assert_eq!(texts(&[one], v4, v6), ["192.0.2.1:8080/tcp -> 10.1.0.5:80"]);
        assert!(texts(&[one], None, v6).is_empty());
        let doubled = [
            mapping(HostAddress::Any),
            mapping(HostAddress::AnyOf(ip("0.0.0.0"))),
        ];
        assert_eq!(texts(&doubled, v4, None), [to_v4]);
    }

    #[test]
    fn text_and_forward_are_the_same() {
        let to = "[fd00::5]:80".parse().unwrap();
        for host in [None, Some("2001:db8::1".parse().unwrap())] {
            let forward = Forward {
                host,
                protocol: Protocol::Sctp,
                host_port: 9,
                to,
            };
            assert_eq!(Forward::parse(&forward.to_string(), to), Some(forward));
        }
        assert_eq!(Forward::parse("nonsense", to), None);
    }

    #[test]
    fn the_containers_addresses_are_the_first_on_its_own_interface() {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            sandbox: sandbox.into(),
            ..Interface::default()
        };
        let ip = |index, address: &str| IpConfig {
            interface: index,
            address: address.parse().unwrap(),
            gateway: None,
        };
        let mut result = CniResult {
            interfaces: vec![
                interface("eth0", ""),
                interface("net1", "/n"),
                interface("eth0", "/n"),
            ],
            ips: vec![
                ip(Some(0), "10.9.0.1/24"),
                ip(Some(1), "10.8.0.1/24"),
                ip(Some(2), "10.1.0.5/24"),
                ip(Some(2), "10.1.0.6/24"),
                ip(None, "fd00::5/64"),
            ],
            ..CniResult::default()
        };
        let ifname = "eth0".try_into().unwrap();
        let addresses = Addresses::of(&result, &ifname);
        assert_eq!(addresses.v4, Some("10.1.0.5/24".parse().unwrap()));
        assert_eq!(addresses.v6, Some("fd00::5/64".parse().unwrap()));
        // Results before 0.3.0 have no interfaces, and foreign ones may name one that is not there.
        result.interfaces.clear();
        assert_eq!(
            Addresses::of(&result, &ifname).v4,
            Some("10.9.0.1/24".parse().unwrap())
        );
    }
}
