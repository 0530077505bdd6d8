//! Rules of the packet filter that belong to attachments and networks, and what is to be known of everybody else's.
//!
//! Whose a rule or an element is, its comment tells ([`crate::owner`]).

pub mod forward_hook;
pub mod go_plugins;
pub mod iptables;
pub mod table;
