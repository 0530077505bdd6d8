//! What the kernel knows of a container that only records tell of: for host-local, before it takes an address back.

use std::path::Path;

use cni_conf::request::AttachmentId;
use ipam::store::{Liveness, ProcLiveness, Suspect};

use super::veth;
use crate::host::{NetNs, Rtnl};
use crate::owner::Owner;

/// The kernel's view: an attachment stands while its host veth does, or while /proc shows its namespace.
pub struct KernelLiveness;

impl Liveness for KernelLiveness {
    fn netns_cookie(&self, netns: &Path) -> Option<u64> {
        NetNs::cookie_at(netns).ok()
    }

    fn standing(&self, suspects: &[Suspect<'_>]) -> Vec<bool> {
        let host = Rtnl::new().ok();
        let in_proc = ProcLiveness::standing_by(suspects, |netns| self.netns_cookie(netns));
        let by_veth = |suspect: &Suspect<'_>| match (&host, owner(suspect)) {
            // Doubt counts as "it stands": an address is kept rather than given twice.
            (Some(host), Some(owner)) => {
                veth::find(host, &owner).map_or(true, |link| link.is_some())
            }
            _ => true,
        };
        suspects
            .iter()
            .zip(in_proc)
            .map(|(suspect, in_proc)| in_proc || by_veth(suspect))
            .collect()
    }
}

/// The owner of a suspect's host veth; files of old releases don't tell the interface.
fn owner(suspect: &Suspect<'_>) -> Option<Owner> {
    let id = AttachmentId {
        container: suspect.owner.container.as_str().try_into().ok()?,
        ifname: suspect.owner.ifname.as_deref()?.try_into().ok()?,
    };
    Some(Owner::new(suspect.network, &id))
}
