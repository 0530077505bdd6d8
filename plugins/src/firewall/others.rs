//! The network's other containers, for when the host's rules have forgotten them.

use std::cell::OnceCell;
use std::net::IpAddr;

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use cni_conf::request::Request;

use super::conf::Settings;
use super::remove_all;
use super::wanted::Wanted;
use crate::attach::chained;
use crate::attach::record::{Recorded, Records};
use crate::owner::{Owner, Owners};

/// What the living containers of a network want besides one that is being attached. Looked up when it is first asked
/// for, which is where there is no rule for the network.
pub(super) struct Others<'a> {
    request: &'a Request,
    settings: &'a Settings,
    records: &'a Records,
    owner: &'a Owner,
    /// What IPAM gave to that one.
    addresses: Vec<IpAddr>,
    found: OnceCell<Found>,
}

#[derive(Default)]
struct Found {
    recorded: Vec<Recorded>,
    wanted: Vec<Wanted>,
}

impl<'a> Others<'a> {
    /// Those besides `owner`, which has these addresses.
    pub(super) fn new(
        request: &'a Request,
        settings: &'a Settings,
        records: &'a Records,
        owner: &'a Owner,
        addresses: Vec<IpAddr>,
    ) -> Self {
        Self {
            request,
            settings,
            records,
            owner,
            addresses,
            found: OnceCell::new(),
        }
    }

    /// What they want.
    pub(super) fn look_up(&self) -> &[Wanted] {
        &self.found.get_or_init(|| self.find()).wanted
    }

    fn find(&self) -> Found {
        let mut found = Found::default();
        for other in self.records.living(self.owner) {
            if other.request.network != self.request.network {
                continue;
            }
            match self.wanted_by(&other) {
                Ok(wanted) if wanted.addresses.is_empty() => {}
                Ok(wanted) => {
                    found.wanted.push(wanted);
                    found.recorded.push(other);
                }
                Err(error) => warn(format_args!(
                    "restore the firewall rules of container {}: {error}",
                    other.attachment.container
                )),
            }
        }
        found
    }

    /// By the network's policy as it is now.
    fn wanted_by(&self, other: &Recorded) -> Result<Wanted, Error> {
        let result = chained::previous(&other.request)?;
        let mut wanted = Wanted::new(&other.request, &other.attachment, result, self.settings)?;
        // IPAM gave these to the container that is being attached.
        let own = &self.addresses;
        wanted.addresses.retain(|address| !own.contains(address));
        Ok(wanted)
    }

    /// Removes what was restored for containers that are gone by now: their DEL may have looked before. One that has
    /// not yet will find what was restored.
    pub(super) fn remove_vanished(&self) {
        let Some(found) = self.found.get() else {
            return;
        };
        for (recorded, wanted) in found.recorded.iter().zip(&found.wanted) {
            if self.records.has(recorded) {
                continue;
            }
            let theirs = Owners::one(&recorded.owner());
            // The rules of the network are also those of the container that is being attached.
            if let Err(error) = remove_all(&recorded.request, &theirs, &wanted.addresses, &|| false)
            {
                warn(format_args!(
                    "take the firewall rules of {} out again: {error}",
                    wanted.comment
                ));
            }
        }
    }
}
