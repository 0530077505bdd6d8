//! The base chains that forwarded packets go through, found without listing all chains of the host.
//!
//! nftables tells chains by name, or all of a family's together, and kube-proxy has two and more of them for each Service.
//! So where a family has many, each of its tables is looked into by itself: the names of its chains stand in its rules,
//! and a table whose rules tell of fewer chains than it has is reason enough to list them all. Tables of which it is known
//! what they are for are asked for the chains that they may have. (The kernel's listing of hooks, `NFNL_SUBSYS_HOOK`, would
//! tell at once. Many kernels, Debian 12's among them, are built without it.)

use std::collections::BTreeSet;

use crate::host::HostError;
use crate::host::nft::{Chain, FORWARD_HOOK, Family, Nft, Table};
use crate::netfilter::table::TABLE;

/// So many chains and sets are listed as a whole.
const FEW: u32 = 256;

/// The families that packets of IP go through.
const FAMILIES: [Family; 3] = [Family::Inet, Family::IPv4, Family::IPv6];

/// The tables of iptables.
const IPTABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// The chain of iptables that forwarded packets go through.
const FORWARD: &str = "FORWARD";

/// kube-proxy's table in its mode nftables, and the chain in it that forwarded packets go through.
const KUBE_PROXY: (&str, &str) = ("kube-proxy", "filter-forward");

/// The base chains of the forward hook, of tables for IP. Those of our own table may be left out, and on a host with many
/// chains one in a table of iptables that iptables did not make and that has no rules.
///
/// # Errors
/// What the kernel says.
pub fn forward_chains(nft: &mut Nft) -> Result<Vec<Chain>, HostError> {
    let mut tables = nft.tables()?;
    tables.retain(|table| FAMILIES.contains(&table.family) && table.reference() != TABLE);
    let mut found = Vec::new();
    if tables.is_empty() {
        return Ok(found);
    }
    if are_few(tables.iter()) {
        found = nft.chains(None)?;
        found.retain(|chain| FAMILIES.contains(&chain.family) && is_forward(chain));
        return Ok(found);
    }
    for family in FAMILIES {
        let own: Vec<&Table> = tables.iter().filter(|it| it.family == family).collect();
        if own.is_empty() {
            continue;
        }
        found.extend(match one_by_one(nft, &own)? {
            Some(chains) => chains,
            None => nft.chains_of_family(family)?,
        });
    }
    found.retain(is_forward);
    Ok(found)
}

/// The base chains of the forward hook in one table, if it exists.
///
/// # Errors
/// What the kernel says.
pub fn forward_chains_of(nft: &mut Nft, table: &Table) -> Result<Vec<Chain>, HostError> {
    let mut found = match inside(nft, table)? {
        Some(chains) => chains,
        None => nft.chains(Some(table.reference()))?,
    };
    found.retain(is_forward);
    Ok(found)
}

fn is_forward(chain: &Chain) -> bool {
    let base = chain.base.as_ref();
    base.is_some_and(|base| base.hook == FORWARD_HOOK)
}

fn are_few<'a>(tables: impl Iterator<Item = &'a Table>) -> bool {
    let uses = tables.map(|table| u64::from(table.uses));
    uses.sum::<u64>() <= u64::from(FEW)
}

/// The chains of a family's tables that may be base chains. None where they have to be listed, or may be since they are few.
fn one_by_one(nft: &mut Nft, tables: &[&Table]) -> Result<Option<Vec<Chain>>, HostError> {
    if are_few(tables.iter().copied()) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for table in tables {
        match inside(nft, table)? {
            Some(chains) => found.extend(chains),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// The chains of a table that may be base chains, or none if it may have more.
fn inside(nft: &mut Nft, table: &Table) -> Result<Option<Vec<Chain>>, HostError> {
    let reference = table.reference();
    let of_iptables = table.family != Family::Inet && IPTABLES.contains(&table.name.as_str());
    let few = table.uses <= FEW;
    let mut names = BTreeSet::new();
    if table.name == KUBE_PROXY.0 {
        names.insert(KUBE_PROXY.1.to_owned());
    } else if of_iptables {
        names.insert(FORWARD.to_owned());
    } else if !few {
        return Ok(None);
    }
    let has_more = table.name != KUBE_PROXY.0 && few;
    if has_more {
        names.extend(nft.chains_by_rules(reference)?);
    }
    let mut chains = Vec::new();
    for name in &names {
        chains.extend(nft.chain(reference.object(name))?);
    }
    if has_more && !of_iptables {
        let known = chains.len() + nft.count_sets(reference)?;
        if usize::try_from(table.uses).is_ok_and(|uses| known < uses) {
            return Ok(None);
        }
    }
    Ok(Some(chains))
}
