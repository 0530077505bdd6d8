//! Whose things a removal is about.

use std::collections::BTreeSet;

use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;

use super::comment::{self, Spellings};
use super::{Owner, alias_is_of};

/// The attachments whose things are to be removed: DEL's one, or GC's, which are those of a network but for the valid
/// ones.
///
/// What former versions spelt in another way is recognised as far as it tells its owner. Where it may be a valid
/// attachment's, it is not removed.
#[derive(Debug, Clone)]
pub struct Owners {
    network: NetworkName,
    selection: Selection,
}

#[derive(Debug, Clone)]
enum Selection {
    One {
        owner: Owner,
        comments: [String; 3],
        alias: String,
    },
    AllBut {
        comments: BTreeSet<String>,
        aliases: BTreeSet<String>,
    },
}

impl Owners {
    /// One attachment.
    pub fn one(owner: &Owner) -> Self {
        Self {
            network: owner.network.clone(),
            selection: Selection::One {
                comments: Spellings::of(owner).certain,
                alias: owner.alias(),
                owner: owner.clone(),
            },
        }
    }

    /// The attachments to a network that are not in `valid`.
    pub fn all_but(network: &NetworkName, valid: &[AttachmentId]) -> Self {
        let (mut comments, mut aliases) = (BTreeSet::new(), BTreeSet::new());
        for id in valid {
            let owner = Owner::new(network, id);
            let Spellings { certain, ambiguous } = Spellings::of(&owner);
            comments.extend(certain);
            comments.insert(ambiguous);
            aliases.insert(owner.alias());
        }
        Self {
            network: network.clone(),
            selection: Selection::AllBut { comments, aliases },
        }
    }

    /// All attachments to a network.
    pub fn all(network: &NetworkName) -> Self {
        Self::all_but(network, &[])
    }

    /// The network that all of them are attached to.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The attachment, if it is one.
    pub fn as_one(&self) -> Option<&Owner> {
        match &self.selection {
            Selection::One { owner, .. } => Some(owner),
            Selection::AllBut { .. } => None,
        }
    }

    /// Whether a comment of nftables or iptables is one of theirs, found where all networks have things.
    pub fn has(&self, comment: &str) -> bool {
        self.has_among_its_own(comment)
            && (self.as_one().is_some() || comment::is_of(&self.network, comment))
    }

    /// Whether a comment is one of theirs, found among things that are this network's by the name of a set or a chain.
    pub fn has_among_its_own(&self, comment: &str) -> bool {
        match &self.selection {
            Selection::One { comments, .. } => comments.iter().any(|own| own == comment),
            Selection::AllBut { comments, .. } => !comments.contains(comment),
        }
    }

    /// Whether the alias of a link of the host is one of theirs.
    pub fn has_alias(&self, found: &str) -> bool {
        match &self.selection {
            Selection::One { alias, .. } => alias == found,
            Selection::AllBut { aliases, .. } => {
                alias_is_of(&self.network, found) && !aliases.contains(found)
            }
        }
    }
}
