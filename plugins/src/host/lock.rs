//! One change of what containers share at a time.
//!
//! What cannot be done in one transaction of the kernel, such as looking at rules with one program and changing them
//! with another, is done by one process of ours at a time. Others who change the same tables don't know of the lock.
//!
//! A lock is flock(2) on a file in a directory that only root can open: anybody may lock a file that he can read, a sysctl
//! among them, and would keep every container waiting. The file's name has the device and inode of the network namespace, so
//! each has locks of its own. The kernel lets go of a lock when its process ends, however that ends.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use ipam::flock::{self, Kind, Outcome};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::host::{HostError, NetNs};

/// Where the locks are. It goes with a restart of the machine, as what they guard does.
const DIR: &str = "/run/cni/trestle";

/// What is locked where [`DIR`] can't be made or written to, so that a full or read-only `/run` keeps no container from
/// being removed: a file of every network namespace that none but its administrator can open.
const INSTEAD: &str = "/proc/sys/net/ipv4/tcp_fastopen_key";

/// A lock, held until this is dropped.
#[derive(Debug)]
#[must_use = "the lock goes when this is dropped"]
pub struct Lock {
    _file: File,
}

/// A thing that several processes change.
#[derive(Debug, Clone, Copy)]
enum Thing {
    /// The rules of the packet filter.
    Rules,
    /// Whether 127.0.0.1 may leave and enter by an interface, and for whom.
    Localnet,
    /// Which tables of policy routing the containers use.
    Routing,
}

impl Thing {
    /// What it is called in errors.
    fn name(self) -> &'static str {
        match self {
            Self::Rules => "the firewall's rules",
            Self::Localnet => "route_localnet",
            Self::Routing => "the containers' routing tables",
        }
    }

    /// The name of the lock's file in this network namespace.
    fn file_name(self, (device, inode): (u64, u64)) -> String {
        let name = match self {
            Self::Rules => "rules",
            Self::Localnet => "localnet",
            Self::Routing => "routing",
        };
        format!("{name}-{device}-{inode}.lock")
    }

    fn failed(
        self,
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> HostError + use<> {
        let operation = format!("lock {}: {operation} {}", self.name(), path.display());
        move |source| HostError::System { operation, source }
    }
}

/// Waits until no other process of ours has the lock of the rules, in the calling thread's network namespace, and holds it
/// until the returned value is dropped. Not to be taken twice by one process, nor with [`take_localnet`].
///
/// # Errors
/// [`HostError::Locked`] after a minute; what the system says, as where /proc is not mounted or the directory is not ours.
pub fn take() -> Result<Lock, HostError> {
    acquire(Path::new(DIR), Thing::Rules, Kind::Exclusive, flock::LIMIT)
}

/// The same beside others who share it: for those who only add what is their own.
///
/// # Errors
/// As [`take`].
pub fn share() -> Result<Lock, HostError> {
    acquire(Path::new(DIR), Thing::Rules, Kind::Shared, flock::LIMIT)
}

/// The lock for those who switch `route_localnet`, or look whether they should.
///
/// # Errors
/// As [`take`].
pub fn take_localnet() -> Result<Lock, HostError> {
    acquire(
        Path::new(DIR),
        Thing::Localnet,
        Kind::Exclusive,
        flock::LIMIT,
    )
}

/// The lock for those who choose a routing table in a container.
///
/// # Errors
/// As [`take`].
pub fn take_routing() -> Result<Lock, HostError> {
    acquire(
        Path::new(DIR),
        Thing::Routing,
        Kind::Exclusive,
        flock::LIMIT,
    )
}

fn acquire(dir: &Path, thing: Thing, kind: Kind, limit: Duration) -> Result<Lock, HostError> {
    let own = NetNs::current_id().map_err(|source| HostError::System {
        operation: format!("lock {}: look at the network namespace", thing.name()),
        source,
    })?;
    let path = dir.join(thing.file_name(own));
    let file = match open(dir, thing, &path) {
        Err(error) if error.errno().is_some_and(no_place) => {
            File::open(INSTEAD).map_err(|_| error)?
        }
        opened => opened?,
    };
    match flock::lock(&file, kind, limit).map_err(thing.failed("lock", &path))? {
        Outcome::Locked => Ok(Lock { _file: file }),
        Outcome::Held(holder) => Err(HostError::Locked {
            what: thing.name(),
            path,
            waited: limit,
            holder: holder.map(|holder| holder.to_string()),
        }),
    }
}

