//! A container's elements, and putting them into their sets.

use super::super::wanted::{Isolation, Wanted};
use super::rules;
use crate::host::HostError;
use crate::host::nft::{Element, Nft};
use crate::netfilter::elements::{self, OnTaken, Placed, Put, Set};
use crate::netfilter::forward_hook::guard::Guard;

/// What belongs to one container, and where: set by set, so that many addresses are few messages.
pub(super) fn elements(wanted: &Wanted, guards: &[Guard]) -> Vec<Placed> {
    let mut elements = Vec::new();
    for v6 in [false, true] {
        let addresses = wanted.addresses.iter();
        let own: Vec<Element> = addresses
            .filter(|address| address.is_ipv6() == v6)
            .map(|address| Element::address(*address, wanted.comment.as_str()))
            .collect();
        for set in sets(wanted, guards, v6) {
            elements.extend(own.iter().map(|element| (set.clone(), element.clone())));
        }
    }
    if let Some(Isolation { link, shared, .. }) = &wanted.isolation
        && !shared
    {
        let element = rules::link(link, &wanted.comment);
        elements.push((rules::links_set(&wanted.network), element));
    }
    elements
}

/// The sets that a container's addresses of one version of IP are in.
fn sets(wanted: &Wanted, guards: &[Guard], v6: bool) -> Vec<Set> {
    let [v4_set, v6_set] = rules::members_sets(&wanted.network);
    let mut sets = vec![if v6 { v6_set } else { v4_set }];
    if wanted.isolation.is_some() {
        sets.push(Set::own(rules::PROTECTED[usize::from(v6)]));
    }
    let in_guards = guards
        .iter()
        .flat_map(|guard| rules::guard_sets(guard.table(), &wanted.network));
    for (set, _) in in_guards.filter(|(_, of)| *of == v6) {
        // A table may have two guards.
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    sets
}

/// The bridge that the network's containers share. It stays as long as the network has any.
pub(super) fn bridge(wanted: &Wanted) -> Option<Placed> {
    let isolation = wanted.isolation.as_ref().filter(|it| it.shared)?;
    let element = rules::link(&isolation.link, &wanted.network_comment);
    Some((rules::links_set(&wanted.network), element))
}

/// Puts the elements into their sets, in place of those of other owners.
pub(super) fn claim(nft: &mut Nft, wanted: &Wanted, guards: &[Guard]) -> Result<Put, HostError> {
    let shared: Vec<Placed> = bridge(wanted).into_iter().collect();
    let own = elements(wanted, guards);
    Ok(elements::put(nft, &shared, &own, OnTaken::Replace)?)
}
