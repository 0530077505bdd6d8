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
pub mod element;
pub mod ruleset;
pub(crate) mod socket;

use std::fmt;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetElementList, SetFlags, SetMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;

pub use batch::Batch;
pub use element::{COMMENT_MAX, Element, ElementData, KeyBuilder, KeyReader};
/// The family of a table: `Inet` for both versions of IP.
pub use netlink_packet_netfilter::NetfilterProtoFamily as Family;

use super::error::HostError;
use socket::NetfilterSocket;

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
}

/// A netlink socket for nftables.
pub struct Nft {
    socket: NetfilterSocket,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`HostError::System`] when the kernel has no nfnetlink.
    pub fn open() -> Result<Self, HostError> {
        NetfilterSocket::open().map(|socket| Self { socket })
    }

    /// Commits the changes of `batch`, all or none.
    ///
    /// # Errors
    /// [`HostError::Netlink`] for the first change that was refused; [`HostError::is_missing`] when it
    /// was about a table, chain, set or element that does not exist, [`HostError::is_exists`] when an
    /// element does already.
    pub fn commit(&mut self, batch: Batch) -> Result<(), HostError> {
        self.socket.transact(batch.messages)
    }

    /// All elements of a set or map.
    ///
    /// # Errors
    /// [`HostError::is_missing`] when there is no such set.
    pub fn elements(&mut self, set: ObjectRef<'_>) -> Result<Vec<Element>, HostError> {
        let body = NfTablesMessage::GetSetElement(batch::set_elements(set, &[], false));
        let operation = format!("list nft set {set}");
        self.socket
            .dump(&batch::message(set.table, body), &operation, take_elements)
    }

    /// Whether a set has no elements, which takes little time however many there are.
    ///
    /// # Errors
    /// [`HostError::is_missing`] when there is no such set.
    pub fn is_empty(&mut self, set: ObjectRef<'_>) -> Result<bool, HostError> {
        let body = NfTablesMessage::GetSetElement(batch::set_elements(set, &[], false));
        let mut found = Vec::new();
        let operation = format!("look into nft set {set}");
        self.socket
            .glance(&batch::message(set.table, body), &operation, |message| {
                take_elements(&mut found, message);
            })?;
        Ok(found.is_empty())
    }

    /// The element with the key of `element`, or none.
    ///
    /// # Errors
    /// [`HostError::Netlink`]; a missing set counts as a missing element.
    pub fn element(
        &mut self,
        set: ObjectRef<'_>,
        element: &Element,
    ) -> Result<Option<Element>, HostError> {
        let body = batch::set_elements(set, std::slice::from_ref(element), false);
        let message = batch::message(set.table, NfTablesMessage::GetSetElement(body));
        match self
            .socket
            .get(message, &format!("look up an element of nft set {set}"))
        {
            Ok(answer) => {
                let mut found = Vec::new();
                take_elements(&mut found, answer);
                Ok(found.pop())
            }
            Err(HostError::Netlink {
                errno: Errno::ENOENT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all sets and maps of a table, those without a name of their own left out. None when
    /// there is no such table.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn sets(&mut self, table: TableRef<'_>) -> Result<Vec<String>, HostError> {
        let body = SetMessage {
            attributes: vec![SetAttribute::Table(table.name.to_owned())],
        };
        let message = batch::message(table, NfTablesMessage::GetSet(body));
        let listing = self.socket.dump(
            &message,
            &format!("list sets of nft table {table}"),
            take_set,
        );
        listing.or_else(nothing_if_missing)
    }

    /// All chains of `table`, or of all tables.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn chains(&mut self, table: Option<TableRef<'_>>) -> Result<Vec<Chain>, HostError> {
        let family = table.map_or(Family::Unspec, |table| table.family);
        let body = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), body);
        let mut chains: Vec<Chain> = self.socket.dump(&message, "list nft chains", take_chain)?;
        // The kernel filters by family alone.
        chains.retain(|chain| table.is_none_or(|table| table.name == chain.table));
        Ok(chains)
    }

    /// The chain of that name, or none.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn chain(&mut self, chain: ObjectRef<'_>) -> Result<Option<Chain>, HostError> {
        let body = ChainMessage {
            attributes: vec![
                ChainAttribute::Table(chain.table.name.to_owned()),
                ChainAttribute::Name(chain.name.to_owned()),
            ],
        };
        let message = batch::message(chain.table, NfTablesMessage::GetChain(body));
        match self
            .socket
            .get(message, &format!("look up nft chain {chain}"))
        {
            Ok(answer) => {
                let mut found = Vec::new();
                take_chain(&mut found, answer);
                Ok(found.pop())
            }
            Err(HostError::Netlink {
                errno: Errno::ENOENT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The rules of a chain in their order. None when there is no such chain.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn rules(&mut self, chain: ObjectRef<'_>) -> Result<Vec<Rule>, HostError> {
        let body = RuleMessage {
            attributes: vec![
                RuleAttribute::Table(chain.table.name.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
            ],
        };
        let message = batch::message(chain.table, NfTablesMessage::GetRule(body));
        let listing = self.socket.dump(
            &message,
            &format!("list rules of nft chain {chain}"),
            take_rule,
        );
        listing.or_else(nothing_if_missing)
    }
}

/// A listing of what does not exist is empty.
fn nothing_if_missing<T>(error: HostError) -> Result<Vec<T>, HostError> {
    if error.is_missing() {
        Ok(Vec::new())
    } else {
        Err(error)
    }
}

fn take_elements(found: &mut Vec<Element>, message: NetfilterMessage) {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(body)) = message.inner
    else {
        return;
    };
    for attribute in body.attributes {
        let SetElementList::Elements(list) = attribute else {
            continue;
        };
        found.extend(list.iter().filter_map(|entry| match entry {
            ListAttribute::Element(attributes) => Element::decode(attributes),
            _ => None,
        }));
    }
}

fn take_set(found: &mut Vec<String>, message: NetfilterMessage) {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewSet(body)) = message.inner else {
        return;
    };
    let anonymous = body.attributes.iter().any(|attribute| {
        matches!(attribute, SetAttribute::Flags(flags) if flags.contains(SetFlags::Anonymous))
    });
    let name = body
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            SetAttribute::Name(name) => Some(name),
            _ => None,
        });
    found.extend(name.filter(|_| !anonymous));
}

