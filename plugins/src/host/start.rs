//! The beginning and the end of the process.
//!
//! What the standard library does before `main`, less what is of no use to a process that lives for some milliseconds:
//! it reads /proc/self/maps and maps a stack for signal handlers, to put the overflow of the main thread's stack into
//! words (docs/decisions/own-main.md).

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::io::{self, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

use super::netlink::netfilter;

/// Whether standard output was closed when this process was started.
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when this process was started: nobody hears its answer. It leads to /dev/null
/// then.
pub fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

/// Does the work with the arguments that the C library gives its `main`, and returns the status that the process ends with.
/// Not every C library tells the standard library of them.
///
/// # Safety
/// `argv` leads to `argc` strings that end in a zero.
#[expect(unsafe_code, reason = "arguments come as pointers")]
pub unsafe fn run(
    argc: c_int,
    argv: *const *const c_char,
    work: impl FnOnce(Vec<OsString>) -> ExitCode,
) -> c_int {
    keep_standard_descriptors();
    ignore_broken_pipes();
    let argument = |number: usize| {
        // SAFETY: the caller says that there are so many strings.
        let text = unsafe { CStr::from_ptr(*argv.add(number)) };
        OsStr::from_bytes(text.to_bytes()).to_owned()
    };
    let status = work(
        (0..usize::try_from(argc).unwrap_or(0))
            .map(argument)
            .collect(),
    );
    // Nobody is left to be told of a failure.
    let _ = io::stdout().flush();
    netfilter::leave_to_kernel();
    number(status)
}

/// Opens /dev/null for each of the standard descriptors that is closed: otherwise the next file or socket would
/// become one of them, and what is meant for stdout would be written to it.
fn keep_standard_descriptors() {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
        .map(|descriptor| PollFd::new(descriptor, PollFlags::empty()));
    if poll(&mut standard, PollTimeout::ZERO).is_err() {
        return;
    }
    for (number, descriptor) in standard.iter().enumerate() {
        let closed = descriptor
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLNVAL));
        if closed {
            STDOUT_CLOSED.fetch_or(number == 1, Ordering::Relaxed);
            // It gets the lowest number that is free, which is this one.
            match open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
                Ok(file) => drop(file.into_raw_fd()),
                Err(_) => std::process::abort(),
            }
        }
    }
}

/// Writing to a pipe that nobody reads is an error then, and not the end of the process.
#[expect(unsafe_code, reason = "sigaction(2) may install a handler")]
fn ignore_broken_pipes() {
    // SAFETY: no handler is installed; the signal is ignored.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// The number of a status, which the standard library keeps to itself.
fn number(status: ExitCode) -> c_int {
    (0..=u8::MAX)
        .find(|number| ExitCode::from(*number) == status)
        .map_or(1, c_int::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_number() {
        for status in [0, 1, 2, 255] {
            assert_eq!(number(ExitCode::from(status)), c_int::from(status));
        }
    }
}
