//! Where it is written down who holds which address.
//!
//! # On disk
//!
//! `<dataDir>/<network>/` is the Go plugin's format and nothing else, so that either program can take over from
//! the other at any time: a file per address that says whose it is, `last_reserved_ip.N` per range set, and `lock`.
//! `<dataDir>/.trestle/<network>/` is ours (no network's name begins with a dot): a record per attachment with its
//! addresses and where they came from, and `index`, which says whether the records can be believed. Both are on one
//! file system, so that a file made here can be linked there.
//!
//! # How ADD and DEL avoid reading every address file
//!
//! The records answer what an attachment holds. They are right as long as nobody else has changed the
//! network's directory, and the kernel tells that: making or removing an entry sets the directory's modification
//! time. After each change of ours, still under the lock, that time is set to a value that nobody else would
//! come by (its nanoseconds are random) and noted in `index`. If the two differ, somebody else was there, or a
//! process of ours died in the middle: then the records are made again from the address files. The address files
//! are the truth; a record is compared with them before it is acted on, and garbage in a record means a rebuild, never
//! a failure.
//!
//! # What a crash leaves
//!
//! An address file is written elsewhere and then linked, so it appears complete or not at all. The record is written
//! before, so an address that a process of ours gave always has one.
//!
//! # What a loss of power leaves
//!
//! No container survives it, so whatever of the state comes back from the disk is free at the first ADD of the next boot, and
//! nothing needs to wait for the disk: an address can't be lost while somebody uses it. Nor can one be kept for ever: file
//! systems bring names back in the order they were made, the record's before the address's, so what comes back has either a
//! record, which tells the boot, or a record without content, which only a loss of power leaves beside an address. Nothing on
//! the disk is believed then but the address files themselves; those without content are debris. State that the Go plugin
//! wrote has no record, and stays until somebody who knows (DEL, GC) takes it away.
//!
//! Where addresses outlive a boot (`"reclaim": false`), files and directories are synced before ADD and DEL return. The
//! same where other machines may work in `dataDir` (a network's or cluster's file system): their boots are not ours, so
//! nothing there is taken back from anybody.

mod allocate;
mod dir;
mod liveness;
mod lock;
mod origin;
mod reclaim;
mod record;
mod session;
mod snapshot;

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_conf::names::NetworkName;
use nix::unistd::{self, AccessFlags};

use self::dir::Dir;
use crate::error::Error;
use crate::flock;

pub use self::allocate::Want;
pub use self::liveness::{ProcLiveness, living_namespaces};
pub use self::origin::{Candidate, Liveness, Namespace, Origin};
pub use self::reclaim::{Lease, Usage};
pub use self::session::Session;
pub use self::snapshot::Snapshot;
pub use crate::lease_owner::LeaseOwner;

/// The Go plugin's default for `dataDir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// Name of our own directory in `dataDir`.
const OWN: &str = ".trestle";

/// The state of one network.
#[derive(Clone)]
pub struct Store<'a> {
    data_dir: PathBuf,
    network: NetworkName,
    reclaim: bool,
    lock_limit: Duration,
    liveness: &'a dyn Liveness,
}

impl<'a> Store<'a> {
    /// The state of `network` in `data_dir`. Nothing is touched yet.
    pub fn new(data_dir: &Path, network: &NetworkName, liveness: &'a dyn Liveness) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            network: network.clone(),
            reclaim: true,
            lock_limit: flock::LIMIT,
            liveness,
        }
    }

    /// Says whether addresses of containers that are gone are taken back. They are unless told otherwise, or other machines
    /// may work in the directory.
    #[must_use]
    pub fn with_reclaim(mut self, reclaim: bool) -> Self {
        self.reclaim = reclaim;
        self
    }

    /// Sets how long the lock is waited for, instead of a minute.
    #[must_use]
    pub fn with_lock_limit(mut self, limit: Duration) -> Self {
        self.lock_limit = limit;
        self
    }

    /// The directory with the address files.
    pub fn directory(&self) -> PathBuf {
        self.data_dir.join(self.network.as_str())
    }

    /// Locks the state and makes its directories if they are missing.
    pub fn lock(&self) -> Result<Session<'_>, Error> {
        loop {
            let Some(data) = Dir::open(&self.data_dir)? else {
                std::fs::create_dir_all(&self.data_dir)
                    .map_err(Error::io("create directory", &self.data_dir))?;
                for ancestor in self.data_dir.ancestors().skip(1) {
                    if let Some(ancestor) = Dir::open(ancestor)? {
                        ancestor.sync()?;
                    }
                }
                continue;
            };
            let addresses = data.ensure(self.network.as_str())?;
            if let Some(lock) = lock::acquire(&addresses, self.lock_limit)? {
                let own = data.ensure(OWN)?.ensure(self.network.as_str())?;
                return Session::open(self, lock, addresses, Some(own));
            }
        }
    }

    /// Locks the state if there is any. Our own directory need not be writable for this.
    pub fn lock_existing(&self) -> Result<Option<Session<'_>>, Error> {
        // Where `dataDir` is something else than a directory, nothing can be held. Not to know is another thing.
        match std::fs::metadata(&self.data_dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::io("look at", &self.data_dir)(error)),
        }
        let Some(data) = Dir::open(&self.data_dir)? else {
            return Ok(None);
        };
        let Some(addresses) = data.find(self.network.as_str())? else {
            return Ok(None);
        };
        let Some(lock) = lock::acquire(&addresses, self.lock_limit)? else {
            return Ok(None);
        };
        let own = data
            .ensure(OWN)
            .and_then(|own| own.ensure(self.network.as_str()))
            .ok();
        Session::open(self, lock, addresses, own).map(Some)
    }

    /// Finds out whether the state can be written, without making anything that was not there.
    pub fn check_writable(&self) -> Result<(), Error> {
        if self.directory().is_dir() {
            return self.lock()?.check_writable();
        }
        let mut ancestor = self.data_dir.as_path();
        while !ancestor.exists() {
            ancestor = ancestor.parent().unwrap_or(Path::new("/"));
        }
        if !ancestor.is_dir() {
            let source = std::io::Error::from(nix::errno::Errno::ENOTDIR);
            return Err(Error::io("open directory", ancestor)(source));
        }
        unistd::access(ancestor, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|errno| Error::io("write to", ancestor)(errno.into()))
    }
}

#[cfg(test)]
mod tests;
