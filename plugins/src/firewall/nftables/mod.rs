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

use super::Kept;
use super::select::Backends;
use super::wanted::Wanted;
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Family, Nft, ObjectRef, Rule, TableRef, Verdict};
use crate::netfilter::digest::Expected;
use crate::netfilter::elements::{self, ATTEMPTS, Placed, Put, Set};
use crate::netfilter::forward_hook::chains::forward_chains_of;
use crate::netfilter::forward_hook::guard::Guard;
use crate::netfilter::script::{self, Script};
use crate::netfilter::table::TABLE;

/// How many elements go into one transaction, so that it fits into a socket's buffer.
const AT_ONCE: usize = 200;

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
    let (mut everything, mut blank) = (false, false);
    for _ in 0..ATTEMPTS {
        let guards = backends.guards(&mut nft)?;
        if guards.is_empty() && wanted.isolation.is_none() && !backends.firewalld {
            // Nothing drops, so nobody has to be let through.
            return Ok(());
        }
        match repair(&mut nft, wanted, &guards, everything)? {
            // A guard may have been taken away or loaded anew while nft was at it.
            Repaired::Crossed => continue,
            Repaired::Blank => blank = true,
            Repaired::Known => {}
        }
        let others = if blank { others() } else { &[] };
        match claim_all(&mut nft, others.iter().chain([wanted]), &guards)? {
            Put::Done => return Ok(()),
            Put::RulesMissing => everything = true,
            Put::Taken => {}
        }
    }
    Err(HostError::Crossed {
        operation: format!("let traffic of {} through", wanted.comment),
    })
}

fn claim_all<'a>(
    nft: &mut Nft,
    all: impl Iterator<Item = &'a Wanted>,
    guards: &[Guard],
) -> Result<Put, HostError> {
    for one in all {
        let put = claim(nft, one, guards)?;
        if put != Put::Done {
            return Ok(put);
        }
    }
    Ok(Put::Done)
}

/// What was known of the network when its rules were looked at.
enum Repaired {
    /// Its containers are in the sets.
    Known,
    /// There may be some that are in none.
    Blank,
    /// Somebody changed a table while rules were made in it.
    Crossed,
}

/// Installs what is missing or out of date. Only one of us at a time does that or takes rules away, and looks again when
/// it is its turn: the rule in a guard's chain is to be there once.
fn repair(
    nft: &mut Nft,
    wanted: &Wanted,
    guards: &[Guard],
    everything: bool,
) -> Result<Repaired, HostError> {
    let stale = find_stale(nft, wanted, guards)?;
    if !everything && !stale.own && stale.guards.is_empty() {
        return Ok(Repaired::Known);
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
    match install(nft, wanted, &stale) {
        Err(HostError::ProgramFailed { .. }) => Ok(Repaired::Crossed),
        Err(error) if error.not_found() || error.already_exists() => Ok(Repaired::Crossed),
        Err(error) => Err(error),
        Ok(()) if blank => Ok(Repaired::Blank),
        Ok(()) => Ok(Repaired::Known),
    }
}

fn find_stale(nft: &mut Nft, wanted: &Wanted, guards: &[Guard]) -> Result<Stale, HostError> {
    let sets = nft.sets(TABLE)?;
    let members = rules::members_sets(&wanted.network).map(|set| has(&sets, &set));
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

fn has(sets: &[String], set: &Set) -> bool {
    sets.iter().any(|name| name == set.name())
}

fn has_own_rules(nft: &mut Nft, wanted: &Wanted) -> Result<bool, HostError> {
    let chain = rules::own_chain(&wanted.network);
    expected(TABLE.object(&chain), &rules::own_rules(wanted)).is_current(nft)
}

fn has_guard_rules(nft: &mut Nft, wanted: &Wanted, guard: &Guard) -> Result<bool, HostError> {
    let chain = rules::guard_chain(&wanted.network);
    let chain = guard.table().object(&chain);
    expected(chain, &rules::guard_rules(guard, wanted)).is_current(nft)
}

fn expected<'a>(chain: ObjectRef<'a>, rules: &[script::Rule]) -> Expected<'a> {
    Expected {
        chain,
        text: script::text(rules).into(),
        count: rules.len(),
        about: None,
    }
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
    let (own_chain, guard_chain) = (
        rules::own_chain(&wanted.network),
        rules::guard_chain(&wanted.network),
    );
    let own_chain = TABLE.object(&own_chain);
    let mut script = Script::new();
    if stale.own {
        let had_chain = nft.chain(own_chain)?.is_some();
        rules::own(&mut script, wanted, had_chain);
    }
    for guard in &stale.guards {
        let leads = leads(nft, wanted, guard)?;
        rules::guard(&mut script, guard, wanted, leads);
    }
    if script.is_empty() {
        return Ok(());
    }
    script.apply(&format!(
        "install the firewall rules of network {}",
        wanted.network
    ))?;
    for guard in &stale.guards {
        let chain = guard.table().object(&guard_chain);
        expected(chain, &rules::guard_rules(guard, wanted)).write(nft)?;
    }
    if stale.own {
        expected(own_chain, &rules::own_rules(wanted)).write(nft)?;
    }
    [false, true]
        .into_iter()
        .try_for_each(|v6| fill(nft, &wanted.network, &stale.guards, v6))
}

