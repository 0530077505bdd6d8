//! Rules that are what they were made: a digest of all that a chain says stands in the comment of its last rule.
//!
//! What the kernel makes of a rule's text is known when it can be read back, so the digest comes in a second step, while
//! nobody else of us installs rules. Whoever finds a chain whose digest is missing or another one, because an older
//! build made it, because somebody changed it by hand, or because it was saved and loaded by a program that wrote
//! something else than it read, makes it anew.

use crate::host::HostError;
use crate::host::nft::{Batch, Nft, Note, ObjectRef, Rule};
use crate::owner::fnv1a;

/// What the comment of the last rule begins with.
pub(super) const COMMENT: &str = "digest ";

/// To be changed when rules with the same comments are to mean something else.
const VERSION: &[u8] = b"2";

/// Whether a rule is the one with the digest.
fn is_digest(rule: &Rule) -> bool {
    rule.comment
        .as_deref()
        .is_some_and(|text| text.starts_with(COMMENT))
}

/// The comment with the digest of these rules, in their order.
fn comment_of<'a>(rules: impl Iterator<Item = &'a Rule>) -> String {
    let mut content = VERSION.to_vec();
    for rule in rules {
        let comment = rule.comment.as_deref().unwrap_or_default();
        for part in [comment.as_bytes(), &rule.content] {
            content.extend(part.len().to_be_bytes());
            content.extend(part);
        }
    }
    format!("{COMMENT}{:016x}", fnv1a(&content))
}

/// The rules in front of the digest, if that is last and says what they are.
pub(super) fn verified(rules: &[Rule]) -> Option<&[Rule]> {
    let (last, rest) = rules.split_last()?;
    let fits = last.comment.as_ref() == Some(&comment_of(rest.iter()));
    fits.then_some(rest)
}

/// Whether a chain has rules with these comments, and a digest that fits. One that is to have none needs no digest.
pub(super) fn holds<'a>(rules: &[Rule], comments: impl Iterator<Item = &'a str>) -> bool {
    let expected: Vec<_> = comments.map(Some).collect();
    if rules.is_empty() && expected.is_empty() {
        return true;
    }
    verified(rules).is_some_and(|rules| {
        let found = rules.iter().map(|rule| rule.comment.as_deref());
        found.eq(expected)
    })
}

/// Writes the digest of the rules that a chain has now, unless it is there. The caller holds the lock, and has just
/// made them.
pub(super) fn write(nft: &mut Nft, chain: ObjectRef<'_>) -> Result<(), HostError> {
    let rules = nft.rules(chain)?;
    if rules.is_empty() || verified(&rules).is_some() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for digest in rules.iter().filter(|rule| is_digest(rule)) {
        batch.delete_rule(chain, digest.handle);
    }
    batch.append_note(
        chain,
        Note::Counter,
        &comment_of(rules.iter().filter(|rule| !is_digest(rule))),
    );
    nft.commit(batch)
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

    #[test]
    fn a_digest_fits_no_other_rules() {
        let rules = vec![rule("a", b"drop"), rule("b", b"accept")];
        let digest = rule(&comment_of(rules.iter()), b"counter");
        let with_digest = |mut rules: Vec<Rule>| {
            rules.push(digest.clone());
            holds(&rules, ["a", "b"].into_iter())
        };
        assert!(with_digest(rules.clone()));
        assert!(!holds(&rules, ["a", "b"].into_iter()), "no digest");
        assert!(!with_digest(vec![
            rule("a", b"accept"),
            rule("b", b"accept")
        ]));
        assert!(!with_digest(vec![rule("b", b"accept"), rule("a", b"drop")]));
        assert!(!with_digest(vec![rule("a", b"drop")]));
        assert!(!with_digest(Vec::new()));
        // What one part loses, the next one does not make up for.
        assert!(!with_digest(vec![rule("ad", b"rop"), rule("b", b"accept")]));
        let mut twice = rules;
        twice.extend([digest.clone(), digest]);
        assert!(verified(&twice).is_none());
    }
}
