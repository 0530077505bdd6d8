//! The plugin `host-local`: addresses out of ranges, with the state in files on this host.
//!
//! Configuration and state are those of the Go plugin of the same name; see [`crate::store`] for what is
//! done differently and why.

mod conf;
mod resolv;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_conf::diagnostics::warn;
use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::{CniResult, Dns, IpConfig};
use ipnet::IpNet;

use self::conf::{Place, Settings, WhenFull};
use crate::ranges::{Range, RangeSet};
use crate::store::{Lease, LeaseOwner, Liveness, Origin, ProcLiveness, Snapshot, Store, Want};

/// How long STATUS waits for the lock: runtimes ask for the node's condition, and somebody who works is no bad sign.
const STATUS_LOCK_LIMIT: Duration = Duration::from_secs(2);

/// The plugin `host-local`.
#[derive(Clone, Copy)]
pub struct HostLocal {
    liveness: &'static dyn Liveness,
}

/// What `host-local` keeps for a network.
#[derive(Debug)]
pub struct StoreState {
    /// Everything that is held.
    pub leases: Vec<Lease>,
    /// Those of the holders of whom nothing is left: see [`crate::store::Session::dead`].
    pub dead: Vec<LeaseOwner>,
    /// Whether addresses of containers that are gone may be taken back.
    pub reclaim: bool,
}

impl HostLocal {
    /// The plugin with a way to tell whether a container is still there.
    pub const fn new(liveness: &'static dyn Liveness) -> Self {
        Self { liveness }
    }

    /// Reads the configuration and nothing else.
    #[doc(hidden)]
    pub fn parse_conf(request: &Request, attachment: &Attachment) -> Result<(), Error> {
        Settings::read(request)?.assign(attachment).map(drop)
    }

    /// The subnets of the configuration's ranges.
    pub fn subnets(&self, request: &Request) -> Result<Vec<IpNet>, Error> {
        let settings = Settings::read(request)?;
        let ranges = settings.sets.iter().flat_map(RangeSet::ranges);
        Ok(ranges.map(Range::subnet).collect())
    }

    /// Who holds which addresses, with the prefix lengths of their ranges. Addresses outside the configuration's
    /// ranges, and those of files that name no interface, are left out. Reads every address file.
    pub fn leases(&self, request: &Request) -> Result<Vec<(AttachmentId, Vec<IpNet>)>, Error> {
        let settings = Settings::read(request)?;
        let store = self.store(request, &settings.place);
        let leases = match store.lock_existing()? {
            Some(session) => session.leases()?,
            None => Vec::new(),
        };
        let attachment = |lease: Lease| {
            let owner = lease.owner?;
            let id = AttachmentId {
                container: owner.container.try_into().ok()?,
                ifname: owner.ifname?.try_into().ok()?,
            };
            let net = |address: &IpAddr| {
                let mut configs = settings
                    .sets
                    .iter()
                    .filter_map(|set| ip_config(set, *address));
                configs.next().map(|ip| ip.address)
            };
            Some((id, lease.addresses.iter().filter_map(net).collect()))
        };
        Ok(leases.into_iter().filter_map(attachment).collect())
    }

    /// Everything that is held in a network, and by whom though nothing of them is left. Reads every address file.
    pub fn state(&self, request: &Request) -> Result<StoreState, Error> {
        let place = Place::read(request)?;
        let store = self.store(request, &place);
        let mut state = StoreState {
            leases: Vec::new(),
            dead: Vec::new(),
            reclaim: place.reclaim,
        };
        if let Some(session) = store.lock_existing()? {
            state.leases = session.leases()?;
            state.dead = session.dead()?;
            state.reclaim = session.reclaims();
        }
        Ok(state)
    }

    /// What the files of a network say, read without a lock and without changing anything.
    ///
    /// # Errors
    /// Where a directory that is there can't be read.
    pub fn snapshot(&self, request: &Request) -> Result<Snapshot, Error> {
        let store = self.store(request, &Place::read(request)?);
        Ok(store.snapshot()?)
    }

    /// The range sets of the configuration: an attachment gets one address out of each.
    ///
    /// # Errors
    /// Where the configuration is invalid.
    pub fn range_sets(&self, request: &Request) -> Result<Vec<RangeSet>, Error> {
        Ok(Settings::read(request)?.sets)
    }

