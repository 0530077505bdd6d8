//! Leases on the disk: one file each, so that a daemon that is started again goes on with them.
//!
//! A file appears whole or not at all. Nothing is synced: leases don't outlive a boot, since no container does.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_conf::json;
use cni_conf::names::{ContainerId, IfName, NetworkName};
use ipam::store::Origin;
use serde::{Deserialize, Serialize};

use super::conf::Wishes;
use super::machine::Held;
use super::message::Client;
use crate::host::regular;
use crate::owner::Owner;

/// Where they are unless the daemon is told otherwise.
pub(super) const DIR: &str = "/var/lib/cni/dhcp";

/// What the files' names begin with.
const KIND: &str = "lease";

/// The file that a daemon holds a lock on while it runs.
const LOCK: &str = "lock";

/// The version of the files' form.
const VERSION: u32 = 1;

/// An attachment with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    network: NetworkName,
    container: ContainerId,
    ifname: IfName,
    /// The boot, and the namespace.
    pub(super) origin: Origin,
    /// The interface's index there.
    pub(super) link: u32,
    pub(super) client: Client,
    pub(super) wishes: Wishes,
    /// The lease of an IPv4 address.
    pub(super) v4: Option<Held>,
    /// Why there is none any more.
    pub(super) lost: Option<String>,
}

impl Record {
    /// The record of an attachment that holds nothing yet.
    pub(super) fn new(
        owner: &Owner,
        origin: Origin,
        link: u32,
        client: Client,
        wishes: Wishes,
    ) -> Self {
        Self {
            version: VERSION,
            network: owner.network.clone(),
            container: owner.container.clone(),
            ifname: owner.ifname.clone(),
            origin,
            link,
            client,
            wishes,
            v4: None,
            lost: None,
        }
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> Owner {
        Owner {
            network: self.network.clone(),
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file that a daemon locks, with its directory. Only root can open either.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn lock_file(&self) -> io::Result<fs::File> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(self.dir.join(LOCK))
    }

    /// Writes a record, in place of the one there is.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.owner());
        let content = serde_json::to_value(record)?.to_string();
        regular::replace(&path, &self.dir.join("new"), content.as_bytes())
    }

    /// Forgets an attachment. It need not be known.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn remove(&self, owner: &Owner) -> io::Result<()> {
        match fs::remove_file(self.path(owner)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All records, and what is wrong with those that can't be read, which are left alone.
    ///
    /// # Errors
    /// What the file system says of the directory. One that is missing holds nothing.
    pub(super) fn load(&self) -> io::Result<(Vec<Record>, Vec<String>)> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            entries => entries?,
        };
        let (mut records, mut problems) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(&format!("{KIND}:")) {
                continue;
            }
            match read(&path) {
                Ok(record) if self.path(&record.owner()) == path => records.push(record),
                Ok(_) => problems.push(format!("{}: it is another's", path.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problems.push(format!("{}: {error}", path.display())),
            }
        }
        records.sort_by_key(Record::owner);
        Ok((records, problems))
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.dir.join(owner.file_name(KIND))
    }
}

fn read(path: &Path) -> io::Result<Record> {
    let content: serde_json::Value = serde_json::from_slice(&regular::read(path)?)?;
    let record: Record = json::from_value(&content).map_err(io::Error::other)?;
    match record.version {
        VERSION => Ok(record),
        version => Err(io::Error::other(format!("it is of version {version}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::lease::Lease;
    use super::super::lease::tests::reply;
    use super::super::message::tests::client;
    use super::*;

    fn record(container: &str) -> Record {
        let owner = Owner {
            network: "net".try_into().unwrap(),
            container: container.try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        };
        let origin = Origin {
            boot: "boot".into(),
            netns: None,
        };
        let lease = Lease::read(&reply(5, 1, [10, 0, 0, 5], &[(3, &[10, 0, 0, 1])])).unwrap();
        let mut record = Record::new(&owner, origin, 7, client(), Wishes::default());
        record.v4 = Some(Held { lease, since: 17 });
        record
    }

    #[test]
    fn records_come_back_as_they_were_and_only_root_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        let store = Store::at(&dir);
        assert!(store.load().unwrap().0.is_empty());
        store.lock_file().unwrap();
        // Names that differ in the last byte only, as long as they may be.
        let long = "x".repeat(239);
        let names = ["c".to_owned(), format!("{long}1"), format!("{long}2")];
        for name in &names {
            store.save(&record(name)).unwrap();
        }
        let (records, problems) = store.load().unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!(records, names.each_ref().map(|name| record(name)));
        assert!(problems.is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&store.path(&record("c").owner())), 0o600);
        store.remove(&record("c").owner()).unwrap();
        store.remove(&record("c").owner()).unwrap();
        assert_eq!(store.load().unwrap().0.len(), 2);
    }

    #[test]
    fn what_is_no_record_is_told_of_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        store.save(&record("c")).unwrap();
        let whole = fs::read(store.path(&record("c").owner())).unwrap();
        let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
        write("lease:net:cut:eth0", &whole[..whole.len() / 2]);
        write("lease:net:other:eth0", &whole);
        write("lease:net:empty:eth0", b"");
        let text = String::from_utf8(whole).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        write("lease:net:newer:eth0", newer.as_bytes());
        write("new", b"half");
        let (records, problems) = store.load().unwrap();
        assert_eq!(records, [record("c")]);
        assert_eq!(problems.len(), 4, "{problems:?}");
        // Half a file of a daemon that was killed is in nobody's way.
        store.save(&record("d")).unwrap();
        assert_eq!(store.load().unwrap().0.len(), 2);
    }
}
