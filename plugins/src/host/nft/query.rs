//! The netlink socket for nftables: committing transactions and looking at what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetFlags, SetMessage, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};
use nix::errno::Errno;

use super::element::{Element, decode_comment};
use super::{
    BaseChain, Batch, Chain, Family, ObjectRef, Rule, Table, TableRef, batch, content, expression,
};
use crate::host::HostError;
use crate::host::netlink::NetlinkError;
use crate::host::netlink::attributes::Attributes;
use crate::host::netlink::netfilter::{NetfilterSocket, Object};

// Message types and attributes from include/uapi/linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = nftables_type(0);
const NEW_CHAIN: u16 = nftables_type(3);
const NEW_RULE: u16 = nftables_type(6);
const NEW_SET: u16 = nftables_type(9);
const NEW_SET_ELEMENT: u16 = nftables_type(12);
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USE: u16 = 3;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_CHAIN_COUNTERS: u16 = 8;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_COUNT: u16 = 20;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NF_DROP: u32 = 0;

/// A message type of the nftables subsystem (`NFNL_SUBSYS_NFTABLES`).
const fn nftables_type(message: u16) -> u16 {
    10 << 8 | message
}

/// A set with so few elements was listed in one datagram: at 32 KiB it holds more, however long they are.
const ELEMENTS_IN_A_DATAGRAM: usize = 100;

/// How often a long listing that may not be complete is repeated.
const LISTINGS: u32 = 20;

/// What the kernel's worker may take for resizing a hash table.
const RESIZE_TIME: Duration = Duration::from_millis(1);

/// Why a transaction did not take effect.
#[derive(Debug)]
pub struct Refused {
    /// The kernel's reason, with the change that it is about.
    pub error: HostError,
    /// The element that was refused, if it is known: one that exists already or doesn't exist. Of several, the
    /// first is told.
    pub element: Option<Box<Element>>,
}

