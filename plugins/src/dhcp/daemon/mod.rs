//! `dhcp daemon`: holds leases, and extends them for as long as their containers live.
//!
//! One thread does everything: it waits for whatever comes first, a plugin, a server's message or the time of a lease. A lease
//! that is not being asked for costs some memory and a file, but neither a thread nor a descriptor.

mod clock;
mod door;
mod flags;
mod serve;
mod task;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::process::ExitCode;

use ipam::flock;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::door::Door;
use self::flags::Flags;
use self::serve::Daemon;
use super::store::Store;

/// Runs until a signal ends it. `arguments` are those behind `daemon`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::read(arguments) {
        Ok(flags) => flags,
        Err(None) => {
            eprint!("{}", flags::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(Some(problem)) => {
            eprintln!("dhcp daemon: {problem}\n{}", flags::USAGE);
            return ExitCode::from(2);
        }
    };
    match serve(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log(format_args!("{problem}"));
            ExitCode::FAILURE
        }
    }
}

/// The time that leases go by.
pub(super) fn now() -> super::machine::Millis {
    clock::now()
}

/// A line of the log, which is stderr.
fn log(message: std::fmt::Arguments<'_>) {
    eprintln!("dhcp daemon: {message}");
}

fn serve(flags: Flags) -> Result<(), String> {
    let store = Store::at(&flags.state);
    let state = flags.state.display();
    let lock = store
        .lock_file()
        .map_err(|error| format!("use {state}: {error}"))?;
    match flock::lock(&lock, flock::Kind::Exclusive, std::time::Duration::ZERO) {
        Ok(flock::Outcome::Locked) => {}
        Ok(flock::Outcome::Held(holder)) => {
            let holder = holder.map(|holder| format!(": {holder}"));
            return Err(format!(
                "another daemon keeps its leases in {state}{}",
                holder.unwrap_or_default()
            ));
        }
        Err(error) => return Err(format!("lock {state}: {error}")),
    }
    let signals = signals().map_err(|error| format!("wait for signals: {error}"))?;
    let door = Door::open(&flags.socket)
        .map_err(|error| format!("listen at {}: {error}", flags.socket.display()))?;
    if let Some(path) = &flags.pidfile {
        fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    let pidfile = flags.pidfile.clone();
    // Leases are read when the door is open: who comes meanwhile waits.
    let outcome = Daemon::new(flags, store, door, signals).and_then(Daemon::run);
    if let Some(path) = pidfile {
        let _ = fs::remove_file(path);
    }
    outcome
}

fn signals() -> io::Result<SignalFd> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block()?;
    Ok(SignalFd::with_flags(
        &ends,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}
