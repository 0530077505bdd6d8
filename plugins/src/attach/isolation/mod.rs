//! Isolated ports of a bridge, behind the bridge: what the host would route back.
//!
//! An isolated port passes no frames to another one. But a frame with an address of the host's, the gateway's for one, goes
//! up to the host, and the host routes the packet in it to whoever it is for, back into the same bridge. A rule for each
//! network and interface drops that, unless the host translates where it goes: Services and host ports are meant. Each
//! container is an element of a set, so that neither a packet nor an ADD costs more when there are many; see
//! [`rules`]. Nothing is remembered beside the kernel's own elements, which name their owner.
//!
//! All functions work on the network namespace that the calling thread is in.

mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::addr::MacAddr;
use cni_conf::names::NetworkName;

use self::rules::Group;
use super::masquerade::Member;
use crate::host::HostError;
use crate::host::nft::{Batch, Element, Nft, ruleset};
use crate::netfilter::table::{self, TABLE};
use crate::owner::{Owner, Owners};

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 10;

/// A container to keep apart.
#[derive(Debug, Clone, Copy)]
pub struct Isolated<'a> {
    /// Whose it is.
    pub owner: &'a Owner,
    /// The host's interface that containers are routed by: the bridge, or the gateway of a VLAN.
    pub interface: &'a str,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Its MAC address.
    pub mac: MacAddr,
}

impl Isolated<'_> {
    fn network(&self) -> &NetworkName {
        &self.owner.network
    }

    fn group(&self) -> Group {
        Group::of(self.network(), self.interface)
    }

    fn elements(&self) -> Vec<(String, Element)> {
        self.group()
            .elements(self.addresses, self.mac, &self.owner.comment())
    }
}

/// What became of elements.
enum Put {
    Done,
    /// The sets are missing, or something came in between.
    Again,
}

/// Keeps the container apart from those behind the same interface. `living` is called only when the rules were missing,
/// and gives the network's containers: they get back what they had, with the MAC addresses that belong to their addresses.
///
/// # Errors
/// [`HostError::ProgramMissing`] when `nft` is needed and not installed; otherwise what the kernel or the program says.
pub fn ensure(wanted: &Isolated<'_>, living: &dyn Fn() -> Vec<Member>) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    let group = wanted.group();
    let mut elements = wanted.elements();
    for _ in 0..ATTEMPTS {
        if !is_current(&mut nft, &group, wanted)? {
            let was_missing = nft.chain(TABLE.object(&group.chain))?.is_none();
            let script = rules::script(&group, wanted.network(), wanted.interface);
            let purpose = format!("keep the containers of network {} apart", wanted.network());
            ruleset::NFT.run(&purpose, ["-j", "-f", "-"], &script)?;
            if was_missing {
                elements = with_others(wanted, living());
            }
        }
        if let Put::Done = put(&mut nft, &elements)? {
            return Ok(());
        }
    }
    Err(HostError::Protocol {
        operation: format!("keep {} apart in nft table {TABLE}", wanted.owner.path()),
        problem: "other processes keep changing it",
    })
}

/// The container's elements and those of the others, none of which has one of its addresses.
fn with_others(wanted: &Isolated<'_>, others: Vec<Member>) -> Vec<(String, Element)> {
    let group = wanted.group();
    let mut elements = wanted.elements();
    let mut seen: BTreeSet<IpAddr> = wanted.addresses.iter().copied().collect();
    for member in others {
        let all: Vec<IpAddr> = member.addresses.iter().map(|net| net.addr()).collect();
        let Some(mac) = super::mac::of_addresses(&all) else {
            continue;
        };
        let new: Vec<IpAddr> = all.into_iter().filter(|it| seen.insert(*it)).collect();
        elements.extend(group.elements(&new, mac, &member.owner.comment()));
    }
    elements
}

fn is_current(nft: &mut Nft, group: &Group, wanted: &Isolated<'_>) -> Result<bool, HostError> {
    let rules = nft.rules(TABLE.object(&group.chain))?;
    let comment = rules::comment(group, wanted.network(), wanted.interface);
    Ok(rules.len() == rules::RULES
        && rules.last().and_then(|rule| rule.comment.as_ref()) == Some(&comment))
}

