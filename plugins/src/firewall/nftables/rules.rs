//! The rules in nftables, as data.
//!
//! For each network there are sets of its containers' addresses in the table `inet trestle`, which are the memory of
//! who is there, and with an `ingressPolicy` a base chain that drops:
//!
//! ```text
//! table inet trestle {
//!         set firewall/podnet/v4 { type ipv4_addr; elements = { 10.1.0.5 comment "podnet/CONTAINER/eth0" } }
//!         set firewall/podnet/links { type ifname; elements = { "cni0" comment "network podnet" } }
//!         set protected/v4 { type ipv4_addr; elements = { 10.1.0.5 comment "podnet/CONTAINER/eth0" } }
//!         chain firewall/podnet {
//!                 type filter hook forward priority filter - 10; policy accept;
//!                 iifname @firewall/podnet/links oifname @firewall/podnet/links drop       (isolated)
//!                 iifname @firewall/podnet/links oifname != @firewall/podnet/links ip daddr @protected/v4 drop
//!         }
//! }
//! ```
//!
//! In the table of each guard, for sets can't be used across tables, there are the same addresses once more, a chain,
//! and the one rule at the head of the guard's chain that leads to it:
//!
//! ```text
//! table inet filter {
//!         set trestle/podnet/v4 { … }
//!         chain CNI-ADMIN { }
//!         chain trestle/podnet {
//!                 jump CNI-ADMIN
//!                 ip saddr @trestle/podnet/v4 accept
//!                 ip daddr @trestle/podnet/v4 ct state established,related accept
//!                 ip daddr @trestle/podnet/v4 ct status dnat accept
//!         }
//!         chain forward {
//!                 type filter hook forward priority filter; policy drop;
//!                 jump trestle/podnet comment "trestle: containers of network podnet"
//!         }
//! }
//! ```
//!
//! `protected` is shared by the networks, by address: of two networks that give out the same ones, the container that
//! came last is protected.

use serde_json::{Value, json};

use super::super::guard::Guard;
use super::super::wanted::{Isolation, Wanted};
use crate::host::nft::{Element, Family, TableRef, family_name};
use crate::netfilter::forward_hook::names;
use crate::netfilter::table::TABLE;

/// Before the chains of the host (`NF_IP_PRI_FILTER` is 0); a drop is final in any order.
const PRIORITY: i32 = -10;

/// Length of an interface's name in a set, filled up with zeros (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Sets of protected addresses, shared by all networks.
pub(super) const PROTECTED: [&str; 2] = ["protected/v4", "protected/v6"];

/// The network's set in our own table.
pub(super) fn members_set(network: &str, v6: bool) -> String {
    format!("firewall/{network}/{}", version(v6))
}

/// The network's set of links, with an `ingressPolicy`.
pub(super) fn links_set(network: &str) -> String {
    format!("firewall/{network}/links")
}

/// The network's chain in our own table, with an `ingressPolicy`.
pub(super) fn own_chain(network: &str) -> String {
    format!("firewall/{network}")
}

/// The network's chain in a guard's table.
pub(super) fn guard_chain(network: &str) -> String {
    names::guard_chain(network)
}

/// Whether a chain is some network's in a guard's table.
pub(in super::super) fn is_guard_chain(chain: &str) -> bool {
    chain.starts_with(names::GUARD)
}

/// The network's set in a guard's table.
pub(super) fn guard_set(network: &str, v6: bool) -> String {
    format!("trestle/{network}/{}", version(v6))
}

/// What marks the rule at the head of a guard's chain.
pub(super) fn jump_comment(network: &str) -> String {
    format!("trestle: containers of network {network}")
}

/// Whether rules for this version of IP can be in a table of `family`.
pub(super) fn has_version(family: Family, v6: bool) -> bool {
    family == Family::Inet || (family == Family::IPv6) == v6
}

fn version(v6: bool) -> &'static str {
    if v6 { "v6" } else { "v4" }
}

