//! Whether the rules in the kernel are the ones that this build makes, and making them.
//!
//! When rules have been made, digests of what then stands in the kernel are written down beside them, in the set
//! `portmap/digests`: one for the rules that exist once, and one for each chain of sources.

use std::collections::BTreeSet;

use super::super::rules::{self, CHAINS, DIGESTS, FIXED, POSTROUTING, Sources};
use crate::host::HostError;
use crate::host::nft::{Batch, Nft, ruleset};
use crate::netfilter::digest::Beside;
use crate::netfilter::table::TABLE;

/// Whether the rules are gone that exist once, or were never there.
pub(in super::super) fn is_forgotten() -> Result<bool, HostError> {
    let rules = Nft::open()?.rules(TABLE.object(POSTROUTING))?;
    Ok(rules.is_empty())
}

/// Makes sure of the rules that exist once, where localhost reaches somebody and the rules that guard it may be gone.
pub(in super::super) fn guard() -> Result<(), HostError> {
    let mut nft = Nft::open()?;
    match has_fixed_rules(&mut nft)? {
        true => Ok(()),
        false => install(&mut nft, &BTreeSet::new()),
    }
}

/// Whether the rules that exist once are there and as this version makes them.
pub(super) fn has_fixed_rules(nft: &mut Nft) -> Result<bool, HostError> {
    expected(FIXED, &CHAINS, rules::text()).is_current(nft)
}

/// Whether the chains that masquerade for these sources are there and as this version makes them.
pub(super) fn has_chains_of(nft: &mut Nft, sources: &BTreeSet<Sources>) -> Result<bool, HostError> {
    for from in sources {
        let chain = from.chain();
        let chains = [(chain.as_str(), from.rule_count())];
        if !expected(&chain, &chains, from.script()).is_current(nft)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn expected<'a>(name: &'a str, chains: &'a [(&'a str, usize)], text: String) -> Beside<'a> {
    Beside {
        set: DIGESTS,
        name: name.into(),
        chains: chains.into(),
        text: text.into(),
    }
}

/// Makes the rules that exist once, and those of the sources, and writes down what they are. Chains of other sources are made
/// anew, too, if they are there.
pub(super) fn install(nft: &mut Nft, sources: &BTreeSet<Sources>) -> Result<(), HostError> {
    let present = nft.chains(Some(TABLE))?.into_iter();
    let present = present.filter_map(|chain| Sources::of_chain(&chain.name));
    let sources: BTreeSet<Sources> = sources.iter().copied().chain(present).collect();
    let script: String = std::iter::once(rules::script())
        .chain(sources.iter().map(Sources::script))
        .collect();
    ruleset::NFT.run("install the rules of port mappings", ["-f", "-"], &script)?;
    let mut batch = Batch::new();
    expected(FIXED, &CHAINS, rules::text()).write(nft, &mut batch)?;
    for from in sources {
        let chain = from.chain();
        let chains = [(chain.as_str(), from.rule_count())];
        expected(&chain, &chains, from.script()).write(nft, &mut batch)?;
    }
    match nft.commit(batch) {
        // Others make the same rules, or flushed them. Whoever looks next sees what is missing.
        Err(error) if error.not_found() || error.already_exists() => Ok(()),
        outcome => outcome,
    }
}
