//! The lock of a network: flock(2) on the file `lock` in its directory, as the reference plugin takes it.
//!
//! The reference waits for ever. Here the wait ends with an error that names the holder, which the kernel tells
//! in /proc/locks, so that a process that hangs does not hang everything after it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fs2::FileExt;
use nix::errno::Errno;

use super::dir::Dir;
use crate::error::Error;

/// Name of the lock file.
const NAME: &str = "lock";

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
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

/// Takes the lock of the network whose directory this is, waiting for at most `limit`.
///
/// `None` if the directory itself has been removed while waiting.
pub(super) fn acquire(dir: &Dir, limit: Duration) -> Result<Option<Lock>, Error> {
    let begin = Instant::now();
    loop {
        let Some(file) = open(dir)? else {
            return Ok(None);
        };
        wait(&file, begin, limit).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::Locked {
                path: dir.path_of(NAME),
                waited: limit,
                holder: find_holder(&file),
            },
            _ => dir.error("lock", NAME)(source),
        })?;
        // A lock file that was removed meanwhile guards nothing: others lock its successor.
        let removed = file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        if !removed {
            return Ok(Some(Lock { _file: file }));
        }
    }
}

fn open(dir: &Dir) -> Result<Option<File>, Error> {
    match dir.open_file(NAME) {
        // A file that is open for reading can be locked as well.
        Err(Errno::EROFS) => dir.open_existing(NAME).map(Some),
        Err(Errno::ENOENT) => Ok(None),
        opened => opened.map(Some),
    }
    .map_err(|errno| dir.error("open", NAME)(errno.into()))
}

/// Waits in the kernel, which wakes whoever is next at once. flock(2) knows no limit, so another thread does the
/// waiting; should that get the lock after the limit, it lets go of it again by ending.
fn wait(file: &File, begin: Instant, limit: Duration) -> io::Result<()> {
    match uninterrupted(|| file.try_lock_exclusive()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        outcome => return outcome,
    }
    let same = file.try_clone()?;
    let (sender, outcome) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        // Nobody listens any more when the limit has passed.
        let _ = sender.send(uninterrupted(|| same.lock_exclusive()));
    })?;
    outcome
        .recv_timeout(limit.saturating_sub(begin.elapsed()))
        .unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))
}

fn uninterrupted(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn find_holder(file: &File) -> Option<Holder> {
    let inode = file.metadata().ok()?.ino();
    let pid = parse_locks(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    let name = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).ok();
    Some(Holder {
        pid,
        name: name.map(|name| name.trim_end().to_owned()),
    })
}

/// The process that holds an flock on the file with this inode number, from the text of /proc/locks.
///
/// The device is not compared: what stat(2) reports differs from the lock's on btrfs and overlayfs, and the answer
/// is only told to a person.
fn parse_locks(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; a waiting process has "->" after the number.
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
        let held = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (held == inode).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_waiting_and_other_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:7 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:8 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fe:00:7 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 fe:00:7 0 EOF\n";
        assert_eq!(parse_locks(locks, 7), Some(13));
        assert_eq!(parse_locks(locks, 9), None);
        assert_eq!(parse_locks("nonsense\n\n1: FLOCK", 7), None);
    }

    #[test]
    fn a_lock_that_stays_held_ends_the_wait_and_names_the_holder() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap().unwrap();
        let held = acquire(&dir, Duration::ZERO).unwrap().unwrap();
        let error = acquire(&dir, Duration::from_millis(20)).unwrap_err();
        let Error::Locked {
            holder: Some(holder),
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(holder.pid, std::process::id());
        assert!(
            error
                .to_string()
                .contains(&format!("process {} (", std::process::id()))
        );
        drop(held);
        assert!(acquire(&dir, Duration::ZERO).unwrap().is_some());
    }

    #[test]
    fn a_lock_file_that_is_a_symbolic_link_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        let inside = temp.path().join("net");
        fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("lock")).unwrap();
        let dir = Dir::open(&inside).unwrap().unwrap();
        let error = acquire(&dir, Duration::ZERO).unwrap_err();
        assert!(error.remedy().contains("symbolic link"), "{error}");
        assert!(!outside.exists());
    }
}
