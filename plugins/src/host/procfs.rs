//! procfs, as it is mounted at /proc or by a mount of one's own.
//!
//! What is looked up below /proc stays in the kernel's cache of names. For the sysctls of network namespaces there is one
//! place in it for `/proc/sys/net/ipv4`, one for `ipv6` and so on, with an entry for each namespace in which somebody has
//! looked, and whoever looks again, for the host's own settings too, goes through all of them (`proc_sys_compare` in
//! fs/proc/proc_sysctl.c). Beside a thousand such containers that is up to a millisecond for each look-up. A mount of one's
//! own has a cache of its own, which is empty and goes with the mount.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Longer than most files of procfs, in bytes.
const SHORT: usize = 1024;

/// A way into procfs.
#[derive(Debug)]
pub struct Procfs {
    /// The root of a mount that is at no path; none for /proc.
    root: Option<OwnedFd>,
}

impl Procfs {
    /// The one at /proc, which everybody sees. For the host's own settings: a mount costs more than a look-up.
    pub const SHARED: Self = Self { root: None };

    /// A mount of one's own, for settings of containers, or the one at /proc where it can't be had: before Linux 5.2, or
    /// where mounting is forbidden. Before Linux 5.8 it shares its cache with /proc.
    pub fn private() -> Self {
        Self { root: mount().ok() }
    }

    /// Opens the file at a path that begins below the root.
    pub(super) fn open(&self, path: &Path, access: OFlag) -> io::Result<File> {
        let flags = access | OFlag::O_CLOEXEC;
        let shared = || {
            openat(
                AT_FDCWD,
                &Path::new("/proc").join(path),
                flags,
                Mode::empty(),
            )
        };
        let opened = match &self.root {
            None => shared(),
            Some(root) => match openat(root, path, flags, Mode::empty()) {
                // AppArmor may forbid what is at no path.
                Err(Errno::EACCES | Errno::EPERM) => shared(),
                opened => opened,
            },
        };
        Ok(opened?.into())
    }
}

/// Reads a file of procfs, which hands out all of a short one at once and of which it tells no length.
///
/// # Errors
/// The system's.
pub fn read(mut file: impl Read) -> io::Result<String> {
    let mut start = [0; SHORT];
    let length = file.read(&mut start)?;
    let mut bytes = start[..length].to_vec();
    if length == SHORT {
        file.read_to_end(&mut bytes)?;
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// fsopen(2), fsconfig(2) and fsmount(2). The mount goes when its descriptor is closed.
fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}