fn take_chain(found: &mut Vec<Chain>, message: NetfilterMessage) {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(body)) = message.inner else {
        return;
    };
    let (mut table, mut name, mut kind) = (String::new(), String::new(), String::new());
    let (mut uses, mut drops, mut hook) = (0, false, None);
    for attribute in body.attributes {
        match attribute {
            ChainAttribute::Table(value) => table = value,
            ChainAttribute::Name(value) => name = value,
            ChainAttribute::Use(value) => uses = value,
            ChainAttribute::Type(value) => kind = value,
            // NF_DROP is 0, NF_ACCEPT is 1.
            ChainAttribute::Policy(value) => drops = value == 0,
            ChainAttribute::Hook(value) => hook = Some(value),
            _ => {}
        }
    }
    let base = hook.map(|hook| {
        let (hook, priority) = hook_of(&hook);
        BaseChain {
            hook,
            priority,
            kind,
            drops,
        }
    });
    found.push(Chain {
        family: message.header.family,
        table,
        name,
        uses,
        base,
    });
}

/// Number and priority of a base chain's hook.
fn hook_of(attributes: &[Hook]) -> (u32, i32) {
    let (mut number, mut priority) = (u32::MAX, 0);
    for attribute in attributes {
        match attribute {
            Hook::Number(value) => number = u32::from(*value),
            Hook::Priority(value) => priority = i32::from_ne_bytes(value.to_ne_bytes()),
            _ => {}
        }
    }
    (number, priority)
}

fn take_rule(found: &mut Vec<Rule>, message: NetfilterMessage) {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(body)) = message.inner else {
        return;
    };
    let (mut handle, mut comment) = (None, None);
    for attribute in body.attributes {
        match attribute {
            RuleAttribute::Handle(value) => handle = Some(value),
            RuleAttribute::UserData(bytes) => comment = element::decode_comment(&bytes),
            _ => {}
        }
    }
    found.extend(handle.map(|handle| Rule { handle, comment }));
}
