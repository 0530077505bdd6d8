//! Port mappings by iptables, for those who ask for it.
//!
//! ```text
//! -A PREROUTING -m addrtype --dst-type LOCAL -j TRESTLE-PORTS
//! -A OUTPUT -m addrtype --dst-type LOCAL -j TRESTLE-PORTS
//! -A POSTROUTING -j TRESTLE-PORTS-SNAT
//! -A TRESTLE-PORTS -p tcp --dport 8080 CONDITIONS --comment "podnet/CONTAINER/eth0 0.0.0.0:8080/tcp" -j TRESTLE-PORT-…
//! -A TRESTLE-PORT-0123456789abcde -p tcp --dport 8080 -s 10.1.0.0/24 -j MARK --set-xmark 0x2000/0x2000
//! -A TRESTLE-PORT-0123456789abcde -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80
//! -A TRESTLE-PORTS-SNAT -d 10.1.0.5 -m mark --mark 0x2000/0x2000 --comment "podnet/CONTAINER/eth0" -j MASQUERADE
//! -A TRESTLE-PORTS-SNAT -s 127.0.0.0/8 -d 10.1.0.5 -o cni0 --comment "podnet/CONTAINER/eth0" -j MASQUERADE
//! ```
//!
//! The jumps go to the end of PREROUTING and OUTPUT, behind those of kube-proxy (CVE-2019-9946), and to the beginning
//! of POSTROUTING, since networks' rules may end that chain. What belongs to an attachment has its owner in the
//! comment, and each mapping is spelt out there: who has a port is read from one chain. As iptables knows nothing of
//! uniqueness, whoever changes something holds a lock. The interface of the last rule tells that localhost reaches
//! the container by it because of us, see [`super::localnet`]; packets that pretend to be localhost are dropped in
//! the table `raw`.

use std::collections::BTreeSet;

use cni_conf::error::Error;

use super::conf::{IptablesSettings, Mark, Masquerade};
use super::localnet::{self, GUARD_COMMENT};
use super::plan::Forward;
use super::{Condemned, Kept, Wanted, conflict, nftables};
use crate::attach::nat_table::{Version, printable};
use crate::attach::owner::fnv1a;
use crate::host::iptables::words;
use crate::host::nft::Nft;
use crate::host::{HostError, Sysctl};

/// The chain that every new connection to this host comes through.
const PORTS: &str = "TRESTLE-PORTS";

/// The chain that masquerades.
const SNAT: &str = "TRESTLE-PORTS-SNAT";

/// What the names of the attachments' chains begin with.
const PREFIX: &str = "TRESTLE-PORT-";

/// Keeps two of us from changing the tables of one namespace at once. Which setting's file it is does not matter.
fn lock() -> Result<impl Drop, HostError> {
    Sysctl::ipv4_forwarding().lock()
}

/// What is there, of one version of IP.
struct State {
    version: Version,
    /// The rules of [`PORTS`], if there is that chain.
    ports: Option<Vec<String>>,
    /// The rules of [`SNAT`], if there is that chain.
    snat: Option<Vec<String>>,
}

impl State {
    fn read(nft: &mut Nft, version: Version, purpose: &str) -> Result<Self, HostError> {
        Ok(Self {
            version,
            ports: version.rules(nft, PORTS, purpose)?,
            snat: version.rules(nft, SNAT, purpose)?,
        })
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let all = self
            .ports
            .iter()
            .flatten()
            .chain(self.snat.iter().flatten());
        all.filter_map(|rule| Entry::parse(rule))
    }

    /// Commands that make sure of the two chains and of the jumps to them.
    fn creation(&self, nft: &mut Nft, purpose: &str) -> Result<Vec<String>, HostError> {
        let mut commands = Vec::new();
        for (chain, there) in [(PORTS, &self.ports), (SNAT, &self.snat)] {
            if there.is_none() {
                commands.push(format!(":{chain} - [0:0]"));
            }
        }
        for (from, chain, position, rule) in jumps(self.version) {
            let present = self.version.rules(nft, from, purpose)?.unwrap_or_default();
            if !present.iter().any(|line| target(line) == Some(chain)) {
                commands.push(format!("{position} {from} {rule}-j {chain}"));
            }
        }
        Ok(commands)
    }

