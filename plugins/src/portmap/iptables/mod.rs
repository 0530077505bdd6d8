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

mod rules;
mod state;

use std::collections::BTreeSet;

use cni_conf::error::Error;

use self::rules::{PORTS, chain_of, forward_of, guard_creation, guard_removal, of_version, plan};
use self::state::{State, jumps, target};
use super::conf::IptablesSettings;
use super::plan::Forward;
use super::{Condemned, Kept, Wanted, conflict, localnet, nftables};
use crate::attach::nat_table::{Version, printable};
use crate::attach::rules_lock;
use crate::host::HostError;
use crate::host::nft::Nft;

/// Makes sure that everything is forwarded as wanted. A port that another attachment has is an error that names it.
/// `restore` is called, without the lock, where nobody has a rule: for the first mapped port and after a flush.
pub(super) fn ensure(
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
    restore: &dyn Fn(),
) -> Result<(), Error> {
    let purpose = "map ports with iptables";
    let mut lock = rules_lock::take()?;
    let mut nft = Nft::open()?;
    nftables::refuse_taken(&mut nft, wanted)?;
    let mut restored = false;
    for version in Version::ALL {
        if of_version(version, wanted).is_empty() {
            continue;
        }
        let mut state = State::read(&mut nft, version, purpose)?;
        if state.is_over(&|_| false) && !restored {
            drop(lock);
            restore();
            restored = true;
            lock = rules_lock::take()?;
            state = State::read(&mut nft, version, purpose)?;
        }
        ensure_version(&mut nft, &state, wanted, settings)?;
    }
    drop(lock);
    Ok(())
}

/// The same for one version of IP, of which `state` tells what is there.
fn ensure_version(
    nft: &mut Nft,
    state: &State,
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
) -> Result<(), Error> {
    let (version, purpose) = (state.version, "map ports with iptables");
    let owner = printable(&wanted.comment);
    refuse_taken(state, &owner, &of_version(version, wanted))?;
    let localhost = wanted.localhost().filter(|_| version == Version::V4);
    let localnet = match localhost {
        Some(address) => localnet::to_open(nft, address, &|interface| {
            state
                .entries()
                .any(|entry| entry.localnet.as_deref() == Some(interface))
        })?,
        None => None,
    };
    let mut nat = state.creation(nft, purpose)?;
    nat.push(format!(":{} - [0:0]", chain_of(&wanted.comment)));
    nat.extend(state.rule_removal(&|found| found == owner));
    nat.extend(plan(version, wanted, settings, localnet.as_deref()));
    let raw = match localhost {
        Some(_) => guard_creation(purpose)?,
        None => Vec::new(),
    };
    version.restore(purpose, &[("raw", &raw), ("nat", &nat)])?;
    if let Some(interface) = localnet {
        localnet::route_localnet(&interface).ensure("1")?;
    }
    Ok(())
}

/// Whether no rule leads to the chain of all mapped ports, of a version of IP that this is about. Where that can't be
/// seen without asking `iptables`, it counts as no.
pub(super) fn is_forgotten(wanted: &Wanted<'_>) -> Result<bool, HostError> {
    let mut nft = Nft::open()?;
    for version in Version::ALL {
        if of_version(version, wanted).is_empty() || version.has_legacy_table() {
            continue;
        }
        let Some(chain) = nft.chain(version.nat().object(PORTS))? else {
            return Ok(true);
        };
        // Rules in it count as uses too, and it has none after a flush.
        if chain.uses == 0 {
            return Ok(true);
        }
    }
    Ok(false)
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
            lock_held = Some(rules_lock::take()?);
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
