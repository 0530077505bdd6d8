//! nftables: whole rulesets through the `nft` program, single elements by netlink.
//!
//! The two ways have different costs. [`ruleset::apply`] starts a process (some milliseconds) and
//! can write any rule; it is for what exists once, such as a network's chains. [`Nft`] is a netlink
//! socket (some microseconds) that adds and deletes elements of sets and lists what is there; it is for
//! what comes and goes with each container. Both commit in one transaction: the kernel takes all of it
//! or nothing (net/netfilter/nf_tables_api.c), and processes do not see each other's halves.
//!
//! A socket belongs to the network namespace its thread was in when it was opened, a child process to
//! the one its thread is in when it is started.

pub mod batch;
mod content;
pub mod element;
mod expression;
pub mod monitor;
mod query;
pub mod ruleset;
pub mod trace;
mod trace_table;

use std::fmt;

use netlink_packet_netfilter::NetfilterProtoFamily;

pub use batch::{Batch, Note};
pub use element::{COMMENT_MAX, Element, ElementData, KeyBuilder, KeyReader};
/// The family of a table: `Inet` for both versions of IP.
pub use netlink_packet_netfilter::NetfilterProtoFamily as Family;

pub use query::{Nft, Refused};

/// A table by family and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRef<'a> {
    /// The family.
    pub family: Family,
    /// The name.
    pub name: &'a str,
}

impl<'a> TableRef<'a> {
    /// A set, map or chain of this table.
    pub fn object(self, name: &'a str) -> ObjectRef<'a> {
        ObjectRef { table: self, name }
    }
}

impl fmt::Display for TableRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", family_name(self.family), self.name)
    }
}

/// A set, map or chain by table and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRef<'a> {
    /// The table it is in.
    pub table: TableRef<'a>,
    /// Its name.
    pub name: &'a str,
}

impl fmt::Display for ObjectRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// The word `nft` has for a family.
pub fn family_name(family: Family) -> &'static str {
    match family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::ARP => "arp",
        NetfilterProtoFamily::Bridge => "bridge",
        NetfilterProtoFamily::NetDev => "netdev",
        _ => "unknown",
    }
}

/// What a listing tells of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// How many chains, sets (those without a name of their own among them), flow tables and other objects are in it.
    pub uses: u32,
}

impl Table {
    /// It, by family and name.
    pub fn reference(&self) -> TableRef<'_> {
        TableRef {
            family: self.family,
            name: &self.name,
        }
    }
}

/// What a listing tells of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table.
    pub family: Family,
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Rules in it and references to it from elsewhere.
    pub uses: u32,
    /// Where packets come from, for a base chain.
    pub base: Option<BaseChain>,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// The hook's number in its family; see [`FORWARD_HOOK`].
    pub hook: u32,
    /// The order among the chains of one hook; lower is earlier.
    pub priority: i32,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// Whether packets that no rule decides about are dropped.
    pub drops: bool,
    /// How many packets came to its policy; only some chains count, iptables' among them.
    pub policy_packets: Option<u64>,
}

/// The number of the forward hook for families `ip`, `ip6`, `inet` and `bridge` (`NF_INET_FORWARD`).
pub const FORWARD_HOOK: u32 = 2;

/// What a listing tells of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number, unique in the table.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// What it says, as the kernel has it, without what counters have counted. The same as long as the rule is; a rule with
    /// other conditions or another verdict has another content, whatever its comment says. Sets without a name of their own
    /// are not told apart.
    pub content: Vec<u8>,
    /// What it does with every packet that comes to it; none when it is about some packets only, or when
    /// it decides nothing.
    pub verdict: Option<Verdict>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves this base chain for the next one.
    Accept,
    /// It is dropped, with or without notice to its sender.
    Drop,
    /// It goes back to the rule behind the one that led to this chain.
    Return,
    /// It goes through another chain first.
    Jump(String),
    /// It goes through another chain instead.
    Goto(String),
}
