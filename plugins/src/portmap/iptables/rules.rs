//! The rules of port mappings in iptables, as text for `iptables-restore`.

use super::super::Wanted;
use super::super::conf::{IptablesSettings, Mark, Masquerade};
use super::super::localnet::GUARD_COMMENT;
use super::super::plan::Forward;
use crate::attach::nat_table::{Version, printable};
use crate::attach::owner::fnv1a;
use crate::host::HostError;
use crate::host::iptables::words;

/// The chain that every new connection to this host comes through.
pub(super) const PORTS: &str = "TRESTLE-PORTS";

/// The chain that masquerades.
pub(super) const SNAT: &str = "TRESTLE-PORTS-SNAT";

/// What the names of the attachments' chains begin with.
pub(super) const PREFIX: &str = "TRESTLE-PORT-";

pub(super) fn chain_of(comment: &str) -> String {
    // 13 and 15 are the 28 characters that a chain's name may have (XT_EXTENSION_MAXNAMELEN).
    format!("{PREFIX}{:015x}", fnv1a(comment.as_bytes()) >> 4)
}

/// What is wanted of this version.
pub(super) fn of_version<'a>(version: Version, wanted: &Wanted<'a>) -> Vec<&'a Forward> {
    let all = wanted.forwards.iter();
    all.filter(|forward| version.is_of(forward.to.ip()))
        .collect()
}

/// The rules of an attachment, as input of `iptables-restore`.
pub(super) fn plan(
    version: Version,
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
    localnet: Option<&str>,
) -> Vec<String> {
    let (chain, owner) = (chain_of(&wanted.comment), printable(&wanted.comment));
    let conditions = match version {
        Version::V4 => &settings.conditions_v4,
        Version::V6 => &settings.conditions_v6,
    };
    let conditions: String = conditions
        .iter()
        .map(|argument| format!("\"{argument}\" "))
        .collect();
    let mut commands = Vec::new();
    for forward in of_version(version, wanted) {
        let (protocol, port) = (forward.protocol.name(), forward.host_port);
        let ports = format!("-p {protocol} -m {protocol} --dport {port}");
        commands.push(format!(
            "-A {PORTS} {ports} {conditions}-m comment --comment \"{owner} {forward}\" -j {chain}"
        ));
        let host = forward
            .host
            .map_or_else(String::new, |host| format!(" -d {host}"));
        let mark = match &settings.mark {
            Mark::Bit(bit) => {
                let bit = 1_u32 << bit;
                format!("MARK --set-xmark {bit:#x}/{bit:#x}")
            }
            Mark::ExternalChain(chain) => chain.clone(),
        };
        let subnet = wanted.addresses.subnet_of(forward.to.ip());
        match (wanted.masquerade, subnet) {
            (Masquerade::Nearby, Some(subnet)) => commands.push(format!(
                "-A {chain} {ports}{host} -s {} -j {mark}",
                subnet.trunc()
            )),
            (Masquerade::Always, _) => commands.push(format!("-A {chain} {ports}{host} -j {mark}")),
            _ => {}
        }
        commands.push(format!(
            "-A {chain} {ports}{host} -j DNAT --to-destination {}",
            forward.to
        ));
    }
    commands.extend(masquerading(version, wanted, settings, localnet, &owner));
    commands
}

pub(super) fn masquerading(
    version: Version,
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
    localnet: Option<&str>,
    owner: &str,
) -> Vec<String> {
    let address = match version {
        Version::V4 => wanted.addresses.v4,
        Version::V6 => wanted.addresses.v6,
    };
    let (Some(address), true) = (address, wanted.masquerade != Masquerade::Never) else {
        return Vec::new();
    };
    let to = format!("-d {}", address.addr());
    let end = format!("-m comment --comment \"{owner}\" -j MASQUERADE");
    let mut commands = Vec::new();
    if let Mark::Bit(bit) = settings.mark {
        let bit = 1_u32 << bit;
        commands.push(format!(
            "-A {SNAT} {to} -m mark --mark {bit:#x}/{bit:#x} {end}"
        ));
    }
    if version == Version::V4 && wanted.localhost().is_some() {
        let by = localnet.map_or_else(String::new, |interface| format!(" -o \"{interface}\""));
        commands.push(format!("-A {SNAT} -s 127.0.0.0/8 {to}{by} {end}"));
    }
    commands
}

/// The rules that drop what pretends to be localhost.
pub(super) fn guards() -> [String; 2] {
    ["-d", "-s"].map(|side| {
        format!(
            "PREROUTING {side} 127.0.0.0/8 ! -i lo -m comment --comment \"{GUARD_COMMENT}\" -j DROP"
        )
    })
}

/// Whether a rule of PREROUTING in the table `raw` is one of ours.
pub(super) fn is_guard(rule: &str) -> bool {
    words(rule).iter().any(|word| word == GUARD_COMMENT)
}

pub(super) fn guard_creation(purpose: &str) -> Result<Vec<String>, HostError> {
    let present = Version::V4.raw_prerouting(purpose)?;
    if present.iter().filter(|rule| is_guard(rule)).count() == guards().len() {
        return Ok(Vec::new());
    }
    let mut commands = guard_removal(&present);
    commands.extend(guards().iter().map(|rule| format!("-I {rule}")));
    Ok(commands)
}

pub(super) fn guard_removal(present: &[String]) -> Vec<String> {
    let ours = present.iter().filter(|rule| is_guard(rule));
    ours.map(|rule| format!("-D PREROUTING {rule}")).collect()
}

/// The mapping that a rule of an attachment's chain carries out, if it is the one that reads `mapping`.
pub(super) fn forward_of(rule: &str, mapping: &str) -> Option<Forward> {
    let words = words(rule);
    let place = words.iter().position(|word| word == "--to-destination")?;
    let to = words.get(place + 1)?.parse().ok()?;
    let forward = Forward::parse(mapping, to)?;
    let port = words.iter().position(|word| word == "--dport")?;
    let same_port = *words.get(port + 1)? == forward.host_port.to_string();
    (same_port && words.iter().any(|word| word == forward.protocol.name())).then_some(forward)
}
