//! Taking mappings out, and the rules that are of no use any more.

use std::collections::BTreeSet;

use super::super::plan::Forward;
use super::super::rules::{self, CHAINS, DIGESTS, FROM_PREFIX, Map, PREFIX};
use super::{ATTEMPTS, installed};
use crate::host::HostError;
use crate::host::nft::{Batch, Element, ElementData, Nft};
use crate::netfilter::elements::{self, Set};
use crate::netfilter::table::{self, TABLE};

/// Removes the elements whose comment `selected` says so of.
/// Gives what was forwarded by them. What is left over without use, [`dismantle`] deletes.
pub(in super::super) fn remove(selected: &dyn Fn(&str) -> bool) -> Result<Removed, HostError> {
    let mut nft = Nft::open()?;
    let mut removed = Removed::default();
    let sets = nft.sets(TABLE)?;
    if !sets.iter().any(|name| name.starts_with(PREFIX)) {
        return Ok(removed);
    }
    for map in Map::ALL {
        for element in remove_from(&mut nft, map.name(), selected)? {
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

/// What [`remove`] removed.
#[derive(Debug, Default)]
pub(in super::super) struct Removed {
    pub(in super::super) forwards: Vec<Forward>,
    /// Chains that may be of no use any more.
    chains: BTreeSet<String>,
}

impl Removed {
    /// Chains that may be of no use, without any elements.
    pub(super) fn of_chains(chains: impl Iterator<Item = String>) -> Self {
        Self {
            chains: chains.collect(),
            ..Self::default()
        }
    }
}

fn remove_from(
    nft: &mut Nft,
    set: &str,
    selected: &dyn Fn(&str) -> bool,
) -> Result<Vec<Element>, HostError> {
    let mut removed = Vec::new();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut to_remove = elements::list(nft, &Set::own(set.to_owned()))?;
        to_remove.retain(|element| selected(element.comment.as_deref().unwrap_or_default()));
        match remove_elements(nft, set, to_remove, &mut removed) {
            Ok(()) => return Ok(removed),
            // Another process took one of them out; look again which are left.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

fn remove_elements(
    nft: &mut Nft,
    set: &str,
    mut elements: Vec<Element>,
    removed: &mut Vec<Element>,
) -> Result<(), HostError> {
    let mut batch = Batch::new();
    batch.delete_elements(TABLE.object(set), &elements);
    nft.commit(batch)?;
    removed.append(&mut elements);
    Ok(())
}

/// Deletes the rules that what was removed leaves without use: the chains of its sources, or everything.
///
/// Looking first avoids refused transactions, which make the kernel wait for a grace period. It decides nothing: the
/// kernel refuses to delete what has come into use meanwhile.
pub(in super::super) fn dismantle(removed: &Removed) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    for chain in &removed.chains {
        delete_unused(&mut nft, chain)?;
    }
    let sets = all_sets(&mut nft)?;
    if sets.is_empty() {
        return Ok(());
    }
    for set in sets.iter().filter(|set| *set != DIGESTS) {
        match nft.is_empty(TABLE.object(set)) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if error.not_found() => {}
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
        match set == DIGESTS {
            true => batch.delete_set(TABLE.object(set)),
            false => batch.delete_empty_set(TABLE.object(set)),
        };
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
        installed::forget(nft, &mut batch, chain)?;
        table::unless_in_use(nft.commit(batch))?;
    }
    Ok(())
}
