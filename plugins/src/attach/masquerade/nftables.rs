//! Masquerade by nftables: elements by netlink, rules by `nft` when they are missing or out of date.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cni_conf::names::NetworkName;
use ipnet::IpNet;
use nix::errno::Errno;

use super::rules::{self, Digests, Entry, Pool, TABLE};
use super::{Kept, Masquerade, Member};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Nft, ruleset};
use crate::netfilter::table;
use crate::owner::{Owner, Owners};

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 10;

/// How many elements one transaction deletes.
const ELEMENTS_AT_ONCE: usize = 1000;

/// The elements that an attachment has in each pool.
type Wanted = BTreeMap<Pool, Vec<Element>>;

/// See [`super::ensure`].
pub(super) fn ensure(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    living: &dyn Fn() -> Vec<Member>,
) -> Result<(), HostError> {
    let elements = by_pool(wanted.owner, wanted.addresses);
    let mut fresh = false;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let outcome = match fresh || is_current(nft, wanted, &elements)? {
            true => put(nft, &elements),
            false => Err(missing_rules(wanted)),
        };
        let error = match outcome {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if attempt == ATTEMPTS {
            return Err(error);
        }
        if error.not_found() {
            // Two transactions make the rules, so one process of ours does it at a time. Where the lock is out of reach, a
            // digest may be lost to another process, which the next ADD finds.
            let _lock = lock::take();
            if !is_current(nft, wanted, &elements)? {
                install(nft, wanted, living)?;
            }
            fresh = true;
        } else if !error.already_exists() {
            return Err(error);
        }
    }
}

/// The way to say that rules are to be installed, and the error if that never helps.
fn missing_rules(wanted: &Masquerade<'_>) -> HostError {
    HostError::Netlink {
        operation: format!(
            "find the masquerade rules of network {}",
            wanted.owner.network
        ),
        errno: Errno::ENOENT,
        detail: None,
    }
}

fn by_pool(owner: &Owner, addresses: &[IpNet]) -> Wanted {
    let mut wanted = Wanted::new();
    for address in addresses {
        let element = Element::address(address.addr(), owner.comment());
        let elements = wanted
            .entry(Pool::of(&owner.network, *address))
            .or_default();
        if !elements.contains(&element) {
            elements.push(element);
        }
    }
    wanted
}

