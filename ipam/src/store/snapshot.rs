//! Looking at the state of a network without touching it: no lock is taken, no directory made, no record corrected.
//!
//! What others change meanwhile may be seen or not, one address at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::dir::{Content, Dir};
use super::reclaim::Lease;
use super::record::{self, Record};
use super::{OWN, Store};
use crate::error::Error;
use crate::lease_owner::LeaseOwner;

/// The state of a network as its files tell it.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Everything that is held.
    pub leases: Vec<Lease>,
    /// Addresses whose files tell no owner: garbage, or no files at all.
    pub unreadable: Vec<IpAddr>,
}

impl Store<'_> {
    /// Reads every address file and every record.
    ///
    /// # Errors
    /// Where a directory that is there can't be read.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let Some(data) = Dir::open(&self.data_dir)? else {
            return Ok(Snapshot::default());
        };
        let Some(addresses) = data.find(self.network.as_str())? else {
            return Ok(Snapshot::default());
        };
        let mut snapshot = Snapshot::default();
        let mut held: BTreeMap<LeaseOwner, Vec<IpAddr>> = BTreeMap::new();
        for name in addresses.names()? {
            let Some(address) = record::parse_address_name(&name) else {
                continue;
            };
            match addresses.read(&name) {
                Ok(Content::Missing) => {}
                // An ADD that was killed leaves one, and the next one takes it away.
                Ok(Content::Bytes(content)) if content.is_empty() => {}
                Ok(content) => match content.bytes().as_deref().and_then(LeaseOwner::parse) {
                    Some(owner) => held.entry(owner).or_default().push(address),
                    None => snapshot.unreadable.push(address),
                },
                Err(_) => snapshot.unreadable.push(address),
            }
        }
        snapshot.leases = self.with_origins(&data, held);
        snapshot.unreadable.sort();
        Ok(snapshot)
    }

    fn with_origins(&self, data: &Dir, held: BTreeMap<LeaseOwner, Vec<IpAddr>>) -> Vec<Lease> {
        let own = data.find(OWN).ok().flatten();
        let own = own.and_then(|own| own.find(self.network.as_str()).ok().flatten());
        let origin = |owner: &LeaseOwner| {
            let content = own.as_ref()?.read(&owner.file_name()).ok()?.bytes()?;
            let record = Record::parse(&content)?;
            record.origin.filter(|_| record.owner == *owner)
        };
        held.into_iter()
            .map(|(owner, mut addresses)| {
                addresses.sort();
                Lease {
                    origin: origin(&owner),
                    owner: Some(owner),
                    addresses,
                }
            })
            .collect()
    }
}
