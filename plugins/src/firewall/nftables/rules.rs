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

use nftables::expr::MetaKey;
use nftables::schema::SetType;
use nftables::types::{NfChainType, NfHook};

use super::super::wanted::{Isolation, Wanted};
use crate::host::nft::{Element, Family, TableRef};
use crate::netfilter::elements::Set;
use crate::netfilter::forward_hook::guard::Guard;
use crate::netfilter::forward_hook::names;
use crate::netfilter::script::{self, Base, Rule, Script};
use crate::netfilter::table::TABLE;

/// Before the chains of the host (`NF_IP_PRI_FILTER` is 0); a drop is final in any order.
const PRIORITY: i32 = -10;

/// Length of an interface's name in a set, filled up with zeros (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Sets of protected addresses, shared by all networks.
pub(super) const PROTECTED: [&str; 2] = ["protected/v4", "protected/v6"];

/// The network's sets in our own table.
pub(super) fn members_sets(network: &str) -> [Set; 2] {
    [false, true].map(|v6| Set::own(format!("firewall/{network}/{}", version(v6))))
}

/// The network's set of links, with an `ingressPolicy`.
pub(super) fn links_set(network: &str) -> Set {
    Set::own(format!("firewall/{network}/links"))
}

/// The network's chain in our own table, with an `ingressPolicy`.
pub(super) fn own_chain(network: &str) -> String {
    format!("firewall/{network}")
}

/// The network's chain in a guard's table.
pub(super) fn guard_chain(network: &str) -> String {
    names::guard_chain(network)
}

/// The network's sets in a guard's table, each with its version of IP.
pub(super) fn guard_sets(table: TableRef<'_>, network: &str) -> Vec<(Set, bool)> {
    let set = |v6| Set::in_table(table, format!("trestle/{network}/{}", version(v6)));
    let versions = [false, true].into_iter();
    let versions = versions.filter(|v6| has_version(table.family, *v6));
    versions.map(|v6| (set(v6), v6)).collect()
}

/// What marks the rule at the head of a guard's chain.
fn jump_comment(network: &str) -> String {
    format!("trestle: containers of network {network}")
}

/// Whether rules for this version of IP can be in a table of `family`.
fn has_version(family: Family, v6: bool) -> bool {
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

/// Adds our own table to a transaction, whatever is in it by now. `had_chain` says whether there is a chain of the network.
pub(super) fn own(script: &mut Script, wanted: &Wanted, had_chain: bool) {
    let chain = own_chain(&wanted.network);
    let chain = TABLE.object(&chain);
    script.table(TABLE);
    for (set, v6) in members_sets(&wanted.network).iter().zip([false, true]) {
        script.set(set.object(), &[script::address_type(v6)]);
    }
    if wanted.isolation.is_some() {
        script.set(links_set(&wanted.network).object(), &[SetType::Ifname]);
        for (set, v6) in PROTECTED.into_iter().zip([false, true]) {
            script.set(TABLE.object(set), &[script::address_type(v6)]);
        }
        let base = Base {
            kind: NfChainType::Filter,
            hook: NfHook::Forward,
            priority: PRIORITY,
        };
        script
            .chain(chain, Some(base))
            .rules(chain, own_rules(wanted));
    } else if had_chain {
        script.delete_chain(chain);
    }
}

/// The rules of the network's chain in our own table.
pub(super) fn own_rules(wanted: &Wanted) -> Vec<Rule> {
    let Some(Isolation { within, .. }) = wanted.isolation else {
        return Vec::new();
    };
    let links = links_set(&wanted.network);
    let links = || script::set(links.name());
    let from = || script::is(script::meta(MetaKey::Iifname), links());
    let to = || script::meta(MetaKey::Oifname);
    let mut rules = Vec::new();
    if within {
        rules.push(Rule::new(
            [from(), script::is(to(), links()), script::drop()],
            format!("containers of network {} are kept apart", wanted.network),
        ));
    }
    for (protected, v6) in PROTECTED.into_iter().zip([false, true]) {
        let protected = script::is(script::ip(v6, "daddr"), script::set(protected));
        rules.push(Rule::new(
            [
                from(),
                script::is_not(to(), links()),
                protected,
                script::drop(),
            ],
            format!("{} to protected containers elsewhere", ip(v6)),
        ));
    }
    rules
}

/// Adds the table of a guard to a transaction. `leads` says whether the rule that leads to the network's chain is there.
pub(super) fn guard(script: &mut Script, guard: &Guard, wanted: &Wanted, leads: bool) {
    let (table, network) = (guard.table(), &wanted.network);
    for (set, v6) in guard_sets(guard.table(), network) {
        script.set(set.object(), &[script::address_type(v6)]);
    }
    let name = guard_chain(network);
    let chain = table.object(&name);
    script
        .foreign_chain(table.object(&wanted.admin))
        .chain(chain, None)
        .rules(chain, guard_rules(guard, wanted));
    if !leads {
        let rule = Rule::new([script::jump(&name)], jump_comment(network));
        script.insert(table.object(&guard.chain), rule);
    }
}

/// The rules of the network's chain in the table of a guard.
pub(super) fn guard_rules(guard: &Guard, wanted: &Wanted) -> Vec<Rule> {
    let mut rules = vec![Rule::new(
        [script::jump(&wanted.admin)],
        format!("rules of the administrator: {}", wanted.admin),
    )];
    for (set, v6) in guard_sets(guard.table(), &wanted.network) {
        let member = |field| script::is(script::ip(v6, field), script::set(set.name()));
        let states = script::list(["established", "related"].map(script::word));
        let answers = script::has(script::ct("state"), states);
        for (expr, what) in [
            (vec![member("saddr")], "from containers"),
            (vec![member("daddr"), answers], "answers to containers"),
            (
                vec![member("daddr"), script::translated()],
                "to published ports",
            ),
        ] {
            let expr = [expr, vec![script::accept()]].concat();
            rules.push(Rule::new(expr, format!("{} {what}", ip(v6))));
        }
    }
    rules.extend(ingress_rules(guard, wanted));
    rules
}

/// The rules for those who may open connections to the containers, and for what the host translates on its way to them.
fn ingress_rules(guard: &Guard, wanted: &Wanted) -> Vec<Rule> {
    let sets = guard_sets(guard.table(), &wanted.network);
    let mut rules = Vec::new();
    for prefix in &wanted.ingress {
        let v6 = prefix.addr().is_ipv6();
        let Some((set, _)) = sets.iter().find(|(_, of)| *of == v6) else {
            continue;
        };
        let within = |field| script::is(script::ip(v6, field), script::whole_prefix(*prefix));
        let member = script::is(script::ip(v6, "daddr"), script::set(set.name()));
        rules.push(Rule::new(
            [within("saddr"), member, script::accept()],
            format!("{prefix} to containers"),
        ));
        for (field, word) in [("daddr", "to"), ("saddr", "from")] {
            rules.push(Rule::new(
                [within(field), script::translated(), script::accept()],
                format!("translated, {word} {prefix}"),
            ));
        }
    }
    rules
}

fn ip(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}