    /// Commands that delete the rules of the condemned.
    fn rule_removal(&self, condemned: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut commands = Vec::new();
        for (chain, rules) in [(PORTS, &self.ports), (SNAT, &self.snat)] {
            let doomed = rules
                .iter()
                .flatten()
                .filter(|rule| Entry::parse(rule).is_some_and(|entry| condemned(&entry.owner)));
            commands.extend(doomed.map(|rule| format!("-D {chain} {rule}")));
        }
        commands
    }

    /// The chains of the condemned.
    fn chains_of(&self, condemned: &dyn Fn(&str) -> bool) -> BTreeSet<&str> {
        self.entries()
            .filter(|entry| condemned(&entry.owner))
            .filter_map(|entry| entry.chain)
            .filter(|chain| chain.starts_with(PREFIX))
            .collect()
    }

    /// Whether only the condemned have rules.
    fn is_over(&self, condemned: &dyn Fn(&str) -> bool) -> bool {
        self.entries().all(|entry| condemned(&entry.owner))
    }

    /// Commands that take out what belongs to the condemned, along with the shared chains and the jumps to them when
    /// nobody else has a rule.
    fn removal(
        &self,
        nft: &mut Nft,
        condemned: &dyn Fn(&str) -> bool,
        purpose: &str,
    ) -> Result<Vec<String>, HostError> {
        let mut chains = self.chains_of(condemned);
        let mut commands = Vec::new();
        if self.is_over(condemned) {
            for (from, chain, _, _) in jumps(self.version) {
                let present = self.version.rules(nft, from, purpose)?.unwrap_or_default();
                let ours = present.iter().filter(|line| target(line) == Some(chain));
                commands.extend(ours.map(|rule| format!("-D {from} {rule}")));
            }
            let shared = [(PORTS, &self.ports), (SNAT, &self.snat)].into_iter();
            chains.extend(
                shared
                    .filter(|(_, rules)| rules.is_some())
                    .map(|(chain, _)| chain),
            );
        } else {
            commands.extend(self.rule_removal(condemned));
        }
        // All are emptied before the first is deleted, since a chain that a rule leads to can't be.
        commands.extend(chains.iter().map(|chain| format!("-F {chain}")));
        commands.extend(chains.iter().map(|chain| format!("-X {chain}")));
        Ok(commands)
    }
}

type JumpText = (&'static str, &'static str, &'static str, &'static str);

/// From where to which chain, at which end, and on which condition.
fn jumps(version: Version) -> [JumpText; 3] {
    let to_this_host = "-m addrtype --dst-type LOCAL ";
    let from_this_host = match version {
        Version::V4 => to_this_host,
        // No packet from ::1 can leave the host.
        Version::V6 => "! -d ::1/128 -m addrtype --dst-type LOCAL ",
    };
    [
        ("PREROUTING", PORTS, "-A", to_this_host),
        ("OUTPUT", PORTS, "-A", from_this_host),
        ("POSTROUTING", SNAT, "-I", ""),
    ]
}

/// The chain that a rule leads to.
fn target(rule: &str) -> Option<&str> {
    rule.split_whitespace()
        .skip_while(|word| *word != "-j")
        .nth(1)
}

/// A rule of one of the two chains.
struct Entry<'a> {
    /// The owner's comment, as far as iptables takes it.
    owner: String,
    /// The mapping as text, for a rule that forwards.
    mapping: Option<String>,
    /// The chain that it leads to.
    chain: Option<&'a str>,
    /// The interface that localhost reaches the container by, if that is our doing.
    localnet: Option<String>,
}

impl<'a> Entry<'a> {
    fn parse(rule: &'a str) -> Option<Self> {
        let words = words(rule);
        let after = |option: &str| {
            let place = words.iter().position(|word| word == option)?;
            words.get(place + 1).cloned()
        };
        let comment = after("--comment")?;
        let (owner, mapping) = match comment.split_once(' ') {
            Some((owner, mapping)) => (owner.to_owned(), Some(mapping.to_owned())),
            None => (comment, None),
        };
        Some(Self {
            owner,
            mapping,
            chain: target(rule),
            localnet: after("-o"),
        })
    }
}

