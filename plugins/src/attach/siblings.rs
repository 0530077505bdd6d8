//! Which attachments of one container are recorded, found without a look at those of all others.
//!
//! Beside the records of a plugin there is a directory `.PLUGIN.containers` with one for each container, called by a hash of
//! the container's ID, and in it an empty file for each record with the record's name. So it takes the same to find a
//! container's attachments beside one and beside thousands.
//!
//! Records of a former version are not in it. The directory is made only where there is no record yet, goes with the last
//! container in it, and as long as it is missing all records are looked at.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_conf::names::ContainerId;

use crate::owner::fnv1a;

/// How often an entry is tried for again when its directory was removed meanwhile.
const ATTEMPTS: u32 = 5;

/// The containers of a plugin's records.
#[derive(Debug, Clone)]
pub(super) struct Siblings {
    dir: PathBuf,
}

impl Siblings {
    /// Those of the records that are in a directory.
    pub(super) fn of(plugin: &str, records: &Path) -> Self {
        Self {
            dir: records.join(format!(".{plugin}.containers")),
        }
    }

    /// Called before a record is written. `empty` says whether there is none yet.
    pub(super) fn prepare(&self, empty: impl FnOnce() -> bool) -> io::Result<()> {
        if self.dir.exists() || !empty() {
            return Ok(());
        }
        make(&self.dir)
    }

    /// Called after a record was written.
    pub(super) fn add(&self, container: &ContainerId, record: &Path) -> io::Result<()> {
        let dir = self.dir_of(container);
        let Some(name) = record.file_name() else {
            return Ok(());
        };
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            match make(&dir) {
                // Records of a former version are there.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                made => made?,
            }
            outcome = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(dir.join(name))
                .map(drop);
            match &outcome {
                // The last other one of the container left at this moment.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
                _ => return outcome,
            }
        }
        outcome
    }

    /// Called after a record was removed.
    pub(super) fn remove(&self, container: &ContainerId, record: &Path) {
        let dir = self.dir_of(container);
        if let Some(name) = record.file_name() {
            let _ = fs::remove_file(dir.join(name));
            // Another one may be in it, and other containers beside it.
            let _ = fs::remove_dir(dir).and_then(|()| fs::remove_dir(&self.dir));
        }
    }

    /// The paths of the container's records; none where that is not known.
    pub(super) fn find(&self, container: &ContainerId) -> Option<Vec<PathBuf>> {
        let records = self.dir.parent()?;
        let entries = match fs::read_dir(self.dir_of(container)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound && self.dir.exists() => {
                return Some(Vec::new());
            }
            Err(_) => return None,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        Some(names.map(|name| records.join(name)).collect())
    }

    /// Removes what is left of records that are gone, as when a DEL was killed.
    pub(super) fn collect(&self) {
        let Some(records) = self.dir.parent() else {
            return;
        };
        for dir in list(&self.dir) {
            for entry in list(&dir) {
                let name = entry.file_name().unwrap_or_default();
                if !records.join(name).exists() {
                    let _ = fs::remove_file(&entry);
                }
            }
            let _ = fs::remove_dir(&dir);
        }
        let _ = fs::remove_dir(&self.dir);
    }

    fn dir_of(&self, container: &ContainerId) -> PathBuf {
        // Two containers may share one; what is in it tells them apart.
        let hash = fnv1a(container.as_str().as_bytes());
        self.dir.join(format!("{hash:016x}"))
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn make(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
