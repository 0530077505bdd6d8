//! Whose a host port is: the attachment's own, another one's of the same container, or somebody else's.
//!
//! Runtimes hand the mappings of a container to each of its networks. The first attachment serves a port, the others wait:
//! the DEL of the first hands it to the next. A port of another container is refused, unless that one is known to be
//! gone ([`super::gone`]).

use std::cell::OnceCell;
use std::net::IpAddr;

use cni_conf::error::{Code, Error};

use super::plan::Forward;
use crate::attach::record::{Recorded, Records};
use crate::owner::{Owner, Owners};

/// An attachment, and the other ones of its container.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The attachment.
    pub(super) owner: Owner,
    /// What marks its things in nftables.
    pub(super) comment: String,
    /// What marks its things in iptables.
    pub(super) iptables_comment: String,
    records: Records,
    own: Owners,
    /// Its container's attachments, as far as they are recorded.
    siblings: OnceCell<Vec<Owners>>,
}

/// Whose something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The attachment's own.
    Own,
    /// Of another attachment of the same container.
    Sibling,
    /// Of another container, or nobody knows.
    Other,
}

impl Identity {
    pub(super) fn new(owner: Owner, records: &Records) -> Self {
        Self {
            comment: owner.comment(),
            iptables_comment: owner.iptables_comment(),
            own: Owners::one(&owner),
            owner,
            records: records.clone(),
            siblings: OnceCell::new(),
        }
    }

    /// Whose what has this comment is.
    pub(super) fn whose(&self, comment: &str) -> Whose {
        if self.own.has(comment) {
            return Whose::Own;
        }
        let mut parts = comment.split('/');
        let (_, container, ifname) = (parts.next(), parts.next(), parts.next());
        let same = ifname.is_some() && container == Some(self.owner.container.as_str());
        // A comment that is cut tells no container; then records do.
        match same || comment.contains('#') && self.is_recorded_sibling(comment) {
            true => Whose::Sibling,
            false => Whose::Other,
        }
    }

    fn is_recorded_sibling(&self, comment: &str) -> bool {
        let siblings = self.siblings.get_or_init(|| {
            let recorded = self.records.of_container(&self.owner.container);
            let owners = recorded.iter().map(Recorded::owner);
            owners.map(|owner| Owners::one(&owner)).collect()
        });
        siblings.iter().any(|sibling| sibling.has(comment))
    }
}

/// What became of an attempt to map ports.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All are mapped, or served by another attachment of the container.
    Mapped,
    /// Somebody else has one of them; nothing was changed.
    Taken(Rival),
}

/// Which mappings are an attachment's to serve.
#[derive(Debug)]
pub(super) enum Served {
    /// Those that no other attachment of its container serves.
    These(Vec<Forward>),
    /// Somebody else has one.
    Taken(Rival),
}

/// Who has a port that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Rival {
    /// The port that is wanted.
    pub(super) wanted: Forward,
    /// The comment of what is in the way.
    pub(super) comment: String,
    /// The mapping that is in the way, as text.
    pub(super) mapping: String,
    /// The address that it leads to, if that is known.
    pub(super) to: Option<IpAddr>,
}

impl Rival {
    /// The refusal of the port.
    pub(super) fn refusal(&self) -> Error {
        let port = self.wanted.to_string();
        let as_what = match port == self.mapping {
            true => String::new(),
            false => format!(" as {}", self.mapping),
        };
        let owner = match self.comment.as_str() {
            "" => "somebody unnamed",
            comment => comment,
        };
        Error::new(
            Code::Conflict,
            format!("map host port {port}: {owner} has it already{as_what}"),
        )
        .with_details(
            "the owner reads network/containerID/interface: choose another host port, or delete that container; if it is \
             gone, GC or a DEL for it gives the port free",
        )
    }
}