/// The element of a set of links.
pub(super) fn link(name: &str, comment: &str) -> Element {
    let mut key = name.as_bytes().to_vec();
    key.resize(IFNAMSIZ, 0);
    Element {
        key,
        data: None,
        comment: Some(comment.to_owned()),
    }
}

/// The commands of one transaction, in the vocabulary of libnftables-json(5).
pub(super) fn script(commands: &[Value]) -> String {
    json!({"nftables": commands}).to_string()
}

/// Commands for our own table, whatever is in it by now. `had_chain` says whether there is a chain of the network.
pub(super) fn own(wanted: &Wanted, had_chain: bool) -> Vec<Value> {
    let table = Writer(TABLE);
    let network = &wanted.network;
    let chain = own_chain(network);
    let mut commands = vec![json!({"add": {"table": {"family": "inet", "name": TABLE.name}}})];
    for v6 in [false, true] {
        commands.push(table.add_set(&members_set(network, v6), address_type(v6)));
    }
    if wanted.isolation.is_some() {
        commands.push(table.add_set(&links_set(network), "ifname"));
        for v6 in [false, true] {
            commands.push(table.add_set(PROTECTED[usize::from(v6)], address_type(v6)));
        }
        let mut add = table.chain("add", &chain);
        for (key, value) in [
            ("type", json!("filter")),
            ("hook", json!("forward")),
            ("prio", json!(PRIORITY)),
            ("policy", json!("accept")),
        ] {
            add["add"]["chain"][key] = value;
        }
        commands.extend([add, table.chain("flush", &chain)]);
        commands.extend(
            own_rules(wanted)
                .into_iter()
                .map(|rule| table.rule("add", &chain, rule)),
        );
    } else if had_chain {
        commands.extend([table.chain("flush", &chain), table.chain("delete", &chain)]);
    }
    commands
}

/// The rules of the network's chain in our own table.
pub(super) fn own_rules(wanted: &Wanted) -> Vec<Rule> {
    let Some(Isolation { within, .. }) = wanted.isolation else {
        return Vec::new();
    };
    let links = format!("@{}", links_set(&wanted.network));
    let (from, to) = (meta("iifname", "==", &links), |op| {
        meta("oifname", op, &links)
    });
    let mut rules = Vec::new();
    if within {
        rules.push(Rule {
            expr: vec![from.clone(), to("=="), json!({"drop": null})],
            comment: format!("containers of network {} are kept apart", wanted.network),
        });
    }
    for v6 in [false, true] {
        let protected = format!("@{}", PROTECTED[usize::from(v6)]);
        rules.push(Rule {
            expr: vec![
                from.clone(),
                to("!="),
                address("daddr", v6, &protected),
                json!({"drop": null}),
            ],
            comment: format!("{} to protected containers elsewhere", ip(v6)),
        });
    }
    rules
}

/// Commands for the table of a guard. `leads` says whether the rule that leads to the network's chain is there.
pub(super) fn guard(guard: &Guard, wanted: &Wanted, leads: bool) -> Vec<Value> {
    let table = Writer(guard.table());
    let network = &wanted.network;
    let chain = guard_chain(network);
    let mut commands = Vec::new();
    for v6 in versions(guard.family) {
        commands.push(table.add_set(&guard_set(network, v6), address_type(v6)));
    }
    commands.extend([
        table.chain("add", &wanted.admin),
        table.chain("add", &chain),
        table.chain("flush", &chain),
    ]);
    let rules = guard_rules(guard, wanted);
    commands.extend(
        rules
            .into_iter()
            .map(|rule| table.rule("add", &chain, rule)),
    );
    if !leads {
        let rule = Rule {
            expr: vec![json!({"jump": {"target": chain}})],
            comment: jump_comment(network),
        };
        commands.push(table.rule("insert", &guard.chain, rule));
    }
    commands
}

