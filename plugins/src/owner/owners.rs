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
        /// What iptables' rules of valid ones may have, or of others.
        ambiguous: BTreeSet<String>,
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
        let (mut comments, mut ambiguous) = (BTreeSet::new(), BTreeSet::new());
        let mut aliases = BTreeSet::new();
        for id in valid {
            let owner = Owner::new(network, id);
            let spellings = Spellings::of(&owner);
            comments.extend(spellings.certain);
            ambiguous.insert(spellings.ambiguous);
            aliases.insert(owner.alias());
        }
        Self {
            network: network.clone(),
            selection: Selection::AllBut {
                comments,
                ambiguous,
                aliases,
            },
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

    /// Whether a comment of nftables is one of theirs, found where all networks have things. For one of iptables see
    /// [`Owners::has_in_iptables`].
    pub fn has(&self, comment: &str) -> bool {
        self.has_among_its_own(comment)
            && (self.as_one().is_some() || comment::is_of(&self.network, comment))
    }

    /// The same for a comment of iptables, without what else a rule's comment says. Former versions let two interfaces of a
    /// container have the same one; a rule with such a comment stays as long as one of them is valid.
    pub fn has_in_iptables(&self, comment: &str) -> bool {
        let spared = match &self.selection {
            Selection::One { .. } => false,
            Selection::AllBut { ambiguous, .. } => ambiguous.contains(comment),
        };
        !spared && self.has(comment)
    }

    /// Whether a comment of nftables is one of theirs, found among things that are this network's by the name of a set or a chain.
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