/// Makes sure that everything is forwarded as wanted. A port that another attachment has is an error that names it.
pub(super) fn ensure(wanted: &Wanted<'_>, settings: &IptablesSettings) -> Result<(), Error> {
    let purpose = "map ports with iptables";
    let _lock = lock()?;
    let mut nft = Nft::open()?;
    nftables::refuse_taken(&mut nft, wanted)?;
    let owner = printable(&wanted.comment);
    for version in Version::ALL {
        let forwards = of_version(version, wanted);
        if forwards.is_empty() {
            continue;
        }
        let state = State::read(&mut nft, version, purpose)?;
        refuse_taken(&state, &owner, &forwards)?;
        let localnet = match wanted.localhost().filter(|_| version == Version::V4) {
            Some(address) => localnet::to_open(&mut nft, address, &|interface| {
                state
                    .entries()
                    .any(|entry| entry.localnet.as_deref() == Some(interface))
            })?,
            None => None,
        };
        let chain = chain_of(&wanted.comment);
        let mut nat = state.creation(&mut nft, purpose)?;
        nat.push(format!(":{chain} - [0:0]"));
        nat.extend(state.rule_removal(&|found| found == owner));
        nat.extend(plan(version, wanted, settings, localnet.as_deref()));
        let raw = match wanted.localhost() {
            Some(_) if version == Version::V4 => guard_creation(purpose)?,
            _ => Vec::new(),
        };
        version.restore(purpose, &[("raw", &raw), ("nat", &nat)])?;
        if let Some(interface) = localnet {
            localnet::route_localnet(&interface).ensure("1")?;
        }
    }
    Ok(())
}

fn of_version<'a>(version: Version, wanted: &Wanted<'a>) -> Vec<&'a Forward> {
    let all = wanted.forwards.iter();
    all.filter(|forward| version.is_of(forward.to.ip()))
        .collect()
}

fn refuse_taken(state: &State, owner: &str, forwards: &[&Forward]) -> Result<(), Error> {
    for entry in state.entries().filter(|entry| entry.owner != owner) {
        let Some(mapping) = entry.mapping else {
            continue;
        };
        let taken = forwards.iter().find(|forward| {
            Forward::parse(&mapping, forward.to).is_some_and(|other| forward.overlaps(&other))
        });
        if let Some(forward) = taken {
            return Err(conflict(&forward.to_string(), &entry.owner, &mapping));
        }
    }
    Ok(())
}

fn chain_of(comment: &str) -> String {
    // 13 and 15 are the 28 characters that a chain's name may have (XT_EXTENSION_MAXNAMELEN).
    format!("{PREFIX}{:015x}", fnv1a(comment.as_bytes()) >> 4)
}

