//! The lock of a network: flock(2) on the file `lock` in its directory, as the Go plugin takes it.
//!
//! The Go plugin waits for ever. Here the wait ends with an error that names the holder, so that a process that hangs does
//! not hang everything after it.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::dir::Dir;
use crate::error::Error;
use crate::flock::{self, Kind, Outcome};

/// Name of the lock file.
const NAME: &str = "lock";

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
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
        let left = limit.saturating_sub(begin.elapsed());
        match flock::lock(&file, Kind::Exclusive, left).map_err(dir.error("lock", NAME))? {
            Outcome::Locked => {}
            Outcome::Held(holder) => {
                return Err(Error::Locked {
                    path: dir.path_of(NAME),
                    waited: limit,
                    holder,
                });
            }
        }
        let found = file.metadata().map_err(dir.error("look at", NAME))?;
        // A lock file that was removed meanwhile guards nothing: others lock its successor.
        if found.nlink() > 0 {
            if found.is_file() {
                keep_private(&file, found.mode());
            }
            return Ok(Some(Lock { _file: file }));
        }
    }
}

/// Whoever can open the file can keep everybody waiting. The Go plugin makes it readable for a group, and people copy or
/// restore files with other modes.
fn keep_private(file: &File, mode: u32) {
    if mode & 0o077 != 0 {
        // Without it the lock is as good as before.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
}

fn open(dir: &Dir) -> Result<Option<File>, Error> {
    match dir.open_file(NAME) {
        // A file that is open for reading can be locked as well.
        Err(Errno::EROFS) => dir.open_existing(NAME).map(Some),
        // Where no file can be made, nobody has one to lock: DEL must be able to make room.
        Err(Errno::ENOSPC | Errno::EDQUOT) => dir.open_existing(".").map(Some),
        Err(Errno::ENOENT) => Ok(None),
        opened => opened.map(Some),
    }
    .map_err(|errno| dir.error("open", NAME)(errno.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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

    #[test]
    fn a_lock_file_that_anybody_can_open_is_made_private() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let dir = Dir::open(temp.path()).unwrap().unwrap();
        acquire(&dir, Duration::ZERO).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
