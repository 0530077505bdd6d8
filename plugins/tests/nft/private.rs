//! A `/run` of the test program's own, so that locks and records of its containers are not the machine's.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// To be called before there are threads. Without privileges there are no tests either.
pub(crate) fn cover_run() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mount namespace");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make it private");
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run", tmpfs, MsFlags::empty(), Some("mode=0755")).expect("cover /run");
}