/// Puts the containers that are there already into the guards' sets.
///
/// One that goes at the same time must not come back by that. So its element in our own table is part of the
/// transaction, deleted and added again, which the kernel refuses when it is gone.
fn fill(nft: &mut Nft, network: &str, guards: &[Guard], v6: bool) -> Result<(), HostError> {
    let [v4_set, v6_set] = rules::members_sets(network);
    let own = if v6 { v6_set } else { v4_set };
    let in_guards = guards
        .iter()
        .flat_map(|guard| rules::guard_sets(guard.table(), network));
    let sets: Vec<Set> = in_guards
        .filter(|(_, of)| *of == v6)
        .map(|(set, _)| set)
        .collect();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let members = elements::list(nft, &own)?;
        let outcome = members
            .chunks(AT_ONCE)
            .filter(|_| !sets.is_empty())
            .try_for_each(|some| {
                let mut batch = Batch::new();
                batch.delete_elements(own.object(), some);
                batch.add_elements(own.object(), some);
                for set in &sets {
                    batch.ensure_elements(set.object(), some);
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

    fn sets(&self, network: &str) -> impl Iterator<Item = Set> + use<> {
        rules::guard_sets(self.table(), network)
            .into_iter()
            .map(|(set, _)| set)
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

/// The addresses of the network's containers.
pub(super) fn members(network: &str) -> Result<Vec<IpAddr>, HostError> {
    let mut nft = Nft::open()?;
    let mut members = Vec::new();
    for set in rules::members_sets(network) {
        let elements = elements::list(&mut nft, &set)?;
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
    let all: Vec<Placed> = elements(wanted, &guards)
        .into_iter()
        .chain(bridge(wanted))
        .collect();
    for ((set, element), _) in elements::missing(&mut nft, &all)? {
        let what = describe(network, set, element);
        differences.push(format!(
            "{what} is not in nft set {} as {}",
            set.object(),
            wanted.comment
        ));
    }
    Ok(differences)
}

fn describe(network: &str, set: &Set, element: &Element) -> String {
    match element.as_address() {
        Some(address) if *set != rules::links_set(network) => address.to_string(),
        _ => String::from_utf8_lossy(&element.key)
            .trim_end_matches('\0')
            .to_owned(),
    }
}

/// What is kept for the attachments to a network.
pub(super) fn list(network: &str) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let foreign = foreign(&mut nft, network)?;
    let in_guards = foreign.iter().flat_map(|table| table.sets(network));
    let mut kept = Vec::new();
    for set in rules::members_sets(network).into_iter().chain(in_guards) {
        for element in elements::list(&mut nft, &set)? {
            let address = element.as_address();
            let address = address.map_or_else(String::new, |address| address.to_string());
            kept.push(Kept {
                owner: element.comment.unwrap_or_default(),
                what: format!("{address} in nft set {}", set.object()),
            });
        }
    }
    Ok(kept)
}
