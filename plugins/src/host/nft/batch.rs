//! Changes to nftables objects by netlink, collected and committed as one transaction.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_NONREC};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetElementList, SetElementMessage, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};

use super::element::Element;
use super::socket::Outgoing;
use super::{ObjectRef, TableRef};

/// How many elements go into one message: an attribute can't be longer than 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 200;

/// Without it the kernel deletes what is inside along with a table, chain or set (`nf_tables_deltable` and so on).
const EMPTY: u16 = NLM_F_NONREC;

/// Changes that take effect together or not at all. See [`super::Nft::commit`].
#[derive(Default)]
pub struct Batch {
    pub(super) messages: Vec<Outgoing>,
}

impl Batch {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds elements that must not exist yet: an equal key is `EEXIST`, whoever owns it, so that no
    /// element keeps the comment of a former owner unnoticed. A missing table or set is `ENOENT`.
    pub fn add_elements(&mut self, set: ObjectRef<'_>, elements: &[Element]) -> &mut Self {
        let create = NLM_F_CREATE | NLM_F_EXCL;
        self.elements(set, elements, "add", create, |body| {
            NfTablesMessage::NewSetElement(body)
        })
    }

    /// Adds elements that may exist already; those that do keep their comment. A missing table or set is
    /// `ENOENT`.
    pub fn ensure_elements(&mut self, set: ObjectRef<'_>, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, "add", NLM_F_CREATE, |body| {
            NfTablesMessage::NewSetElement(body)
        })
    }

    /// Deletes the elements with these keys; one that does not exist is `ENOENT`.
    pub fn delete_elements(&mut self, set: ObjectRef<'_>, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, "delete", 0, |body| {
            NfTablesMessage::DeleteSetElement(body)
        })
    }

    /// Deletes a chain and its rules; `EBUSY` when a rule or element elsewhere leads to it.
    pub fn delete_chain(&mut self, chain: ObjectRef<'_>) -> &mut Self {
        self.chain(chain, 0)
    }

    /// Deletes a chain that has no rules; `EBUSY` when it has some, or when a rule elsewhere leads to it.
    pub fn delete_empty_chain(&mut self, chain: ObjectRef<'_>) -> &mut Self {
        self.chain(chain, EMPTY)
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

    fn elements(
        &mut self,
        set: ObjectRef<'_>,
        elements: &[Element],
        verb: &str,
        flags: u16,
        wrap: impl Fn(SetElementMessage) -> NfTablesMessage,
    ) -> &mut Self {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let operation = match some {
                [one] => format!("{verb} {} in nft set {set}", describe(one)),
                many => format!("{verb} {} elements in nft set {set}", many.len()),
            };
            let body = set_elements(set, some, verb == "add");
            self.push(set.table, wrap(body), flags, operation);
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
        self.messages.push(Outgoing {
            message: message(table, body),
            flags,
            operation,
        });
        self
    }
}

/// An element's key in words.
fn describe(element: &Element) -> String {
    match element.as_address() {
        Some(address) => address.to_string(),
        None => element
            .key
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
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
