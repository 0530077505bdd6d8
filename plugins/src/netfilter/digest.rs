//! Whether the rules of a chain are ours and as this build makes them.
//!
//! A comment tells what a rule was once meant to be; what it is now, its expressions tell. So the last rule of a chain
//! decides nothing and has a comment with a digest: of the text that the rules are made from, and of what the kernel made
//! of them. That is known when it can be read back, so the digest comes in a second step, while nobody else of us
//! makes rules.
//!
//! Whoever finds a chain whose digest is missing or another one makes it anew, and CHECK tells: an older build made it,
//! the configuration is another one by now, somebody changed it by hand, or a program saved it and loaded something else.
//! Who does the first two leaves elements alone.

use std::borrow::Cow;

use super::table::TABLE;
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Nft, Note, ObjectRef, Rule};
use crate::owner::digest::{Hasher, fnv1a, noted, rules_digest};

/// To be changed when a digest is to mean something else.
const VERSION: &str = "3";

/// What the comment of the last rule begins with where that says nothing but the digest.
const BARE: &str = "digest ";

/// The rules of one chain as they are to be.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The chain.
    pub chain: ObjectRef<'a>,
    /// All that the rules are made from.
    pub text: Cow<'a, str>,
    /// How many there are, without the last one. A chain that is to have none needs no digest.
    pub count: usize,
    /// What they are for, in words. Without it the last rule counts packets, since iptables lists no rule without a
    /// counter.
    pub about: Option<Cow<'a, str>>,
}

impl Expected<'_> {
    /// Whether the chain has these rules.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_current(&self, nft: &mut Nft) -> Result<bool, HostError> {
        Ok(self.are_current(&nft.rules(self.chain)?))
    }

    /// The same of rules that were listed.
    pub fn are_current(&self, rules: &[Rule]) -> bool {
        match rules.split_last() {
            None => self.count == 0,
            Some((last, rules)) => {
                rules.len() == self.count && last.comment.as_ref() == Some(&self.comment(rules))
            }
        }
    }

    /// The same for CHECK, which must not take rules for wrong that are being made.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_current_in_the_end(&self, nft: &mut Nft) -> Result<bool, HostError> {
        if self.is_current(nft)? {
            return Ok(true);
        }
        let _lock = lock::share();
        self.is_current(nft)
    }

    /// Writes the digest of the rules that the chain has now, unless it is there. The caller holds the lock and has just
    /// made them. Where somebody came in between, whoever looks next makes them again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, nft: &mut Nft) -> Result<(), HostError> {
        let rules = nft.rules(self.chain)?;
        if self.are_current(&rules) {
            return Ok(());
        }
        let (digests, rules): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_digest);
        if rules.len() != self.count {
            return Ok(());
        }
        let mut batch = Batch::new();
        for digest in digests {
            batch.delete_rule(self.chain, digest.handle);
        }
        if self.count > 0 {
            let kind = match self.about {
                Some(_) => Note::Continue,
                None => Note::Counter,
            };
            batch.append_note(self.chain, kind, &self.comment(&rules));
        }
        match nft.commit(batch) {
            Err(error) if error.not_found() => Ok(()),
            outcome => outcome,
        }
    }

    fn comment(&self, present: &[Rule]) -> String {
        let digest = of(&self.text, present);
        match &self.about {
            Some(about) => noted(about, digest),
            None => format!("{BARE}{digest:016x}"),
        }
    }
}

/// Chains of our own table whose digest stands beside them, as an element of a set: they are as they are to be together or
/// not at all, what makes them base chains included.
#[derive(Debug, Clone)]
pub struct Beside<'a> {
    /// The set, of keys of four bytes.
    pub set: &'static str,
    /// What the digest is called by in there.
    pub name: Cow<'a, str>,
    /// The chains, each with the number of its rules.
    pub chains: Cow<'a, [(&'a str, usize)]>,
    /// What tells the rules that this build makes from those of another one.
    pub text: Cow<'a, str>,
}

