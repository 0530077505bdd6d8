//! The state of a network while its lock is held: finding, rebuilding and stamping.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use cni_conf::request::AttachmentId;

use super::Store;
use super::dir::{self, Content, Dir, Modified};
use super::lock::Lock;
use super::origin::{Origin, current_boot};
use super::record::{self, Index, Record};
use crate::error::Error;
use crate::lease_owner::{LeaseOwner, fnv1a};

/// Name of the file that an address's file is linked from.
pub(super) const NEW: &str = "new";

/// The locked state of a network. The lock goes when this is dropped.
pub struct Session<'a> {
    pub(super) store: &'a Store<'a>,
    pub(super) addresses: Dir,
    /// Our own directory. Only DEL and GC do without it, when it can't be made.
    pub(super) own: Option<Dir>,
    /// Whether addresses are taken back from containers that are gone.
    pub(super) reclaim: bool,
    /// The boot that the index names.
    pub(super) boot: Option<String>,
    /// True if the records were made again in this session.
    pub(super) rebuilt: bool,
    /// Length of the file `index` in bytes.
    index_len: usize,
    /// The truth as the address files tell it, while the records can't be believed.
    scan: Option<Scan>,
    /// True if something has changed since the directory was last stamped.
    pub(super) changed: bool,
    _lock: Lock,
}

/// What all the address files say.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) held: BTreeMap<LeaseOwner, Vec<IpAddr>>,
    /// Addresses whose files do not tell an owner.
    pub(super) unowned: Vec<IpAddr>,
}

impl<'a> Session<'a> {
    pub(super) fn open(
        store: &'a Store<'a>,
        lock: Lock,
        addresses: Dir,
        own: Option<Dir>,
    ) -> Result<Self, Error> {
        let index = own
            .as_ref()
            .and_then(|own| own.read(Index::NAME).ok()?.bytes());
        let index_len = index.as_ref().map_or(0, Vec::len);
        let index = index.and_then(|content| Index::parse(&content));
        let modified = addresses.modified().ok();
        let believable = index
            .as_ref()
            .is_some_and(|index| Some(index.modified) == modified);
        let mut session = Self {
            reclaim: store.reclaim && !addresses.is_shared(),
            rebuilt: false,
            store,
            addresses,
            own,
            boot: index.and_then(|index| index.boot),
            index_len,
            scan: None,
            changed: false,
            _lock: lock,
        };
        if !believable {
            session.rebuild()?;
        }
        Ok(session)
    }

    /// The addresses that an attachment holds.
    pub fn held_by(&mut self, id: &AttachmentId) -> Result<Vec<IpAddr>, Error> {
        Ok(self
            .find(id)?
            .map(|record| record.addresses)
            .unwrap_or_default())
    }

    /// What an attachment holds, under its own name or, in the old format, its container's.
    pub(super) fn find(&mut self, id: &AttachmentId) -> Result<Option<Record>, Error> {
        let owner = LeaseOwner::from(id);
        match self.find_owner(&owner)? {
            Some(record) => Ok(Some(record)),
            None => self.find_owner(&owner.any_interface()),
        }
    }

    fn find_owner(&mut self, owner: &LeaseOwner) -> Result<Option<Record>, Error> {
        let mut found = self.read_record(owner);
        if found.is_err() && self.scan.is_none() {
            self.rebuild()?;
            found = self.read_record(owner);
        }
        if found.is_err() && self.scan.is_none() {
            // What was written just now can't be read either: the address files still tell.
            self.scan = Some(self.scan_addresses()?);
        }
        match (&self.scan, found) {
            (None, Ok(Some(record))) => self.confirm(record),
            (None, _) => Ok(None),
            (Some(scan), _) => Ok(scan.held.get(owner).map(|addresses| Record {
                owner: owner.clone(),
                addresses: addresses.clone(),
                origin: None,
            })),
        }
    }

    fn read_record(&self, owner: &LeaseOwner) -> Result<Option<Record>, Garbage> {
        let Some(own) = &self.own else {
            return Ok(None);
        };
        match own.read_record(&owner.file_name()) {
            Ok(Content::Missing) => Ok(None),
            Ok(Content::Bytes(content)) => match Record::parse(&content) {
                Some(record) if record.owner == *owner => Ok(Some(record)),
                _ => Err(Garbage),
            },
            Ok(Content::NoFile) | Err(_) => Err(Garbage),
        }
    }

