//! Port mappings by nftables: elements by netlink, rules by `nft` when they are missing or out of date.

mod installed;
mod remove;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use cni_conf::error::Error;
use cni_conf::names::NetworkName;

use super::claims::{Outcome, Rival, Served, Whose};
use super::conf::{Masquerade, Protocol};
use super::mapping::ports;
use super::plan::{Addresses, Forward};
use super::rules::{self, Map, Sources};
use super::{Kept, Wanted, crossed, localnet};
use crate::host::HostError;
use crate::host::nft::{Element, Nft, Refused};
use crate::netfilter::elements::{self, ATTEMPTS, OnTaken, Placed, Set, comment};
use crate::netfilter::table::TABLE;
use crate::owner::Owners;

pub(super) use self::installed::{guard, is_forgotten};
use self::installed::{has_chains_of, has_fixed_rules, install};
pub(super) use self::remove::{Removed, dismantle, remove};

/// How often rules that nft was refused are tried again.
const INSTALLATIONS: u32 = 3;

/// The elements of one attachment.
struct Elements {
    forwarding: Vec<Placed>,
    masquerading: Vec<Placed>,
    sources: BTreeSet<Sources>,
}

impl Elements {
    fn of(wanted: &Wanted<'_>) -> Self {
        let mut elements = Self {
            forwarding: Vec::new(),
            masquerading: Vec::new(),
            sources: BTreeSet::new(),
        };
        let owner = &wanted.identity.comment;
        let mut known = BTreeSet::new();
        for forward in wanted.forwards {
            let element = rules::forwarding(forward, owner);
            elements.forwarding.push((Map::of(forward).set(), element));
            let Some(from) = sources(wanted.masquerade, wanted.addresses, forward) else {
                continue;
            };
            elements.sources.insert(from);
            let (map, element) = rules::masquerading(forward, &from, owner);
            // Mappings of one port on two addresses of the host share it.
            if known.insert((map, element.key.clone())) {
                elements.masquerading.push((map.set(), element));
            }
        }
        elements
    }

    fn all(&self) -> Vec<Placed> {
        [&self.forwarding[..], &self.masquerading].concat()
    }
}

fn sources(masquerade: Masquerade, addresses: Addresses, forward: &Forward) -> Option<Sources> {
    Sources::of(masquerade, addresses.subnet_of(forward.to.ip())?)
}

/// What became of putting elements in.
enum Put {
    /// These are mapped; another attachment of the container serves the rest.
    Done(Vec<Forward>),
    /// Another process changed an element, or the rules are gone.
    Crossed,
    /// Somebody else has a port.
    Taken(Rival),
}

/// Makes sure that everything is forwarded as wanted. `restore` is called when the rules that exist once had to be made,
/// which is so for the host's first mapped port and after a flush.
///
/// Mappings of one address and of all are different keys, so the kernel can't tell that they overlap: that is looked for
/// before, to be sure that nothing is disturbed, and once more afterwards, because another process may do the same at
/// the same time. Of two that do, at least one finds the other's.
///
/// # Errors
/// What the kernel or `nft` says; [`cni_conf::error::Code::TryAgainLater`] where others change the rules all the time.
pub(super) fn ensure(wanted: &Wanted<'_>, restore: &dyn Fn()) -> Result<Outcome, Error> {
    let elements = Elements::of(wanted);
    let outcome = ensure_elements(wanted, &elements, restore);
    if !matches!(outcome, Ok(Outcome::Mapped)) {
        // What was made for nothing goes; if it doesn't, what went wrong before is to be told.
        let _ = dismantle(&Removed::of_chains(
            elements.sources.iter().map(Sources::chain),
        ));
    }
    outcome
}

fn ensure_elements(
    wanted: &Wanted<'_>,
    elements: &Elements,
    restore: &dyn Fn(),
) -> Result<Outcome, Error> {
    let mut nft = Nft::open()?;
    let mut refused = 0;
    for _ in 0..ATTEMPTS {
        if let Some(rival) = overlapping(&mut nft, wanted)? {
            return Ok(Outcome::Taken(rival));
        }
        let fixed = has_fixed_rules(&mut nft)?;
        if !fixed || !has_chains_of(&mut nft, &elements.sources)? {
            match install(&mut nft, &elements.sources) {
                // Somebody may have changed the table while nft was at it.
                Err(HostError::ProgramFailed { .. }) if refused < INSTALLATIONS => refused += 1,
                outcome => {
                    outcome?;
                    // Unless it was a subnet's chain alone that was missing.
                    if !fixed {
                        restore();
                    }
                }
            }
            continue;
        }
        if let Some(outcome) = map(&mut nft, elements, wanted)? {
            return Ok(outcome);
        }
    }
    Err(crossed(wanted))
}

