//! Whole rulesets: a transaction in the vocabulary of the `nftables` crate, carried out by `nft`.

use nftables::batch::Batch;
use nftables::helper::{self, NftablesError};

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
    let program = NFT.find(purpose)?;
    let ruleset = batch.to_nftables();
    helper::apply_ruleset_with_args(&ruleset, Some(&program), helper::DEFAULT_ARGS)
        .map_err(|error| explain(purpose, error))
}

fn explain(purpose: &str, error: NftablesError) -> HostError {
    let operation = purpose.to_owned();
    let failed = |complaint| HostError::ProgramFailed {
        operation,
        program: NFT.name,
        complaint,
    };
    match error {
        NftablesError::NftExecution { inner, .. } => HostError::System {
            operation: format!("{purpose}: run nft"),
            source: inner,
        },
        NftablesError::NftFailed { stderr, .. } => failed(stderr.trim().to_owned()),
        NftablesError::NftOutputEncoding { .. } => failed("its output is not text".to_owned()),
        NftablesError::NftInvalidJson(error) => {
            failed(format!("its output is not understood: {error}"))
        }
    }
}