/// Puts elements into their sets in one transaction, in place of those of whoever had the address before.
fn put(nft: &mut Nft, elements: &[(String, Element)]) -> Result<Put, HostError> {
    let mut batch = Batch::new();
    for (set, element) in elements {
        batch.add_elements(TABLE.object(set), std::slice::from_ref(element));
    }
    match nft.commit(batch) {
        Ok(()) => return Ok(Put::Done),
        Err(error) if error.not_found() => return Ok(Put::Again),
        Err(error) if error.already_exists() => {}
        Err(error) => return Err(error),
    }
    let mut batch = Batch::new();
    for (set, element) in elements {
        let set = TABLE.object(set);
        let present = nft.element(set, element)?;
        if present.as_ref() == Some(element) {
            continue;
        }
        if let Some(present) = present {
            batch.delete_elements(set, &[present]);
        }
        batch.add_elements(set, std::slice::from_ref(element));
    }
    match nft.commit(batch) {
        Ok(()) => Ok(Put::Done),
        Err(error) if error.not_found() || error.already_exists() => Ok(Put::Again),
        Err(error) => Err(error),
    }
}

/// Removes what belongs to these attachments, and the rules along with a network's last container. What is not there is
/// no error.
///
/// # Errors
/// What the kernel says.
pub fn remove(owners: &Owners) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    for group in groups(&mut nft, owners.network())? {
        for set in group.sets() {
            remove_elements(&mut nft, &set, owners)?;
        }
        dismantle_if_empty(&mut nft, &group)?;
    }
    Ok(())
}

fn groups(nft: &mut Nft, network: &NetworkName) -> Result<BTreeSet<Group>, HostError> {
    let sets = nft.sets(TABLE)?;
    Ok(sets
        .iter()
        .filter_map(|set| Group::of_set(network, set))
        .collect())
}

fn remove_elements(nft: &mut Nft, set: &str, owners: &Owners) -> Result<(), HostError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut elements = table::elements(nft, set)?;
        elements.retain(|element| {
            owners.has_among_its_own(element.comment.as_deref().unwrap_or_default())
        });
        if elements.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete_elements(TABLE.object(set), &elements);
        match nft.commit(batch) {
            // Another process took one of them out; look again which are left.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// Deletes a group without elements, and the table when it has nothing else. The kernel refuses to delete a set that has
/// got an element meanwhile.
fn dismantle_if_empty(nft: &mut Nft, group: &Group) -> Result<(), HostError> {
    let sets = group.sets();
    let mut present = Vec::new();
    for set in &sets {
        match nft.is_empty(TABLE.object(set)) {
            Ok(true) => present.push(set),
            Ok(false) => return Ok(()),
            Err(error) if error.not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let mut batch = Batch::new();
    let chain = TABLE.object(&group.chain);
    if nft.chain(chain)?.is_some() {
        batch.delete_chain(chain);
    }
    for set in present {
        batch.delete_empty_set(TABLE.object(set));
    }
    if table::unless_in_use(nft.commit(batch))? {
        table::delete_if_empty(nft)?;
    }
    Ok(())
}

/// Compares what is there with what `wanted` says: a sentence for each difference.
///
/// # Errors
/// What the kernel says.
pub fn check(wanted: &Isolated<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let group = wanted.group();
    if !is_current(&mut nft, &group, wanted)? {
        return Ok(vec![format!(
            "the rules that keep the containers of network {} apart (nft chain {}) are missing or differ",
            wanted.network(),
            TABLE.object(&group.chain)
        )]);
    }
    let mut differences = Vec::new();
    let of_addresses = |(set, _): &(String, Element)| rules::is_of_addresses(set);
    for (set, element) in wanted.elements().into_iter().filter(of_addresses) {
        if nft.element(TABLE.object(&set), &element)?.as_ref() != Some(&element) {
            differences.push(format!(
                "the container is not in the nft set {}",
                TABLE.object(&set)
            ));
        }
    }
    Ok(differences)
}
