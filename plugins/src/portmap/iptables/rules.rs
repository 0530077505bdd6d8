//! The rules of port mappings in iptables, as text for `iptables-restore`, in the form in which iptables lists them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::super::Wanted;
use super::super::conf::{IptablesSettings, Mark, Masquerade};
use super::super::localnet::GUARD_COMMENT;
use super::super::plan::Forward;
use crate::host::HostError;
use crate::host::iptables::words;
use crate::netfilter::iptables::{Version, after};
use crate::owner::Owner;

/// The chain that every new connection to this host comes through.
pub(super) const PORTS: &str = "TRESTLE-PORTS";

/// The chain that masquerades.
pub(super) const SNAT: &str = "TRESTLE-PORTS-SNAT";

/// What the names of the attachments' chains begin with.
pub(super) const PREFIX: &str = "TRESTLE-PORT-";

/// The chain of an attachment.
pub(super) fn chain_of(owner: &Owner) -> String {
    owner.chain_by_comment(PREFIX)
}

/// What is wanted of this version.
pub(super) fn of_version<'a>(version: Version, wanted: &Wanted<'a>) -> Vec<&'a Forward> {
    let all = wanted.forwards.iter();
    all.filter(|forward| version.is_of(forward.to.ip()))
        .collect()
}

/// The rules of an attachment, each without its chain.
pub(super) struct Rules {
    /// The attachment's own chain.
    pub(super) chain: String,
    /// Those of [`PORTS`], one for each mapping.
    pub(super) ports: Vec<String>,
    /// Those of the own chain.
    pub(super) own: Vec<String>,
    /// Those of [`SNAT`].
    pub(super) snat: Vec<String>,
}

impl Rules {
    pub(super) fn of(
        version: Version,
        wanted: &Wanted<'_>,
        settings: &IptablesSettings,
        localnet: Option<&str>,
    ) -> Self {
        let mut rules = Self {
            chain: chain_of(&wanted.identity.owner),
            ports: Vec::new(),
            own: Vec::new(),
            snat: masquerading(version, wanted, settings, localnet),
        };
        let owner = &wanted.identity.iptables_comment;
        let conditions: String = conditions(version, settings)
            .iter()
            .map(|argument| format!("\"{argument}\" "))
            .collect();
        for forward in of_version(version, wanted) {
            let (protocol, port) = (forward.protocol.name(), forward.host_port);
            let ports = format!("-p {protocol} -m {protocol} --dport {port}");
            rules.ports.push(format!(
                "{ports} {conditions}-m comment --comment \"{owner} {forward}\" -j {}",
                rules.chain
            ));
            let subnet = wanted.addresses.subnet_of(forward.to.ip());
            let source = match (wanted.masquerade, subnet) {
                (Masquerade::Nearby, Some(subnet)) => Some(from(subnet.trunc())),
                (Masquerade::Always, _) => Some(String::new()),
                _ => None,
            };
            let host = forward.host.map(to).unwrap_or_default();
            if let Some(source) = source {
                let mark = mark(settings);
                rules.own.push(format!("{source}{host}{ports} -j {mark}"));
            }
            rules.own.push(format!(
                "{host}{ports} -j DNAT --to-destination {}",
                forward.to
            ));
        }
        rules
    }

    /// All of them, as input of `iptables-restore`.
    pub(super) fn commands(&self) -> Vec<String> {
        [
            (PORTS, &self.ports),
            (&self.chain, &self.own),
            (SNAT, &self.snat),
        ]
        .into_iter()
        .flat_map(|(chain, rules)| rules.iter().map(move |rule| format!("-A {chain} {rule}")))
        .collect()
    }
}

/// The conditions for one version of IP.
pub(super) fn conditions(version: Version, settings: &IptablesSettings) -> &[String] {
    match version {
        Version::V4 => &settings.conditions_v4,
        Version::V6 => &settings.conditions_v6,
    }
}

fn mark(settings: &IptablesSettings) -> String {
    match &settings.mark {
        Mark::Bit(bit) => {
            let bit = 1_u32 << bit;
            format!("MARK --set-xmark {bit:#x}/{bit:#x}")
        }
        Mark::ExternalChain(chain) => chain.clone(),
    }
}