impl Beside<'_> {
    /// Whether the chains have these rules.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_current(&self, nft: &mut Nft) -> Result<bool, HostError> {
        let Some(found) = self.found(nft)? else {
            return Ok(false);
        };
        let element = memo(&self.name, found);
        let written = nft.element(TABLE.object(self.set), &element)?;
        Ok(written.as_ref() == Some(&element))
    }

    /// Adds to a transaction that the digest of what the chains have now stands in the set. Chains that are not as they
    /// were made have none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, nft: &mut Nft, batch: &mut Batch) -> Result<(), HostError> {
        if let Some(found) = self.found(nft)? {
            let set = TABLE.object(self.set);
            let element = memo(&self.name, found);
            match nft.element(set, &element)? {
                Some(present) if present == element => return Ok(()),
                Some(present) => batch.delete_elements(set, &[present]),
                None => batch,
            }
            .add_elements(set, &[element]);
        }
        Ok(())
    }

    /// Adds to a transaction that a digest goes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(
        nft: &mut Nft,
        batch: &mut Batch,
        set: &'static str,
        name: &str,
    ) -> Result<(), HostError> {
        let set = TABLE.object(set);
        if let Some(present) = nft.element(set, &memo(name, 0))? {
            batch.delete_elements(set, &[present]);
        }
        Ok(())
    }

    /// The digest of what the kernel has; none where a chain or a rule is missing or too many.
    fn found(&self, nft: &mut Nft) -> Result<Option<u64>, HostError> {
        let mut hasher = Hasher::default();
        for (name, count) in self.chains.iter() {
            let chain = TABLE.object(name);
            let rules = nft.rules(chain)?;
            if rules.len() != *count {
                return Ok(None);
            }
            let Some(found) = nft.chain(chain)? else {
                return Ok(None);
            };
            let base = found.base.map(|base| {
                let (hook, priority, drops) = (base.hook, base.priority, base.drops);
                format!("{} {hook} {priority} {drops}", base.kind)
            });
            let rules = of(&self.text, &rules).to_be_bytes();
            let base = base.unwrap_or_default();
            hasher
                .part(name.as_bytes())
                .part(base.as_bytes())
                .part(&rules);
        }
        Ok(Some(hasher.finish()))
    }
}

/// The element for the digest of this name.
fn memo(name: &str, digest: u64) -> Element {
    let [.., a, b, c, d] = fnv1a(name.as_bytes()).to_be_bytes();
    Element {
        key: vec![a, b, c, d],
        data: None,
        comment: Some(format!("{name} {digest:016x}")),
    }
}

/// Whether a rule is there for its digest alone.
pub fn is_digest(rule: &Rule) -> bool {
    rule.comment.as_deref().is_some_and(is_comment)
}

/// Whether the comment of a rule is a digest's.
pub fn is_comment(comment: &str) -> bool {
    comment.starts_with(BARE) || rules_digest(comment).is_some()
}

/// The digest of a text and of rules, in their order.
pub fn of(text: &str, rules: &[Rule]) -> u64 {
    let mut hasher = Hasher::default();
    hasher.part(VERSION.as_bytes()).part(text.as_bytes());
    for rule in rules {
        let comment = rule.comment.as_deref().unwrap_or_default();
        hasher.part(comment.as_bytes()).part(&rule.content);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(comment: &str, content: &[u8]) -> Rule {
        Rule {
            handle: 1,
            comment: Some(comment.into()),
            content: content.into(),
            verdict: None,
        }
    }

    fn expected<'a>(text: &'a str, count: usize, about: Option<&'a str>) -> Expected<'a> {
        let chain = TABLE.object("chain");
        Expected {
            chain,
            text: text.into(),
            count,
            about: about.map(Cow::Borrowed),
        }
    }

    #[test]
    fn a_digest_fits_no_other_rules_and_no_other_text() {
        for about in [None, Some("containers of network podnet")] {
            let made = [rule("a", b"drop"), rule("b", b"accept")];
            let own = expected("text", 2, about);
            let digest = rule(&own.comment(&made), b"counter");
            assert!(is_digest(&digest));
            let with = |mut rules: Vec<Rule>| {
                rules.push(digest.clone());
                rules
            };
            let whole = with(made.to_vec());
            assert!(own.are_current(&whole));
            assert!(!own.are_current(&made), "no digest");
            assert!(!expected("texts", 2, about).are_current(&whole));
            for changed in [
                vec![rule("a", b"accept"), rule("b", b"accept")],
                vec![rule("b", b"accept"), rule("a", b"drop")],
                vec![rule("a", b"drop")],
                vec![],
                // What one part loses, the next one does not make up for.
                vec![rule("ad", b"rop"), rule("b", b"accept")],
                vec![rule("c", b"drop"), rule("b", b"accept")],
            ] {
                assert!(!own.are_current(&with(changed.clone())), "{changed:?}");
            }
        }
    }

    #[test]
    fn a_chain_without_rules_needs_no_digest() {
        assert!(expected("", 0, None).are_current(&[]));
        assert!(!expected("", 0, None).are_current(&[rule("a", b"drop")]));
        assert!(!expected("", 1, None).are_current(&[]));
    }
}