    /// The record with only those addresses whose files say the same; `None` if there is none.
    pub(super) fn confirm(&self, mut record: Record) -> Result<Option<Record>, Error> {
        let mut confirmed = Vec::new();
        for address in record.addresses {
            // Somebody may have written the file again in the old format, which names no interface.
            let found = self.owner_of(address)?;
            if found.is_some_and(|found| found.is_same_as(&record.owner)) {
                confirmed.push(address);
            }
        }
        record.addresses = confirmed;
        Ok((!record.addresses.is_empty()).then_some(record))
    }

    /// Who holds an address, as its file says.
    pub(super) fn owner_of(&self, address: IpAddr) -> Result<Option<LeaseOwner>, Error> {
        let content = self.addresses.read(&record::address_name(address))?.bytes();
        Ok(content.as_deref().and_then(LeaseOwner::parse))
    }

    /// Every record, in no order.
    pub(super) fn records(&self) -> Result<Vec<Record>, Error> {
        let Some(own) = &self.own else {
            return Ok(Vec::new());
        };
        let names = own
            .names()?
            .into_iter()
            .filter(|name| LeaseOwner::is_record_name(name));
        Ok(names
            .filter_map(|name| Record::parse(&own.read_record(&name).ok()?.bytes()?))
            .collect())
    }

    /// Whether addresses are taken back from containers that are gone.
    pub fn reclaims(&self) -> bool {
        self.reclaim
    }

    /// Whether what was given under this origin must survive a loss of power: where it is not taken back afterwards.
    pub(super) fn outlives_boots(&self, origin: Option<&Origin>) -> bool {
        !self.reclaim || origin.is_none()
    }

