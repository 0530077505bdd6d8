//! Configuration of the `portmap` plugin.

mod backend;

use std::net::IpAddr;

use cni_conf::addr;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) host: HostAddress,
    pub(super) protocol: Protocol,
    pub(super) host_port: u16,
    pub(super) container_port: u16,
}

/// Addresses of the host that a port is opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        let mut mappings = Vec::new();
        for (index, wire) in wire.runtime_config.port_mappings.iter().enumerate() {
            let at =
                |error: FieldError| error.within(format!("runtimeConfig.portMappings[{index}]"));
            let mapping = mapping(wire).map_err(at)?;
            if !mappings.contains(&mapping) {
                mappings.push(mapping);
            }
        }
        refuse_contradictions(&mappings)?;
        Ok(Self {
            backend: backend::read(&wire)?,
            masquerade: match (wire.snat, wire.masq_all) {
                (false, _) => Masquerade::Never,
                (true, false) => Masquerade::Nearby,
                (true, true) => Masquerade::Always,
            },
            mappings,
        })
    }
}

fn mapping(wire: &WireMapping) -> Result<Mapping, FieldError> {
    Ok(Mapping {
        host: host_address(&wire.host_ip)?,
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

fn host_address(text: &str) -> Result<HostAddress, FieldError> {
    if text.is_empty() {
        return Ok(HostAddress::Any);
    }
    let address = addr::parse_ip("hostIP", text, "this is no IP address")?.to_canonical();
    if address.is_multicast() {
        return Err(FieldError::new(
            "hostIP",
            address,
            "a host has no multicast address of its own",
        ));
    }
    Ok(if address.is_unspecified() {
        HostAddress::AnyOf(address)
    } else {
        HostAddress::One(address)
    })
}

/// One port of one address can't lead to two ports of the container.
fn refuse_contradictions(mappings: &[Mapping]) -> Result<(), Error> {
    for (index, one) in mappings.iter().enumerate() {
        let twice = mappings[..index].iter().find(|other| {
            let same_addresses = match (one.host, other.host) {
                (HostAddress::One(one), HostAddress::One(other)) => one == other,
                (HostAddress::One(_), _) | (_, HostAddress::One(_)) => false,
                (one, other) => [false, true]
                    .into_iter()
                    .any(|ipv6| one.covers_family(ipv6) && other.covers_family(ipv6)),
            };
            let same_port = (one.protocol, one.host_port) == (other.protocol, other.host_port);
            same_port && same_addresses && one.container_port != other.container_port
        });
        if let Some(other) = twice {
            return Err(FieldError::new(
                format!("runtimeConfig.portMappings[{index}].hostPort"),
                one.host_port,
                format!(
                    "{} port {} is to lead to port {} and to port {} of the container",
                    one.protocol.name(),
                    one.host_port,
                    other.container_port,
                    one.container_port
                ),
            )
            .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
