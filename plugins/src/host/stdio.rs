//! What this process inherited: what it may write.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has a write beyond the limit for the size of files (RLIMIT_FSIZE) fail, as on a full disk, instead of killing this process
/// between two steps.
#[expect(unsafe_code, reason = "setting what a signal does has no safe wrapper")]
pub fn ignore_file_size_limit() {
    // SAFETY: no handler of ours is installed, the signal is ignored.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}
