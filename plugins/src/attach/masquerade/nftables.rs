//! Masquerade by nftables: elements by netlink, rules by `nft` when they are missing or out of date.

use std::collections::BTreeMap;

use cni_conf::names::NetworkName;
use ipnet::IpNet;

use super::rules::{self, Pool};
use super::{Kept, Masquerade, Member};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Nft};
use crate::netfilter::elements::{self, ATTEMPTS, OnTaken, Placed, Put};
use crate::netfilter::script::Script;
use crate::netfilter::table::{self, TABLE};
use crate::owner::{Owner, Owners};

/// See [`super::ensure`].
pub(super) fn ensure(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    living: &dyn Fn() -> Vec<Member>,
) -> Result<(), HostError> {
    let own = entries(wanted.owner, wanted.addresses);
    let mine = placed(&own);
    let mut others = Vec::new();
    for _ in 0..ATTEMPTS {
        if !is_current(nft, wanted, &own)? {
            // Two steps make the rules, so one process of ours does it at a time. Where the lock is out of reach, a
            // digest may be lost to another process, which the next ADD finds.
            let _lock = lock::take();
            if !is_current(nft, wanted, &own)? {
                others = install(nft, wanted, &own, living)?;
            }
        }
        if let Put::Done = elements::put(nft, &placed(&others), &mine, OnTaken::Replace)? {
            return match others.is_empty() {
                true => Ok(()),
                false => remove_gone(nft, &wanted.owner.network, others, living),
            };
        }
    }
    Err(HostError::Crossed {
        operation: format!("masquerade {}", wanted.owner.path()),
    })
}

/// A container's address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    pool: Pool,
    element: Element,
}

