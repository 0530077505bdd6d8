//! Changes to nftables objects by netlink, collected and committed as one transaction.
//!
//! Elements that are added to (or deleted from) one set one after the other share messages, as many in each as
//! an attribute has room for, however the caller hands them over.

use netlink_packet_core::{Emitable, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_NONREC};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, Expressions, Immediate,
    ListAttribute, NfTablesMessage, Register, RuleAttribute, RuleMessage, SetAttribute,
    SetElementList, SetElementMessage, SetMessage, TableAttribute, TableMessage, Verdict,
    VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};

use super::element::{Element, encode_userdata};
use super::{Family, ObjectRef, TableRef};
use crate::host::netlink::netfilter::Outgoing;

/// How many bytes of elements go into one message. The length of the attribute around them has 16 bits.
const ELEMENT_BYTES: usize = 60_000;

/// Where the attributes of a message begin (`struct nlmsghdr` and `struct nfgenmsg`).
const HEADERS: usize = 16 + 4;

/// The header of an attribute (`struct nlattr`).
const ATTRIBUTE_HEADER: usize = 4;

/// Without it the kernel deletes what is inside along with a table, chain or set (`nf_tables_deltable` and so on).
const EMPTY: u16 = NLM_F_NONREC;

/// Changes that take effect together or not at all. See [`super::Nft::commit`].
#[derive(Default)]
pub struct Batch {
    changes: Vec<Change>,
}

/// What a rule does that decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// `continue`.
    Continue,
    /// It counts packets: iptables lists no rule without a counter.
    Counter,
}

impl Note {
    fn expression(self) -> ListAttribute<ExpressionAttribute> {
        match self {
            Self::Continue => Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Verdict),
                Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
                    Verdict::Continue,
                )])),
            ])
            .into(),
            Self::Counter => {
                ListAttribute::Element(vec![ExpressionAttribute::Name("counter".to_owned())])
            }
        }
    }
}

/// One message of a transaction.
enum Change {
    Elements(ElementChange),
    Object {
        family: Family,
        body: NfTablesMessage,
        flags: u16,
        operation: String,
    },
}

/// Elements of one set, all of which are added or all deleted.
struct ElementChange {
    verb: Verb,
    family: Family,
    table: String,
    set: String,
    elements: Vec<Element>,
    /// How long they are in the message.
    bytes: usize,
}

/// What is done with elements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Ensure,
    Delete,
}

impl Batch {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The messages, in order.
    pub(super) fn messages(&self) -> impl ExactSizeIterator<Item = Outgoing> {
        self.changes.iter().map(Change::message)
    }

    /// What the message at `position` does, in words; with `offset`, where in the message the kernel found
    /// fault, the element that is there.
    pub(super) fn find_cause(
        &self,
        position: usize,
        offset: Option<u32>,
    ) -> Option<(String, Option<&Element>)> {
        let change = self.changes.get(position)?;
        let Change::Elements(elements) = change else {
            return Some((change.operation(), None));
        };
        let element = elements.at(offset);
        let operation = element.map_or_else(|| elements.operation(), |one| elements.about(one));
        Some((operation, element))
    }

    /// Adds elements that must not exist yet: an equal key is `EEXIST`, whoever owns it, so that no
    /// element keeps the comment of a former owner unnoticed. A missing table or set is `ENOENT`.
    pub fn add_elements(&mut self, set: ObjectRef<'_>, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, Verb::Add)
    }

    /// Adds elements that may exist already; those that do keep their comment. A missing table or set is
    /// `ENOENT`.
    pub fn ensure_elements(&mut self, set: ObjectRef<'_>, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, Verb::Ensure)
    }

    /// Deletes the elements with these keys; one that does not exist is `ENOENT`.
    pub fn delete_elements(&mut self, set: ObjectRef<'_>, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, Verb::Delete)
    }

    /// Deletes a chain and its rules; `EBUSY` when a rule or element elsewhere leads to it.
    pub fn delete_chain(&mut self, chain: ObjectRef<'_>) -> &mut Self {
        self.chain(chain, 0)
    }

