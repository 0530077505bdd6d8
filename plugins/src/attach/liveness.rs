//! What the kernel knows of a container that only records tell of: for host-local, before it takes an address back.

use std::path::Path;

use cni_conf::request::AttachmentId;
use ipam::store::{Candidate, Liveness, ProcLiveness};

use super::veth;
use crate::host::{NetNs, Rtnl};
use crate::owner::Owner;

/// The kernel's view: an attachment stands while its host veth does, or while /proc shows its namespace.
pub struct KernelLiveness;

impl Liveness for KernelLiveness {
    fn netns_cookie(&self, netns: &Path) -> Option<u64> {
        NetNs::cookie_at(netns).ok()
    }

    fn alive(&self, candidates: &[Candidate<'_>]) -> Vec<bool> {
        let host = Rtnl::new().ok();
        let in_proc = ProcLiveness::alive_by(candidates, |netns| self.netns_cookie(netns));
        let by_veth = |candidate: &Candidate<'_>| match (&host, owner(candidate)) {
            // Doubt counts as "it stands": an address is kept rather than given twice.
            (Some(host), Some(owner)) => {
                veth::find(host, &owner).map_or(true, |link| link.is_some())
            }
            _ => true,
        };
        candidates
            .iter()
            .zip(in_proc)
            .map(|(candidate, in_proc)| in_proc || by_veth(candidate))
            .collect()
    }
}

/// The owner of a suspect's host veth; files of old releases don't tell the interface.
fn owner(candidate: &Candidate<'_>) -> Option<Owner> {
    let id = AttachmentId {
        container: candidate.owner.container.as_str().try_into().ok()?,
        ifname: candidate.owner.ifname.as_deref()?.try_into().ok()?,
    };
    Some(Owner::new(candidate.network, &id))
}
