//! The firewall by nftables: elements by netlink, rules by `nft` when they are missing or out of date.
//!
//! The rules exist once per network and guard and a container is an element per address, so that neither a packet nor
//! an ADD costs more when there are many. A guard that appears later, or is loaded anew by itself, is found by the
//! next ADD, which also puts the containers in that are there already.

mod claim;
mod remove;
mod rules;

use std::net::IpAddr;

use claim::{bridge, claim, elements};
pub(super) use remove::remove;
pub(super) use rules::is_guard_chain;

use super::Kept;
use super::digest;
use super::guard::Guard;
use super::select::Backends;
use super::wanted::Wanted;
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{
    Batch, Element, Family, Nft, ObjectRef, Rule, TableRef, Verdict, family_name, ruleset,
};
use crate::netfilter::forward_hook::chains::forward_chains_of;
use crate::netfilter::table::TABLE;

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 10;

/// How many elements go into one transaction, so that it fits into a socket's buffer.
const AT_ONCE: usize = 200;

/// A set, by table and name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    family: Family,
    table: String,
    set: String,
}

impl Place {
    fn own(set: String) -> Self {
        Self {
            family: TABLE.family,
            table: TABLE.name.to_owned(),
            set,
        }
    }

    fn in_guard(guard: &Guard, set: String) -> Self {
        Self {
            family: guard.family,
            table: guard.table.clone(),
            set,
        }
    }

    fn object(&self) -> ObjectRef<'_> {
        let table = TableRef {
            family: self.family,
            name: &self.table,
        };
        table.object(&self.set)
    }
}

/// What is missing or out of date.
struct Stale {
    /// Whether there may be containers of the network that are in no set: our own table knows nothing of the network, or
    /// a guard is new, and while there was none nobody was put down anywhere.
    blank: bool,
    own: bool,
    guards: Vec<Guard>,
}

/// Makes sure of the rules and puts the container's addresses into the sets, and those of the `others` where our own
/// table knows nothing of the network.
pub(super) fn ensure<'a>(
    wanted: &Wanted,
    backends: &Backends,
    others: &dyn Fn() -> &'a [Wanted],
) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    let (mut attempt, mut everything, mut blank) = (0, false, false);
    loop {
        attempt += 1;
        let guards = backends.guards(&mut nft)?;
        if guards.is_empty() && wanted.isolation.is_none() && !backends.firewalld {
            // Nothing drops, so nobody has to be let through.
            return Ok(());
        }
        let outcome = repair(&mut nft, wanted, &guards, everything).and_then(|was_blank| {
            blank |= was_blank;
            let others = if blank { others() } else { &[] };
            let mut all = others.iter().chain([wanted]);
            all.try_for_each(|one| claim(&mut nft, one, &guards))
        });
        match outcome {
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(error) if error.not_found() => everything = true,
            Err(error) if error.already_exists() => {}
            // A guard may have been taken away or loaded anew while nft was at it.
            Err(HostError::ProgramFailed { .. }) => {}
            outcome => return outcome,
        }
    }
}

/// Installs what is missing or out of date. Only one of us at a time does that or takes rules away, and looks again when
/// it is its turn: the rule in a guard's chain is to be there once. Says whether nothing was known of the network.
fn repair(
    nft: &mut Nft,
    wanted: &Wanted,
    guards: &[Guard],
    everything: bool,
) -> Result<bool, HostError> {
    let stale = find_stale(nft, wanted, guards)?;
    if !everything && !stale.own && stale.guards.is_empty() {
        return Ok(false);
    }
    let blank = everything || stale.blank;
    let _lock = lock::take()?;
    let stale = match everything {
        true => Stale {
            blank,
            own: true,
            guards: guards.to_vec(),
        },
        false => find_stale(nft, wanted, guards)?,
    };
    install(nft, wanted, &stale)?;
    Ok(blank)
}

fn find_stale(nft: &mut Nft, wanted: &Wanted, guards: &[Guard]) -> Result<Stale, HostError> {
    let sets = nft.sets(TABLE)?;
    let has = |set: String| sets.contains(&set);
    let members = [false, true].map(|v6| has(rules::members_set(&wanted.network, v6)));
    let own = members.contains(&false) || !has_own_rules(nft, wanted)?;
    let mut stale = Vec::new();
    for guard in guards {
        if !has_guard_rules(nft, wanted, guard)? || !leads(nft, wanted, guard)? {
            stale.push(guard.clone());
        }
    }
    Ok(Stale {
        blank: !members.contains(&true) || !stale.is_empty(),
        own,
        guards: stale,
    })
}