/// The match of a source; iptables doesn't list one that everything has.
fn from(subnet: IpNet) -> String {
    match subnet.prefix_len() {
        0 => String::new(),
        _ => format!("-s {subnet} "),
    }
}

fn to(address: IpAddr) -> String {
    format!("-d {} ", IpNet::from(address))
}

fn masquerading(
    version: Version,
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
    localnet: Option<&str>,
) -> Vec<String> {
    let address = match version {
        Version::V4 => wanted.addresses.v4,
        Version::V6 => wanted.addresses.v6,
    };
    let (Some(address), true) = (address, wanted.masquerade != Masquerade::Never) else {
        return Vec::new();
    };
    let owner = &wanted.identity.iptables_comment;
    let to = to(address.addr());
    let end = format!("-m comment --comment \"{owner}\" -j MASQUERADE");
    let mut rules = Vec::new();
    if let Mark::Bit(bit) = settings.mark {
        let bit = 1_u32 << bit;
        rules.push(format!("{to}-m mark --mark {bit:#x}/{bit:#x} {end}"));
    }
    if version == Version::V4 && wanted.localhost().is_some() {
        let by = localnet.map_or_else(String::new, |interface| format!("-o \"{interface}\" "));
        rules.push(format!("-s 127.0.0.0/8 {to}{by}{end}"));
    }
    rules
}

/// The rules that drop what pretends to be localhost.
fn guards() -> [String; 2] {
    ["-d", "-s"].map(|side| {
        format!("{side} 127.0.0.0/8 ! -i lo -m comment --comment \"{GUARD_COMMENT}\" -j DROP")
    })
}

/// Whether a rule of PREROUTING in the table `raw` is one of ours.
fn is_guard(rule: &str) -> bool {
    words(rule).iter().any(|word| word == GUARD_COMMENT)
}

/// Whether the rules of PREROUTING in the table `raw` have ours, as they should be.
pub(super) fn are_guarded(present: &[String]) -> bool {
    let ours: Vec<_> = present.iter().filter(|rule| is_guard(rule)).collect();
    let whole = |guard: &String| ours.iter().any(|rule| words(rule) == words(guard));
    ours.len() == guards().len() && guards().iter().all(whole)
}

/// Commands that make sure of the rules that drop what pretends to be localhost.
pub(super) fn guard_creation(purpose: &str) -> Result<Vec<String>, HostError> {
    let present = Version::V4.raw_prerouting(purpose)?;
    if are_guarded(&present) {
        return Ok(Vec::new());
    }
    let mut commands = guard_removal(&present);
    commands.extend(guards().iter().map(|rule| format!("-I PREROUTING {rule}")));
    Ok(commands)
}

pub(super) fn guard_removal(present: &[String]) -> Vec<String> {
    let ours = present.iter().filter(|rule| is_guard(rule));
    ours.map(|rule| format!("-D PREROUTING {rule}")).collect()
}

/// Where the rules of an attachment's chain lead, by protocol, the host's port and its address, which is that of its family
/// where none is named.
pub(super) struct Destinations(BTreeMap<(String, String, Option<String>), SocketAddr>);

impl Destinations {
    pub(super) fn of(rules: &[String]) -> Self {
        Self(rules.iter().filter_map(|rule| destination(rule)).collect())
    }

    /// The mapping that is spelt so.
    pub(super) fn forward(&self, mapping: &str) -> Option<Forward> {
        // The family is not known before it is looked up, and only matters for the result.
        let shape = Forward::parse(mapping, SocketAddr::from(([0, 0, 0, 0], 0)))?;
        let host = shape.host.map(|host| IpNet::from(host).to_string());
        let key = (
            shape.protocol.name().to_owned(),
            shape.host_port.to_string(),
            host,
        );
        Forward::parse(mapping, *self.0.get(&key)?)
    }
}

type Destination = ((String, String, Option<String>), SocketAddr);

fn destination(rule: &str) -> Option<Destination> {
    let words = words(rule);
    let after = |option| after(&words, option).map(str::to_owned);
    let to = after("--to-destination")?.parse().ok()?;
    Some(((after("-p")?, after("--dport")?, after("-d")), to))
}
