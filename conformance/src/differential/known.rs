//! The ways in which we mean to differ. Reasons are in `docs/differences.md`.

use super::{Difference, Fact, Maker};

/// The differences that scenarios may expect.
pub const KNOWN: &[Difference] = &[
    Difference {
        name: "own-error-codes",
        covers: |_, fact| fact.place == "answer" && fact.what.contains(" failed code="),
    },
    Difference {
        name: "alias-on-the-host-end",
        covers: |maker, fact| maker == Maker::Ours && fact.what.contains(" ifalias=trestle:"),
    },
];

/// The difference of that name.
///
/// # Panics
/// When there is none.
pub fn find(name: &str) -> &'static Difference {
    let found = KNOWN.iter().find(|difference| difference.name == name);
    found.unwrap_or_else(|| panic!("no difference is called {name}"))
}

/// Whether a fact is of that kind: `link`, `addr`, `route`, `sysctl`, `file`, `nft` …
fn is(fact: &Fact, kind: &str) -> bool {
    let what = fact.what.trim_start_matches(['+', '-', ' ']);
    what.split(' ').next() == Some(kind)
}
