//! The firewall by nftables: elements by netlink, rules by `nft` when they are missing or out of date.
//!
//! The rules exist once per network and guard and a container is an element per address, so that neither a packet nor
//! an ADD costs more when there are many. A guard that appears later, or is loaded anew by itself, is found by the
//! next ADD, which also puts the containers in that are there already.

mod rules;

use std::net::IpAddr;

use super::Kept;
use super::guard::{self, Guard};
use super::select::Backends;
use super::wanted::{Isolation, Wanted};
use crate::attach::table::{self, TABLE, unless_in_use};
use crate::host::HostError;
use crate::host::nft::{
    Batch, Chain, Element, FORWARD_HOOK, Family, Nft, ObjectRef, TableRef, Verdict, family_name,
    ruleset,
};

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 10;

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
    own: bool,
    guards: Vec<Guard>,
}

/// Makes sure of the rules and puts the container's addresses into the sets.
pub(super) fn ensure(wanted: &Wanted, backends: &Backends) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    let (mut attempt, mut everything) = (0, false);
    loop {
        attempt += 1;
        let guards = guard::look(&mut nft, backends.with_iptables)?.native;
        let mut stale = find_stale(&mut nft, wanted, &guards)?;
        if everything {
            stale = Stale {
                own: true,
                guards: guards.clone(),
            };
        }
        let outcome = install(&mut nft, wanted, &stale)
            .and_then(|()| claim(&mut nft, &elements(wanted, &guards)));
        match outcome {
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(error) if error.is_missing() => everything = true,
            Err(error) if error.is_exists() => {}
            // A guard may have been taken away or loaded anew while nft was at it.
            Err(HostError::ProgramFailed { .. }) => {}
            outcome => return outcome,
        }
    }
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
    Ok(Stale { own, guards: stale })
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

/// Whether the rules of a chain are the expected ones, by their comments.
fn has_rules(
    nft: &mut Nft,
    chain: ObjectRef<'_>,
    expected: &[rules::Rule],
) -> Result<bool, HostError> {
    let found = nft.rules(chain)?;
    let found = found.iter().map(|rule| rule.comment.as_deref());
    Ok(found.eq(expected.iter().map(|rule| Some(rule.comment.as_str()))))
}

/// Whether the guard's chain has the rule that leads to the network's.
fn leads(nft: &mut Nft, wanted: &Wanted, guard: &Guard) -> Result<bool, HostError> {
    let comment = rules::jump_comment(&wanted.network);
    let found = nft.rules(guard.table().object(&guard.chain))?;
    Ok(found
        .iter()
        .any(|rule| rule.comment.as_ref() == Some(&comment)))
}

/// Makes what is missing, in one transaction of `nft`.
fn install(nft: &mut Nft, wanted: &Wanted, stale: &Stale) -> Result<(), HostError> {
    let mut commands = Vec::new();
    if stale.own {
        let chain = rules::own_chain(&wanted.network);
        let had_chain = nft.chain(TABLE.object(&chain))?.is_some();
        commands.extend(rules::own(wanted, had_chain));
    }
    if !stale.guards.is_empty() {
        let members = members(nft, &wanted.network)?;
        for guard in &stale.guards {
            let leads = leads(nft, wanted, guard)?;
            commands.extend(rules::guard(guard, wanted, &members, leads));
        }
    }
    if commands.is_empty() {
        return Ok(());
    }
    let purpose = format!("install the firewall rules of network {}", wanted.network);
    ruleset::NFT.run(&purpose, ["-j", "-f", "-"], &rules::script(&commands))?;
    stale
        .guards
        .iter()
        .try_for_each(|guard| tidy(nft, wanted, guard))
}

