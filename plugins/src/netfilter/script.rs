//! Rules of nftables as data, and the transaction of `nft` that makes them: a network's chains and sets, which exist once.
//!
//! The vocabulary is that of the crate `nftables`, which is that of libnftables-json(5).

use std::borrow::Cow;

use ipnet::IpNet;
use nftables::expr::{
    CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, SetItem,
};
use nftables::schema::{
    Chain, FlushObject, NfCmd, NfListObject, Set, SetType, SetTypeValue, Table,
};
use nftables::stmt::{Accept, Drop, JumpTarget, Match, NAT, NATFlag, Operator, Return, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde::Serialize;

use crate::host::HostError;
use crate::host::nft::{Family, ObjectRef, TableRef, ruleset};

/// What a rule looks at, or compares it with.
pub type Expr = Expression<'static>;

/// What a rule asks or does.
pub type Stmt = Statement<'static>;

/// A rule and the comment that tells people what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    expr: Vec<Stmt>,
    comment: String,
}

impl Rule {
    /// One that does what its last statement says where those before it are true.
    pub fn new(expr: impl Into<Vec<Stmt>>, comment: impl Into<String>) -> Self {
        Self {
            expr: expr.into(),
            comment: comment.into(),
        }
    }
}

/// All that a list of rules says, as text to be compared.
pub fn text(rules: &[Rule]) -> String {
    // A list of statements can always be written.
    serde_json::to_string(rules).unwrap_or_default()
}

/// What makes a chain one that packets come to by themselves. What none of its rules decides about is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// What its rules may do.
    pub kind: NfChainType,
    /// Where packets are on their way.
    pub hook: NfHook,
    /// The order among the chains there; lower is earlier.
    pub priority: i32,
}

/// Commands that `nft` carries out in one transaction, whatever is there: what exists already stays, but for the rules of
/// chains.
#[derive(Default)]
pub struct Script {
    commands: Vec<NfCmd<'static>>,
}

impl Script {
    /// One that has nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Makes a table.
    pub fn table(&mut self, table: TableRef<'_>) -> &mut Self {
        self.add(NfListObject::Table(Table {
            family: family(table.family),
            name: owned(table.name),
            handle: None,
        }))
    }

    /// Makes a set with keys of this type, or of these types together.
    pub fn set(&mut self, set: ObjectRef<'_>, key: &[SetType]) -> &mut Self {
        self.add(NfListObject::Set(Box::new(Set {
            family: family(set.table.family),
            table: owned(set.table.name),
            name: owned(set.name),
            set_type: types(key),
            ..Set::default()
        })))
    }

    /// Makes a chain, without rules.
    pub fn chain(&mut self, chain: ObjectRef<'_>, base: Option<Base>) -> &mut Self {
        let plain = plain(chain);
        let added = Chain {
            _type: base.map(|base| base.kind),
            hook: base.map(|base| base.hook),
            prio: base.map(|base| base.priority),
            policy: base.map(|_| NfChainPolicy::Accept),
            ..plain.clone()
        };
        self.add(NfListObject::Chain(added));
        self.command(NfCmd::Flush(FlushObject::Chain(plain)))
    }

    /// Makes a chain that is somebody else's unless it is there.
    pub fn foreign_chain(&mut self, chain: ObjectRef<'_>) -> &mut Self {
        self.add(NfListObject::Chain(plain(chain)))
    }

    /// Deletes a chain that is there.
    pub fn delete_chain(&mut self, chain: ObjectRef<'_>) -> &mut Self {
        self.command(NfCmd::Flush(FlushObject::Chain(plain(chain))));
        self.command(NfCmd::Delete(NfListObject::Chain(plain(chain))))
    }

    /// Adds rules behind those of a chain.
    pub fn rules(
        &mut self,
        chain: ObjectRef<'_>,
        rules: impl IntoIterator<Item = Rule>,
    ) -> &mut Self {
        for rule in rules {
            self.add(NfListObject::Rule(rule_in(chain, rule)));
        }
        self
    }

    /// Puts a rule in front of those of a chain.
    pub fn insert(&mut self, chain: ObjectRef<'_>, rule: Rule) -> &mut Self {
        self.command(NfCmd::Insert(NfListObject::Rule(rule_in(chain, rule))))
    }

    /// Carries it out in the calling thread's network namespace; `purpose` says what for.
    ///
    /// # Errors
    /// See [`ruleset::apply`].
    pub fn apply(&self, purpose: &str) -> Result<(), HostError> {
        ruleset::apply(purpose, &self.commands)
    }