/// The rules of the network's chain in the table of a guard.
pub(super) fn guard_rules(guard: &Guard, wanted: &Wanted) -> Vec<Rule> {
    let network = &wanted.network;
    let mut rules = vec![Rule {
        expr: vec![json!({"jump": {"target": wanted.admin}})],
        comment: format!("rules of the administrator: {}", wanted.admin),
    }];
    for v6 in versions(guard.family) {
        let members = format!("@{}", guard_set(network, v6));
        let accept = json!({"accept": null});
        let mut rule = |expr: Vec<Value>, what: &str| {
            let comment = format!("{} {what}", ip(v6));
            rules.push(Rule { expr, comment });
        };
        rule(
            vec![address("saddr", v6, &members), accept.clone()],
            "from containers",
        );
        let answers = ct("state", json!(["established", "related"]));
        rule(
            vec![address("daddr", v6, &members), answers, accept.clone()],
            "answers to containers",
        );
        let published = ct("status", json!("dnat"));
        rule(
            vec![address("daddr", v6, &members), published, accept],
            "to published ports",
        );
    }
    rules.extend(ingress_rules(guard, wanted));
    rules
}

/// The rules for those who may open connections to the containers, and for what the host translates on its way to them.
fn ingress_rules(guard: &Guard, wanted: &Wanted) -> Vec<Rule> {
    let accept = json!({"accept": null});
    let translated = ct("status", json!("dnat"));
    let mut rules = Vec::new();
    for prefix in &wanted.ingress {
        let v6 = prefix.addr().is_ipv6();
        if !has_version(guard.family, v6) {
            continue;
        }
        let members = format!("@{}", guard_set(&wanted.network, v6));
        let within = |field: &str| {
            let value = json!({"prefix": {"addr": prefix.addr(), "len": prefix.prefix_len()}});
            address_in(field, v6, &value)
        };
        let mut rule = |expr: Vec<Value>, comment: String| rules.push(Rule { expr, comment });
        rule(
            vec![
                within("saddr"),
                address("daddr", v6, &members),
                accept.clone(),
            ],
            format!("{prefix} to containers"),
        );
        for (field, word) in [("daddr", "to"), ("saddr", "from")] {
            rule(
                vec![within(field), translated.clone(), accept.clone()],
                format!("translated, {word} {prefix}"),
            );
        }
    }
    rules
}

/// A rule and the comment by which it is recognised.
pub(super) struct Rule {
    expr: Vec<Value>,
    pub(super) comment: String,
}

/// Writes commands about objects of one table.
struct Writer<'a>(TableRef<'a>);

impl Writer<'_> {
    fn object(&self, name: &str) -> Value {
        json!({"family": family_name(self.0.family), "table": self.0.name, "name": name})
    }

    fn add_set(&self, name: &str, element_type: &str) -> Value {
        let mut set = self.object(name);
        set["type"] = element_type.into();
        json!({"add": {"set": set}})
    }

    fn chain(&self, verb: &str, name: &str) -> Value {
        json!({verb: {"chain": self.object(name)}})
    }

    fn rule(&self, verb: &str, chain: &str, rule: Rule) -> Value {
        json!({verb: {"rule": {
            "family": family_name(self.0.family), "table": self.0.name, "chain": chain,
            "expr": rule.expr, "comment": rule.comment,
        }}})
    }
}

fn versions(family: Family) -> impl Iterator<Item = bool> {
    [false, true]
        .into_iter()
        .filter(move |v6| has_version(family, *v6))
}

fn address_type(v6: bool) -> &'static str {
    if v6 { "ipv6_addr" } else { "ipv4_addr" }
}

fn ip(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

fn meta(key: &str, op: &str, with: &str) -> Value {
    json!({"match": {"op": op, "left": {"meta": {"key": key}}, "right": with}})
}

fn ct(key: &str, value: Value) -> Value {
    json!({"match": {"op": "in", "left": {"ct": {"key": key}}, "right": value}})
}

fn address(field: &str, v6: bool, with: &str) -> Value {
    address_in(field, v6, &json!(with))
}

fn address_in(field: &str, v6: bool, with: &Value) -> Value {
    let protocol = if v6 { "ip6" } else { "ip" };
    json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": with}})
}