fn entries(owner: &Owner, addresses: &[IpNet]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for address in addresses {
        let entry = Entry {
            pool: Pool::of(&owner.network, *address),
            element: Element::address(address.addr(), owner.comment()),
        };
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries
}

fn placed(entries: &[Entry]) -> Vec<Placed> {
    let placed = |entry: &Entry| (entry.pool.set(), entry.element.clone());
    entries.iter().map(placed).collect()
}

/// The pools of these, each once.
fn pools_of(entries: &[Entry]) -> Vec<&Pool> {
    let mut pools: Vec<&Pool> = entries.iter().map(|entry| &entry.pool).collect();
    pools.sort();
    pools.dedup();
    pools
}

/// Whether the chain of each pool is there with the rules of this configuration.
fn is_current(nft: &mut Nft, wanted: &Masquerade<'_>, own: &[Entry]) -> Result<bool, HostError> {
    for pool in pools_of(own) {
        let expected = pool.expected(&wanted.owner.network, wanted.non_masquerade);
        if !expected.is_current(nft)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the rules of the network, all its pools included. Gives the addresses of its other living containers that belong
/// into sets that were not there; what is in the others is right there.
fn install(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    own: &[Entry],
    living: &dyn Fn() -> Vec<Member>,
) -> Result<Vec<Entry>, HostError> {
    let (network, exempt) = (&wanted.owner.network, wanted.non_masquerade);
    let present = pools(nft, network)?;
    let forgotten = own.iter().any(|entry| !present.contains(&entry.pool));
    let mut others = match forgotten {
        true => members(network, living),
        false => Vec::new(),
    };
    // The own addresses are this container's.
    let is_own = |entry: &Entry| own.iter().any(|it| it.element.key == entry.element.key);
    others.retain(|entry| !present.contains(&entry.pool) && !is_own(entry));
    let filled: Vec<&Pool> = own.iter().chain(&others).map(|entry| &entry.pool).collect();
    let mut all: Vec<&Pool> = present.iter().chain(filled.iter().copied()).collect();
    all.sort();
    all.dedup();
    let mut script = Script::new();
    script.table(TABLE);
    for pool in &all {
        rules::write(&mut script, network, pool, exempt);
    }
    script.apply(&format!(
        "install the masquerade rules of network {network}"
    ))?;
    for pool in &all {
        pool.expected(network, exempt).write(nft)?;
    }
    // The last container of another pool may have gone since they were listed.
    let rest = all.iter().filter(|pool| !filled.contains(pool));
    rest.copied()
        .try_for_each(|pool| delete_if_empty(nft, pool))?;
    Ok(others)
}

/// The addresses of the network's living containers, each once.
fn members(network: &NetworkName, living: &dyn Fn() -> Vec<Member>) -> Vec<Entry> {
    let mut by_key = BTreeMap::new();
    let members = living().into_iter();
    for member in members.filter(|member| member.owner.network == *network) {
        for entry in entries(&member.owner, &member.addresses) {
            by_key.entry(entry.element.key.clone()).or_insert(entry);
        }
    }
    by_key.into_values().collect()
}

/// Removes what was put back for containers that have gone meanwhile: their DEL may have looked before.
fn remove_gone(
    nft: &mut Nft,
    network: &NetworkName,
    mut others: Vec<Entry>,
    living: &dyn Fn() -> Vec<Member>,
) -> Result<(), HostError> {
    let still = members(network, living);
    others.retain(|entry| !still.contains(entry));
    elements::remove_unchanged(nft, &placed(&others))
}

/// The pools of a network, by the sets that exist.
fn pools(nft: &mut Nft, network: &NetworkName) -> Result<Vec<Pool>, HostError> {
    let sets = nft.sets(TABLE)?.into_iter();
    Ok(sets
        .filter_map(|name| Pool::parse(network, &name))
        .collect())
}

/// Elements that were removed, each with its pool.
pub(super) type Removed = Vec<(Pool, Element)>;

/// Removes the elements of `owners`, and the rules of each pool that has none left. Gives what was removed.
pub(super) fn remove(nft: &mut Nft, owners: &Owners) -> Result<Removed, HostError> {
    let mut all = Removed::new();
    for pool in pools(nft, owners.network())? {
        let goes = |comment: &str| owners.has_among_its_own(comment);
        let removed = elements::remove(nft, &pool.set(), &goes)?;
        if removed.may_be_last {
            delete_if_empty(nft, &pool)?;
        }
        all.extend(removed.elements.into_iter().map(|it| (pool.clone(), it)));
    }
    Ok(all)
}

/// Whether one of the elements has come back, under the same owner.
pub(super) fn is_back(nft: &mut Nft, removed: &Removed) -> Result<bool, HostError> {
    for (pool, element) in removed {
        if nft.element(pool.object(), element)?.as_ref() == Some(element) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes a pool that has no element, and the table when it has nothing else.
fn delete_if_empty(nft: &mut Nft, pool: &Pool) -> Result<(), HostError> {
    if !elements::are_empty(nft, [pool.object()])? {
        return Ok(());
    }
    let chain = nft.chain(pool.object())?;
    let chain = chain.as_ref().map(|chain| chain.name.as_str());
    table::delete_unused(nft, Batch::new(), chain, [pool.name.as_str()])
}

/// See [`super::release`].
pub(super) fn release(
    nft: &mut Nft,
    network: &NetworkName,
    addresses: &[IpNet],
    stands: &dyn Fn(&str) -> bool,
) -> Result<Vec<Kept>, HostError> {
    let mut released = Vec::new();
    let sets = nft.sets(TABLE)?.into_iter();
    for pool in sets.filter_map(|name| Pool::parse_others(network, &name)) {
        let mut gone = Vec::new();
        let mine = addresses.iter().map(IpNet::addr);
        for address in mine.filter(|address| pool.may_have(*address)) {
            let found = nft.element(pool.object(), &Element::address(address, ""))?;
            gone.extend(found.filter(|it| !stands(elements::comment(it))));
        }
        if gone.is_empty() {
            continue;
        }
        released.extend(gone.iter().map(|element| kept(&pool, element)));
        let gone: Vec<Placed> = gone.into_iter().map(|it| (pool.set(), it)).collect();
        elements::remove_unchanged(nft, &gone)?;
        delete_if_empty(nft, &pool)?;
    }
    Ok(released)
}

/// See [`super::list`].
pub(super) fn list(network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let mut found = Vec::new();
    for pool in pools(&mut nft, network)? {
        let elements = elements::list(&mut nft, &pool.set())?;
        found.extend(elements.iter().map(|element| kept(&pool, element)));
    }
    Ok(found)
}

/// See [`super::check`].
pub(super) fn check(wanted: &Masquerade<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let own = entries(wanted.owner, wanted.addresses);
    let network = &wanted.owner.network;
    let mut differences = Vec::new();
    for pool in pools_of(&own) {
        let expected = pool.expected(network, wanted.non_masquerade);
        if !expected.is_current_in_the_end(&mut nft)? {
            differences.push(format!(
                "the masquerade rules of network {network} (nft chain {}) are missing or differ from its configuration",
                pool.object()
            ));
        }
    }
    let owner = Owners::one(wanted.owner);
    for ((set, element), found) in elements::missing(&mut nft, &placed(&own))? {
        let (address, set) = (address(element), set.object());
        match found {
            Some(found) if owner.has(elements::comment(&found)) => {}
            Some(found) => differences.push(format!(
                "{address} is masqueraded for {} (nft set {set})",
                found.comment.as_deref().unwrap_or("somebody unnamed")
            )),
            None => differences.push(format!("{address} is not masqueraded (nft set {set})")),
        }
    }
    Ok(differences)
}

fn address(element: &Element) -> String {
    let address = element.as_address();
    address.map_or_else(|| "?".to_owned(), |address| address.to_string())
}

pub(super) fn kept(pool: &Pool, element: &Element) -> Kept {
    Kept {
        owner: element.comment.clone().unwrap_or_default(),
        what: format!("nft element {} in {}", address(element), pool.object()),
    }
}
