//! Taking out what belongs to owners, and the network's mark along with the last of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;
use ipnet::IpNet;

use super::{Jump, POSTROUTING, PREFIX, chain_of, mark, rules_of, rules_to};
use crate::attach::masquerade::{Kept, Masquerade};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::Nft;
use crate::netfilter::iptables::{Version, declares, rules_in};
use crate::owner::{Owner, Owners};

/// Removes what `owner` has in either nat table. Starts no process when it is clear that there is nothing.
pub(in super::super) fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), HostError> {
    let chain = chain_of(owner);
    for version in Version::ALL {
        if version.has_chain(nft, &chain)? != Some(false) {
            let _lock = lock::take()?;
            return remove_locked(nft, owner, true);
        }
    }
    Ok(())
}

/// The same for whoever holds the lock. The network's mark goes with the last container if `mark_too` says so.
pub(super) fn remove_locked(nft: &mut Nft, owner: &Owner, mark_too: bool) -> Result<(), HostError> {
    let chain = chain_of(owner);
    let mark = mark_too.then_some(&owner.network);
    Version::ALL
        .into_iter()
        .try_for_each(|version| remove_chain(nft, version, &chain, mark))
}

/// Removes a chain and the rules of POSTROUTING that lead to it, if there is one, and with the last one of a network
/// that network's `mark`.
fn remove_chain(
    nft: &mut Nft,
    version: Version,
    chain: &str,
    mark: Option<&NetworkName>,
) -> Result<(), HostError> {
    let purpose = format!("remove iptables chain {chain}");
    version.change(&purpose, || {
        Ok(vec![("nat", removal(nft, version, chain, mark, &purpose)?)])
    })
}

/// Commands for that.
fn removal(
    nft: &mut Nft,
    version: Version,
    chain: &str,
    mark: Option<&NetworkName>,
    purpose: &str,
) -> Result<Vec<String>, HostError> {
    let (present, there, marked) = match version.has_chain(nft, chain)? {
        Some(false) => return Ok(Vec::new()),
        Some(true) => {
            let present = version.rules(nft, POSTROUTING, purpose)?;
            let marked = match mark {
                Some(network) => version.has_chain(nft, &mark::chain_of(network))? == Some(true),
                None => false,
            };
            (present.unwrap_or_default(), true, marked)
        }
        None => {
            let listing = version.listing(purpose)?;
            let marked = mark.is_some_and(|network| declares(&listing, &mark::chain_of(network)));
            let there = declares(&listing, chain);
            (rules_in(&listing, POSTROUTING), there, marked)
        }
    };
    let mut commands = deletion(&present, chain, there);
    if let (Some(network), true) = (mark, marked && !commands.is_empty()) {
        let all = Owners::all(network);
        let jumps = present.iter().filter_map(|rule| Jump::parse(rule));
        let mut others = jumps.filter(|jump| jump.chain != chain);
        if !others.any(|jump| all.has_in_iptables(&jump.comment)) {
            commands.extend(deletion(&present, &mark::chain_of(network), true));
        }
    }
    Ok(commands)
}

/// Commands that delete the rules of POSTROUTING that lead to a chain, and the chain if it is `there`.
fn deletion(postrouting: &[String], chain: &str, there: bool) -> Vec<String> {
    let jumps = rules_to(postrouting, chain).into_iter();
    let mut commands: Vec<String> = jumps
        .map(|rule| format!("-D {POSTROUTING} {rule}"))
        .collect();
    if there {
        commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
    }
    commands
}

/// Removes the chains of `network` that are none of `valid`. The chain tells its owner; the comment tells the network.
pub(in super::super) fn gc(
    nft: &mut Nft,
    network: &NetworkName,
    valid: &[AttachmentId],
) -> Result<Vec<Kept>, HostError> {
    let valid: BTreeSet<String> = valid
        .iter()
        .map(|id| chain_of(&Owner::new(network, id)))
        .collect();
    let mut removed = Vec::new();
    let _lock = lock::take()?;
    for (version, rule) in rules_of(nft, network)? {
        if !valid.contains(&rule.chain) {
            remove_chain(nft, version, &rule.chain, Some(network))?;
            removed.push(rule.kept(version));
        }
    }
    Ok(removed)
}

/// What [`super::super::ensure`] does about other networks' rules. Their marks go with the last container where a comment tells
/// the network, that is unless it is cut. Asks `iptables` only where POSTROUTING has a rule with one of the addresses that leads to
/// somebody else's chain.
pub(in super::super) fn release(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    stands: &dyn Fn(&str) -> bool,
) -> Result<Vec<Kept>, HostError> {
    let owner = wanted.owner;
    let mut released = Vec::new();
    for version in Version::ALL {
        let mine = wanted.addresses.iter().map(IpNet::addr);
        let mine: Vec<IpAddr> = mine.filter(|address| version.is_of(*address)).collect();
        if !may_be_others(nft, version, owner, &mine)? {
            continue;
        }
        let _lock = lock::take()?;
        let rules = version.rules(nft, POSTROUTING, "look for rules of other networks")?;
        for jump in rules.iter().flatten().filter_map(|rule| Jump::parse(rule)) {
            let is_mine = |address: &IpAddr| jump.source == IpNet::from(*address).to_string();
            let network = Owner::parse(&jump.comment).map(|other| other.network);
            if network.as_ref() == Some(&owner.network)
                || Owners::all(&owner.network).has_in_iptables(&jump.comment)
                || !mine.iter().any(is_mine)
                || stands(&jump.comment)
            {
                continue;
            }
            remove_chain(nft, version, &jump.chain, network.as_ref())?;
            released.push(jump.kept(version));
        }
    }
    Ok(released)
}

/// Whether a rule of POSTROUTING has both one of the addresses and the name of a chain of ours that is not the owner's.
fn may_be_others(
    nft: &mut Nft,
    version: Version,
    owner: &Owner,
    addresses: &[IpAddr],
) -> Result<bool, HostError> {
    if addresses.is_empty() {
        return Ok(false);
    }
    let own = chain_of(owner);
    let contains =
        |content: &[u8], wanted: &[u8]| content.windows(wanted.len()).any(|it| it == wanted);
    let concerns = |content: &[u8]| {
        contains(content, PREFIX.as_bytes())
            && !contains(content, own.as_bytes())
            && addresses.iter().any(|address| match address {
                IpAddr::V4(address) => contains(content, &address.octets()),
                IpAddr::V6(address) => contains(content, &address.octets()),
            })
    };
    let rules = nft.rules(version.nat().object(POSTROUTING))?;
    Ok(rules.iter().any(|rule| concerns(&rule.content)))
}
