//! What happens in a sequence, as data: each step has a seed of its own, so that leaving out one changes no other.

use crate::random::Random;

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// The whole list, as a runtime does it, with a result that becomes the next plugin's `prevResult`.
    Add,
    /// The same, one plugin's configuration spoilt.
    AddSpoilt,
    /// The same with a strange variable in the environment.
    AddStrangely,
    /// One plugin alone with a `prevResult` that is none of its chain.
    AddAfterLies,
    /// One plugin with bytes that are no configuration, and any verb.
    Bytes,
    /// The whole list, one plugin being killed at one of its system calls.
    AddKilled,
    Check,
    /// CHECK with a spoilt result or a spoilt configuration.
    CheckLies,
    Del,
    /// DEL with a spoilt result, configuration or environment.
    DelLies,
    DelKilled,
    /// GC that names everybody who lives.
    Gc,
    /// GC whose list of who lives is of a wrong type.
    GcSpoilt,
    Status,
    /// ADD and DEL of the same attachment at the same time.
    Race,
    /// The container does something in its namespace.
    Container,
    /// Somebody does something to the host's rules.
    Host,
    /// Something happens to a file of the plugins.
    File,
    /// The namespace goes, and its path with it.
    Vanish,
}

/// Deeds, those that come more often several times.
const DEEDS: &[Deed] = &[
    Deed::Add,
    Deed::Add,
    Deed::Add,
    Deed::AddSpoilt,
    Deed::AddSpoilt,
    Deed::AddSpoilt,
    Deed::AddStrangely,
    Deed::AddAfterLies,
    Deed::Bytes,
    Deed::AddKilled,
    Deed::Check,
    Deed::CheckLies,
    Deed::Del,
    Deed::Del,
    Deed::DelLies,
    Deed::DelKilled,
    Deed::Gc,
    Deed::GcSpoilt,
    Deed::Status,
    Deed::Race,
    Deed::Container,
    Deed::Container,
    Deed::Container,
    Deed::Host,
    Deed::Host,
    Deed::File,
    Deed::File,
    Deed::Vanish,
];

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) deed: Deed,
    pub(super) seed: u64,
}

/// The steps of a sequence: one that works, mostly, and up to eight others.
pub(super) fn steps(random: &mut Random) -> Vec<Step> {
    let count = 1 + random.below(8);
    let first = if random.one_in(3) {
        random.pick(DEEDS)
    } else {
        Deed::Add
    };
    let mut deeds = vec![first];
    deeds.extend((0..count).map(|_| random.pick(DEEDS)));
    deeds
        .into_iter()
        .map(|deed| Step {
            deed,
            seed: random.number(),
        })
        .collect()
}
