//! flock(2) with a limit, and who holds what is waited for.
//!
//! Whoever can open a file, if only for reading, can lock it and keep everybody else waiting. So what is locked must be a
//! file that only root can open, and no wait is without end. The kernel tells the holder in /proc/locks.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fs2::FileExt;
use nix::sys::stat::{major, minor};

/// How long a process waits for a lock. Runtimes give up on a plugin after about two minutes.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Whether a lock is held alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Alone.
    Exclusive,
    /// Beside others who share it.
    Shared,
}

/// How the wait for a lock ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is held until the open file is closed.
    Locked,
    /// Somebody else, known or not, has held it for all the time.
    Held(Option<Holder>),
}

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// Its name; `None` if it has ended and left the open file to a child.
    pub name: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "process {} ({name})", self.pid),
            None => write!(
                f,
                "process {} (ended; a child of it keeps the file open)",
                self.pid
            ),
        }
    }
}

/// Locks an open file, waiting for at most `limit`.
///
/// It waits in the kernel, which wakes whoever is next at once. flock(2) knows no limit, so another thread does the
/// waiting; should that get the lock after the limit, it lets go of it again by ending.
///
/// # Errors
/// The kernel's.
pub fn lock(file: &File, kind: Kind, limit: Duration) -> io::Result<Outcome> {
    let attempt = match kind {
        Kind::Exclusive => retry_interrupted(|| FileExt::try_lock_exclusive(file)),
        Kind::Shared => retry_interrupted(|| FileExt::try_lock_shared(file)),
    };
    match attempt {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        outcome => return outcome.map(|()| Outcome::Locked),
    }
    let same = file.try_clone()?;
    let (sender, outcome) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        let locked = retry_interrupted(|| match kind {
            Kind::Exclusive => FileExt::lock_exclusive(&same),
            Kind::Shared => FileExt::lock_shared(&same),
        });
        // Nobody listens any more when the limit has passed.
        let _ = sender.send(locked);
    })?;
    match outcome.recv_timeout(limit) {
        Ok(locked) => locked.map(|()| Outcome::Locked),
        Err(_) => Ok(Outcome::Held(find_holder(file))),
    }
}

fn retry_interrupted(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn find_holder(file: &File) -> Option<Holder> {
    let found = file.metadata().ok()?;
    let device = format!("{:02x}:{:02x}", major(found.dev()), minor(found.dev()));
    let pid = parse_locks(
        &fs::read_to_string("/proc/locks").ok()?,
        &device,
        found.ino(),
    )?;
    let name = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).ok();
    Some(Holder {
        pid,
        name: name.map(|name| name.trim_end().to_owned()),
    })
}

/// The process that holds an flock on the file with this inode number, from the text of /proc/locks.
///
/// One on this device comes first, but what stat(2) reports differs from the lock's on btrfs and overlayfs, and the
/// answer is only told to a person: else it is one on another device.
fn parse_locks(locks: &str, device: &str, inode: u64) -> Option<u32> {
    let held = |line: &str| {
        // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; a waiting process has "->" after the number.
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
        let (on, number) = words.next()?.rsplit_once(':')?;
        (number.parse() == Ok(inode)).then_some((on == device, pid))
    };
    let found: Vec<(bool, u32)> = locks.lines().filter_map(held).collect();
    let same = found.iter().find(|(same_device, _)| *same_device);
    same.or(found.first()).map(|(_, pid)| *pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_waiting_and_other_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:7 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:8 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 15 00:1a:7 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 13 fe:00:7 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 14 fe:00:7 0 EOF\n";
        assert_eq!(parse_locks(locks, "fe:00", 7), Some(13));
        assert_eq!(parse_locks(locks, "00:1a", 7), Some(15));
        assert_eq!(parse_locks(locks, "00:2b", 8), Some(12));
        assert_eq!(parse_locks(locks, "fe:00", 9), None);
        assert_eq!(
            parse_locks("nonsense\n\n1: FLOCK\n1: FLOCK a b 1 7", "", 7),
            None
        );
    }

    #[test]
    fn a_lock_that_is_shared_keeps_out_only_who_wants_it_alone() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(temp.path()).unwrap();
        let (first, second) = (open(), open());
        let short = Duration::from_millis(20);
        let shared = |file: &File| lock(file, Kind::Shared, short).unwrap();
        assert_eq!(shared(&first), Outcome::Locked);
        assert_eq!(shared(&second), Outcome::Locked);
        let Outcome::Held(Some(holder)) = lock(&open(), Kind::Exclusive, short).unwrap() else {
            panic!("the lock is held")
        };
        assert_eq!(holder.pid, std::process::id());
        drop((first, second));
        let alone = lock(&open(), Kind::Exclusive, Duration::from_secs(60)).unwrap();
        assert_eq!(alone, Outcome::Locked);
    }
}