/// Whether the chain of each pool is there with the rules of this configuration.
fn is_current(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    elements: &Wanted,
) -> Result<bool, HostError> {
    for pool in elements.keys() {
        if !has_rules(nft, wanted, pool)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_rules(nft: &mut Nft, wanted: &Masquerade<'_>, pool: &Pool) -> Result<bool, HostError> {
    let rules = nft.contents(TABLE.object(&pool.name))?;
    let Some((last, rules)) = rules.split_last() else {
        return Ok(false);
    };
    let digest = pool.digest(&wanted.owner.network, wanted.non_masquerade, rules);
    Ok(rules.len() == pool.rule_count(wanted.non_masquerade)
        && last.comment.as_ref() == Some(&digest))
}

/// The same for CHECK, which must not take rules for wrong that are being made.
fn has_rules_in_the_end(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    pool: &Pool,
) -> Result<bool, HostError> {
    if has_rules(nft, wanted, pool)? {
        return Ok(true);
    }
    let _lock = lock::share();
    has_rules(nft, wanted, pool)
}

/// Puts the elements into their sets in one transaction, taking the place of those of other owners.
///
/// IPAM gave the address to this container, so whoever had it before is gone, and its DEL, late as it
/// may be, must not find the element any more.
fn put(nft: &mut Nft, wanted: &Wanted) -> Result<(), HostError> {
    let mut batch = Batch::new();
    for (pool, elements) in wanted {
        batch.add_elements(TABLE.object(&pool.name), elements);
    }
    match nft.commit(batch) {
        Err(error) if error.already_exists() => {}
        outcome => return outcome,
    }
    let mut batch = Batch::new();
    for (pool, elements) in wanted {
        let set = TABLE.object(&pool.name);
        for element in elements {
            let present = nft.element(set, element)?;
            if present.as_ref() == Some(element) {
                continue;
            }
            if let Some(present) = present {
                batch.delete_elements(set, &[present]);
            }
            batch.add_elements(set, std::slice::from_ref(element));
        }
    }
    nft.commit(batch)
}

/// Makes the rules of pools in one transaction of `nft`, and once more with the digest of what the kernel made of them: `nft`
/// alone knows how it says a rule.
fn install_rules(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    pools: &[Pool],
    entries: &[Entry],
) -> Result<(), HostError> {
    let (network, exempt) = (&wanted.owner.network, wanted.non_masquerade);
    let purpose = format!("install the masquerade rules of network {network}");
    let apply = |entries, digests: &Digests| {
        ruleset::apply(
            &purpose,
            rules::plan(network, pools, entries, exempt, digests),
        )
    };
    apply(entries, &Digests::new())?;
    let mut digests = Digests::new();
    for pool in pools {
        let mut present = nft.contents(TABLE.object(&pool.name))?;
        present.truncate(pool.rule_count(exempt));
        digests.insert(pool.clone(), pool.digest(network, exempt, &present));
    }
    apply(&[], &digests)?;
    // The last container of another pool may have gone since they were listed.
    let own = |pool: &&Pool| entries.iter().any(|entry| entry.pool == **pool);
    pools
        .iter()
        .filter(|pool| !own(pool))
        .try_for_each(|pool| dismantle_if_empty(nft, pool))
}

/// Makes the rules of the network, all its pools included.
fn install(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    living: &dyn Fn() -> Vec<Member>,
) -> Result<(), HostError> {
    let network = &wanted.owner.network;
    let present = pools(nft, network)?;
    let own = entries(wanted.owner, wanted.addresses);
    let forgotten = own.iter().any(|entry| !present.contains(&entry.pool));
    let others: Vec<Entry> = if forgotten {
        members(network, living)
    } else {
        Vec::new()
    }
    .into_iter()
    // What is in a set that exists is right there, and the own addresses are this container's.
    .filter(|entry| !present.contains(&entry.pool))
    .filter(|entry| own.iter().all(|mine| mine.address != entry.address))
    .collect();
    let entries: Vec<Entry> = own.into_iter().chain(others.iter().cloned()).collect();

    let mut all = present;
    all.extend(entries.iter().map(|entry| entry.pool.clone()));
    all.sort();
    all.dedup();
    install_rules(nft, wanted, &all, &entries)?;
    if others.is_empty() {
        return Ok(());
    }
    let still = members(network, living);
    let gone: Vec<Entry> = others
        .into_iter()
        .filter(|entry| !still.contains(entry))
        .collect();
    remove_elements(nft, &gone)
}

/// The addresses of the network's living containers, each once.
fn members(network: &NetworkName, living: &dyn Fn() -> Vec<Member>) -> Vec<Entry> {
    let mut by_address = BTreeMap::new();
    for member in living()
        .into_iter()
        .filter(|member| member.owner.network == *network)
    {
        for entry in entries(&member.owner, &member.addresses) {
            by_address.entry(entry.address).or_insert(entry);
        }
    }
    by_address.into_values().collect()
}

fn entries(owner: &Owner, addresses: &[IpNet]) -> Vec<Entry> {
    let entry = |address: &IpNet| Entry {
        pool: Pool::of(&owner.network, *address),
        address: address.addr(),
        comment: owner.comment(),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for address in addresses {
        if entries.iter().all(|other| other.address != address.addr()) {
            entries.push(entry(address));
        }
    }
    entries
}

/// Takes elements out one by one, as far as they are there and still belong to that owner.
fn remove_elements(nft: &mut Nft, entries: &[Entry]) -> Result<(), HostError> {
    for Entry {
        pool,
        address,
        comment,
    } in entries
    {
        let set = TABLE.object(&pool.name);
        let element = Element::address(*address, comment.as_str());
        if nft.element(set, &element)?.as_ref() != Some(&element) {
            continue;
        }
        let mut batch = Batch::new();
        batch.delete_elements(set, &[element]);
        ignore_missing(nft.commit(batch))?;
    }
    Ok(())
}

/// The pools of a network, by the sets that exist.
fn pools(nft: &mut Nft, network: &NetworkName) -> Result<Vec<Pool>, HostError> {
    let sets = nft.sets(TABLE)?;
    Ok(sets
        .iter()
        .filter_map(|name| Pool::parse(network, name))
        .collect())
}

/// Elements that were removed, each with its pool.
pub(super) type Taken = Vec<(Pool, Element)>;

/// Removes the elements of `owners`, and the rules of each pool that has none left. Gives what was removed.
pub(super) fn remove(nft: &mut Nft, owners: &Owners) -> Result<Taken, HostError> {
    let mut taken = Taken::new();
    for pool in pools(nft, owners.network())? {
        let elements = remove_from(nft, &pool, owners)?;
        taken.extend(elements.into_iter().map(|element| (pool.clone(), element)));
    }
    Ok(taken)
}

/// Whether one of the elements has come back, under the same owner.
pub(super) fn is_back(nft: &mut Nft, taken: &Taken) -> Result<bool, HostError> {
    for (pool, element) in taken {
        if nft.element(TABLE.object(&pool.name), element)?.as_ref() == Some(element) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove_from(nft: &mut Nft, pool: &Pool, owners: &Owners) -> Result<Vec<Element>, HostError> {
    let (mut removed, mut attempt) = (Vec::new(), 0);
    let was_empty = loop {
        attempt += 1;
        let mut elements = table::elements(nft, &pool.name)?;
        let was_empty = elements.is_empty();
        elements.retain(|element| {
            owners.has_among_its_own(element.comment.as_deref().unwrap_or_default())
        });
        match remove_every_element(nft, pool, elements, &mut removed) {
            Ok(()) => break was_empty,
            // Another process took one of them out; look again which are left.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    };
    if was_empty || !removed.is_empty() {
        dismantle_if_empty(nft, pool)?;
    }
    Ok(removed)
}

/// Removes elements, so many at a time that a transaction fits into a socket's buffer.
fn remove_every_element(
    nft: &mut Nft,
    pool: &Pool,
    mut elements: Vec<Element>,
    removed: &mut Vec<Element>,
) -> Result<(), HostError> {
    while !elements.is_empty() {
        let rest = elements.split_off(elements.len().min(ELEMENTS_AT_ONCE));
        let mut batch = Batch::new();
        batch.delete_elements(TABLE.object(&pool.name), &elements);
        nft.commit(batch)?;
        removed.append(&mut elements);
        elements = rest;
    }
    Ok(())
}

/// Deletes a pool that has no element, and the table when it has nothing else.
///
/// Looking first avoids a refused transaction, which makes the kernel wait for a grace period. It decides
/// nothing: the kernel itself refuses to delete a set that has got an element meanwhile. Looking comes
/// after the own element is gone, so of two containers that leave at once the later one sees none left.
fn dismantle_if_empty(nft: &mut Nft, pool: &Pool) -> Result<(), HostError> {
    let set = TABLE.object(&pool.name);
    match nft.is_empty(set) {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => return ignore_missing(Err(error)),
    }
    let chain_exists = nft.chain(set)?.is_some();
    let mut batch = Batch::new();
    if chain_exists {
        batch.delete_chain(set);
    }
    batch.delete_empty_set(set);
    if table::unless_in_use(nft.commit(batch))? {
        table::delete_if_empty(nft)?;
    }
    Ok(())
}

/// See [`super::release`].
pub(super) fn release(
    nft: &mut Nft,
    network: &NetworkName,
    addresses: &[IpNet],
    stands: &dyn Fn(&str) -> bool,
) -> Result<Vec<Kept>, HostError> {
    let mut released = Vec::new();
    let sets = nft.sets(TABLE)?;
    let others = sets
        .iter()
        .filter_map(|name| Pool::parse_others(network, name));
    for pool in others {
        let mine = addresses.iter().map(IpNet::addr);
        let mut taken = Vec::new();
        for address in mine.filter(|address| pool.may_have(*address)) {
            let element = nft.element(TABLE.object(&pool.name), &Element::address(address, ""))?;
            let gone = |it: &Element| !stands(it.comment.as_deref().unwrap_or_default());
            taken.extend(element.filter(gone));
        }
        if taken.is_empty() {
            continue;
        }
        let mut batch = Batch::new();
        batch.delete_elements(TABLE.object(&pool.name), &taken);
        // One that is missing by now was removed by somebody who has the same reason.
        ignore_missing(nft.commit(batch))?;
        dismantle_if_empty(nft, &pool)?;
        released.extend(taken.iter().map(|element| kept(&pool, element)));
    }
    Ok(released)
}

/// See [`super::list`].
pub(super) fn list(network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let mut found = Vec::new();
    for pool in pools(&mut nft, network)? {
        let elements = table::elements(&mut nft, &pool.name)?;
        found.extend(elements.iter().map(|element| kept(&pool, element)));
    }
    Ok(found)
}

/// See [`super::check`].
pub(super) fn check(wanted: &Masquerade<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let mut differences = Vec::new();
    let own = Owners::one(wanted.owner);
    let is_own = |present: &Element| own.has(present.comment.as_deref().unwrap_or_default());
    for (pool, elements) in by_pool(wanted.owner, wanted.addresses) {
        let set = TABLE.object(&pool.name);
        if !has_rules_in_the_end(&mut nft, wanted, &pool)? {
            differences.push(format!(
                "the masquerade rules of network {} (nft chain {set}) are missing or differ from its configuration",
                wanted.owner.network
            ));
        }
        for element in elements {
            let address = element
                .as_address()
                .map_or_else(String::new, |ip: IpAddr| ip.to_string());
            match nft.element(set, &element)? {
                Some(present) if is_own(&present) => {}
                Some(present) => differences.push(format!(
                    "{address} is masqueraded for {} (nft set {set})",
                    present
                        .comment
                        .unwrap_or_else(|| "somebody unnamed".to_owned())
                )),
                None => differences.push(format!("{address} is not masqueraded (nft set {set})")),
            }
        }
    }
    Ok(differences)
}

pub(super) fn kept(pool: &Pool, element: &Element) -> Kept {
    let address = element
        .as_address()
        .map_or_else(|| "?".to_owned(), |ip| ip.to_string());
    Kept {
        owner: element.comment.clone().unwrap_or_default(),
        what: format!("nft element {address} in {}", TABLE.object(&pool.name)),
    }
}

fn ignore_missing(outcome: Result<(), HostError>) -> Result<(), HostError> {
    match outcome {
        Err(error) if error.not_found() => Ok(()),
        outcome => outcome,
    }
}