/// The rules of an attachment, as input of `iptables-restore`.
fn plan(
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

fn masquerading(
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
fn guards() -> [String; 2] {
    ["-d", "-s"].map(|side| {
        format!(
            "PREROUTING {side} 127.0.0.0/8 ! -i lo -m comment --comment \"{GUARD_COMMENT}\" -j DROP"
        )
    })
}

/// Whether a rule of PREROUTING in the table `raw` is one of ours.
fn is_guard(rule: &str) -> bool {
    words(rule).iter().any(|word| word == GUARD_COMMENT)
}

fn guard_creation(purpose: &str) -> Result<Vec<String>, HostError> {
    let present = Version::V4.raw_prerouting(purpose)?;
    if present.iter().filter(|rule| is_guard(rule)).count() == guards().len() {
        return Ok(Vec::new());
    }
    let mut commands = guard_removal(&present);
    commands.extend(guards().iter().map(|rule| format!("-I {rule}")));
    Ok(commands)
}

fn guard_removal(present: &[String]) -> Vec<String> {
    let ours = present.iter().filter(|rule| is_guard(rule));
    ours.map(|rule| format!("-D PREROUTING {rule}")).collect()
}

/// Takes out what belongs to the condemned, and everything when nobody else has anything. Starts no process when it is
/// clear that there is nothing; `thorough` asks `iptables` where nothing else tells.
pub(super) fn remove(condemned: &Condemned<'_>, thorough: bool) -> Result<Vec<Forward>, HostError> {
    let mut nft = Nft::open()?;
    let mut removed = Vec::new();
    let mut lock_held = None;
    for version in Version::ALL {
        let chain = match condemned {
            Condemned::Owner(comment) => chain_of(comment),
            Condemned::Others { .. } => PORTS.to_owned(),
        };
        match version.has_chain(&mut nft, &chain)? {
            Some(true) => {}
            Some(false) => continue,
            None if thorough => {}
            None => continue,
        }
        if lock_held.is_none() {
            lock_held = Some(lock()?);
        }
        removed.extend(remove_version(&mut nft, version, condemned)?);
    }
    Ok(removed)
}

fn remove_version(
    nft: &mut Nft,
    version: Version,
    condemned: &Condemned<'_>,
) -> Result<Vec<Forward>, HostError> {
    let purpose = "remove mapped ports from iptables";
    let state = State::read(nft, version, purpose)?;
    let doomed = |owner: &str| condemned.has_printable(owner);
    let mut forwards = Vec::new();
    for entry in state.entries().filter(|entry| doomed(&entry.owner)) {
        if let (Some(mapping), Some(chain)) = (&entry.mapping, entry.chain) {
            let rules = version.rules(nft, chain, purpose)?.unwrap_or_default();
            forwards.extend(rules.iter().filter_map(|rule| forward_of(rule, mapping)));
        }
    }
    // The setting before the rules that guard it.
    let still = |interface: &str| {
        let mut others = state.entries().filter(|entry| !doomed(&entry.owner));
        others.any(|entry| entry.localnet.as_deref() == Some(interface))
    };
    let interfaces: BTreeSet<String> = state
        .entries()
        .filter(|entry| doomed(&entry.owner))
        .filter_map(|entry| entry.localnet)
        .collect();
    for interface in interfaces.iter().filter(|interface| !still(interface)) {
        localnet::close(nft, interface)?;
    }
    let nat = state.removal(nft, &doomed, purpose)?;
    let raw = match version {
        Version::V4 if state.is_over(&doomed) => guard_removal(&version.raw_prerouting(purpose)?),
        _ => Vec::new(),
    };
    version.restore(purpose, &[("nat", &nat), ("raw", &raw)])?;
    Ok(forwards)
}

/// The mapping that a rule of an attachment's chain carries out, if it is the one that reads `mapping`.
fn forward_of(rule: &str, mapping: &str) -> Option<Forward> {
    let words = words(rule);
    let place = words.iter().position(|word| word == "--to-destination")?;
    let to = words.get(place + 1)?.parse().ok()?;
    let forward = Forward::parse(mapping, to)?;
    let port = words.iter().position(|word| word == "--dport")?;
    let same_port = *words.get(port + 1)? == forward.host_port.to_string();
    (same_port && words.iter().any(|word| word == forward.protocol.name())).then_some(forward)
}

/// Everything that is kept for attachments to `network`.
pub(super) fn list(network: &str) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let prefix = format!("{network}/");
    let mut kept = Vec::new();
    for version in Version::ALL {
        let state = State::read(&mut nft, version, "list mapped ports of iptables")?;
        for entry in state
            .entries()
            .filter(|entry| entry.owner.starts_with(&prefix))
        {
            kept.extend(entry.mapping.map(|mapping| Kept {
                owner: entry.owner.clone(),
                what: format!(
                    "{mapping} (iptables chain {})",
                    entry.chain.unwrap_or(PORTS)
                ),
            }));
        }
    }
    Ok(kept)
}

/// Compares what is there with what is wanted, and gives a sentence for each difference.
pub(super) fn check(wanted: &Wanted<'_>) -> Result<Vec<String>, HostError> {
    let purpose = "check mapped ports of iptables";
    let mut nft = Nft::open()?;
    let (chain, owner) = (chain_of(&wanted.comment), printable(&wanted.comment));
    let mut differences = Vec::new();
    for version in Version::ALL {
        let forwards = of_version(version, wanted);
        if forwards.is_empty() {
            continue;
        }
        let state = State::read(&mut nft, version, purpose)?;
        for from in jumps(version).iter().filter(|(_, to, ..)| *to == PORTS) {
            let present = version
                .rules(&mut nft, from.0, purpose)?
                .unwrap_or_default();
            if !present.iter().any(|line| target(line) == Some(PORTS)) {
                differences.push(format!("no rule of {} leads to the chain {PORTS}", from.0));
            }
        }
        let rules = version
            .rules(&mut nft, &chain, purpose)?
            .unwrap_or_default();
        for forward in forwards {
            let text = forward.to_string();
            let entry = state
                .entries()
                .any(|entry| entry.owner == owner && entry.mapping.as_ref() == Some(&text));
            let done = rules
                .iter()
                .any(|rule| forward_of(rule, &text) == Some(*forward));
            if !entry || !done {
                differences.push(format!(
                    "host port {text} leads nowhere (iptables chain {chain})"
                ));
            }
        }
    }
    Ok(differences)
}