    fn add(&mut self, object: NfListObject<'static>) -> &mut Self {
        self.command(NfCmd::Add(object))
    }

    fn command(&mut self, command: NfCmd<'static>) -> &mut Self {
        self.commands.push(command);
        self
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

fn family(family: Family) -> NfFamily {
    match family {
        Family::IPv4 => NfFamily::IP,
        Family::IPv6 => NfFamily::IP6,
        _ => NfFamily::INet,
    }
}

fn types(types: &[SetType]) -> SetTypeValue<'static> {
    match types {
        [one] => SetTypeValue::Single(*one),
        many => SetTypeValue::Concatenated(many.to_vec().into()),
    }
}

fn plain(chain: ObjectRef<'_>) -> Chain<'static> {
    Chain {
        family: family(chain.table.family),
        table: owned(chain.table.name),
        name: owned(chain.name),
        ..Chain::default()
    }
}

fn rule_in(chain: ObjectRef<'_>, rule: Rule) -> nftables::schema::Rule<'static> {
    nftables::schema::Rule {
        family: family(chain.table.family),
        table: owned(chain.table.name),
        chain: owned(chain.name),
        expr: rule.expr.into(),
        comment: Some(rule.comment.into()),
        ..nftables::schema::Rule::default()
    }
}

/// The type of addresses.
pub fn address_type(v6: bool) -> SetType {
    if v6 {
        SetType::Ipv6Addr
    } else {
        SetType::Ipv4Addr
    }
}

/// A word, a number or an address as text.
pub fn word(text: impl Into<String>) -> Expr {
    Expression::String(Cow::Owned(text.into()))
}

/// The elements of a set or map.
pub fn set(name: &str) -> Expr {
    word(format!("@{name}"))
}

/// A field of a packet's header.
pub fn header(protocol: &'static str, field: &'static str) -> Expr {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

/// A field of the header of IP: `saddr` or `daddr`.
pub fn ip(v6: bool, field: &'static str) -> Expr {
    header(if v6 { "ip6" } else { "ip" }, field)
}

/// What the kernel knows of a packet.
pub fn meta(key: MetaKey) -> Expr {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

/// What connection tracking knows of a packet.
pub fn ct(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }))
}

/// Several together, as a key.
pub fn concat(parts: impl Into<Vec<Expr>>) -> Expr {
    Expression::Named(NamedExpression::Concat(parts.into()))
}

/// One of several.
pub fn any_of(items: impl IntoIterator<Item = Expr>) -> Expr {
    let items = items.into_iter().map(SetItem::Element).collect();
    Expression::Named(NamedExpression::Set(items))
}

/// Several words that are bits of one value.
pub fn list(items: impl IntoIterator<Item = Expr>) -> Expr {
    Expression::List(items.into_iter().collect())
}

/// A prefix; a host's is its address.
pub fn prefix(net: IpNet) -> Expr {
    match net.prefix_len() == net.max_prefix_len() {
        true => word(net.addr().to_string()),
        false => whole_prefix(net),
    }
}

/// A prefix, a host's too.
pub fn whole_prefix(net: IpNet) -> Expr {
    let address = word(net.addr().to_string());
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(address),
        len: u32::from(net.prefix_len()),
    }))
}

fn matching(left: Expr, op: Operator, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op })
}

/// Whether the one is the other, or one of it.
pub fn is(left: Expr, right: Expr) -> Stmt {
    matching(left, Operator::EQ, right)
}

/// Whether the one is not the other.
pub fn is_not(left: Expr, right: Expr) -> Stmt {
    matching(left, Operator::NEQ, right)
}

/// Whether a bit is set.
pub fn has(left: Expr, right: Expr) -> Stmt {
    matching(left, Operator::IN, right)
}

/// Whether the destination of the connection was translated.
pub fn translated() -> Stmt {
    has(ct("status"), word("dnat"))
}

/// Lets the packet through this base chain.
pub fn accept() -> Stmt {
    Statement::Accept(Some(Accept {}))
}

/// Drops the packet.
pub fn drop() -> Stmt {
    Statement::Drop(Some(Drop {}))
}

/// Ends the chain; in a base chain its policy decides.
pub fn back() -> Stmt {
    Statement::Return(Some(Return {}))
}

/// Goes through another chain first.
pub fn jump(chain: &str) -> Stmt {
    Statement::Jump(JumpTarget {
        target: owned(chain),
    })
}

/// Gives the packet the address of the interface that it leaves by.
pub fn masquerade(flag: NATFlag) -> Stmt {
    Statement::Masquerade(Some(NAT {
        addr: None,
        family: None,
        port: None,
        flags: Some([flag].into()),
    }))
}
