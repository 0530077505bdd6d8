//! Taking out what belongs to owners, and the network's mark along with the last of them.

use std::collections::BTreeSet;

use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;

use super::{Jump, POSTROUTING, chain_of, mark, rules_of, rules_to, until_uncrossed};
use crate::attach::masquerade::Kept;
use crate::attach::nat_table::{Version, declares, rules_in};
use crate::attach::rules_lock;
use crate::host::HostError;
use crate::host::nft::Nft;
use crate::owner::{Owner, Owners};

/// Takes out what `owner` has in either nat table. Starts no process when it is clear that there is nothing.
pub(in super::super) fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), HostError> {
    let chain = chain_of(owner);
    for version in Version::ALL {
        if version.has_chain(nft, &chain)? != Some(false) {
            let _lock = rules_lock::take()?;
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

/// Takes out a chain and the rules of POSTROUTING that lead to it, if there is one, and with the last one of a network
/// that network's `mark`.
pub(in super::super) fn remove_chain(
    nft: &mut Nft,
    version: Version,
    chain: &str,
    mark: Option<&NetworkName>,
) -> Result<(), HostError> {
    until_uncrossed(|| try_to_remove_chain(nft, version, chain, mark))
}

fn try_to_remove_chain(
    nft: &mut Nft,
    version: Version,
    chain: &str,
    mark: Option<&NetworkName>,
) -> Result<(), HostError> {
    let purpose = format!("remove iptables chain {chain}");
    let (present, there, marked) = match version.has_chain(nft, chain)? {
        Some(false) => return Ok(()),
        Some(true) => {
            let present = version.rules(nft, POSTROUTING, &purpose)?;
            let marked = match mark {
                Some(network) => version.has_chain(nft, &mark::chain_of(network))? == Some(true),
                None => false,
            };
            (present.unwrap_or_default(), true, marked)
        }
        None => {
            let listing = version.listing(&purpose)?;
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
    if commands.is_empty() {
        return Ok(());
    }
    version.restore(&purpose, &[("nat", &commands)])
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

/// Takes out the chains of `network` that are none of `valid`. The chain tells its owner; the comment tells the network.
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
    let _lock = rules_lock::take()?;
    for (version, rule) in rules_of(nft, network)? {
        if !valid.contains(&rule.chain) {
            remove_chain(nft, version, &rule.chain, Some(network))?;
            removed.push(rule.kept(version));
        }
    }
    Ok(removed)
}
