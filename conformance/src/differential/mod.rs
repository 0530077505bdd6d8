//! The same calls to two makers' plugins, each on a host of its own, and what came out of it compared.
//!
//! A scenario is a function that is run twice, once on each [`Side`]. What it does there is written down as
//! [`Fact`]s: results and errors, what each call changed in the kernel and in files, what traffic did. Facts are
//! neutral: random names and MAC addresses have been replaced, what comes and goes by itself left out. A fact that
//! one side alone has must be covered by a [`Difference`] that the scenario expects by name, and every difference
//! that it expects must show up; so neither a new difference nor one that has gone passes unnoticed.

mod facts;
mod known;
mod neutral;
mod side;

use std::collections::BTreeSet;
use std::fmt;

pub use known::{KNOWN, find};
pub use side::{Side, chained};

use crate::lab::{Lab, Subject};

/// Whose plugins a side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Implementation {
    /// The subject of the tests.
    Ours,
    /// The Go reference plugins.
    Go,
}

/// Something that was seen on one side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// At which step of the scenario.
    pub step: String,
    /// Where: `host`, the name of a pod, or `answer` for what a plugin said.
    pub place: String,
    /// What; a change of the place starts with `+` or `-`.
    pub what: String,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}: {}", self.step, self.place, self.what)
    }
}

/// A way in which we mean to differ from the Go plugins; the reason is in `docs/differences.md` under that name.
pub struct Difference {
    /// The heading there.
    pub name: &'static str,
    /// Whether this is why one side alone has the fact.
    pub covers: fn(Implementation, &Fact) -> bool,
}

/// Run a scenario on both sides and compare. Each text of `seen` is a part of a fact that both sides must have.
///
/// # Panics
/// When the sides differ in what is not expected, or not in what is, or when one hasn't what both must have.
pub fn compare(lab: &Lab, expected: &[&str], seen: &[&str], scenario: impl Fn(&Side)) {
    let run = |maker, bin| {
        let side = Side::new(maker, bin);
        scenario(&side);
        side.into_facts()
    };
    let go = run(Implementation::Go, lab.go_plugins());
    let ours = run(Implementation::Ours, lab.bin().to_owned());
    judge(lab, expected, &ours, &go);
    for (maker, facts) in [(Implementation::Ours, &ours), (Implementation::Go, &go)] {
        let facts: Vec<String> = facts.iter().map(Fact::to_string).collect();
        for text in seen {
            assert!(
                facts.iter().any(|fact| fact.contains(text)),
                "{maker:?} should show {text:?}, but shows:\n{}",
                facts.join("\n")
            );
        }
    }
}

fn judge(lab: &Lab, expected: &[&str], ours: &BTreeSet<Fact>, go: &BTreeSet<Fact>) {
    let only_ours = ours.difference(go).map(|fact| (Implementation::Ours, fact));
    let only_go = go.difference(ours).map(|fact| (Implementation::Go, fact));
    let mut unseen: BTreeSet<&str> = expected.iter().copied().collect();
    let mut unexpected = Vec::new();
    for (maker, fact) in only_ours.chain(only_go) {
        let reason = expected
            .iter()
            .find(|name| (find(name).covers)(maker, fact));
        match reason {
            Some(name) => {
                unseen.remove(name);
            }
            None => unexpected.push(format!("only {maker:?}: {fact}")),
        }
    }
    // The Go plugins beside themselves have no reason to differ.
    if lab.subject == Subject::Go {
        unseen.clear();
    }
    assert!(
        unexpected.is_empty() && unseen.is_empty(),
        "differences that are in no list:\n{}\nexpected, but not seen: {unseen:?}",
        unexpected.join("\n")
    );
}
