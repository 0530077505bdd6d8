//! Taking out what belongs to owners, and the rules along with the last of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use super::super::names;
use super::{Foreign, foreign, has, rules};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Nft, Verdict};
use crate::netfilter::elements::{self, ATTEMPTS, Set};
use crate::netfilter::table::{self, TABLE, unless_in_use};
use crate::owner::Owners;

/// Removes the elements of these owners, and the rules of the network when it has none left. Gives the addresses that were known for them.
pub(in super::super) fn remove(selected: &Owners) -> Result<Vec<IpAddr>, HostError> {
    let network = &names::label(selected.network());
    let its_own = |found: &str| selected.has_among_its_own(found);
    let mut nft = Nft::open()?;
    let mut removed = Vec::new();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let sets = nft.sets(TABLE)?;
        let mut members = remove_own_elements(&mut nft, network, &sets, selected, &mut removed)?;
        // A new guard's sets are filled with what ours have at that moment, so guards come second.
        let foreign = foreign(&mut nft, network)?;
        for set in foreign.iter().flat_map(|table| table.sets(network)) {
            let gone = elements::remove(&mut nft, &set, &its_own)?.elements;
            removed.extend(gone.iter().filter_map(Element::as_address));
            members.push(set);
        }
        // Looking comes after the own elements are gone, so of two that leave at once the later one sees none left.
        if members.is_empty() || !elements::are_empty(&mut nft, members.iter().map(Set::object))? {
            break;
        }
        match dismantle(&mut nft, network, &foreign, &sets) {
            // Another process did so, or began anew, in between.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    removed.sort();
    removed.dedup();
    Ok(removed)
}

/// Takes the selected elements out of our own table's sets, and gives those with the containers' addresses.
fn remove_own_elements(
    nft: &mut Nft,
    network: &str,
    sets: &[String],
    selected: &Owners,
    removed: &mut Vec<IpAddr>,
) -> Result<Vec<Set>, HostError> {
    let mut members = rules::members_sets(network).to_vec();
    members.retain(|set| has(sets, set));
    let mut comments = BTreeSet::new();
    for set in &members {
        let its_own = |found: &str| selected.has_among_its_own(found);
        let gone = elements::remove(nft, set, &its_own)?.elements;
        removed.extend(gone.iter().filter_map(Element::as_address));
        comments.extend(gone.into_iter().filter_map(|element| element.comment));
    }
    // Also what a former version spelt in a way that does not tell the network.
    let selected = |found: &str| selected.has(found) || comments.contains(found);
    let shared = rules::PROTECTED.map(Set::own).into_iter();
    for set in shared
        .chain([rules::links_set(network)])
        .filter(|set| has(sets, set))
    {
        elements::remove(nft, &set, &selected)?;
    }
    Ok(members)
}

/// Deletes the rules and sets of a network that has no containers, in one transaction. The kernel refuses it when one
/// of the sets has got an element meanwhile; then everything stays. Meanwhile nobody of us installs rules.
fn dismantle(
    nft: &mut Nft,
    network: &str,
    foreign: &[Foreign],
    sets: &[String],
) -> Result<(), HostError> {
    let _lock = lock::take()?;
    let mut batch = Batch::new();
    let ours = rules::guard_chain(network);
    let mut admins = Vec::new();
    for table in foreign {
        for base in &table.base {
            let chain = table.table().object(base);
            for rule in nft.rules(chain)? {
                if matches!(&rule.verdict, Some(Verdict::Jump(to)) if *to == ours) {
                    batch.delete_rule(chain, rule.handle);
                }
            }
        }
        admins.extend(admin_chain(nft, table, &ours)?.map(|chain| (table, chain)));
        batch.delete_chain(table.table().object(&ours));
        for set in table.sets(network) {
            batch.delete_empty_set(set.object());
        }
    }
    dismantle_own(nft, network, sets, &mut batch)?;
    match nft.commit(batch) {
        Err(error) if error.errno() == Some(Errno::EBUSY) => return Ok(()),
        outcome => outcome?,
    }
    for (table, chain) in admins {
        let mut batch = Batch::new();
        batch.delete_empty_chain(table.table().object(&chain));
        unless_in_use(nft.commit(batch))?;
    }
    for set in rules::PROTECTED
        .iter()
        .filter(|set| sets.iter().any(|name| name == *set))
    {
        let mut batch = Batch::new();
        batch.delete_empty_set(TABLE.object(set));
        unless_in_use(nft.commit(batch))?;
    }
    table::delete_if_empty(nft)
}

/// The administrator's chain that the network's chain in a guard's table begins with.
fn admin_chain(nft: &mut Nft, table: &Foreign, ours: &str) -> Result<Option<String>, HostError> {
    let rules = nft.rules(table.table().object(ours))?;
    Ok(rules.into_iter().find_map(|rule| match rule.verdict {
        Some(Verdict::Jump(chain)) => Some(chain),
        _ => None,
    }))
}

fn dismantle_own(
    nft: &mut Nft,
    network: &str,
    sets: &[String],
    batch: &mut Batch,
) -> Result<(), HostError> {
    let chain = rules::own_chain(network);
    if nft.chain(TABLE.object(&chain))?.is_some() {
        batch.delete_chain(TABLE.object(&chain));
    }
    let links = rules::links_set(network);
    if has(sets, &links) {
        batch.delete_set(links.object());
    }
    for set in rules::members_sets(network)
        .iter()
        .filter(|set| has(sets, set))
    {
        batch.delete_empty_set(set.object());
    }
    Ok(())
}
