//! Whether the rules in the kernel are the ones that this build makes, and making them.
//!
//! A comment tells what a rule was once meant to be. What it is now, its expressions tell. So when rules have been made, a
//! digest of what then stands in the kernel is written down beside them, in the set `portmap/digests`: an element for the
//! rules that exist once, and one for each chain of sources. Rules that were changed by hand, or made by another build,
//! have another digest or none.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::super::rules::{self, CHAINS, DIGEST_CHAIN, DIGESTS, FIXED, Sources};
use crate::host::HostError;
use crate::host::nft::{Batch, Nft, ruleset};
use crate::netfilter::table::TABLE;
use crate::owner::fnv1a;

/// Whether the rules are gone that exist once, or were never there.
pub(in super::super) fn is_forgotten() -> Result<bool, HostError> {
    let rules = Nft::open()?.rules(TABLE.object(DIGEST_CHAIN))?;
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
    let with_digest = nft.rules(TABLE.object(DIGEST_CHAIN))?;
    if with_digest.last().and_then(|rule| rule.comment.as_ref()) != Some(&rules::script_digest()) {
        return Ok(false);
    }
    let Some(found) = fixed_digest(nft)? else {
        return Ok(false);
    };
    is_written(nft, FIXED, found)
}

/// Whether the chains that masquerade for these sources are there and as this version makes them.
pub(super) fn has_chains_of(nft: &mut Nft, sources: &BTreeSet<Sources>) -> Result<bool, HostError> {
    for from in sources {
        let chain = from.chain();
        let Some(found) = digest_of(nft, from)? else {
            return Ok(false);
        };
        if !is_written(nft, &chain, found)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the rules that exist once, and those of the sources, and writes down what they are. Chains of other sources are made
/// anew, too, if they are there.
pub(super) fn install(nft: &mut Nft, sources: &BTreeSet<Sources>) -> Result<(), HostError> {
    let present = nft.chains(Some(TABLE))?;
    let present = present
        .iter()
        .filter_map(|chain| Sources::of_chain(&chain.name));
    let sources = &sources
        .iter()
        .copied()
        .chain(present)
        .collect::<BTreeSet<_>>();
    let script: String = std::iter::once(rules::script())
        .chain(sources.iter().map(Sources::script))
        .collect();
    ruleset::NFT.run("install the rules of port mappings", ["-f", "-"], &script)?;
    let mut digests = vec![(FIXED.to_owned(), fixed_digest(nft)?)];
    for from in sources {
        digests.push((from.chain(), digest_of(nft, from)?));
    }
    let mut batch = Batch::new();
    let set = TABLE.object(DIGESTS);
    for (name, digest) in digests {
        let Some(digest) = digest else {
            continue;
        };
        let element = rules::digest(&name, digest);
        match nft.element(set, &element)? {
            Some(present) if present == element => continue,
            Some(present) => batch.delete_elements(set, &[present]),
            None => &mut batch,
        }
        .add_elements(set, &[element]);
    }
    match nft.commit(batch) {
        // Others make the same rules, or flushed them. Whoever looks next sees what is missing.
        Err(error) if error.not_found() || error.already_exists() => Ok(()),
        outcome => outcome,
    }
}

/// Adds to a transaction that a chain of sources goes.
pub(super) fn forget(nft: &mut Nft, batch: &mut Batch, chain: &str) -> Result<(), HostError> {
    let set = TABLE.object(DIGESTS);
    if let Some(present) = nft.element(set, &rules::digest(chain, 0))? {
        batch.delete_elements(set, &[present]);
    }
    Ok(())
}

fn is_written(nft: &mut Nft, name: &str, digest: u64) -> Result<bool, HostError> {
    let element = rules::digest(name, digest);
    Ok(nft.element(TABLE.object(DIGESTS), &element)?.as_ref() == Some(&element))
}

/// The digest of what the kernel has of the rules that exist once; none where a rule or a chain is missing.
fn fixed_digest(nft: &mut Nft) -> Result<Option<u64>, HostError> {
    let mut content = String::new();
    for (name, count) in CHAINS {
        let Some(rules) = content_of(nft, name, count)? else {
            return Ok(None);
        };
        content += &rules;
    }
    Ok(Some(fnv1a(content.as_bytes())))
}

/// The same for the chain of sources.
fn digest_of(nft: &mut Nft, from: &Sources) -> Result<Option<u64>, HostError> {
    let rules = content_of(nft, &from.chain(), from.rule_count())?;
    // What they should be is part of it: a chain of an older build has other rules.
    Ok(rules.map(|rules| fnv1a((rules + &from.script()).as_bytes())))
}

/// A chain and its rules as text; none where it has not so many.
fn content_of(nft: &mut Nft, name: &str, count: usize) -> Result<Option<String>, HostError> {
    let chain = TABLE.object(name);
    let contents = nft.rules(chain)?;
    if contents.len() != count {
        return Ok(None);
    }
    let Some(found) = nft.chain(chain)? else {
        return Ok(None);
    };
    let mut text = format!("{name}\n");
    if let Some(base) = found.base {
        let (hook, priority, drops) = (base.hook, base.priority, base.drops);
        text += &format!("{} {hook} {priority} {drops}\n", base.kind);
    }
    for rule in contents {
        for byte in rule.content {
            // Writing to a string can't fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    Ok(Some(text))
}