impl From<Refused> for HostError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
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

    /// Commits the changes of `batch`, all or none, however many.
    ///
    /// # Errors
    /// [`HostError::Netlink`] for the first change that was refused; [`HostError::not_found`] when it
    /// was about a table, chain, set or element that does not exist, [`HostError::already_exists`] when an
    /// element does already.
    pub fn commit(&mut self, batch: Batch) -> Result<(), HostError> {
        self.transact(&batch).map_err(HostError::from)
    }

    /// As [`Self::commit`], and tells which element was refused.
    ///
    /// # Errors
    /// See [`Self::commit`].
    pub fn transact(&mut self, batch: &Batch) -> Result<(), Refused> {
        let Some((operation, _)) = batch.find_cause(0, None) else {
            return Ok(());
        };
        let refusal = match self.socket.transact(batch.messages()) {
            Ok(()) => return Ok(()),
            Err(NetlinkError::Refused(refusal)) => refusal,
            Err(error) => {
                return Err(Refused {
                    error: error.during(operation),
                    element: None,
                });
            }
        };
        let place = refusal.position.checked_sub(1);
        let cause = place.and_then(|position| batch.find_cause(position, refusal.offset));
        let (operation, element) = cause.unwrap_or((operation, None));
        Err(Refused {
            error: HostError::Netlink {
                operation,
                errno: refusal.errno,
                detail: refusal.detail,
            },
            element: element.cloned().map(Box::new),
        })
    }

    /// All elements of a set or map, each once.
    ///
    /// The kernel lists a set that fills several datagrams by walking its hash table anew for each one
    /// and skipping as many elements as it has told before (net/netfilter/nft_set_hash.c). When the table
    /// is resized in between, some are told twice and others not at all, without a sign of it. Listings so
    /// long are therefore repeated until they are complete by the kernel's own count or, where it gives
    /// none, until a listing has nothing new.
    ///
    /// # Errors
    /// [`HostError::not_found`] when there is no such set.
    pub fn elements(&mut self, set: ObjectRef<'_>) -> Result<Vec<Element>, HostError> {
        let first = self.list_elements(set)?;
        let short = first.len() <= ELEMENTS_IN_A_DATAGRAM;
        let mut found = by_key(first);
        for _ in 0..LISTINGS {
            let count = if short {
                Some(found.len())
            } else {
                self.count(set)?
            };
            if count == Some(found.len()) {
                break;
            }
            let known = found.len();
            std::thread::sleep(RESIZE_TIME);
            let again = by_key(self.list_elements(set)?);
            if count.is_some() {
                found = again;
                continue;
            }
            found.extend(again);
            if found.len() == known {
                break;
            }
        }
        Ok(found.into_values().collect())
    }

    fn list_elements(&mut self, set: ObjectRef<'_>) -> Result<Vec<Element>, HostError> {
        let body = NfTablesMessage::GetSetElement(batch::set_elements(set, &[], false));
        let operation = format!("list nft set {set}");
        let message = batch::message(set.table, body);
        self.socket.dump(&message, &operation, |found, object| {
            found.extend(read_elements(object))
        })
    }

    /// How many elements a set has, if the kernel tells.
    fn count(&mut self, set: ObjectRef<'_>) -> Result<Option<usize>, HostError> {
        let message = batch::message(set.table, NfTablesMessage::GetSet(named_set(set)));
        let operation = format!("count the elements of nft set {set}");
        let count = |object: &Object<'_>| object.attributes.u32(NFTA_SET_COUNT);
        let count = self.socket.get(message, &operation, count)?;
        Ok(count.and_then(|count| usize::try_from(count).ok()))
    }

    /// Whether a set has no elements.
    ///
    /// Recent kernels tell how many a set has (`NFTA_SET_COUNT`). Others are asked for the elements, of which only the
    /// first few are looked at.
    ///
    /// # Errors
    /// [`HostError::not_found`] when there is no such set.
    pub fn is_empty(&mut self, set: ObjectRef<'_>) -> Result<bool, HostError> {
        if let Some(count) = self.count(set)? {
            return Ok(count == 0);
        }
        let operation = format!("look into nft set {set}");
        let body = NfTablesMessage::GetSetElement(batch::set_elements(set, &[], false));
        let message = batch::message(set.table, body);
        let empty = self.socket.first(message, &operation, |object| {
            read_elements(object).next().is_none()
        })?;
        Ok(empty.unwrap_or(true))
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
        let operation = format!("look up an element of nft set {set}");
        let found = self
            .socket
            .get(message, &operation, |object| read_elements(object).next());
        found.or_else(none_if_missing)
    }

    /// The names of all sets and maps of a table, those without a name of their own left out. Empty when
    /// there is no such table.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn sets(&mut self, table: TableRef<'_>) -> Result<Vec<String>, HostError> {
        let body = SetMessage {
            attributes: vec![SetAttribute::Table(table.name.to_owned())],
        };
        let message = batch::message(table, NfTablesMessage::GetSet(body));
        let operation = format!("list the sets of nft table {table}");
        let listing = self.socket.dump(&message, &operation, |found, object| {
            found.extend(read_set_name(object));
        });
        listing.or_else(nothing_if_missing)
    }

    /// All tables.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn tables(&mut self) -> Result<Vec<Table>, HostError> {
        let body = NfTablesMessage::GetTable(TableMessage {
            attributes: Vec::new(),
        });
        let message = NetfilterMessage::new(NetfilterHeader::new(Family::Unspec, 0, 0), body);
        self.socket
            .dump(&message, "list nft tables", |found, object| {
                found.extend(read_table(object));
            })
    }

    /// All chains of `table`, or of all tables. The kernel tells those of all tables of a family, however many there are.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn chains(&mut self, table: Option<TableRef<'_>>) -> Result<Vec<Chain>, HostError> {
        let family = table.map_or(Family::Unspec, |table| table.family);
        let mut chains = self.chains_of_family(family)?;
        // The kernel filters by family alone.
        chains.retain(|chain: &Chain| table.is_none_or(|table| table.name == chain.table));
        Ok(chains)
    }

    /// All chains of all tables of a family.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn chains_of_family(&mut self, family: Family) -> Result<Vec<Chain>, HostError> {
        let body = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), body);
        self.socket
            .dump(&message, "list nft chains", |found, object| {
                found.extend(read_chain(object));
            })
    }

    /// The names of the chains of a table that have rules, or that a rule leads to by a verdict of its own: all but those
    /// that are empty and only reached by a verdict map, or not at all. Unlike a listing of chains, this one costs nothing
    /// for other tables.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn chains_by_rules(&mut self, table: TableRef<'_>) -> Result<BTreeSet<String>, HostError> {
        let body = RuleMessage {
            attributes: vec![RuleAttribute::Table(table.name.to_owned())],
        };
        let message = batch::message(table, NfTablesMessage::GetRule(body));
        let operation = format!("list the rules of nft table {table}");
        let listing = self.socket.dump(&message, &operation, |found, object| {
            if object.kind == NEW_RULE {
                found.extend(object.attributes.text(NFTA_RULE_CHAIN));
                let expressions = object.attributes.nested(NFTA_RULE_EXPRESSIONS);
                found.extend(expression::targets(expressions));
            }
        });
        Ok(listing.or_else(nothing_if_missing)?.into_iter().collect())
    }

    /// How many sets and maps a table has, those without a name of their own among them.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn count_sets(&mut self, table: TableRef<'_>) -> Result<usize, HostError> {
        let body = SetMessage {
            attributes: vec![SetAttribute::Table(table.name.to_owned())],
        };
        let message = batch::message(table, NfTablesMessage::GetSet(body));
        let operation = format!("count the sets of nft table {table}");
        let listing = self.socket.dump(&message, &operation, |found, object| {
            found.extend((object.kind == NEW_SET).then_some(()));
        });
        Ok(listing.or_else(nothing_if_missing)?.len())
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
        let operation = format!("look up nft chain {chain}");
        self.socket
            .get(message, &operation, read_chain)
            .or_else(none_if_missing)
    }

    /// The rules of a chain in their order. Empty when there is no such chain.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn rules(&mut self, chain: ObjectRef<'_>) -> Result<Vec<Rule>, HostError> {
        let operation = format!("list the rules of nft chain {chain}");
        let listing = self
            .socket
            .dump(&rules_of(chain), &operation, |found, object| {
                found.extend(read_rule(object));
            });
        listing.or_else(nothing_if_missing)
    }

    /// The rule of a chain with this number, asked for alone; none if there is none.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn rule(&mut self, chain: ObjectRef<'_>, handle: u64) -> Result<Option<Rule>, HostError> {
        let body = RuleMessage {
            attributes: vec![
                RuleAttribute::Table(chain.table.name.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Handle(handle),
            ],
        };
        let message = batch::message(chain.table, NfTablesMessage::GetRule(body));
        let operation = format!("look up rule {handle} of nft chain {chain}");
        self.socket
            .get(message, &operation, read_rule)
            .or_else(none_if_missing)
    }
}