/// One attempt with the rules in place. None where another process crossed it.
fn map(nft: &mut Nft, elements: &Elements, wanted: &Wanted<'_>) -> Result<Option<Outcome>, Error> {
    let served = match put(nft, elements, wanted)? {
        Put::Done(served) => served,
        Put::Crossed => return Ok(None),
        Put::Taken(rival) => return Ok(Some(Outcome::Taken(rival))),
    };
    if let Some(address) = wanted.with(&served).localhost()
        && !localnet::ensure(address, &wanted.identity.comment)?
    {
        return Ok(None);
    }
    Ok(Some(match overlapping(nft, wanted)? {
        Some(rival) => Outcome::Taken(rival),
        None => Outcome::Mapped,
    }))
}

/// Puts the elements in, in one transaction, save for those of ports that another attachment of the container serves.
fn put(nft: &mut Nft, elements: &Elements, wanted: &Wanted<'_>) -> Result<Put, Error> {
    let first = elements::put(nft, &[], &elements.all(), OnTaken::Refuse);
    match first.map_err(|refused| name_port(refused, wanted))? {
        elements::Put::Done => return Ok(Put::Done(wanted.forwards.to_vec())),
        elements::Put::RulesMissing => return Ok(Put::Crossed),
        elements::Put::Taken => {}
    }
    let served = match served(nft, wanted)? {
        Served::These(served) => served,
        Served::Taken(rival) => return Ok(Put::Taken(rival)),
    };
    // What leads to the container's address is this attachment's: IPAM gave it the address.
    let elements = Elements::of(&wanted.with(&served));
    let second = elements::replace(nft, &[], &elements.all());
    Ok(
        match second.map_err(|refused| name_port(refused, wanted))? {
            elements::Put::Done => Put::Done(served),
            elements::Put::RulesMissing | elements::Put::Taken => Put::Crossed,
        },
    )
}

/// The error for elements that the kernel refused: it names the port that one of them is of, or the first of all.
fn name_port(refused: Refused, wanted: &Wanted<'_>) -> Error {
    let is_of = |forward: &&Forward| {
        let key = refused.element.as_ref().map(|element| &element.key);
        let from = sources(wanted.masquerade, wanted.addresses, forward);
        let masquerading = from.map(|from| rules::masquerading(forward, &from, "").1.key);
        key == Some(&rules::forwarding(forward, "").key)
            || key.is_some() && key == masquerading.as_ref()
    };
    let ports = match wanted.forwards.iter().find(is_of) {
        Some(forward) => format!("host port {forward}"),
        None => ports(wanted),
    };
    let error = Error::from(refused.error);
    Error {
        msg: format!("map {ports}: {}", error.msg),
        ..error
    }
}

fn served(nft: &mut Nft, wanted: &Wanted<'_>) -> Result<Served, HostError> {
    let mut served = Vec::new();
    for forward in wanted.forwards {
        let map = Map::of(forward);
        let found = nft.element(TABLE.object(map.name()), &rules::forwarding(forward, ""))?;
        let Some(found) = found else {
            served.push(*forward);
            continue;
        };
        let leads_elsewhere = rules::parse_forwarding(map, &found)
            .is_none_or(|other| other.to.port() != forward.to.port());
        match wanted.identity.whose(comment(&found)) {
            Whose::Own => served.push(*forward),
            Whose::Sibling if !leads_elsewhere => {}
            _ => return Ok(Served::Taken(rival(forward, map, &found))),
        }
    }
    Ok(Served::These(served))
}

/// The first mapping of one of the same ports by another container, as iptables would have to know.
pub(super) fn taken(nft: &mut Nft, wanted: &Wanted<'_>) -> Result<Option<Rival>, HostError> {
    match served(nft, wanted)? {
        Served::These(_) => overlapping(nft, wanted),
        Served::Taken(rival) => Ok(Some(rival)),
    }
}

