//! What happens in a sequence, as data: each step has a seed of its own, so that leaving out one changes no other.

use crate::random::Random;

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
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
const ACTIONS: &[Action] = &[
    Action::Add,
    Action::Add,
    Action::Add,
    Action::AddSpoilt,
    Action::AddSpoilt,
    Action::AddSpoilt,
    Action::AddStrangely,
    Action::AddAfterLies,
    Action::Bytes,
    Action::AddKilled,
    Action::Check,
    Action::CheckLies,
    Action::Del,
    Action::Del,
    Action::DelLies,
    Action::DelKilled,
    Action::Gc,
    Action::GcSpoilt,
    Action::Status,
    Action::Race,
    Action::Container,
    Action::Container,
    Action::Container,
    Action::Host,
    Action::Host,
    Action::File,
    Action::File,
    Action::Vanish,
];

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) deed: Action,
    pub(super) seed: u64,
}

/// The steps of a sequence: one that works, mostly, and up to eight others.
pub(super) fn steps(random: &mut Random) -> Vec<Step> {
    let count = 1 + random.below(8);
    let first = if random.one_in(3) {
        random.pick(ACTIONS)
    } else {
        Action::Add
    };
    let mut deeds = vec![first];
    deeds.extend((0..count).map(|_| random.pick(ACTIONS)));
    deeds
        .into_iter()
        .map(|deed| Step {
            deed,
            seed: random.number(),
        })
        .collect()
}
