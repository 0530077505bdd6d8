//! What this process inherited: where its answers go, and what it may write.

use std::io;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{fstat, major, minor};

/// Device numbers of /dev/null.
const NULL: (u64, u64) = (1, 3);

/// Whether standard output was closed when this process was started.
///
/// The standard library opens /dev/null in its place, for reading and writing, so that no other file gets its number. Who sends
/// it there on purpose opens it for writing only.
pub fn stdout_was_closed() -> bool {
    let stdout = io::stdout();
    // The mode first: it answers for the pipe of a runtime.
    let mode = fcntl(&stdout, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    match mode {
        Ok(mode) if mode & OFlag::O_ACCMODE == OFlag::O_RDWR => {
            fstat(&stdout).map_or(true, |found| {
                (major(found.st_rdev), minor(found.st_rdev)) == NULL
                    && found.st_mode & libc::S_IFMT == libc::S_IFCHR
            })
        }
        Ok(_) => false,
        Err(_) => true,
    }
}

/// Has a write beyond the limit for the size of files (RLIMIT_FSIZE) fail, as on a full disk, instead of killing this process
/// between two steps.
#[expect(unsafe_code, reason = "setting what a signal does has no safe wrapper")]
pub fn outlive_file_size_limit() {
    // SAFETY: no handler of ours is installed, the signal is ignored.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}
