//! Whether the network's rules stand, told by netlink alone: with as many lookups for the thousandth container as for
//! the second, whatever else is in the table.

use cni_conf::names::NetworkName;

use super::super::wanted::Wanted;
use super::network::{self, Branch};
use super::plan::{FORWARD, ISOLATE};
use super::words::{Words, comment};
use crate::host::HostError;
use crate::host::nft::{Nft, Rule, TableRef, Verdict};
use crate::netfilter::digest::Expected;
use crate::netfilter::iptables::FilterTable;

/// Whether there is nothing to do for a container: no rule of its own, and the network's are what they should be.
pub(super) fn stands(
    table: FilterTable,
    network: &NetworkName,
    wanted: &Wanted,
) -> Result<bool, HostError> {
    let own_link = wanted.isolation.as_ref().is_some_and(|it| !it.shared);
    if own_link || wanted.lone().any(|address| address.is_ipv6() == table.v6) {
        return Ok(false);
    }
    let nft = &mut Nft::open()?;
    let filter = table.filter();
    let isolates = wanted.isolation.is_some();
    if !leads(nft, filter, "FORWARD", FORWARD)?
        || (isolates && !leads(nft, filter, FORWARD, ISOLATE)?)
    {
        return Ok(false);
    }
    let branches = network::branches(network);
    let found = rules_of(nft, filter, &branches)?;
    let expected = expected(table.v6, wanted, &found);
    for ((branch, found), rules) in branches.iter().zip(&found).zip(&expected) {
        let there = rules.is_empty() || leads(nft, filter, branch.from, &branch.chain)?;
        if !there || !in_kernel(filter, branch, rules).are_current(found) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn rules_of(
    nft: &mut Nft,
    filter: TableRef<'_>,
    branches: &[Branch],
) -> Result<Vec<Vec<Rule>>, HostError> {
    let rules = |branch: &Branch| nft.rules(filter.object(&branch.chain));
    branches.iter().map(rules).collect()
}

/// What is expected of a chain that has these rules. Their comments stand for them: which administrator's chain there is
/// says whoever makes the chain, and nobody who finds it.
fn in_kernel<'a>(filter: TableRef<'a>, branch: &'a Branch, rules: &[Words]) -> Expected<'a> {
    let comments: Vec<&str> = rules.iter().filter_map(comment).collect();
    Expected {
        chain: filter.object(&branch.chain),
        text: comments.join("\n").into(),
        count: rules.len(),
        about: None,
    }
}

fn expected(v6: bool, wanted: &Wanted, found: &[Vec<Rule>]) -> [Vec<Words>; 3] {
    let comments = |n: usize| {
        let rules = found.get(n).into_iter().flatten();
        rules.filter_map(|rule| rule.comment.as_deref())
    };
    let (mut way, mut from, mut to) = (comments(0), comments(1), comments(2));
    network::rules(v6, &[wanted], [&mut way, &mut from, &mut to])
}

/// Whether a chain leads to another one with every packet that gets so far.
fn leads(nft: &mut Nft, filter: TableRef<'_>, from: &str, to: &str) -> Result<bool, HostError> {
    let rules = nft.rules(filter.object(from))?;
    Ok(rules.iter().any(|rule| jumps_to(rule, to)))
}

pub(super) fn jumps_to(rule: &Rule, chain: &str) -> bool {
    matches!(&rule.verdict, Some(Verdict::Jump(to)) if to == chain)
}

/// Writes the digests of the network's chains, as they are now.
pub(super) fn write_digests(
    table: FilterTable,
    network: &NetworkName,
    wanted: &Wanted,
) -> Result<(), HostError> {
    let nft = &mut Nft::open()?;
    let (filter, branches) = (table.filter(), network::branches(network));
    let found = rules_of(nft, filter, &branches)?;
    let expected = expected(table.v6, wanted, &found);
    for (branch, rules) in branches.iter().zip(&expected) {
        in_kernel(filter, branch, rules).write(nft)?;
    }
    Ok(())
}