/// The first mapping of the same port by another container, of one address where all are wanted and the other way round.
fn overlapping(nft: &mut Nft, wanted: &Wanted<'_>) -> Result<Option<Rival>, HostError> {
    let mut listed: BTreeMap<Map, BTreeMap<(Protocol, u16), Vec<Element>>> = BTreeMap::new();
    for forward in wanted.forwards {
        let map = Map::of(forward).other();
        let set = TABLE.object(map.name());
        let any;
        let found: &[Element] = if forward.host.is_some() {
            let all = Forward {
                host: None,
                ..*forward
            };
            any = nft.element(set, &rules::forwarding(&all, ""))?;
            any.as_slice()
        } else {
            let by_port = match listed.entry(map) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(by_port(nft, map)?),
            };
            by_port
                .get(&(forward.protocol, forward.host_port))
                .map_or(&[], Vec::as_slice)
        };
        let foreign = found
            .iter()
            .find(|element| wanted.identity.whose(comment(element)) == Whose::Other);
        if let Some(element) = foreign {
            return Ok(Some(rival(forward, map, element)));
        }
    }
    Ok(None)
}

/// The mappings of a map by the port that they are of.
fn by_port(nft: &mut Nft, map: Map) -> Result<BTreeMap<(Protocol, u16), Vec<Element>>, HostError> {
    let mut by_port: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for element in elements::list(nft, &map.set())? {
        if let Some(other) = rules::parse_forwarding(map, &element) {
            let port = (other.protocol, other.host_port);
            by_port.entry(port).or_default().push(element);
        }
    }
    Ok(by_port)
}

fn rival(wanted: &Forward, map: Map, element: &Element) -> Rival {
    let other = rules::parse_forwarding(map, element);
    Rival {
        wanted: *wanted,
        comment: comment(element).to_owned(),
        mapping: other.unwrap_or(*wanted).to_string(),
        to: other.map(|other| other.to.ip()),
    }
}

/// Everything that is kept for attachments to `network`.
pub(super) fn list(network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let owners = Owners::all(network);
    let mut kept = Vec::new();
    for map in Map::ALL.into_iter().filter(|map| map.forwards()) {
        for element in elements::list(&mut nft, &map.set())? {
            let owner = element.comment.clone().unwrap_or_default();
            if let (true, Some(forward)) =
                (owners.has(&owner), rules::parse_forwarding(map, &element))
            {
                kept.push(Kept {
                    owner,
                    what: format!("{forward} -> {}", forward.to),
                });
            }
        }
    }
    Ok(kept)
}

/// What is wanted and other attachments of the container don't serve.
///
/// # Errors
/// What the kernel says.
pub(super) fn own_part(wanted: &Wanted<'_>) -> Result<Vec<Forward>, HostError> {
    Ok(match served(&mut Nft::open()?, wanted)? {
        Served::These(served) => served,
        // CHECK has that to tell.
        Served::Taken(_) => wanted.forwards.to_vec(),
    })
}

/// Compares what is there with what is wanted, and gives a sentence for each difference.
pub(super) fn check(wanted: &Wanted<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let elements = Elements::of(wanted);
    let mut differences = Vec::new();
    if !has_fixed_rules(&mut nft)? || !has_chains_of(&mut nft, &elements.sources)? {
        differences.push(format!(
            "the rules of port mappings in nft table {TABLE} are missing or have been changed"
        ));
    }
    for ((set, element), found) in elements::missing(&mut nft, &elements.forwarding)? {
        let forward = map_of(set).and_then(|map| rules::parse_forwarding(map, element));
        let port = forward.map_or_else(String::new, |forward| forward.to_string());
        let set = set.object();
        differences.push(match found {
            Some(found) => format!(
                "host port {port} leads to {} (nft map {set})",
                found.comment.as_deref().unwrap_or("somebody unnamed")
            ),
            None => format!("host port {port} leads nowhere (nft map {set})"),
        });
    }
    let bare = elements::missing(&mut nft, &elements.masquerading)?.into_iter();
    let bare: BTreeSet<String> = bare.map(|((set, _), _)| set.object().to_string()).collect();
    differences.extend(
        bare.into_iter()
            .map(|set| format!("connections to mapped ports are not masqueraded (nft map {set})")),
    );
    Ok(differences)
}

fn map_of(set: &Set) -> Option<Map> {
    Map::ALL.into_iter().find(|map| map.name() == set.name())
}
