//! Configuration of the `portmap` plugin.

use std::net::IpAddr;

use cni_conf::addr;
use cni_conf::error::{Code, Error};
use cni_conf::json::{self, FieldError};
use cni_conf::request::Request;
use serde::Deserialize;

/// The bit of the packet mark that says "to be masqueraded" in the iptables backend; the reference's default.
const DEFAULT_MARK_BIT: u8 = 13;

/// Longest name of a chain that iptables takes (`XT_EXTENSION_MAXNAMELEN` without the terminating zero).
const CHAIN_MAX: usize = 28;

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

/// Who carries the rules out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backend {
    /// Maps in the table `inet trestle`.
    Nftables,
    /// Chains in the `nat` tables of `iptables` and `ip6tables`.
    Iptables(IptablesSettings),
}

/// What only the iptables backend knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IptablesSettings {
    /// How packets that are to be masqueraded are marked.
    pub(super) mark: Mark,
    /// Matches that a packet must pass besides, as arguments of `iptables`.
    pub(super) conditions_v4: Vec<String>,
    /// The same for `ip6tables`.
    pub(super) conditions_v6: Vec<String>,
}

/// How packets are marked for masquerading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// With this bit (0 to 31) of the packet mark, by a chain of our own.
    Bit(u8),
    /// By somebody else's chain, whose owner masquerades.
    ExternalChain(String),
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
            backend: backend(&wire)?,
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

/// The backend. Options that only iptables has choose it where nothing is said: they were written for the
/// reference, which would use it.
fn backend(wire: &Wire) -> Result<Backend, Error> {
    let iptables_only = iptables_only(wire);
    let foreign = [
        ("conditionsV4", &wire.conditions_v4),
        ("conditionsV6", &wire.conditions_v6),
    ]
    .into_iter()
    .find(|(_, conditions)| !is_iptables_style(conditions));
    if let Some((field, conditions)) = foreign {
        return Err(Error::new(
            Code::UnsupportedField,
            format!(
                "field \"{field}\": conditions in the language of nft are not supported (it is {conditions:?})"
            ),
        )
        .with_details(
            "port mappings are elements of maps that all networks share, so a condition of one network has no place: set \
             \"backend\" to \"iptables\" and write the condition as arguments of iptables, such as [\"!\", \"-d\", \"192.0.2.0/24\"]",
        ));
    }
    match (wire.backend.as_str(), iptables_only.as_slice()) {
        ("" | "nftables", []) => {
            mark(wire)?;
            Ok(Backend::Nftables)
        }
        ("nftables", options) => Err(Error::new(
            Code::UnsupportedField,
            format!(
                "\"backend\" is \"nftables\", but {} {} to the iptables backend alone",
                options.join(" and "),
                if options.len() == 1 {
                    "belongs"
                } else {
                    "belong"
                },
            ),
        )
        .with_details("remove that option, or set \"backend\" to \"iptables\"")),
        ("" | "iptables", _) => Ok(Backend::Iptables(IptablesSettings {
            mark: mark(wire)?,
            conditions_v4: conditions("conditionsV4", &wire.conditions_v4)?,
            conditions_v6: conditions("conditionsV6", &wire.conditions_v6)?,
        })),
        (other, _) => Err(FieldError::new(
            "backend",
            format_args!("{other:?}"),
            "the backends are \"nftables\" and \"iptables\"",
        )
        .into()),
    }
}

/// Options that are set and that nftables has nothing for. `markMasqBit` is not one: nftables needs no mark.
fn iptables_only(wire: &Wire) -> Vec<&'static str> {
    [
        (
            "\"externalSetMarkChain\"",
            wire.external_set_mark_chain.is_some(),
        ),
        ("\"conditionsV4\"", !wire.conditions_v4.is_empty()),
        ("\"conditionsV6\"", !wire.conditions_v6.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect()
}

/// No condition in the language of nft begins with a dash or an exclamation mark, every one of iptables does.
fn is_iptables_style(conditions: &[String]) -> bool {
    conditions
        .first()
        .is_none_or(|first| first.starts_with(['-', '!']))
}

fn mark(wire: &Wire) -> Result<Mark, Error> {
    let chain = wire.external_set_mark_chain.as_deref();
    match (chain, wire.mark_masq_bit) {
        (Some(_), Some(_)) => Err(Error::config(
            "\"externalSetMarkChain\" and \"markMasqBit\" can't both be set",
        )
        .with_details("remove \"markMasqBit\": the owner of the chain decides about the mark")),
        (Some(chain), None) => {
            let plain = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
            };
            let fits = (1..=CHAIN_MAX).contains(&chain.len());
            if fits && chain.bytes().all(plain) && !chain.starts_with('-') {
                return Ok(Mark::ExternalChain(chain.to_owned()));
            }
            Err(FieldError::new(
                "externalSetMarkChain",
                format_args!("{chain:?}"),
                "a chain's name has 1 to 28 letters, digits, '-', '_', '.' and ':' and does not begin with '-'",
            )
            .into())
        }
        (None, None) => Ok(Mark::Bit(DEFAULT_MARK_BIT)),
        (None, Some(bit)) => match u8::try_from(bit) {
            Ok(bit) if bit < 32 => Ok(Mark::Bit(bit)),
            _ => Err(FieldError::new("markMasqBit", bit, "a bit of the mark is 0 to 31").into()),
        },
    }
}

/// Arguments that would end the rule, choose another target or leave their line are no conditions.
fn conditions(field: &str, arguments: &[String]) -> Result<Vec<String>, Error> {
    const NO_MATCHES: [&str; 22] = [
        "-j",
        "--jump",
        "-g",
        "--goto",
        "-t",
        "--table",
        "-A",
        "--append",
        "-I",
        "--insert",
        "-D",
        "--delete",
        "-R",
        "--replace",
        "-F",
        "--flush",
        "-N",
        "--new-chain",
        "-X",
        "--delete-chain",
        "-P",
        "--policy",
    ];
    for (index, argument) in arguments.iter().enumerate() {
        let problem = if NO_MATCHES.contains(&argument.as_str()) {
            "this is no match of iptables"
        } else if argument.is_empty()
            || argument
                .chars()
                .any(|c| c.is_control() || matches!(c, '"' | '\'' | '\\'))
        {
            "an argument may not be empty or contain quotes, backslashes and control characters"
        } else {
            continue;
        };
        let at = format!("{field}[{index}]");
        return Err(FieldError::new(at, format_args!("{argument:?}"), problem).into());
    }
    Ok(arguments.to_vec())
}

#[cfg(test)]
mod tests;