fn by_key(elements: Vec<Element>) -> BTreeMap<Vec<u8>, Element> {
    elements
        .into_iter()
        .map(|element| (element.key.clone(), element))
        .collect()
}

/// A listing of what does not exist is empty.
fn nothing_if_missing<T>(error: HostError) -> Result<Vec<T>, HostError> {
    if error.not_found() {
        Ok(Vec::new())
    } else {
        Err(error)
    }
}

fn none_if_missing<T>(error: HostError) -> Result<Option<T>, HostError> {
    match error {
        HostError::Netlink {
            errno: Errno::ENOENT,
            ..
        } => Ok(None),
        error => Err(error),
    }
}

fn rules_of(chain: ObjectRef<'_>) -> NetfilterMessage {
    let body = RuleMessage {
        attributes: vec![
            RuleAttribute::Table(chain.table.name.to_owned()),
            RuleAttribute::Chain(chain.name.to_owned()),
        ],
    };
    batch::message(chain.table, NfTablesMessage::GetRule(body))
}

fn named_set(set: ObjectRef<'_>) -> SetMessage {
    SetMessage {
        attributes: vec![
            SetAttribute::Table(set.table.name.to_owned()),
            SetAttribute::Name(set.name.to_owned()),
        ],
    }
}

fn read_elements<'a>(object: &Object<'a>) -> impl Iterator<Item = Element> + use<'a> {
    let elements = match object.kind {
        NEW_SET_ELEMENT => object.attributes.nested(NFTA_SET_ELEM_LIST_ELEMENTS),
        _ => Attributes::new(&[]),
    };
    elements
        .filter(|(kind, _)| *kind == NFTA_LIST_ELEM)
        .filter_map(|(_, element)| Element::decode(Attributes::new(element)))
}

fn read_set_name(object: &Object<'_>) -> Option<String> {
    let flags = SetFlags::from_bits_retain(object.attributes.u32(NFTA_SET_FLAGS).unwrap_or(0));
    (object.kind == NEW_SET && !flags.contains(SetFlags::Anonymous))
        .then(|| object.attributes.text(NFTA_SET_NAME))?
}

fn read_table(object: &Object<'_>) -> Option<Table> {
    (object.kind == NEW_TABLE).then_some(Table {
        family: object.family,
        name: object.attributes.text(NFTA_TABLE_NAME)?,
        uses: object.attributes.u32(NFTA_TABLE_USE).unwrap_or(u32::MAX),
    })
}

fn read_chain(object: &Object<'_>) -> Option<Chain> {
    let chain = object.attributes;
    let base = chain.find(NFTA_CHAIN_HOOK).map(|hook| {
        let hook = Attributes::new(hook);
        BaseChain {
            hook: hook.u32(NFTA_HOOK_HOOKNUM).unwrap_or(u32::MAX),
            priority: hook.u32(NFTA_HOOK_PRIORITY).unwrap_or(0).cast_signed(),
            kind: chain.text(NFTA_CHAIN_TYPE).unwrap_or_default(),
            drops: chain.u32(NFTA_CHAIN_POLICY) == Some(NF_DROP),
            policy_packets: chain.nested(NFTA_CHAIN_COUNTERS).u64(NFTA_COUNTER_PACKETS),
        }
    });
    (object.kind == NEW_CHAIN).then_some(Chain {
        family: object.family,
        table: chain.text(NFTA_CHAIN_TABLE)?,
        name: chain.text(NFTA_CHAIN_NAME)?,
        uses: chain.u32(NFTA_CHAIN_USE).unwrap_or(0),
        base,
    })
}

fn read_rule(object: &Object<'_>) -> Option<Rule> {
    let handle = object.attributes.u64(NFTA_RULE_HANDLE)?;
    let expressions = object.attributes.nested(NFTA_RULE_EXPRESSIONS);
    let comment = object
        .attributes
        .find(NFTA_RULE_USERDATA)
        .and_then(decode_comment)
        .or_else(|| expression::comment(expressions));
    (object.kind == NEW_RULE).then_some(Rule {
        handle,
        comment,
        content: content::of(expressions),
        verdict: expression::verdict(expressions),
    })
}
