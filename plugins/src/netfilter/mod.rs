//! Rules of the packet filter that belong to attachments and networks, and what is to be known of everybody else's.
//!
//! Whose a rule or an element is, its comment tells ([`crate::owner`]). A plugin says which rules, which keys, and who
//! may have one; the rest is here:
//!
//! - with nftables a container is [`elements`] of sets, put and removed by netlink alone, and the rules exist once for a
//!   network: [`script`] writes them, and a [`digest`] tells whether they are still what they were made;
//! - with [`iptables`] a table is listed, and changed in one transaction;
//! - [`forward_hook`] tells what decides about forwarded packets on this host;
//! - [`go_plugins`] removes what the Go plugins left of a container that is ours to detach.

pub mod digest;
pub mod elements;
pub mod forward_hook;
pub mod go_plugins;
pub mod iptables;
pub mod script;
pub mod table;

/// Something that is kept for an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose it is, as [`crate::owner::Owner::comment`] or [`crate::owner::Owner::iptables_comment`] spells it.
    pub owner: String,
    /// What it is, in words: `nft element 10.1.0.5 in inet trestle masq/podnet/10.1.0.0-24`.
    pub what: String,
}
