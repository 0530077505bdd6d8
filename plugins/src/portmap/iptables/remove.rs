//! Taking mappings out of iptables, and the chains that are of no use any more.

use std::collections::{BTreeMap, BTreeSet};

use super::super::plan::Forward;
use super::super::{Selected, localnet};
use super::rules::{Destinations, PORTS, chain_of, guard_creation, guard_removal};
use super::state::{State, rules_of};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::Nft;
use crate::netfilter::iptables::Version;

/// Removes what belongs to the selected, and everything when nobody else has anything. Starts no process when it is
/// clear that there is nothing; `thorough` asks `iptables` where nothing else tells.
pub(in super::super) fn remove(
    selected: &Selected,
    thorough: bool,
) -> Result<Vec<Forward>, HostError> {
    let mut nft = Nft::open()?;
    let mut removed = Vec::new();
    let mut lock_held = None;
    for version in Version::ALL {
        let chain = match selected.as_one() {
            Some(owner) => chain_of(owner),
            None => PORTS.to_owned(),
        };
        match version.has_chain(&mut nft, &chain)? {
            Some(true) => {}
            Some(false) => continue,
            None if thorough => {}
            None => continue,
        }
        if lock_held.is_none() {
            lock_held = Some(lock::take()?);
        }
        let mut forwards = Vec::new();
        version.change(REMOVE, || {
            let state = State::read(&mut nft, version, REMOVE)?;
            let removal;
            (forwards, removal) = removal_of(&mut nft, &state, selected)?;
            Ok(removal)
        })?;
        removed.extend(forwards);
    }
    Ok(removed)
}

/// Commands by table.
type Removal = Vec<(&'static str, Vec<String>)>;

/// What `iptables` is run for.
const REMOVE: &str = "remove mapped ports from iptables";

/// What was forwarded, and commands that end it.
fn removal_of(
    nft: &mut Nft,
    state: &State,
    selected: &Selected,
) -> Result<(Vec<Forward>, Removal), HostError> {
    let version = state.version;
    let to_remove = |owner: &str| selected.has_in_iptables(owner);
    let forwards = forwards_of(nft, state, &to_remove)?;
    // The setting before the rules that guard it.
    let still: BTreeSet<&str> = state
        .entries()
        .filter(|entry| !to_remove(&entry.owner))
        .filter_map(|entry| entry.localnet.as_deref())
        .collect();
    let interfaces: BTreeSet<&str> = state
        .entries()
        .filter(|entry| to_remove(&entry.owner))
        .filter_map(|entry| entry.localnet.as_deref())
        .collect();
    for interface in interfaces.difference(&still) {
        localnet::close(nft, interface)?;
    }
    let mut nat = state.removal(nft, &to_remove, REMOVE)?;
    if let Some(owner) = selected.as_one() {
        nat.extend(chain_removal(nft, version, &chain_of(owner), &nat)?);
    }
    let raw = match version {
        Version::V4 if state.is_over(&to_remove) => guard_removal(&version.raw_prerouting(REMOVE)?),
        Version::V4 if !still.is_empty() => guard_creation(REMOVE)?,
        _ => Vec::new(),
    };
    Ok((forwards, vec![("nat", nat), ("raw", raw)]))
}

/// Commands that delete an attachment's chain to which no rule leads any more, as after a flush.
fn chain_removal(
    nft: &mut Nft,
    version: Version,
    chain: &str,
    commands: &[String],
) -> Result<Vec<String>, HostError> {
    let deletion = format!("-X {chain}");
    if commands.contains(&deletion) || version.has_chain(nft, chain)? != Some(true) {
        return Ok(Vec::new());
    }
    Ok(vec![format!("-F {chain}"), deletion])
}

/// The mappings of the selected of which connections may linger.
fn forwards_of(
    nft: &mut Nft,
    state: &State,
    to_remove: &dyn Fn(&str) -> bool,
) -> Result<Vec<Forward>, HostError> {
    let ports = state.ports().filter(|(_, entry)| to_remove(&entry.owner));
    let udp: Vec<(&str, &str)> = ports
        .filter_map(|(_, entry)| Some((entry.chain.as_deref()?, entry.mapping.as_deref()?)))
        .filter(|(_, mapping)| mapping.ends_with("/udp"))
        .collect();
    let chains = udp.iter().map(|(chain, _)| *chain).collect();
    let rules = rules_of(nft, state.version, &chains, REMOVE)?;
    let destinations: BTreeMap<&str, Destinations> = rules
        .iter()
        .map(|(chain, rules)| (chain.as_str(), Destinations::of(rules)))
        .collect();
    let forward = |(chain, mapping): &(&str, &str)| destinations.get(chain)?.forward(mapping);
    Ok(udp.iter().filter_map(forward).collect())
}