fn has_own_rules(nft: &mut Nft, wanted: &Wanted) -> Result<bool, HostError> {
    let chain = rules::own_chain(&wanted.network);
    let expected = rules::own_rules(wanted);
    has_rules(nft, TABLE.object(&chain), &expected)
}

fn has_guard_rules(nft: &mut Nft, wanted: &Wanted, guard: &Guard) -> Result<bool, HostError> {
    let chain = rules::guard_chain(&wanted.network);
    let expected = rules::guard_rules(guard, wanted);
    has_rules(nft, guard.table().object(&chain), &expected)
}

/// Whether the rules of a chain are the expected ones.
fn has_rules(
    nft: &mut Nft,
    chain: ObjectRef<'_>,
    expected: &[rules::Rule],
) -> Result<bool, HostError> {
    let comments = expected.iter().map(|rule| rule.comment.as_str());
    Ok(digest::holds(&nft.rules(chain)?, comments))
}

/// Whether the guard's chain has the rule that leads to the network's.
fn leads(nft: &mut Nft, wanted: &Wanted, guard: &Guard) -> Result<bool, HostError> {
    let chain = rules::guard_chain(&wanted.network);
    let leads = |rule: &Rule| matches!(&rule.verdict, Some(Verdict::Jump(to)) if *to == chain);
    let found = nft.rules(guard.table().object(&guard.chain))?;
    Ok(found.iter().any(leads))
}

/// Makes what is missing, in one transaction of `nft`.
fn install(nft: &mut Nft, wanted: &Wanted, stale: &Stale) -> Result<(), HostError> {
    let mut commands = Vec::new();
    if stale.own {
        let chain = rules::own_chain(&wanted.network);
        let had_chain = nft.chain(TABLE.object(&chain))?.is_some();
        commands.extend(rules::own(wanted, had_chain));
    }
    for guard in &stale.guards {
        let leads = leads(nft, wanted, guard)?;
        commands.extend(rules::guard(guard, wanted, leads));
    }
    if commands.is_empty() {
        return Ok(());
    }
    let purpose = format!("install the firewall rules of network {}", wanted.network);
    ruleset::NFT.run(&purpose, ["-j", "-f", "-"], &rules::script(&commands))?;
    let chain = rules::guard_chain(&wanted.network);
    for guard in &stale.guards {
        digest::write(nft, guard.table().object(&chain))?;
    }
    if stale.own {
        digest::write(nft, TABLE.object(&rules::own_chain(&wanted.network)))?;
    }
    for v6 in [false, true] {
        fill(nft, &wanted.network, &stale.guards, v6)?;
    }
    Ok(())
}

