//! Whole rulesets: a transaction in the vocabulary of libnftables-json(5), carried out by `nft`.

use serde::Serialize;

use crate::host::HostError;
use crate::host::program::Program;

/// The program that turns rules into what the kernel runs.
pub const NFT: Program = Program {
    name: "nft",
    remedy: "Install the package nftables (Debian, Ubuntu, Fedora, RHEL, SUSE, Alpine, Arch: all call it so).",
};

/// A ruleset as `nft` reads it.
#[derive(Serialize)]
struct Ruleset<'a, T> {
    nftables: &'a [T],
}

/// Carries `commands` out in one transaction in the calling thread's network namespace; `purpose` says what for.
///
/// # Errors
/// [`HostError::ProgramMissing`] without `nft`; [`HostError::ProgramFailed`] with its complaint when the
/// ruleset is refused, in which case nothing has changed.
pub fn apply<T: Serialize>(purpose: &str, commands: &[T]) -> Result<(), HostError> {
    let ruleset = serde_json::to_string(&Ruleset { nftables: commands });
    let ruleset = ruleset.map_err(|error| HostError::System {
        operation: format!("{purpose}: write the ruleset"),
        source: error.into(),
    })?;
    NFT.run(purpose, ["-j", "-f", "-"], &ruleset).map(drop)
}