/// Leaves one rule in the guard's chain that leads to the network's, where several processes have put theirs. All keep
/// the same one.
fn tidy(nft: &mut Nft, wanted: &Wanted, guard: &Guard) -> Result<(), HostError> {
    let comment = rules::jump_comment(&wanted.network);
    let chain = guard.table().object(&guard.chain);
    let rules = nft.rules(chain)?.into_iter();
    let mut handles: Vec<u64> = rules
        .filter(|rule| rule.comment.as_ref() == Some(&comment))
        .map(|rule| rule.handle)
        .collect();
    handles.sort_unstable();
    for handle in handles.into_iter().skip(1) {
        let mut batch = Batch::new();
        batch.delete_rule(chain, handle);
        unless_in_use(nft.commit(batch))?;
    }
    Ok(())
}

/// The containers' addresses of a network, as our own table has them.
fn members(nft: &mut Nft, network: &str) -> Result<Vec<Element>, HostError> {
    let mut members = Vec::new();
    for v6 in [false, true] {
        members.extend(table::elements(nft, &rules::members_set(network, v6))?);
    }
    Ok(members)
}

/// What belongs to one container, and where.
fn elements(wanted: &Wanted, guards: &[Guard]) -> Vec<(Place, Element)> {
    let network = &wanted.network;
    let mut elements = Vec::new();
    for address in &wanted.addresses {
        let v6 = address.is_ipv6();
        let element = Element::address(*address, wanted.comment.as_str());
        let mut put = |place| elements.push((place, element.clone()));
        put(Place::own(rules::members_set(network, v6)));
        if wanted.isolation.is_some() {
            put(Place::own(rules::PROTECTED[usize::from(v6)].to_owned()));
        }
        for guard in guards
            .iter()
            .filter(|guard| rules::has_version(guard.family, v6))
        {
            let place = Place::in_guard(guard, rules::guard_set(network, v6));
            // A table may have two guards.
            if elements_has_not(&place, address, &elements) {
                elements.push((place, element.clone()));
            }
        }
    }
    if let Some(Isolation { link, shared, .. }) = &wanted.isolation {
        // A bridge stays as long as the network has containers.
        let comment = if *shared {
            &wanted.network_comment
        } else {
            &wanted.comment
        };
        elements.push((
            Place::own(rules::links_set(network)),
            rules::link(link, comment),
        ));
    }
    elements
}

fn elements_has_not(place: &Place, address: &IpAddr, elements: &[(Place, Element)]) -> bool {
    let same = |(other, element): &(Place, Element)| {
        other == place && element.as_address() == Some(*address)
    };
    !elements.iter().any(same)
}

