//! Removing mappings, and the rules that are of no use any more.

use std::collections::BTreeSet;

use super::super::plan::Forward;
use super::super::rules::{self, CHAINS, DIGESTS, FROM_PREFIX, Map, PREFIX};
use crate::host::HostError;
use crate::host::nft::{Batch, ElementData, Nft};
use crate::netfilter::digest::Beside;
use crate::netfilter::elements;
use crate::netfilter::table::{self, TABLE};

/// Removes the elements whose comment `selected` says so of.
/// Gives what was forwarded by them. What is left over without use, [`dismantle`] deletes.
pub(in super::super) fn remove(selected: &dyn Fn(&str) -> bool) -> Result<Removed, HostError> {
    let mut nft = Nft::open()?;
    let mut removed = Removed::default();
    if all_sets(&mut nft)?.is_empty() {
        return Ok(removed);
    }
    for map in Map::ALL {
        for element in elements::remove(&mut nft, &map.set(), selected)?.elements {
            let forward = rules::parse_forwarding(map, &element);
            removed.forwards.extend(forward);
            if let Some(ElementData::Goto(chain)) = element.data {
                removed.chains.insert(chain);
            }
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

/// Deletes the rules that what was removed leaves without use: the chains of its sources, or everything.
pub(in super::super) fn dismantle(removed: &Removed) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    for chain in &removed.chains {
        delete_unused(&mut nft, chain)?;
    }
    let (mut sets, mut batch) = (all_sets(&mut nft)?, Batch::new());
    sets.retain(|name| {
        let digests = name == DIGESTS;
        if digests {
            batch.delete_set(TABLE.object(name));
        }
        !digests
    });
    if sets.is_empty() || !elements::are_empty(&mut nft, sets.iter().map(|it| TABLE.object(it)))? {
        return Ok(());
    }
    let chains = nft.chains(Some(TABLE))?;
    let present: Vec<&str> = chains.iter().map(|chain| chain.name.as_str()).collect();
    let fixed = CHAINS.iter().map(|(name, _)| *name);
    let rest = present
        .iter()
        .copied()
        .filter(|name| name.starts_with(FROM_PREFIX));
    let chains = fixed.filter(|name| present.contains(name)).chain(rest);
    table::delete_unused(&mut nft, batch, chains, sets.iter().map(String::as_str))
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
        Beside::remove(nft, &mut batch, DIGESTS, chain)?;
        table::unless_in_use(nft.commit(batch))?;
    }
    Ok(())
}