/// Puts the containers that are there already into the guards' sets.
///
/// One that goes at the same time must not come back by that. So its element in our own table is part of the
/// transaction, deleted and added again, which the kernel refuses when it is gone.
fn fill(nft: &mut Nft, network: &str, guards: &[Guard], v6: bool) -> Result<(), HostError> {
    let own = Place::own(rules::members_set(network, v6));
    let places: Vec<Place> = guards
        .iter()
        .filter(|guard| rules::has_version(guard.family, v6))
        .map(|guard| Place::in_guard(guard, rules::guard_set(network, v6)))
        .collect();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let members = elements_of(nft, &own)?;
        let outcome = members
            .chunks(AT_ONCE)
            .filter(|_| !places.is_empty())
            .try_for_each(|some| {
                let mut batch = Batch::new();
                batch.delete_elements(own.object(), some);
                batch.add_elements(own.object(), some);
                for place in &places {
                    batch.ensure_elements(place.object(), some);
                }
                nft.commit(batch)
            });
        match outcome {
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// A table of somebody else that has rules of ours for a network.
struct Foreign {
    family: Family,
    table: String,
    /// Base chains in it that may lead to ours.
    base: Vec<String>,
}

impl Foreign {
    fn table(&self) -> TableRef<'_> {
        TableRef {
            family: self.family,
            name: &self.table,
        }
    }

    fn sets(&self, network: &str) -> Vec<Place> {
        [false, true]
            .into_iter()
            .filter(|v6| rules::has_version(self.family, *v6))
            .map(|v6| Place {
                family: self.family,
                table: self.table.clone(),
                set: rules::guard_set(network, v6),
            })
            .collect()
    }
}

/// The tables of others that have a chain of the network's.
fn foreign(nft: &mut Nft, network: &str) -> Result<Vec<Foreign>, HostError> {
    let ours = rules::guard_chain(network);
    let mut found = Vec::new();
    for table in nft.tables()? {
        if nft.chain(table.reference().object(&ours))?.is_none() {
            continue;
        }
        let base = forward_chains_of(nft, &table)?.into_iter();
        found.push(Foreign {
            family: table.family,
            base: base.map(|chain| chain.name).collect(),
            table: table.name,
        });
    }
    Ok(found)
}

fn elements_of(nft: &mut Nft, place: &Place) -> Result<Vec<Element>, HostError> {
    match nft.elements(place.object()) {
        Err(error) if error.not_found() => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// The addresses of the network's containers.
pub(super) fn members(network: &str) -> Result<Vec<IpAddr>, HostError> {
    let mut nft = Nft::open()?;
    let mut members = Vec::new();
    for v6 in [false, true] {
        let elements = elements_of(&mut nft, &Place::own(rules::members_set(network, v6)))?;
        members.extend(elements.iter().filter_map(Element::as_address));
    }
    Ok(members)
}

/// A sentence for each difference between what is there and what is wanted.
pub(super) fn check(wanted: &Wanted, backends: &Backends) -> Result<Vec<String>, HostError> {
    // Somebody may be making them anew.
    let _lock = lock::share()?;
    let mut nft = Nft::open()?;
    let guards = backends.guards(&mut nft)?;
    if guards.is_empty() && wanted.isolation.is_none() && !backends.firewalld {
        return Ok(Vec::new());
    }
    let mut differences = Vec::new();
    let network = &wanted.network;
    if !has_own_rules(&mut nft, wanted)? {
        let chain = rules::own_chain(network);
        let chain = TABLE.object(&chain);
        differences.push(format!("the rules of ingressPolicy for network {network} (nft chain {chain}) are missing or differ"));
    }
    for guard in &guards {
        let name = format!("{} {}", guard.table(), guard.chain);
        if !has_guard_rules(&mut nft, wanted, guard)? {
            let chain = rules::guard_chain(network);
            let chain = guard.table().object(&chain);
            differences.push(format!(
                "the rules for network {network} (nft chain {chain}) are missing or differ"
            ));
        }
        if !leads(&mut nft, wanted, guard)? {
            differences.push(format!("nft chain {name} drops forwarded packets and does not lead to the rules for network {network}"));
        }
    }
    for (place, element) in elements(wanted, &guards).into_iter().chain(bridge(wanted)) {
        if nft.element(place.object(), &element)?.as_ref() != Some(&element) {
            let what = describe(network, &place, &element);
            differences.push(format!(
                "{what} is not in nft set {} as {}",
                place.object(),
                wanted.comment
            ));
        }
    }
    Ok(differences)
}

fn describe(network: &str, place: &Place, element: &Element) -> String {
    match element.as_address() {
        Some(address) if place.set != rules::links_set(network) => address.to_string(),
        _ => String::from_utf8_lossy(&element.key)
            .trim_end_matches('\0')
            .to_owned(),
    }
}

/// What is kept for the attachments to a network.
pub(super) fn list(network: &str) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let foreign = foreign(&mut nft, network)?;
    let own = [false, true].map(|v6| Place::own(rules::members_set(network, v6)));
    let mut kept = Vec::new();
    for place in own
        .into_iter()
        .chain(foreign.iter().flat_map(|table| table.sets(network)))
    {
        for element in elements_of(&mut nft, &place)? {
            let address = element
                .as_address()
                .map_or_else(String::new, |ip| ip.to_string());
            kept.push(Kept {
                owner: element.comment.unwrap_or_default(),
                what: format!(
                    "{address} in nft set {} {} {}",
                    family_name(place.family),
                    place.table,
                    place.set
                ),
            });
        }
    }
    Ok(kept)
}