    /// The directory with the network's address files.
    ///
    /// # Errors
    /// Where the configuration is invalid.
    pub fn directory(&self, request: &Request) -> Result<PathBuf, Error> {
        Ok(self.store(request, &Place::read(request)?).directory())
    }

    fn store(&self, request: &Request, place: &Place) -> Store<'static> {
        Store::new(&place.data_dir, &request.network, self.liveness).with_reclaim(place.reclaim)
    }
}

impl Default for HostLocal {
    /// The plugin that looks at /proc for whether a container is still there.
    fn default() -> Self {
        Self::new(&ProcLiveness)
    }
}

impl Plugin for HostLocal {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let settings = Settings::read(request)?;
        let requested = settings.assign(attachment)?;
        let dns = match &settings.resolv_conf {
            Some(path) => resolv::read(path)?,
            None => Dns::default(),
        };
        let wants: Vec<Want<'_>> = settings
            .sets
            .iter()
            .zip(requested)
            .enumerate()
            .map(|(index, (set, requested))| Want {
                index,
                set,
                requested,
            })
            .collect();
        let origin = Origin::now(attachment.netns.as_deref(), self.liveness);
        let store = self.store(request, &settings.place);
        let addresses = store.lock()?.reserve(&attachment.id(), origin, &wants)?;
        let ips = settings.sets.iter().zip(&addresses);
        Ok(CniResult {
            ips: ips
                .filter_map(|(set, address)| ip_config(set, *address))
                .collect(),
            routes: settings.routes,
            dns,
            ..CniResult::default()
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let store = self.store(request, &Place::read(request)?);
        if let Some(mut session) = store.lock_existing()? {
            session.release(&attachment.id())?;
        }
        Ok(())
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let store = self.store(request, &settings.place);
        let held = match store.lock_existing()? {
            Some(mut session) => session.held_by(&attachment.id())?,
            None => Vec::new(),
        };
        let result = request.prev_result.iter().flat_map(|result| &result.ips);
        // Addresses outside the ranges are another plugin's of the same list.
        let missing = result.map(|ip| ip.address.addr()).find(|address| {
            settings.sets.iter().any(|set| set.offers(*address)) && !held.contains(address)
        });
        let missing = match missing {
            Some(address) => address.to_string(),
            None if held.is_empty() => "any address".into(),
            None => return Ok(()),
        };
        Err(Error::new(
            Code::CheckFailed,
            format!(
                "check {} of container {}: it does not hold {missing} in {}",
                attachment.ifname,
                attachment.container,
                store.directory().display()
            ),
        )
        .with_details("run DEL and ADD for this container"))
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        let store = self.store(request, &Place::read(request)?);
        if let Some(mut session) = store.lock_existing()? {
            session.retain(valid)?;
        }
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let store = self.store(request, &settings.place);
        let store = store.with_lock_limit(STATUS_LOCK_LIMIT);
        match store.check_writable() {
            Ok(()) => {}
            Err(error) if error.passes() => {
                warn(error);
                return Ok(());
            }
            Err(error) => return Err(not_available(error)),
        }
        let session = match store.lock_existing() {
            Ok(Some(session)) => session,
            Ok(None) => return Ok(()),
            Err(error) if error.passes() => {
                warn(error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for (index, set) in settings.sets.iter().enumerate() {
            let usage = session.usage(set)?;
            if usage.used < usage.total {
                continue;
            }
            let full = crate::Error::Exhausted {
                set: index,
                ranges: set.to_string(),
                used: usage.used,
                total: usage.total,
                directory: store.directory(),
                reclaim: session.reclaims(),
            };
            match settings.when_full {
                WhenFull::NotReady => return Err(not_available(full)),
                WhenFull::Ready => warn(format_args!("{full}; {}", full.remedy())),
            }
        }
        Ok(())
    }
}

/// What the result says about an address. Always `Some`: the address comes out of the set.
fn ip_config(set: &RangeSet, address: IpAddr) -> Option<IpConfig> {
    let range = set.range_of(address)?;
    Some(IpConfig {
        interface: None,
        address: IpNet::new(address, range.subnet().prefix_len()).ok()?,
        gateway: Some(range.gateway()),
    })
}

/// An error as STATUS reports it: no ADD can be served until somebody does something about it, or its author wants to hear of it.
fn not_available(error: crate::Error) -> Error {
    Error {
        code: Code::NotAvailable,
        ..error.into()
    }
}

#[cfg(test)]
mod tests;
