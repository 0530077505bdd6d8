//! A container's elements, and putting them into their sets.

use super::super::guard::Guard;
use super::super::wanted::{Isolation, Wanted};
use super::{Place, rules};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Nft};

/// What belongs to one container, and where: set by set, so that many addresses are few messages.
pub(super) fn elements(wanted: &Wanted, guards: &[Guard]) -> Vec<(Place, Element)> {
    let mut elements = Vec::new();
    for v6 in [false, true] {
        let addresses = wanted.addresses.iter();
        let own: Vec<Element> = addresses
            .filter(|address| address.is_ipv6() == v6)
            .map(|address| Element::address(*address, wanted.comment.as_str()))
            .collect();
        for place in places(wanted, guards, v6) {
            elements.extend(own.iter().map(|element| (place.clone(), element.clone())));
        }
    }
    if let Some(Isolation { link, shared, .. }) = &wanted.isolation
        && !shared
    {
        let element = rules::link(link, &wanted.comment);
        elements.push((Place::own(rules::links_set(&wanted.network)), element));
    }
    elements
}

/// The sets that a container's addresses of one version of IP are in.
fn places(wanted: &Wanted, guards: &[Guard], v6: bool) -> Vec<Place> {
    let mut places = vec![Place::own(rules::members_set(&wanted.network, v6))];
    if wanted.isolation.is_some() {
        places.push(Place::own(rules::PROTECTED[usize::from(v6)].to_owned()));
    }
    for guard in guards
        .iter()
        .filter(|guard| rules::has_version(guard.family, v6))
    {
        let place = Place::in_guard(guard, rules::guard_set(&wanted.network, v6));
        // A table may have two guards.
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// The bridge that the network's containers share. It stays as long as the network has any.
pub(super) fn bridge(wanted: &Wanted) -> Option<(Place, Element)> {
    let isolation = wanted
        .isolation
        .as_ref()
        .filter(|isolation| isolation.shared)?;
    let element = rules::link(&isolation.link, &wanted.network_comment);
    Some((Place::own(rules::links_set(&wanted.network)), element))
}

/// Puts the elements into their sets in one transaction, taking the place of those of other owners.
///
/// IPAM gave the address to this container, so whoever had it before is gone, and its DEL, late as it may be, must not
/// find the element any more.
///
/// What is there already is part of the transaction too: it may go along with another container before it.
pub(super) fn claim(nft: &mut Nft, wanted: &Wanted, guards: &[Guard]) -> Result<(), HostError> {
    let (elements, bridge) = (elements(wanted, guards), bridge(wanted));
    let begin = || {
        let mut batch = Batch::new();
        if let Some((place, element)) = &bridge {
            batch.ensure_elements(place.object(), std::slice::from_ref(element));
        }
        batch
    };
    let mut batch = begin();
    for (place, element) in &elements {
        batch.add_elements(place.object(), std::slice::from_ref(element));
    }
    match nft.commit(batch) {
        Err(error) if error.already_exists() => {}
        outcome => return outcome,
    }
    let _lock = lock::take()?;
    let mut present = Vec::new();
    for (place, element) in &elements {
        present.push(nft.element(place.object(), element)?);
    }
    let mut batch = begin();
    let all = || elements.iter().zip(&present);
    for ((place, element), found) in all() {
        if let Some(found) = found.as_ref().filter(|found| *found != element) {
            batch.delete_elements(place.object(), std::slice::from_ref(found));
        }
    }
    for ((place, element), found) in all() {
        let element_alone = std::slice::from_ref(element);
        if found.as_ref() == Some(element) {
            batch.ensure_elements(place.object(), element_alone);
        } else {
            batch.add_elements(place.object(), element_alone);
        }
    }
    nft.commit(batch)
}
