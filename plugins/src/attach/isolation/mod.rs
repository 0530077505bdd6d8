//! Isolated ports of a bridge, behind the bridge: what the host would route back.
//!
//! An isolated port passes no frames to another one. But a frame with an address of the host's, the gateway's for one, goes
//! up to the host, and the host routes the packet in it to whoever it is for, back into the same bridge. A rule for each
//! network and interface drops that, unless the host translates where it goes: Services and host ports are meant. Each
//! container is an element of a set, so that neither a packet nor an ADD costs more when there are many; see
//! `rules`. Nothing is remembered beside the kernel's own elements, which name their owner.
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
use crate::host::lock;
use crate::host::nft::{Batch, Nft};
use crate::netfilter::elements::{self, ATTEMPTS, OnTaken, Placed, Put, Set};
use crate::netfilter::table::{self, TABLE};
use crate::owner::{Owner, Owners};

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

    fn elements(&self) -> Vec<Placed> {
        self.group()
            .elements(self.addresses, self.mac, &self.owner.comment())
    }
}

/// Keeps the container apart from those behind the same interface. `living` is called only when the rules were missing,
/// and gives the network's containers: they get back what they had, with the MAC addresses that belong to their addresses.
///
/// # Errors
/// [`HostError::ProgramMissing`] when `nft` is needed and not installed; otherwise what the kernel or the program says.
pub fn ensure(wanted: &Isolated<'_>, living: &dyn Fn() -> Vec<Member>) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    let mut elements = wanted.elements();
    for _ in 0..ATTEMPTS {
        if ensure_rules(&mut nft, wanted)? {
            elements = with_others(wanted, living());
        }
        if let Put::Done = elements::put(&mut nft, &[], &elements, OnTaken::Replace)? {
            return Ok(());
        }
    }
    Err(HostError::Crossed {
        operation: format!("keep {} apart", wanted.owner.path()),
    })
}

/// Makes the rules where they are missing or differ. Says whether they were missing.
fn ensure_rules(nft: &mut Nft, wanted: &Isolated<'_>) -> Result<bool, HostError> {
    let (group, network) = (wanted.group(), wanted.network());
    let rules = rules::rules(&group, wanted.interface);
    let expected = rules::expected(&group, network, &rules);
    if expected.is_current(nft)? {
        return Ok(false);
    }
    let _lock = lock::take();
    if expected.is_current(nft)? {
        return Ok(false);
    }
    let was_missing = nft.chain(expected.chain)?.is_none();
    rules::script(&group, rules)
        .apply(&format!("keep the containers of network {network} apart"))?;
    expected.write(nft)?;
    Ok(was_missing)
}

/// The container's elements and those of the others, none of which has one of its addresses.
fn with_others(wanted: &Isolated<'_>, others: Vec<Member>) -> Vec<Placed> {
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

/// Removes what belongs to these attachments, and the rules along with a network's last container. What is not there is
/// no error.
///
/// # Errors
/// What the kernel says.
pub fn remove(owners: &Owners) -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    let sets = nft.sets(TABLE)?;
    let groups: BTreeSet<Group> = sets
        .iter()
        .filter_map(|set| Group::of_set(owners.network(), set))
        .collect();
    for group in groups {
        let own = group.sets().into_iter().filter(|set| sets.contains(set));
        let own: Vec<Set> = own.map(Set::own).collect();
        for set in &own {
            elements::remove(&mut nft, set, &|comment| owners.has_among_its_own(comment))?;
        }
        if elements::are_empty(&mut nft, own.iter().map(Set::object))? {
            let names = own.iter().map(Set::name);
            let chain = nft.chain(TABLE.object(&group.chain))?;
            let chain = chain.as_ref().map(|chain| chain.name.as_str());
            table::delete_unused(&mut nft, Batch::new(), chain, names)?;
        }
    }
    Ok(())
}

/// Compares what is there with what `wanted` says: a sentence for each difference.
///
/// # Errors
/// What the kernel says.
pub fn check(wanted: &Isolated<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let (group, network) = (wanted.group(), wanted.network());
    let rules = rules::rules(&group, wanted.interface);
    let expected = rules::expected(&group, network, &rules);
    if !expected.is_current_in_the_end(&mut nft)? {
        return Ok(vec![format!(
            "the rules that keep the containers of network {network} apart (nft chain {}) are missing or differ",
            expected.chain
        )]);
    }
    let mut elements = wanted.elements();
    elements.retain(|(set, _)| rules::is_of_addresses(set.name()));
    let missing = elements::missing(&mut nft, &elements)?.into_iter();
    Ok(missing
        .map(|((set, _), _)| format!("the container is not in the nft set {}", set.object()))
        .collect())
}