    /// Deletes a chain that has no rules; `EBUSY` when it has some, or when a rule elsewhere leads to it.
    pub fn delete_empty_chain(&mut self, chain: ObjectRef<'_>) -> &mut Self {
        self.chain(chain, EMPTY)
    }

    /// Adds a rule that decides nothing behind those of a chain, for the sake of its comment.
    pub fn append_note(&mut self, chain: ObjectRef<'_>, kind: Note, comment: &str) -> &mut Self {
        let body = RuleMessage {
            attributes: vec![
                RuleAttribute::Table(chain.table.name.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Expressions(vec![kind.expression()]),
                RuleAttribute::UserData(encode_userdata(comment)),
            ],
        };
        let operation = format!("add a note to nft chain {chain}");
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.push(
            chain.table,
            NfTablesMessage::NewRule(body),
            flags,
            operation,
        )
    }

    /// Deletes one rule, by the handle of a listing.
    pub fn delete_rule(&mut self, chain: ObjectRef<'_>, handle: u64) -> &mut Self {
        let body = RuleMessage {
            attributes: vec![
                RuleAttribute::Table(chain.table.name.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Handle(handle),
            ],
        };
        let operation = format!("delete rule {handle} of nft chain {chain}");
        self.push(chain.table, NfTablesMessage::DeleteRule(body), 0, operation)
    }

    /// Deletes a set that has no elements; `EBUSY` when it has some, or when a rule uses it that is not
    /// deleted earlier in the same transaction.
    pub fn delete_empty_set(&mut self, set: ObjectRef<'_>) -> &mut Self {
        self.set(set, EMPTY)
    }

    /// Deletes a set and its elements; `EBUSY` when a rule uses it that is not deleted earlier in the same
    /// transaction.
    pub fn delete_set(&mut self, set: ObjectRef<'_>) -> &mut Self {
        self.set(set, 0)
    }

    /// Deletes a table that has neither chains nor sets; `EBUSY` when it has some.
    pub fn delete_empty_table(&mut self, table: TableRef<'_>) -> &mut Self {
        let body = TableMessage {
            attributes: vec![TableAttribute::Name(table.name.to_owned())],
        };
        let operation = format!("delete nft table {table}");
        self.push(table, NfTablesMessage::DeleteTable(body), EMPTY, operation)
    }

    fn chain(&mut self, chain: ObjectRef<'_>, flags: u16) -> &mut Self {
        let body = NfTablesMessage::DeleteChain(ChainMessage {
            attributes: vec![
                ChainAttribute::Table(chain.table.name.to_owned()),
                ChainAttribute::Name(chain.name.to_owned()),
            ],
        });
        let operation = format!("delete nft chain {chain}");
        self.push(chain.table, body, flags, operation)
    }

    fn set(&mut self, set: ObjectRef<'_>, flags: u16) -> &mut Self {
        let body = NfTablesMessage::DeleteSet(SetMessage {
            attributes: vec![
                SetAttribute::Table(set.table.name.to_owned()),
                SetAttribute::Name(set.name.to_owned()),
            ],
        });
        let operation = format!("delete nft set {set}");
        self.push(set.table, body, flags, operation)
    }

    fn elements(&mut self, set: ObjectRef<'_>, elements: &[Element], verb: Verb) -> &mut Self {
        for element in elements {
            let bytes = element.encode(verb.is_addition()).buffer_len();
            match self.changes.last_mut() {
                Some(Change::Elements(last)) if last.has_room(verb, set, bytes) => {
                    last.elements.push(element.clone());
                    last.bytes += bytes;
                }
                _ => self.changes.push(Change::Elements(ElementChange {
                    verb,
                    family: set.table.family,
                    table: set.table.name.to_owned(),
                    set: set.name.to_owned(),
                    elements: vec![element.clone()],
                    bytes,
                })),
            }
        }
        self
    }

    fn push(
        &mut self,
        table: TableRef<'_>,
        body: NfTablesMessage,
        flags: u16,
        operation: String,
    ) -> &mut Self {
        self.changes.push(Change::Object {
            family: table.family,
            body,
            flags,
            operation,
        });
        self
    }
}

impl Change {
    fn message(&self) -> Outgoing {
        match self {
            Self::Elements(change) => change.message(),
            Self::Object {
                family,
                body,
                flags,
                ..
            } => Outgoing {
                message: NetfilterMessage::new(NetfilterHeader::new(*family, 0, 0), body.clone()),
                flags: *flags,
            },
        }
    }

    fn operation(&self) -> String {
        match self {
            Self::Elements(change) => change.operation(),
            Self::Object { operation, .. } => operation.clone(),
        }
    }
}

impl Verb {
    fn is_addition(self) -> bool {
        self != Self::Delete
    }
}

impl ElementChange {
    fn set(&self) -> ObjectRef<'_> {
        let table = TableRef {
            family: self.family,
            name: &self.table,
        };
        table.object(&self.set)
    }

    fn has_room(&self, verb: Verb, set: ObjectRef<'_>, bytes: usize) -> bool {
        self.verb == verb && self.set() == set && self.bytes + bytes <= ELEMENT_BYTES
    }

    fn message(&self) -> Outgoing {
        let body = set_elements(self.set(), &self.elements, self.verb.is_addition());
        let (body, flags) = match self.verb {
            Verb::Add => (
                NfTablesMessage::NewSetElement(body),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            Verb::Ensure => (NfTablesMessage::NewSetElement(body), NLM_F_CREATE),
            Verb::Delete => (NfTablesMessage::DeleteSetElement(body), 0),
        };
        Outgoing {
            message: message(self.set().table, body),
            flags,
        }
    }

    fn operation(&self) -> String {
        match self.elements.as_slice() {
            [one] => self.about(one),
            many => format!("{} {} elements {}", self.word(), many.len(), self.place()),
        }
    }

    /// What is done with one of the elements. A key that is no address means nothing to a reader.
    fn about(&self, element: &Element) -> String {
        let (word, place) = (self.word(), self.place());
        match (element.as_address(), &element.comment) {
            (Some(address), _) => format!("{word} {address} {place}"),
            (None, Some(comment)) => format!("{word} an element of {comment} {place}"),
            (None, None) => format!("{word} an element {place}"),
        }
    }

    fn word(&self) -> &'static str {
        match self.verb {
            Verb::Add | Verb::Ensure => "add",
            Verb::Delete => "delete",
        }
    }

    fn place(&self) -> String {
        format!("in nft set {}", self.set())
    }

    /// The element at this place of the message. Kernels before 5.15 name no place: then it is the only one or
    /// none.
    fn at(&self, offset: Option<u32>) -> Option<&Element> {
        let Some(offset) = offset else {
            return match self.elements.as_slice() {
                [one] => Some(one),
                _ => None,
            };
        };
        let mut end = HEADERS + ATTRIBUTE_HEADER;
        end += set_elements(self.set(), &[], true)
            .attributes
            .as_slice()
            .buffer_len();
        let offset = usize::try_from(offset).ok().filter(|place| *place >= end)?;
        self.elements.iter().find(|element| {
            end += element.encode(self.verb.is_addition()).buffer_len();
            offset < end
        })
    }
}

/// A message body that names a set and elements of it.
pub(super) fn set_elements(
    set: ObjectRef<'_>,
    elements: &[Element],
    whole: bool,
) -> SetElementMessage {
    let mut attributes = vec![
        SetElementList::Table(set.table.name.to_owned()),
        SetElementList::Set(set.name.to_owned()),
    ];
    if !elements.is_empty() {
        let elements = elements
            .iter()
            .map(|element| element.encode(whole))
            .collect();
        attributes.push(SetElementList::Elements(elements));
    }
    SetElementMessage { attributes }
}

/// An nftables message of the family of `table`.
pub(super) fn message(table: TableRef<'_>, body: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(table.family, 0, 0), body)
}
