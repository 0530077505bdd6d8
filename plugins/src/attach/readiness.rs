//! What STATUS says, and of what it only warns.
//!
//! A kubelet that hears "not ready" sends the node no pods, and starts no container of those that are there again. So STATUS
//! fails only if no ADD can succeed, and that stays so until somebody repairs the node or the configuration.

use cni_conf::diagnostics::warn;
use cni_conf::error::{Code, Error};

use crate::host::HostError;
use crate::host::nft::{Nft, ruleset};
use crate::host::program::Program;
use crate::netfilter::table::TABLE;

/// A program that every ADD needs.
///
/// # Errors
/// [`Code::NotAvailable`] where it is missing.
pub fn require(program: Program, purpose: &str) -> Result<(), Error> {
    program.find(purpose).map(drop).map_err(|error| Error {
        code: Code::NotAvailable,
        ..error.into()
    })
}

/// `nft`, which makes rules that then stay: where there are some of ours it is missed by nobody as yet.
///
/// # Errors
/// [`Code::NotAvailable`] where it is missing and the first ADD needs it.
pub fn require_nft(purpose: &str) -> Result<(), Error> {
    match require(ruleset::NFT, purpose) {
        Err(error) if rules_stand().unwrap_or(false) => {
            warn(format_args!(
                "{error}; containers get rules that are there already, until they are flushed"
            ));
            Ok(())
        }
        outcome => outcome,
    }
}

fn rules_stand() -> Result<bool, HostError> {
    Ok(!Nft::open()?.chains(Some(TABLE))?.is_empty())
}

/// STATUS's answer from what was tried: what passes by itself, such as a service that does not answer in time, is a warning.
///
/// # Errors
/// [`Code::NotAvailable`] with everything else.
pub fn judge(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.code == Code::TryAgainLater => {
            warn(error);
            Ok(())
        }
        outcome => outcome.map_err(|error| Error {
            code: Code::NotAvailable,
            ..error
        }),
    }
}
