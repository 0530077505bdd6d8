//! Giving addresses to an attachment.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;

use cni_conf::request::AttachmentId;

use super::dir::{self, Dir};
use super::origin::Origin;
use super::record::{self, Record};
use super::session::{NEW, Session};
use crate::error::Error;
use crate::ranges::RangeSet;

/// How many addresses are tried one by one before the whole directory is listed.
const PROBES: usize = 32;

/// One address that an attachment is to get.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// Index of the range set in the configuration; round-robin is kept up per index.
    pub index: usize,
    /// Where the address comes from.
    pub set: &'a RangeSet,
    /// Exactly this address, which the set offers.
    pub requested: Option<IpAddr>,
}

/// The file with the address that was last given out of a set.
///
/// Losing the place in the round is no reason to fail, so errors about this file are passed over.
struct Last {
    name: String,
    file: Option<File>,
    len: usize,
    address: Option<IpAddr>,
}

impl Session<'_> {
    /// Gives an attachment one address for each want, in their order, or none at all.
    ///
    /// Addresses of an earlier boot are taken back first, and if no address is free those of containers that
    /// are gone. `origin` is what is remembered for doing the same with these addresses one day.
    pub fn reserve(
        &mut self,
        id: &AttachmentId,
        origin: Option<Origin>,
        wants: &[Want<'_>],
    ) -> Result<Vec<IpAddr>, Error> {
        self.reclaim_after_boot(origin.as_ref())?;
        let held = self.held_by(id)?;
        if !held.is_empty() {
            return Err(Error::Duplicate {
                owner: id.into(),
                addresses: held,
            });
        }
        let mut lasts: Vec<Last> = wants
            .iter()
            .map(|want| Last::read(&self.addresses, want.index))
            .collect();
        let mut chosen = self.choose_all(wants, &lasts);
        if matches!(chosen, Err(Error::Exhausted { .. } | Error::Taken { .. }))
            && self.reclaim_dead(wants)?
        {
            chosen = self.choose_all(wants, &lasts);
        }
        let record = Record {
            owner: id.into(),
            addresses: chosen?,
            origin,
        };
        self.write_all(&record)?;
        for (last, address) in lasts.iter_mut().zip(&record.addresses) {
            last.write(&self.addresses, *address);
        }
        self.stamp();
        Ok(record.addresses)
    }

    fn choose_all(&self, wants: &[Want<'_>], lasts: &[Last]) -> Result<Vec<IpAddr>, Error> {
        wants
            .iter()
            .zip(lasts)
            .map(|(want, last)| self.choose(want, last.address))
            .collect()
    }

    /// An address that is free, for one want.
    fn choose(&self, want: &Want<'_>, last: Option<IpAddr>) -> Result<IpAddr, Error> {
        if let Some(address) = want.requested {
            return if self.addresses.has(&record::address_name(address))? {
                Err(Error::Taken {
                    address,
                    owner: self.owner_of(address)?,
                })
            } else {
                Ok(address)
            };
        }
        for address in want.set.walk(last).take(PROBES) {
            if !self.addresses.has(&record::address_name(address))? {
                return Ok(address);
            }
        }
        let used = self.used(want.set)?;
        want.set
            .first_free(last, &used)
            .ok_or_else(|| Error::Exhausted {
                set: want.index,
                ranges: want.set.to_string(),
                used: used.len() as u128,
                total: want.set.capacity(),
                directory: self.store.directory(),
                reclaim: self.reclaim,
            })
    }

    /// The addresses of a set that have a file.
    pub(super) fn used(&self, set: &RangeSet) -> Result<BTreeSet<IpAddr>, Error> {
        let names = self.addresses.names()?;
        Ok(names
            .iter()
            .filter_map(|name| record::parse_address_name(name))
            .filter(|address| set.offers(*address))
            .collect())
    }

    /// Writes the record and then the address files, or leaves nothing.
    ///
    /// If something can't be removed again after an error, nothing is stamped, and the next rebuild finds it.
    pub(super) fn write_all(&mut self, record: &Record) -> Result<(), Error> {
        let sync = self.outlives_boots(record.origin.as_ref());
        let mut made = Record {
            addresses: Vec::new(),
            ..record.clone()
        };
        let written = self
            .write_record(&record.owner.file_name(), record, sync)
            .and_then(|()| self.link_all(record, sync, &mut made.addresses));
        if written.is_err() && self.drop_record(&made).is_ok() {
            self.stamp();
        }
        written
    }

    /// Makes the address files, each of which appears with all its content, and notes them in `made`.
    ///
    /// All addresses of an attachment have the same content, so they are names of one file.
    fn link_all(
        &mut self,
        record: &Record,
        sync: bool,
        made: &mut Vec<IpAddr>,
    ) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let mut file = own.replace_file(NEW)?;
        self.changed = true;
        let mut linked = file
            .write_all(record.owner.content().as_bytes())
            .and_then(|()| if sync { file.sync_all() } else { Ok(()) })
            .map_err(own.error("write", NEW));
        for address in &record.addresses {
            linked = linked
                .and_then(|()| own.link(NEW, &self.addresses, &record::address_name(*address)))
                .inspect(|()| made.push(*address));
        }
        // A second name that stays behind does no harm; the next ADD removes it.
        let _ = own.remove(NEW);
        linked?;
        if sync { self.sync() } else { Ok(()) }
    }
}

impl Last {
    fn read(dir: &Dir, set: usize) -> Self {
        let name = record::last_reserved_name(set);
        let file = dir.open_for_update(&name).ok();
        let mut bytes = [0; 64];
        // Without moving to where it ends: it is written from the beginning.
        let read = file.as_ref().map(|file| file.read_at(&mut bytes, 0));
        let len = read.and_then(Result::ok).unwrap_or(0);
        let text = std::str::from_utf8(&bytes[..len]).unwrap_or_default();
        Self {
            address: text.trim().parse().ok(),
            name,
            file,
            len,
        }
    }

    fn write(&mut self, dir: &Dir, address: IpAddr) {
        if self.file.is_none() {
            self.file = dir.open_file(&self.name).ok();
        }
        let Some(file) = &mut self.file else { return };
        let text = record::address_name(address);
        let _ = dir::overwrite(file, text.as_bytes(), self.len);
    }
}