/// Puts the elements into their sets in one transaction, taking the place of those of other owners.
///
/// IPAM gave the address to this container, so whoever had it before is gone, and its DEL, late as it may be, must not
/// find the element any more.
fn claim(nft: &mut Nft, elements: &[(Place, Element)]) -> Result<(), HostError> {
    let mut batch = Batch::new();
    for (place, element) in elements {
        batch.add_elements(place.object(), std::slice::from_ref(element));
    }
    match nft.commit(batch) {
        Err(error) if error.is_exists() => {}
        outcome => return outcome,
    }
    let mut batch = Batch::new();
    for (place, element) in elements {
        let present = nft.element(place.object(), element)?;
        if present.as_ref() == Some(element) {
            continue;
        }
        if let Some(present) = present {
            batch.delete_elements(place.object(), &[present]);
        }
        batch.add_elements(place.object(), std::slice::from_ref(element));
    }
    nft.commit(batch)
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

fn foreign(chains: &[Chain], network: &str) -> Vec<Foreign> {
    let ours = rules::guard_chain(network);
    let tables = chains.iter().filter(|chain| chain.name == ours);
    let base = |table: &Chain| {
        let in_table = chains
            .iter()
            .filter(|chain| chain.family == table.family && chain.table == table.table);
        in_table
            .filter(|chain| {
                chain
                    .base
                    .as_ref()
                    .is_some_and(|base| base.hook == FORWARD_HOOK)
            })
            .map(|chain| chain.name.clone())
            .collect()
    };
    tables
        .map(|chain| Foreign {
            family: chain.family,
            table: chain.table.clone(),
            base: base(chain),
        })
        .collect()
}

/// Takes out the elements of `network` whose comment `condemned` says so of, and the rules of the network when it has
/// none left. Gives the addresses that were known for them.
pub(super) fn remove(
    network: &str,
    condemned: &dyn Fn(&str) -> bool,
) -> Result<Vec<IpAddr>, HostError> {
    let mut nft = Nft::open()?;
    let chains = nft.chains(None)?;
    let foreign = foreign(&chains, network);
    let sets = nft.sets(TABLE)?;
    let own_links = rules::links_set(network);
    let mut removed = Vec::new();
    for place in rules::PROTECTED
        .map(str::to_owned)
        .into_iter()
        .chain([own_links])
    {
        if sets.contains(&place) {
            take_out(&mut nft, &Place::own(place), condemned)?;
        }
    }
    let own = [false, true].map(|v6| Place::own(rules::members_set(network, v6)));
    let guards = foreign.iter().flat_map(|table| table.sets(network));
    let members: Vec<Place> = own
        .into_iter()
        .filter(|place| sets.contains(&place.set))
        .chain(guards)
        .collect();
    let mut left = 0;
    for place in &members {
        let (gone, stay) = take_out(&mut nft, place, condemned)?;
        left += stay;
        removed.extend(gone.iter().filter_map(Element::as_address));
    }
    if left == 0 && !members.is_empty() {
        dismantle(&mut nft, network, &foreign, &sets)?;
    }
    removed.sort();
    removed.dedup();
    Ok(removed)
}

/// Takes out the condemned elements of a set: gives them, and how many stay.
fn take_out(
    nft: &mut Nft,
    place: &Place,
    condemned: &dyn Fn(&str) -> bool,
) -> Result<(Vec<Element>, usize), HostError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (doomed, stay): (Vec<_>, Vec<_>) = elements_of(nft, place)?
            .into_iter()
            .partition(|element| condemned(element.comment.as_deref().unwrap_or_default()));
        if doomed.is_empty() {
            return Ok((doomed, stay.len()));
        }
        let mut batch = Batch::new();
        batch.delete_elements(place.object(), &doomed);
        match nft.commit(batch) {
            Ok(()) => return Ok((doomed, stay.len())),
            // Another process took one of them out; look again which are left.
            Err(error) if error.is_missing() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

fn elements_of(nft: &mut Nft, place: &Place) -> Result<Vec<Element>, HostError> {
    match nft.elements(place.object()) {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// Deletes the rules and sets of a network that has no containers, in one transaction. The kernel refuses it when one
/// of the sets has got an element meanwhile; then everything stays.
fn dismantle(
    nft: &mut Nft,
    network: &str,
    foreign: &[Foreign],
    sets: &[String],
) -> Result<(), HostError> {
    let mut batch = Batch::new();
    let (jump, ours) = (rules::jump_comment(network), rules::guard_chain(network));
    let mut admins = Vec::new();
    for table in foreign {
        for base in &table.base {
            let chain = table.table().object(base);
            for rule in nft.rules(chain)? {
                if rule.comment.as_ref() == Some(&jump) {
                    batch.delete_rule(chain, rule.handle);
                }
            }
        }
        admins.extend(admin_chain(nft, table, &ours)?.map(|chain| (table, chain)));
        batch.delete_chain(table.table().object(&ours));
        for place in table.sets(network) {
            batch.delete_empty_set(place.object());
        }
    }
    dismantle_own(nft, network, sets, &mut batch)?;
    if !unless_in_use(nft.commit(batch))? {
        return Ok(());
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
    if sets.contains(&links) {
        batch.delete_set(TABLE.object(&links));
    }
    for v6 in [false, true] {
        let set = rules::members_set(network, v6);
        if sets.contains(&set) {
            batch.delete_empty_set(TABLE.object(&set));
        }
    }
    Ok(())
}

/// A sentence for each difference between what is there and what is wanted.
pub(super) fn check(wanted: &Wanted, backends: &Backends) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let guards = guard::look(&mut nft, backends.with_iptables)?.native;
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
    for (place, element) in elements(wanted, &guards) {
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
    let foreign = foreign(&nft.chains(None)?, network);
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
