//! Port mappings by nftables: elements by netlink, rules by `nft` when they are missing or out of date.

use std::collections::BTreeSet;

use cni_conf::error::Error;
use nix::errno::Errno;

use super::conf::Masquerade;
use super::plan::{Addresses, Forward};
use super::rules::{self, CHAINS, FROM_PREFIX, Map, PREFIX, SEALED, Sources};
use super::{Kept, Wanted, conflict};
use crate::attach::table::{self, TABLE};
use crate::host::HostError;
use crate::host::nft::{Batch, Element, ElementData, Nft, ruleset};

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 10;

/// How many elements go into one transaction, so that it fits into a socket's buffer.
const ELEMENTS_AT_ONCE: usize = 500;

/// The elements of one attachment.
struct Elements {
    forwarding: Vec<(Map, Element)>,
    masquerading: Vec<(Map, Element)>,
    sources: BTreeSet<Sources>,
}

impl Elements {
    fn of(wanted: &Wanted<'_>) -> Self {
        let mut elements = Self {
            forwarding: Vec::new(),
            masquerading: Vec::new(),
            sources: BTreeSet::new(),
        };
        for forward in wanted.forwards {
            let element = rules::forwarding(forward, &wanted.comment);
            elements.forwarding.push((Map::of(forward), element));
            let Some(from) = sources(wanted.masquerade, wanted.addresses, forward) else {
                continue;
            };
            elements.sources.insert(from);
            let element = rules::masquerading(forward, &from, &wanted.comment);
            // Mappings of one port on two addresses of the host share it.
            if !elements.masquerading.contains(&element) {
                elements.masquerading.push(element);
            }
        }
        elements
    }
}

fn sources(masquerade: Masquerade, addresses: Addresses, forward: &Forward) -> Option<Sources> {
    Sources::of(masquerade, addresses.subnet_of(forward.to.ip())?)
}