    /// Writes a record under this name, in the place of any file that has it.
    pub(super) fn write_record(
        &self,
        name: &str,
        record: &Record,
        sync: bool,
    ) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let content = record
            .content()
            .map_err(|error| own.error("encode", name)(error.into()))?;
        let mut file = own.replace_file(name)?;
        let written = file
            .write_all(&content)
            .and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        written.map_err(own.error("write", name))
    }

    /// Waits until all entries made and removed so far are on the disk, with the directories they are in.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.addresses.sync()?;
        let Some(own) = &self.own else { return Ok(()) };
        own.sync()?;
        for dir in [&self.store.data_dir, &self.store.data_dir.join(super::OWN)] {
            if let Some(dir) = Dir::open(dir)? {
                dir.sync()?;
            }
        }
        Ok(())
    }

    /// Gives back the addresses of a record and removes it. Carries on after an error and returns the first.
    pub(super) fn drop_record(&mut self, record: &Record) -> Result<(), Error> {
        let mut outcome = Ok(());
        for address in &record.addresses {
            let removed = self.addresses.remove(&record::address_name(*address));
            self.changed = true;
            outcome = outcome.and(removed.map(drop));
        }
        if outcome.is_ok() {
            if let Some(own) = &self.own {
                // A record without addresses is not believed, so a failure here does no harm.
                let _ = own.remove(&record.owner.file_name());
            }
            if let Some(scan) = &mut self.scan {
                scan.held.remove(&record.owner);
            }
        }
        outcome
    }

    /// Gives back what an attachment holds. Nothing held is no error. Returns the addresses.
    pub fn release(&mut self, id: &AttachmentId) -> Result<Vec<IpAddr>, Error> {
        if let Some(own) = &self.own {
            // An ADD that died, or could not remove it, left it behind.
            let _ = own.remove(NEW);
        }
        let Some(record) = self.find(id)? else {
            // An ADD that died early may have left a record without addresses.
            if let Some(own) = &self.own {
                let _ = own.remove(&LeaseOwner::from(id).file_name());
            }
            return Ok(Vec::new());
        };
        self.drop_record(&record)?;
        self.stamp();
        if self.outlives_boots(record.origin.as_ref()) {
            self.sync()?;
        }
        Ok(record.addresses)
    }

    /// Makes the records again from the address files. Files without content are debris of a crash and go.
    pub(super) fn rebuild(&mut self) -> Result<(), Error> {
        let scan = self.scan_addresses()?;
        self.changed = true;
        self.rebuilt = true;
        let rewritten = self
            .own
            .as_ref()
            .map(|own| self.rewrite_records(own, &scan));
        if let Some(Ok(())) = rewritten {
            self.scan = None;
            self.stamp();
        } else {
            // The next process tries again; this one works with what it has read.
            self.scan = Some(scan);
        }
        Ok(())
    }

    /// Reads every address file.
    pub(super) fn scan_addresses(&self) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        for name in self.addresses.names()? {
            let Some(address) = record::parse_address_name(&name) else {
                continue;
            };
            match self.owner_of(address)? {
                Some(owner) => scan.held.entry(owner).or_default().push(address),
                None if self.addresses.is_leftover(&name) => {
                    self.addresses.remove(&name)?;
                }
                None => scan.unowned.push(address),
            }
        }
        scan.held
            .values_mut()
            .for_each(|addresses| addresses.sort());
        Ok(scan)
    }

    /// Removes records that the address files contradict, and writes those that are missing.
    ///
    /// A record's origin is kept if the record knows every address that its owner holds: otherwise another
    /// program has given addresses to the same owner since. A record without content is one that the loss of power has
    /// emptied, if none of this boot can be among them: then its addresses are of an earlier boot.
    fn rewrite_records(&self, own: &Dir, scan: &Scan) -> Result<(), Error> {
        own.remove(NEW)?;
        let after_boot = self.boot.is_none() || self.boot != current_boot();
        let names: BTreeMap<String, &LeaseOwner> = scan
            .held
            .keys()
            .map(|owner| (owner.file_name(), owner))
            .collect();
        let mut known = BTreeMap::new();
        for name in own.names()? {
            if !LeaseOwner::is_record_name(&name) {
                continue;
            }
            let content = own.read_record(&name)?.bytes();
            let found = names.get(&name).zip(content);
            let kept = found.and_then(|(owner, content)| {
                if dir::is_blank(&content) {
                    let lost = after_boot.then(Origin::lost);
                    return lost.map(|origin| (*owner, (Vec::new(), Some(origin))));
                }
                let record = Record::parse(&content).filter(|record| record.owner == **owner)?;
                let known: BTreeSet<&IpAddr> = record.addresses.iter().collect();
                let all = scan.held[*owner].iter().all(|it| known.contains(it));
                all.then_some((*owner, (record.addresses, record.origin)))
            });
            match kept {
                Some((owner, kept)) => {
                    known.insert(owner, kept);
                }
                None => {
                    own.remove(&name)?;
                }
            }
        }
        for (name, owner) in names {
            let held = &scan.held[owner];
            let (addresses, origin) = known.remove(owner).unwrap_or_default();
            if addresses.len() == held.len() {
                continue;
            }
            let record = Record {
                owner: owner.clone(),
                addresses: held.clone(),
                origin,
            };
            // Whoever is interrupted here leaves the record as it was, and no record without content.
            self.write_record(NEW, &record, false)?;
            own.rename(NEW, &name)?;
        }
        Ok(())
    }

    /// Marks the directory as changed by us last. Until that is done the next process rebuilds the records, so
    /// failures need no report.
    pub(super) fn stamp(&mut self) {
        if !self.changed || self.scan.is_some() {
            return;
        }
        let Some(own) = &self.own else { return };
        let modified = fresh_stamp();
        let content = serde_json::to_vec(&Index::new(modified, self.boot.clone()));
        if let Ok(content) = content
            && self.addresses.set_modified(modified).is_ok()
            && let Ok(mut file) = own.open_file(Index::NAME)
            && dir::overwrite(&mut file, &content, self.index_len).is_ok()
        {
            self.index_len = content.len();
            self.changed = false;
        }
    }

    /// Tries to write a file, without touching the addresses.
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let mut file = own.replace_file(NEW)?;
        let written = file.write_all(b"test").map_err(own.error("write", NEW));
        own.remove(NEW)?;
        written
    }
}

/// A record that can't be read as one.
struct Garbage;

/// A modification time that no other change comes by: now, with random nanoseconds. A clock tick of the kernel hits
/// the same value once in 10^9 times. They always have nine digits, so that the index keeps its length.
///
/// The randomness is the clock's, mixed with what the kernel has randomised in this process's address space.
fn fresh_stamp() -> Modified {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let place = (&raw const now).addr();
    let seed = format!("{now:?} {place}");
    let random = fnv1a(seed.as_bytes()) % 900_000_000 + 100_000_000;
    (
        now.as_secs().cast_signed(),
        i64::try_from(random).unwrap_or_default(),
    )
}
