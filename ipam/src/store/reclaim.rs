//! Taking back addresses that nobody holds any more, and looking at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_conf::request::AttachmentId;

use super::allocate::Want;
use super::origin::Candidate;
use super::origin::{Origin, current_boot};
use super::record::{self, Record};
use super::session::Session;
use crate::error::Error;
use crate::lease_owner::LeaseOwner;
use crate::ranges::RangeSet;

/// How full a range set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Addresses that are handed out and that no ADD would take back.
    pub used: u128,
    /// Addresses that the set can hand out.
    pub total: u128,
}

/// Addresses that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds them; `None` if the files are garbage.
    pub owner: Option<LeaseOwner>,
    /// The addresses, in ascending order.
    pub addresses: Vec<IpAddr>,
    /// Where they came from; `None` for what another program gave.
    pub origin: Option<Origin>,
}

impl Session<'_> {
    /// Frees what was given before the last start of the machine, once per start. What the records say is compared with the
    /// address files first: the power may have been lost.
    pub(super) fn reclaim_after_boot(&mut self, now: Option<&Origin>) -> Result<(), Error> {
        let Some(Origin { boot, .. }) = now else {
            return Ok(());
        };
        if !self.reclaim || self.boot.as_ref() == Some(boot) {
            return Ok(());
        }
        if !self.rebuilt {
            self.rebuild()?;
        }
        let mut records = self.records()?;
        records.retain(|record| is_earlier(record, boot));
        self.free(records, boot);
        self.boot = Some(boot.clone());
        self.changed = true;
        self.stamp();
        Ok(())
    }

    /// Frees debris, and what containers hold that are gone. True if that was anything.
    pub(super) fn reclaim_dead(&mut self, wants: &[Want<'_>]) -> Result<bool, Error> {
        let mut freed = 0;
        for want in wants {
            let candidates = match want.requested {
                Some(address) => BTreeSet::from([address]),
                None => self.used(want.set)?,
            };
            for address in candidates {
                let name = record::address_name(address);
                if self.addresses.is_leftover(&name) {
                    self.changed = true;
                    freed += usize::from(self.addresses.remove(&name)?);
                }
            }
        }
        if let (true, Some(boot)) = (self.reclaim, current_boot()) {
            let dead = self.candidates(&boot)?;
            freed += self.free(dead, &boot);
        }
        self.stamp();
        Ok(freed > 0)
    }

    /// Records of an earlier boot or of a namespace that is not at its path any more.
    fn candidates(&self, boot: &str) -> Result<Vec<Record>, Error> {
        let liveness = self.store.liveness;
        let mut records = self.records()?;
        records.retain(|record| {
            let netns = record
                .origin
                .as_ref()
                .and_then(|origin| origin.netns.as_ref());
            is_earlier(record, boot) || netns.is_some_and(|netns| netns.is_gone(liveness))
        });
        Ok(records)
    }

    /// Those of the records of which nothing stands on this host.
    fn whose_namespace_is_gone(&self, records: Vec<Record>, boot: &str) -> Vec<Record> {
        let candidates: Vec<Candidate<'_>> = records
            .iter()
            .filter_map(|record| {
                Some(Candidate {
                    network: &self.store.network,
                    owner: &record.owner,
                    origin: record.origin.as_ref()?,
                    earlier_boot: is_earlier(record, boot),
                })
            })
            .collect();
        if candidates.len() != records.len() || records.is_empty() {
            return Vec::new();
        }
        let alive = self.store.liveness.alive(&candidates);
        records
            .into_iter()
            .zip(alive)
            .filter_map(|(record, alive)| (!alive).then_some(record))
            .collect()
    }

    /// Frees the records of which nothing stands. Returns how many addresses that were.
    fn free(&mut self, records: Vec<Record>, boot: &str) -> usize {
        let mut freed = 0;
        for record in self.whose_namespace_is_gone(records, boot) {
            // What can't be freed stays as it is, record included; the next time may be luckier.
            if let Ok(Some(confirmed)) = self.confirm(record)
                && self.drop_record(&confirmed).is_ok()
            {
                freed += confirmed.addresses.len();
            }
        }
        freed
    }

    /// How full a set is.
    pub fn usage(&self, set: &RangeSet) -> Result<Usage, Error> {
        let mut used = self.used(set)?;
        if used.len() as u128 == set.capacity()
            && let (true, Some(boot)) = (self.reclaim, current_boot())
        {
            for record in self.whose_namespace_is_gone(self.candidates(&boot)?, &boot) {
                let confirmed = self.confirm(record)?.map(|record| record.addresses);
                confirmed.iter().flatten().for_each(|address| {
                    used.remove(address);
                });
            }
        }
        Ok(Usage {
            used: used.len() as u128,
            total: set.capacity(),
        })
    }

    /// Everything that is held, by reading every address file.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        let scan = self.scan_addresses()?;
        let mut origins: BTreeMap<LeaseOwner, Origin> = self
            .records()?
            .into_iter()
            .filter_map(|record| Some((record.owner, record.origin?)))
            .collect();
        let unowned = scan.unowned.into_iter().map(|address| Lease {
            owner: None,
            addresses: vec![address],
            origin: None,
        });
        let owned = scan.held.into_iter().map(|(owner, addresses)| Lease {
            origin: origins.remove(&owner),
            owner: Some(owner),
            addresses,
        });
        Ok(owned.chain(unowned).collect())
    }

    /// Who holds addresses though nothing of them is left: those of an earlier boot, and those whose namespace is
    /// gone. Nobody if addresses are not to be taken back. What the next ADD in need would free.
    pub fn dead(&self) -> Result<Vec<LeaseOwner>, Error> {
        let (true, Some(boot)) = (self.reclaim, current_boot()) else {
            return Ok(Vec::new());
        };
        let mut dead = Vec::new();
        for record in self.whose_namespace_is_gone(self.candidates(&boot)?, &boot) {
            dead.extend(self.confirm(record)?.map(|record| record.owner));
        }
        Ok(dead)
    }

    /// Frees everything but what these attachments hold (the verb GC). Carries on after an error and returns the
    /// first one, else the addresses that were freed.
    pub fn retain(&mut self, valid: &[AttachmentId]) -> Result<Vec<IpAddr>, Error> {
        let kept: BTreeSet<LeaseOwner> = valid
            .iter()
            .map(LeaseOwner::from)
            .flat_map(|owner| [owner.any_interface(), owner])
            .collect();
        let mut freed = Vec::new();
        let mut outcome = Ok(());
        for name in self.addresses.names()? {
            let Some(address) = record::parse_address_name(&name) else {
                continue;
            };
            if self.owner_of(address)?.is_some_and(|it| kept.contains(&it)) {
                continue;
            }
            match self.addresses.remove(&name) {
                Ok(_) => freed.push(address),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        freed.sort();
        self.rebuild()?;
        if !self.reclaim {
            outcome = outcome.and(self.sync());
        }
        outcome.map(|()| freed)
    }
}

/// True if a record is known to be of another boot than this one.
fn is_earlier(record: &Record, boot: &str) -> bool {
    record
        .origin
        .as_ref()
        .is_some_and(|origin| origin.boot != boot)
}