/// Whether nothing can be made in a place, whoever asks.
fn no_place(errno: Errno) -> bool {
    matches!(errno, Errno::EROFS | Errno::ENOSPC | Errno::EDQUOT)
}

/// The lock's file, which is made where it is missing.
fn open(dir: &Path, thing: Thing, path: &Path) -> Result<File, HostError> {
    let dir = open_dir(dir, thing)?;
    let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let name = path.file_name().unwrap_or_default();
    let opened = openat(dir.as_fd(), name, flags, Mode::from_bits_truncate(0o600));
    let opened = opened.map_err(|errno| thing.failed("open", path)(errno.into()))?;
    Ok(opened.into())
}

/// The directory, which is made where it is missing. It is never one that a symbolic link or another user put there.
fn open_dir(dir: &Path, thing: Thing) -> Result<File, HostError> {
    let open = || {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut options = File::options();
        options.read(true).custom_flags(flags.bits()).open(dir)
    };
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(dir);
            made.map_err(thing.failed("create directory", dir))?;
            open()
        }
        opened => opened,
    };
    let opened = opened.map_err(thing.failed("open directory", dir))?;
    let found = opened
        .metadata()
        .map_err(thing.failed("look at directory", dir))?;
    if !is_mine(&found) {
        return Err(HostError::Foreign {
            operation: format!("lock {}: use directory {}", thing.name(), dir.display()),
            uid: found.uid(),
        });
    }
    if found.mode() & 0o077 != 0 {
        let closed = opened.set_permissions(Permissions::from_mode(0o700));
        closed.map_err(thing.failed("change the mode of directory", dir))?;
    }
    Ok(opened)
}

fn is_mine(found: &Metadata) -> bool {
    found.uid() == geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn acquire_in(dir: &Path, thing: Thing) -> Result<Lock, HostError> {
        acquire(dir, thing, Kind::Exclusive, SHORT)
    }

    #[test]
    fn only_the_owner_can_open_what_is_locked() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("cni/trestle");
        drop(acquire_in(&dir, Thing::Rules).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        let files: Vec<_> = fs::read_dir(&dir).unwrap().collect();
        assert_eq!(files.len(), 1);
        assert_eq!(mode(&files[0].as_ref().unwrap().path()), 0o600);
        // One that somebody opened to everybody is closed again.
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        drop(acquire_in(&dir, Thing::Rules).unwrap());
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_lock_that_stays_held_ends_the_wait_and_names_the_holder() {
        let temp = tempfile::tempdir().unwrap();
        let held = acquire_in(temp.path(), Thing::Rules).unwrap();
        let error = acquire_in(temp.path(), Thing::Rules)
            .unwrap_err()
            .to_string();
        let holder = format!("process {} (", std::process::id());
        assert!(error.contains(&holder), "{error}");
        assert!(error.contains("the firewall's rules"), "{error}");
        drop(acquire_in(temp.path(), Thing::Localnet).unwrap());
        drop(held);
        drop(acquire_in(temp.path(), Thing::Rules).unwrap());
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (outside, dir) = (temp.path().join("outside"), temp.path().join("dir"));
        fs::create_dir(&outside).unwrap();
        symlink(&outside, &dir).unwrap();
        let error = acquire_in(&dir, Thing::Rules).unwrap_err().to_string();
        assert!(error.contains("open directory"), "{error}");
        fs::remove_file(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        let name = Thing::Rules.file_name(NetNs::current_id().unwrap());
        symlink(outside.join("file"), dir.join(name)).unwrap();
        acquire_in(&dir, Thing::Rules).unwrap_err();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
