//! What decides about forwarded packets on this host.
//!
//! Looking is netlink alone and starts no process. Only the tables of the old iptables can't be seen there; that
//! there are some is told by `/proc/net/ip_tables_names`.

use std::fs;

use super::{iptables, nftables};
use crate::host::HostError;
use crate::host::nft::{Chain, Family, Nft, Rule, TableRef, Verdict};
use crate::netfilter::forward_hook::chains::forward_chains;
use crate::netfilter::table::TABLE;

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`).
const DEPTH: u32 = 16;

/// firewalld's table.
const FIREWALLD: &str = "firewalld";

/// An nftables base chain that drops what it does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
}

impl Guard {
    /// Whether it is the chain FORWARD of iptables, which can't read it.
    pub(super) fn is_iptables(&self) -> bool {
        self.table == "filter" && self.chain == "FORWARD" && self.family != Family::Inet
    }

    pub(super) fn table(&self) -> TableRef<'_> {
        TableRef {
            family: self.family,
            name: &self.table,
        }
    }
}

/// A filter table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IpTable {
    pub(super) v6: bool,
    /// One of the old kind, beside the one that is kept in nftables.
    pub(super) legacy: bool,
}

/// A filter table of iptables that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) table: IpTable,
    /// Whether its chain FORWARD is known to drop what none of its rules is about.
    pub(super) drops: bool,
    /// Whether the administrator's chain in it has rules, or may have some.
    pub(super) admin: bool,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Filter tables of iptables with a chain FORWARD.
    pub(super) iptables: Vec<Forward>,
    /// Base chains of nftables that drop, without the ones of iptables and firewalld.
    pub(super) native: Vec<Guard>,
    /// Whether firewalld's own table is there.
    pub(super) firewalld: bool,
}

/// What to know before looking around.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// Whether the iptables command is there: without it, nobody can be disturbed by nftables rules in a chain that looks
    /// like one of iptables'.
    pub(super) with_iptables: bool,
    /// Tables that the command can't read, so that it disturbs nobody either.
    pub(super) unreadable: &'a [IpTable],
    /// The administrator's chain.
    pub(super) admin: &'a str,
}

/// Looks around.
pub(super) fn look(nft: &mut Nft, context: &Context<'_>) -> Result<Seen, HostError> {
    let mut seen = Seen::default();
    let chains = forward_chains(nft)?;
    for chain in chains.iter().filter(|chain| filters_forwarded(chain)) {
        if let Some(table) = as_iptables(nft, chain, context)? {
            let admin = table.filter().object(context.admin);
            seen.iptables.push(Forward {
                table,
                drops: drops(nft, chain)?,
                admin: !nft.rules(admin)?.is_empty(),
            });
        } else if is_firewalld(chain) {
            seen.firewalld = true;
        } else if drops(nft, chain)? {
            seen.native.push(Guard {
                family: chain.family,
                table: chain.table.clone(),
                chain: chain.name.clone(),
            });
        }
    }
    if context.with_iptables {
        let legacy = legacy_tables().into_iter();
        seen.iptables.extend(legacy.map(|table| Forward {
            table,
            drops: false,
            admin: true,
        }));
    }
    Ok(seen)
}

/// The table of iptables that a chain is the FORWARD of, as far as it is for iptables to change. Where it leads to a chain
/// of ours as we put it into the tables of others, iptables could not read it when that was made.
fn as_iptables(
    nft: &mut Nft,
    chain: &Chain,
    context: &Context<'_>,
) -> Result<Option<IpTable>, HostError> {
    let table = IpTable {
        v6: chain.family == Family::IPv6,
        legacy: false,
    };
    if !context.with_iptables || !is_iptables(chain) || context.unreadable.contains(&table) {
        return Ok(None);
    }
    let rules = nft.rules(table.filter().object(&chain.name))?;
    let served = |rule: &Rule| matches!(&rule.verdict, Some(Verdict::Jump(to)) if nftables::is_guard_chain(to));
    Ok((!rules.iter().any(served)).then_some(table))
}

/// Whether firewalld has rules here.
pub(super) fn has_firewalld(nft: &mut Nft) -> Result<bool, HostError> {
    Ok(nft.tables()?.iter().any(|table| table.name == FIREWALLD))
}

fn is_firewalld(chain: &Chain) -> bool {
    chain.table == FIREWALLD
}

/// The filter tables of iptables that may have rules of ours.
pub(super) fn iptables_with_our_chain(nft: &mut Nft) -> Result<Vec<IpTable>, HostError> {
    let mut tables = Vec::new();
    for v6 in [false, true] {
        let table = IpTable { v6, legacy: false };
        if nft
            .chain(table.filter().object(iptables::FORWARD))?
            .is_some()
        {
            tables.push(table);
        }
    }
    tables.extend(legacy_tables());
    Ok(tables)
}

/// The filter tables of the old kind in this network namespace.
fn legacy_tables() -> Vec<IpTable> {
    let exists = |file: &str| {
        fs::read_to_string(format!("/proc/thread-self/net/{file}"))
            .is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
    };
    [(false, "ip_tables_names"), (true, "ip6_tables_names")]
        .into_iter()
        .filter(|(_, file)| exists(file))
        .map(|(v6, _)| IpTable { v6, legacy: true })
        .collect()
}

fn filters_forwarded(chain: &Chain) -> bool {
    let ip = matches!(chain.family, Family::Inet | Family::IPv4 | Family::IPv6);
    let own = chain.family == TABLE.family && chain.table == TABLE.name;
    let base = chain.base.as_ref();
    ip && !own && base.is_some_and(|base| base.kind == "filter")
}

fn is_iptables(chain: &Chain) -> bool {
    chain.table == "filter" && chain.name == "FORWARD" && chain.family != Family::Inet
}

/// Whether a base chain drops the packets that none of its rules is about.
fn drops(nft: &mut Nft, chain: &Chain) -> Result<bool, HostError> {
    let table = TableRef {
        family: chain.family,
        name: &chain.table,
    };
    let by_policy = chain.base.as_ref().is_some_and(|base| base.drops);
    let mut rules = |name: &str| nft.rules(table.object(name));
    Ok(match end(&mut rules, &chain.name, DEPTH)? {
        Some(Verdict::Accept) => false,
        Some(Verdict::Drop) => true,
        _ => by_policy,
    })
}

/// How a chain ends for a packet that no rule is about in particular.
fn end(
    rules: &mut dyn FnMut(&str) -> Result<Vec<Rule>, HostError>,
    chain: &str,
    depth: u32,
) -> Result<Option<Verdict>, HostError> {
    if depth == 0 {
        return Ok(None);
    }
    for rule in rules(chain)? {
        let (next, comes_back) = match rule.verdict {
            None => continue,
            Some(Verdict::Return) => return Ok(None),
            Some(Verdict::Jump(next)) => (next, true),
            Some(Verdict::Goto(next)) => (next, false),
            decided => return Ok(decided),
        };
        let decided = end(rules, &next, depth - 1)?;
        if decided.is_some() || !comes_back {
            return Ok(decided);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(chains: &[(&str, &[Option<Verdict>])]) -> Option<Verdict> {
        let mut rules = |name: &str| {
            let verdicts = chains.iter().find(|(chain, _)| *chain == name);
            let verdicts = verdicts.map_or(&[][..], |(_, verdicts)| verdicts);
            let rule = |verdict: &Option<Verdict>| Rule {
                handle: 1,
                comment: None,
                content: Vec::new(),
                verdict: verdict.clone(),
            };
            Ok(verdicts.iter().map(rule).collect())
        };
        end(&mut rules, "forward", DEPTH).unwrap()
    }

    #[test]
    fn a_chain_ends_with_the_first_rule_that_is_about_everything() {
        let jump = |name: &str| Some(Verdict::Jump(name.into()));
        let goto = |name: &str| Some(Verdict::Goto(name.into()));
        let (accept, drop, back) = (
            Some(Verdict::Accept),
            Some(Verdict::Drop),
            Some(Verdict::Return),
        );
        assert_eq!(ends(&[]), None);
        assert_eq!(ends(&[("forward", &[None, None])]), None);
        assert_eq!(
            ends(&[("forward", &[None, drop.clone(), accept.clone()])]),
            drop
        );
        assert_eq!(ends(&[("forward", &[back.clone(), drop.clone()])]), None);
        assert_eq!(
            ends(&[
                ("forward", &[jump("a"), accept.clone()]),
                ("a", &[None, back.clone(), drop.clone()])
            ]),
            accept
        );
        assert_eq!(
            ends(&[
                ("forward", &[None, jump("reject")]),
                ("reject", &[None, drop.clone()])
            ]),
            drop
        );
        assert_eq!(
            ends(&[("forward", &[goto("a"), drop.clone()]), ("a", &[None])]),
            None
        );
        assert_eq!(ends(&[("forward", &[jump("forward"), drop.clone()])]), drop);
    }
}
