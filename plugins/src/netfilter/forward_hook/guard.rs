//! What guards this host: the chains of the hook forward that drop what no rule of theirs is about.
//!
//! Looking is netlink alone and starts no process. Only the tables of the old iptables can't be seen there; that
//! there are some is told by `/proc/net/ip_tables_names`.

use super::chains::forward_chains;
use super::{is_firewalld, is_iptables, names};
use crate::host::HostError;
use crate::host::nft::{Chain, Family, Nft, Rule, TableRef, Verdict};
use crate::netfilter::iptables::{FilterTable, Version};
use crate::netfilter::table::TABLE;

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`).
const DEPTH: u32 = 16;

/// An nftables base chain that drops what it does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl Guard {
    /// Whether it is the chain FORWARD of iptables, which can't read it.
    pub fn is_iptables(&self) -> bool {
        self.table == "filter" && self.chain == "FORWARD" && self.family != Family::Inet
    }

    /// Its table.
    pub fn table(&self) -> TableRef<'_> {
        TableRef {
            family: self.family,
            name: &self.table,
        }
    }
}

/// A filter table of iptables that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The table.
    pub table: FilterTable,
    /// Whether its chain FORWARD is known to drop what none of its rules is about.
    pub drops: bool,
    /// Whether the administrator's chain in it has rules, or may have some.
    pub admin: bool,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Filter tables of iptables with a chain FORWARD.
    pub iptables: Vec<Forward>,
    /// Base chains of nftables that drop, without the ones of iptables and firewalld.
    pub native: Vec<Guard>,
    /// Whether firewalld's own table is there.
    pub firewalld: bool,
}

/// What to know before looking around.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Whether the iptables command is there: without it, nobody can be disturbed by nftables rules in a chain that looks
    /// like one of iptables'.
    pub with_iptables: bool,
    /// Tables that the command can't read, so that it disturbs nobody either.
    pub unreadable: &'a [FilterTable],
    /// The administrator's chain.
    pub admin: &'a str,
}

/// Looks around.
///
/// # Errors
/// What the kernel says.
pub fn look(nft: &mut Nft, context: &Context<'_>) -> Result<Seen, HostError> {
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
) -> Result<Option<FilterTable>, HostError> {
    let table = FilterTable {
        v6: chain.family == Family::IPv6,
        legacy: false,
    };
    if !context.with_iptables || !is_iptables(chain) || context.unreadable.contains(&table) {
        return Ok(None);
    }
    let rules = nft.rules(table.filter().object(&chain.name))?;
    let served = |rule: &Rule| matches!(&rule.verdict, Some(Verdict::Jump(to)) if to.starts_with(names::GUARD));
    Ok((!rules.iter().any(served)).then_some(table))
}

/// Whether firewalld has rules here.
///
/// # Errors
/// What the kernel says.
pub fn has_firewalld(nft: &mut Nft) -> Result<bool, HostError> {
    let tables = nft.tables()?;
    Ok(tables.iter().any(|table| table.name == super::FIREWALLD))
}

/// The filter tables of iptables that may have rules of ours.
///
/// # Errors
/// What the kernel says.
pub fn iptables_with_our_chain(nft: &mut Nft) -> Result<Vec<FilterTable>, HostError> {
    let mut tables = Vec::new();
    for v6 in [false, true] {
        let table = FilterTable { v6, legacy: false };
        if nft.chain(table.filter().object(names::FORWARD))?.is_some() {
            tables.push(table);
        }
    }
    tables.extend(legacy_tables());
    Ok(tables)
}

/// The filter tables of the old kind in this network namespace.
fn legacy_tables() -> Vec<FilterTable> {
    let has = |version: &Version| version.legacy_tables().iter().any(|it| it == "filter");
    let versions = Version::ALL.into_iter().filter(has);
    let legacy = true;
    versions
        .map(|version| FilterTable {
            v6: version.is_v6(),
            legacy,
        })
        .collect()
}

fn filters_forwarded(chain: &Chain) -> bool {
    let ip = matches!(chain.family, Family::Inet | Family::IPv4 | Family::IPv6);
    let own = chain.family == TABLE.family && chain.table == TABLE.name;
    let base = chain.base.as_ref();
    ip && !own && base.is_some_and(|base| base.kind == "filter")
}

/// Whether a base chain drops the packets that none of its rules is about.
fn drops(nft: &mut Nft, chain: &Chain) -> Result<bool, HostError> {
    let table = TableRef {
        family: chain.family,
        name: &chain.table,
    };
    let by_policy = chain.base.as_ref().is_some_and(|base| base.drops);
    let mut verdicts = |name: &str| {
        let rules = nft.rules(table.object(name))?.into_iter();
        Ok(rules.map(|rule| rule.verdict).collect())
    };
    Ok(match end(&mut verdicts, &chain.name)? {
        Some(Verdict::Accept) => false,
        Some(Verdict::Drop) => true,
        _ => by_policy,
    })
}

/// Gives the verdicts of a chain's rules, none for those that are about some packets only.
pub type Verdicts<'a> = dyn FnMut(&str) -> Result<Vec<Option<Verdict>>, HostError> + 'a;

/// How a chain ends for a packet that no rule is about in particular; none where it does not decide.
///
/// # Errors
/// Those of looking at rules.
pub fn end(verdicts: &mut Verdicts<'_>, chain: &str) -> Result<Option<Verdict>, HostError> {
    end_within(verdicts, chain, DEPTH)
}

fn end_within(
    verdicts: &mut Verdicts<'_>,
    chain: &str,
    depth: u32,
) -> Result<Option<Verdict>, HostError> {
    if depth == 0 {
        return Ok(None);
    }
    for verdict in verdicts(chain)? {
        let (next, comes_back) = match verdict {
            None => continue,
            Some(Verdict::Return) => return Ok(None),
            Some(Verdict::Jump(next)) => (next, true),
            Some(Verdict::Goto(next)) => (next, false),
            decided => return Ok(decided),
        };
        let decided = end_within(verdicts, &next, depth - 1)?;
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
        let mut verdicts = |name: &str| {
            let found = chains.iter().find(|(chain, _)| *chain == name);
            Ok(found.map_or_else(Vec::new, |(_, verdicts)| verdicts.to_vec()))
        };
        end(&mut verdicts, "forward").unwrap()
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
