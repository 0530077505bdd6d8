//! Leaving nothing behind, however a run ends.
//!
//! Hosts are namespaces that go with their last process, but files of the run and processes that it has started stay when it is
//! interrupted. So the benchmark is two processes: the first waits for signals and for the end of the second, which does
//! the work in a process group and with a directory for temporary files of its own.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Set for the one that does the work.
const SUPERVISED: &str = "TRESTLE_BENCH_SUPERVISED";

/// Starts the process that does the work and waits for its end, which is the status that is returned. Returns none in
/// that process.
///
/// # Errors
/// When it can't be started or waited for.
pub(crate) fn stand_by() -> Result<Option<ExitCode>, String> {
    let signals = signals();
    if env::var_os(SUPERVISED).is_some() {
        // It inherits the mask.
        let unblocked = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&signals), None);
        return unblocked.map(|()| None).map_err(|errno| errno.to_string());
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).map_err(|errno| errno.to_string())?;
    let failed = |error: io::Error| format!("start the benchmark's own process: {error}");
    let own = env::current_exe().map_err(failed)?;
    // On the file system of what is built, so that programs can be linked into it.
    let beside = own.parent().unwrap_or(Path::new("/tmp"));
    let temporary = TempDir::with_prefix_in("bench-", beside).map_err(failed)?;
    let child = Command::new(&own)
        .args(env::args_os().skip(1))
        .env(SUPERVISED, "1")
        .env("TMPDIR", temporary.path())
        .env("TRESTLE_INSTALL_DIR", temporary.path())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let child = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    let status = wait(&signals, child);
    // Whatever it had started.
    let _ = killpg(child, Signal::SIGKILL);
    status.map(Some)
}

/// What ends a run early, and what says that it has ended.
fn signals() -> SigSet {
    let signals = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ];
    signals.into_iter().collect()
}

fn wait(signals: &SigSet, child: Pid) -> Result<ExitCode, String> {
    loop {
        let signal = signals.wait().map_err(|errno| errno.to_string())?;
        if signal != Signal::SIGCHLD {
            end(child);
            // What a shell says of a process that a signal has ended.
            let number = u8::try_from(signal as i32).unwrap_or(0);
            return Ok(ExitCode::from(128 + number));
        }
        if let Some(status) = ended(child) {
            return Ok(match status {
                WaitStatus::Exited(_, 0) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            });
        }
    }
}

/// Kills the group and waits for its first process, with which the hosts go.
fn end(child: Pid) {
    let _ = killpg(child, Signal::SIGKILL);
    while ended(child).is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How the process ended; none while it runs. It stays a zombie, so that nobody else gets its number.
fn ended(child: Pid) -> Option<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(child), flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => None,
        Ok(status) => Some(status),
        Err(_) => Some(WaitStatus::Exited(child, 1)),
    }
}
