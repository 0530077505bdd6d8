//! Whole rulesets: a transaction in the vocabulary of the `nftables` crate, carried out by `nft`.

use nftables::batch::Batch;

use crate::host::HostError;
use crate::host::program::Program;

/// The program that turns rules into what the kernel runs.
pub const NFT: Program = Program {
    name: "nft",
    remedy: "Install the package nftables (Debian, Ubuntu, Fedora, RHEL, SUSE, Alpine, Arch: all call it so).",
};

/// Applies `batch` in one transaction in the calling thread's network namespace; `purpose` says what for.
///
/// # Errors
/// [`HostError::ProgramMissing`] without `nft`; [`HostError::ProgramFailed`] with its complaint when the
/// ruleset is refused, in which case nothing has changed.
pub fn apply(purpose: &str, batch: Batch<'_>) -> Result<(), HostError> {
    let ruleset = serde_json::to_string(&batch.to_nftables());
    let ruleset = ruleset.map_err(|error| HostError::System {
        operation: format!("{purpose}: write the ruleset"),
        source: error.into(),
    })?;
    NFT.run(purpose, ["-j", "-f", "-"], &ruleset).map(drop)
}
