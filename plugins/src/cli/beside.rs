//! Temporary files beside what `trestle install` writes.
//!
//! Their names are ones that no runtime takes for a plugin or a configuration, and that nobody else has: another install may be
//! at work, in a container where its process ID is the same. An install that was killed leaves its own behind. Every install
//! shares a lock of the directory while it works, so who gets it alone knows that whatever lies there is of the dead.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How the names of temporary files end.
const EXTENSION: &str = ".tmp";

/// Digits of the random number in a name.
const DIGITS: usize = 16;

/// How many names are tried for a temporary file; a second one is needed once in 2^64 times.
const ATTEMPTS: u32 = 10;

/// How often, and how long each time, an install waits for another one to look for leftovers. Anybody who can read the
/// directory can lock it; then the leftovers stay, and this install goes on.
const PATIENCE: (u32, Duration) = (20, Duration::from_millis(50));

/// Makes something with `make` under a temporary name beside `path`.
pub(super) fn make<T>(
    path: &Path,
    make: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut attempt = 0;
    loop {
        attempt += 1;
        // Each has keys of its own, which the kernel's random numbers are in.
        let random = RandomState::new().build_hasher().finish();
        let temporary = path.with_file_name(format!(".{name}.{random:0DIGITS$x}{EXTENSION}"));
        match make(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {}
            made => return made.map(|made| (temporary, made)),
        }
    }
}

/// A directory that an install works in.
#[must_use = "others take its temporary files for leftovers when this is dropped"]
pub(super) struct InUse {
    _lock: Option<Flock<File>>,
}

/// Removes the temporary files of `names` that installs left which were killed, unless another install is at work, and keeps
/// others from doing so until the returned value is dropped. What can't be removed stays: it does no harm.
pub(super) fn enter(dir: &Path, names: &[&str]) -> InUse {
    let open = || File::open(dir).ok();
    let alone = open().and_then(|dir| Flock::lock(dir, FlockArg::LockExclusiveNonblock).ok());
    if alone.is_some() {
        remove_leftovers(dir, names);
    }
    drop(alone);
    InUse {
        _lock: open().and_then(share),
    }
}

fn share(mut dir: File) -> Option<Flock<File>> {
    let (times, pause) = PATIENCE;
    for _ in 0..times {
        match Flock::lock(dir, FlockArg::LockSharedNonblock) {
            Ok(lock) => return Some(lock),
            Err((same, Errno::EWOULDBLOCK)) => dir = same,
            Err(_) => return None,
        }
        thread::sleep(pause);
    }
    None
}

fn remove_leftovers(dir: &Path, names: &[&str]) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let of = file.to_str().and_then(name_of);
        if of.is_some_and(|of| names.contains(&of)) {
            // A directory of that name is nobody's leftover, and is not removed by this.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What a temporary file was to become.
fn name_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix('.')?.strip_suffix(EXTENSION)?;
    let (name, random) = rest.rsplit_once('.')?;
    let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    (random.len() == DIGITS && random.bytes().all(digits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_tells_what_it_was_to_become() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bridge", "10-trestle.conflist"] {
            let (path, ()) = make(&dir.path().join(name), |path| fs::write(path, "")).unwrap();
            let file = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(name_of(file), Some(name));
        }
        for other in [
            "bridge",
            ".bridge.tmp",
            ".bridge.0123456789abcde.tmp",
            ".bridge.0123456789abcdeg.tmp",
            ".bridge.0123456789ABCDEF.tmp",
            ".bridge.0123456789abcdef.tmpx",
            "bridge.0123456789abcdef.tmp",
        ] {
            assert_eq!(name_of(other), None, "{other}");
        }
    }
}