/// Makes sure that everything is forwarded as wanted. `restore` is called when the rules that exist once had to be made,
/// which is so for the host's first mapped port and after a flush.
///
/// A port that another attachment has is an error that names it. Mappings of one address and of all are different
/// keys, so the kernel can't tell that they overlap: that is looked for before, to be sure that nothing is
/// disturbed, and once more afterwards, because another process may do the same at the same time. Of two that do,
/// at least one finds the other's.
pub(super) fn ensure(wanted: &Wanted<'_>, restore: &dyn Fn()) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    let elements = Elements::of(wanted);
    refuse_overlaps(&mut nft, wanted)?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let fixed = has_fixed_rules(&mut nft)?;
        let current = fixed && has_chains_of(&mut nft, &elements.sources)?;
        let outcome = match current {
            true => put(&mut nft, &elements, wanted)?,
            false => Err(HostError::Netlink {
                operation: "find the rules of port mappings".to_owned(),
                errno: Errno::ENOENT,
                detail: None,
            }),
        };
        match outcome {
            Ok(()) => break,
            Err(error) if attempt == ATTEMPTS => return Err(error.into()),
            Err(error) if error.is_missing() => {
                install(&elements.sources)?;
                // Unless it was a subnet's chain alone that was missing.
                if current || !fixed {
                    restore();
                    refuse_overlaps(&mut nft, wanted)?;
                }
            }
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    refuse_overlaps(&mut nft, wanted)
}

/// Whether the rules are gone that exist once, or were never there.
pub(super) fn is_forgotten() -> Result<bool, HostError> {
    let rules = Nft::open()?.rules(TABLE.object(SEALED))?;
    Ok(rules.is_empty())
}

/// Whether the rules that exist once are there and those of this version.
fn has_fixed_rules(nft: &mut Nft) -> Result<bool, HostError> {
    for (name, count) in CHAINS {
        let rules = nft.rules(TABLE.object(name))?;
        let sealed = || rules.last().and_then(|rule| rule.comment.as_ref()) == Some(&rules::seal());
        if rules.len() != count || (name == SEALED && !sealed()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the chains that masquerade for these sources are there.
fn has_chains_of(nft: &mut Nft, sources: &BTreeSet<Sources>) -> Result<bool, HostError> {
    for from in sources {
        if nft.rules(TABLE.object(&from.chain()))?.len() != from.rule_count() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn install(sources: &BTreeSet<Sources>) -> Result<(), HostError> {
    let script: String = std::iter::once(rules::script())
        .chain(sources.iter().map(Sources::script))
        .collect();
    ruleset::NFT
        .run("install the rules of port mappings", ["-f", "-"], &script)
        .map(drop)
}

/// Puts the elements in, in one transaction. The outer error is final: somebody else has a port.
fn put(
    nft: &mut Nft,
    elements: &Elements,
    wanted: &Wanted<'_>,
) -> Result<Result<(), HostError>, Error> {
    let mut batch = Batch::new();
    for (map, element) in elements.forwarding.iter().chain(&elements.masquerading) {
        batch.add_elements(TABLE.object(map.name()), std::slice::from_ref(element));
    }
    match nft.commit(batch) {
        Err(error) if error.is_exists() => {}
        outcome => return Ok(outcome),
    }
    let mut batch = Batch::new();
    refuse_taken(nft, wanted)?;
    for (map, element) in elements.forwarding.iter().chain(&elements.masquerading) {
        let set = TABLE.object(map.name());
        let present = nft.element(set, element)?;
        if present.as_ref() == Some(element) {
            continue;
        }
        if let Some(present) = present {
            // What leads to the container's address is this attachment's: IPAM gave it the address.
            batch.delete_elements(set, &[present]);
        }
        batch.add_elements(set, std::slice::from_ref(element));
    }
    Ok(nft.commit(batch))
}

/// Looks for mappings of the same port by others, of one address where all are wanted and the other way round.
fn refuse_overlaps(nft: &mut Nft, wanted: &Wanted<'_>) -> Result<(), Error> {
    for forward in wanted.forwards {
        let map = Map::of(forward).other();
        let found = if forward.host.is_some() {
            let any = Forward {
                host: None,
                ..*forward
            };
            let element = rules::forwarding(&any, "");
            Vec::from_iter(nft.element(TABLE.object(map.name()), &element)?)
        } else {
            table::elements(nft, map.name())?
        };
        refuse_foreign(forward, map, &found, &wanted.comment)?;
    }
    Ok(())
}

/// Fails if one of the elements of `map` is a mapping by another that gets in the way.
fn refuse_foreign(
    forward: &Forward,
    map: Map,
    found: &[Element],
    comment: &str,
) -> Result<(), Error> {
    for element in found {
        let owner = element.comment.as_deref().unwrap_or("somebody unnamed");
        let other = rules::parse_forwarding(map, element);
        if let Some(other) = other.filter(|other| owner != comment && forward.overlaps(other)) {
            return Err(conflict(&forward.to_string(), owner, &other.to_string()));
        }
    }
    Ok(())
}

/// Looks for mappings of the same ports by others.
pub(super) fn refuse_taken(nft: &mut Nft, wanted: &Wanted<'_>) -> Result<(), Error> {
    for forward in wanted.forwards {
        let map = Map::of(forward);
        let element = rules::forwarding(forward, "");
        let found = Vec::from_iter(nft.element(TABLE.object(map.name()), &element)?);
        refuse_foreign(forward, map, &found, &wanted.comment)?;
    }
    refuse_overlaps(nft, wanted)
}

/// Takes out the elements whose comment `condemned` says so of.
/// Gives what was forwarded by them. What is left over without use, [`dismantle`] deletes.
pub(super) fn remove(condemned: &dyn Fn(&str) -> bool) -> Result<Removed, HostError> {
    let mut nft = Nft::open()?;
    let mut removed = Removed::default();
    let sets = nft.sets(TABLE)?;
    if !sets.iter().any(|name| name.starts_with(PREFIX)) {
        return Ok(removed);
    }
    for map in Map::ALL {
        for element in remove_from(&mut nft, map.name(), condemned)? {
            if let Some(ElementData::Goto(chain)) = &element.data {
                removed.chains.insert(chain.clone());
            }
            removed
                .forwards
                .extend(rules::parse_forwarding(map, &element));
        }
    }
    Ok(removed)
}

/// What [`remove`] took out.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) forwards: Vec<Forward>,
    /// Chains that may be of no use any more.
    chains: BTreeSet<String>,
}

fn remove_from(
    nft: &mut Nft,
    set: &str,
    condemned: &dyn Fn(&str) -> bool,
) -> Result<Vec<Element>, HostError> {
    let mut removed = Vec::new();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut doomed = table::elements(nft, set)?;
        doomed.retain(|element| condemned(element.comment.as_deref().unwrap_or_default()));
        match take_out(nft, set, doomed, &mut removed) {
            Ok(()) => return Ok(removed),
            // Another process took one of them out; look again which are left.
            Err(error) if error.is_missing() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

fn take_out(
    nft: &mut Nft,
    set: &str,
    mut elements: Vec<Element>,
    removed: &mut Vec<Element>,
) -> Result<(), HostError> {
    while !elements.is_empty() {
        let rest = elements.split_off(elements.len().min(ELEMENTS_AT_ONCE));
        let mut batch = Batch::new();
        batch.delete_elements(TABLE.object(set), &elements);
        nft.commit(batch)?;
        removed.append(&mut elements);
        elements = rest;
    }
    Ok(())
}

/// Deletes the rules that what was removed leaves without use: the chains of its sources, or everything.
///
/// Looking first avoids refused transactions, which make the kernel wait for a grace period. It decides nothing: the
/// kernel refuses to delete what has come into use meanwhile.
pub(super) fn dismantle(removed: &Removed) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    for chain in &removed.chains {
        delete_unused(&mut nft, chain)?;
    }
    let sets = all_sets(&mut nft)?;
    if sets.is_empty() {
        return Ok(());
    }
    for set in &sets {
        match nft.is_empty(TABLE.object(set)) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    let chains: Vec<String> = nft
        .chains(Some(TABLE))?
        .into_iter()
        .map(|chain| chain.name)
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    let fixed = CHAINS.iter().map(|(name, _)| *name);
    let rest = chains
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with(FROM_PREFIX));
    let mut batch = Batch::new();
    // Chains that lead to others come first.
    for name in fixed
        .chain(rest)
        .filter(|name| chains.iter().any(|chain| chain == name))
    {
        batch.delete_chain(TABLE.object(name));
    }
    for set in &sets {
        batch.delete_empty_set(TABLE.object(set));
    }
    if table::unless_in_use(nft.commit(batch))? {
        table::delete_if_empty(&mut nft)?;
    }
    Ok(())
}

fn all_sets(nft: &mut Nft) -> Result<Vec<String>, HostError> {
    let mut sets = nft.sets(TABLE)?;
    sets.retain(|name| name.starts_with(PREFIX));
    Ok(sets)
}

fn delete_unused(nft: &mut Nft, chain: &str) -> Result<(), HostError> {
    let object = TABLE.object(chain);
    let rules = u32::try_from(nft.rules(object)?.len()).unwrap_or(u32::MAX);
    if nft.chain(object)?.is_some_and(|chain| chain.uses <= rules) {
        let mut batch = Batch::new();
        batch.delete_chain(object);
        table::unless_in_use(nft.commit(batch))?;
    }
    Ok(())
}

/// Everything that is kept for attachments to `network`.
pub(super) fn list(network: &str) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let mut kept = Vec::new();
    for map in Map::ALL.into_iter().filter(|map| map.forwards()) {
        for element in table::elements(&mut nft, map.name())? {
            let owner = element.comment.clone().unwrap_or_default();
            let of_network = owner
                .strip_prefix(network)
                .is_some_and(|rest| rest.starts_with('/'));
            if let (true, Some(forward)) = (of_network, rules::parse_forwarding(map, &element)) {
                kept.push(Kept {
                    owner,
                    what: format!("{forward} -> {}", forward.to),
                });
            }
        }
    }
    Ok(kept)
}

/// Compares what is there with what is wanted, and gives a sentence for each difference.
pub(super) fn check(wanted: &Wanted<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let elements = Elements::of(wanted);
    let mut differences = Vec::new();
    if !has_fixed_rules(&mut nft)? || !has_chains_of(&mut nft, &elements.sources)? {
        differences.push(format!(
            "the rules of port mappings in nft table {TABLE} are missing or have been changed"
        ));
    }
    for ((map, element), forward) in elements.forwarding.iter().zip(wanted.forwards) {
        let set = TABLE.object(map.name());
        match nft.element(set, element)? {
            Some(present) if present == *element => {}
            Some(present) => differences.push(format!(
                "host port {forward} leads to {} (nft map {set})",
                present.comment.as_deref().unwrap_or("somebody unnamed")
            )),
            None => differences.push(format!("host port {forward} leads nowhere (nft map {set})")),
        }
    }
    for (map, element) in &elements.masquerading {
        let set = TABLE.object(map.name());
        if nft.element(set, element)?.as_ref() != Some(element) {
            differences.push(format!(
                "connections to mapped ports are not masqueraded (nft map {set})"
            ));
        }
    }
    Ok(differences)
}
