//! Mounts of a test program's own.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Gives this process a `/run` of its own, so that locks and records of its containers are not the machine's.
///
/// To be called before there are threads. Without privileges it does nothing, as there are no tests then either.
///
/// # Panics
/// When the kernel refuses it.
pub fn cover_run() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mount namespace");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make it private");
    detach_below("/run").expect("read the mounts");
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run", tmpfs, MsFlags::empty(), Some("mode=0755")).expect("cover /run");
}

/// Takes every mount at `directory` and below it out of this mount namespace, which must be private.
///
/// A new mount namespace begins with a copy of all mounts, and a machine with containers has one for each network
/// namespace in `/run/netns`. Covering them would leave them there, to be copied again by every namespace that is made
/// from this one.
///
/// # Errors
/// When the list of mounts can't be read, or a mount stays.
pub fn detach_below(directory: &str) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    // In the order of the list a mount comes before those below it, which go with it.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.map(unescaped) {
        if !Path::new(&point).starts_with(directory) {
            continue;
        }
        match umount2(point.as_str(), MntFlags::MNT_DETACH) {
            // It went with the one above it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A mount point as it is, where the kernel writes blanks and backslashes as octal numbers.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}
