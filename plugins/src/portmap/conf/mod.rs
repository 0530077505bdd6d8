//! Configuration of the `portmap` plugin.

mod backend;
mod conditions;
mod host_ip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::Request;
use serde::Deserialize;

pub(super) use self::backend::{Backend, IptablesSettings, Mark};

/// The JSON as it comes.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    backend: String,
    snat: bool,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Vec<String>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Vec<String>,
    runtime_config: WireRuntime,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            backend: String::new(),
            snat: true,
            masq_all: false,
            mark_masq_bit: None,
            external_set_mark_chain: None,
            conditions_v4: Vec::new(),
            conditions_v6: Vec::new(),
            runtime_config: WireRuntime::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireRuntime {
    port_mappings: Vec<WireMapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// The configuration, validated and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) backend: Backend,
    pub(super) masquerade: Masquerade,
    /// What the runtime wants forwarded, without repetitions.
    pub(super) mappings: Vec<Mapping>,
}

/// Which forwarded connections get the host's address as their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Masquerade {
    /// None.
    Never,
    /// Those whose answers would not come back through the host: from 127.0.0.1, from the container itself and
    /// from its subnet.
    Nearby,
    /// All.
    Always,
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mapping {
    pub(super) host: HostAddress,
    pub(super) protocol: Protocol,
    pub(super) host_port: u16,
    pub(super) container_port: u16,
}

/// Addresses of the host that a port is opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostAddress {
    /// All of both families.
    Any,
    /// All of the family of this unspecified address, `0.0.0.0` or `::`.
    AnyOf(IpAddr),
    /// This one.
    One(IpAddr),
}

impl HostAddress {
    /// Whether the container's addresses of this family are meant.
    pub(super) fn covers_family(self, ipv6: bool) -> bool {
        match self {
            Self::Any => true,
            Self::AnyOf(address) | Self::One(address) => address.is_ipv6() == ipv6,
        }
    }

    /// The addresses that it stands for, the unspecified one for all of a family.
    fn keys(self) -> impl Iterator<Item = IpAddr> {
        let (one, other) = match self {
            Self::Any => (
                Ipv4Addr::UNSPECIFIED.into(),
                Some(Ipv6Addr::UNSPECIFIED.into()),
            ),
            Self::AnyOf(address) | Self::One(address) => (address, None),
        };
        std::iter::once(one).chain(other)
    }
}

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Its number (IANA "Protocol Numbers").
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The one with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }

    /// The one of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }

    /// Its name in rules and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl Settings {
    /// Reads the configuration of a request.
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let masquerade = match (wire.snat, wire.masq_all) {
            (false, _) => Masquerade::Never,
            (true, false) => Masquerade::Nearby,
            (true, true) => Masquerade::Always,
        };
        let (mut mappings, mut known) = (Vec::new(), BTreeSet::new());
        for (index, wire) in wire.runtime_config.port_mappings.iter().enumerate() {
            let at =
                |error: FieldError| error.within(format!("runtimeConfig.portMappings[{index}]"));
            let mapping = mapping(wire).map_err(at)?;
            if let HostAddress::One(address) = mapping.host {
                host_ip::refuse_mute(address, masquerade)
                    .map_err(|(error, remedy)| Error::from(at(error)).with_details(remedy))?;
            }
            if known.insert(mapping) {
                mappings.push(mapping);
            }
        }
        refuse_contradictions(&mappings)?;
        Ok(Self {
            backend: backend::read(&wire)?,
            masquerade,
            mappings,
        })
    }
}

fn mapping(wire: &WireMapping) -> Result<Mapping, FieldError> {
    Ok(Mapping {
        host: host_ip::read(&wire.host_ip)?,
        protocol: protocol(&wire.protocol)?,
        host_port: port("hostPort", wire.host_port)?,
        container_port: port("containerPort", wire.container_port)?,
    })
}

fn port(field: &str, number: i64) -> Result<u16, FieldError> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| FieldError::new(field, number, "a port is a number from 1 to 65535"))
}

/// Nothing means TCP, as in Kubernetes.
fn protocol(text: &str) -> Result<Protocol, FieldError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(FieldError::new(
            "protocol",
            format_args!("{text:?}"),
            "ports can be mapped for tcp, udp and sctp",
        )),
    }
}

/// One port of one address can't lead to two ports of the container.
fn refuse_contradictions(mappings: &[Mapping]) -> Result<(), Error> {
    let mut known = BTreeMap::new();
    for (index, mapping) in mappings.iter().enumerate() {
        let (protocol, port) = (mapping.protocol, mapping.host_port);
        for address in mapping.host.keys() {
            let first = *known
                .entry((protocol, port, address))
                .or_insert(mapping.container_port);
            if first != mapping.container_port {
                return Err(FieldError::new(
                    format!("runtimeConfig.portMappings[{index}].hostPort"),
                    port,
                    format!(
                        "{} port {port} is to lead to port {first} and to port {} of the container",
                        protocol.name(),
                        mapping.container_port
                    ),
                )
                .into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
