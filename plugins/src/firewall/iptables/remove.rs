//! Taking rules out by netlink, which reads every table: also one that iptables calls incompatible.
//!
//! Chains of a network are known by their names. A ruleset that `nft` has listed and loaded again may have lost the
//! comments of iptables' rules.

use cni_conf::names::NetworkName;
use nix::errno::Errno;

use super::super::names::network_comment;
use super::network::{self, Branch};
use super::plan::{FORWARD, SHARED, TO_ADMIN};
use super::standing::jumps_to;
use super::words::is_owner;
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Nft, Rule, TableRef, Verdict};
use crate::netfilter::iptables::FilterTable;
use crate::owner::Owners;

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 10;

/// What goes, and what may go.
pub(super) struct Removal<'a> {
    /// Whose rules go.
    pub(super) selected: &'a Owners,
    /// Whether nobody of the network is left who counts on its chains. Asked when there are some.
    pub(super) deserted: &'a dyn Fn() -> bool,
}

/// How much goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// What is the owners' and the network's.
    Own,
    /// The chains that are there once, too.
    Shared,
    /// Administrators' chains that are empty, too.
    Administrator,
}

/// What was found.
struct View {
    /// Whether the chain that leads to the networks' is there.
    begun: bool,
    /// The rules of the chains that are there once.
    shared: Vec<(&'static str, Vec<Rule>)>,
    /// The network's chains that are there, with their rules.
    branches: Vec<(Branch, Vec<Rule>)>,
}

/// Takes rules out of a table that is kept in nftables. Of our own processes nobody installs rules meanwhile.
pub(super) fn remove(table: FilterTable, removal: &Removal<'_>) -> Result<(), HostError> {
    let nft = &mut Nft::open()?;
    let filter = table.filter();
    // Looked at without the lock first, for most containers leave nothing.
    let view = View::new(nft, filter, removal.network())?;
    if !view.has_work(removal) {
        return Ok(());
    }
    let _lock = lock::take()?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let view = View::new(nft, filter, removal.network())?;
        match view.remove_entries(nft, filter, removal) {
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// The rules of containers with their owners.
pub(super) fn owned(table: FilterTable) -> Result<Vec<String>, HostError> {
    let rules = Nft::open()?.rules(table.filter().object(FORWARD))?;
    let comments = rules.into_iter().filter_map(|rule| rule.comment);
    Ok(comments.filter(|text| is_owner(text)).collect())
}

impl View {
    fn new(nft: &mut Nft, filter: TableRef<'_>, network: &NetworkName) -> Result<Self, HostError> {
        let mut shared = Vec::new();
        for chain in SHARED {
            shared.push((chain, nft.rules(filter.object(chain))?));
        }
        let mut branches = Vec::new();
        for branch in network::branches(network) {
            if nft.chain(filter.object(&branch.chain))?.is_some() {
                let rules = nft.rules(filter.object(&branch.chain))?;
                branches.push((branch, rules));
            }
        }
        let begun = nft.chain(filter.object(FORWARD))?.is_some();
        Ok(Self {
            begun,
            shared,
            branches,
        })
    }

    fn has_work(&self, removal: &Removal<'_>) -> bool {
        let mut rules = self.shared.iter().flat_map(|(_, rules)| rules);
        let whole = network_comment(removal.network());
        let of_network = |rule: &Rule| rule.comment.as_ref() == Some(&whole);
        // Somebody may have been killed before the last of it was gone.
        let left_over = self.begun && self.branches.is_empty() && !self.needed(removal, false);
        left_over
            || rules.clone().any(|rule| removal.takes_owner(rule))
            || ((!self.branches.is_empty() || rules.any(of_network)) && (removal.deserted)())
    }

    /// In one transaction as far as the kernel lets: who uses what is shared, or the administrator's chain, is seen when it
    /// refuses.
    fn remove_entries(
        &self,
        nft: &mut Nft,
        filter: TableRef<'_>,
        removal: &Removal<'_>,
    ) -> Result<(), HostError> {
        let deserted = !self.has_owners_of_their_own(removal) && (removal.deserted)();
        let depths: &[Depth] = match self.needed(removal, deserted) {
            true => &[Depth::Own],
            false => &[Depth::Administrator, Depth::Shared, Depth::Own],
        };
        for depth in depths {
            let mut batch = self.own(filter, removal, deserted);
            if *depth >= Depth::Shared {
                self.shared(nft, filter, &mut batch)?;
            }
            if *depth >= Depth::Administrator {
                for admin in self.admins() {
                    if nft.chain(filter.object(admin))?.is_some() {
                        batch.delete_empty_chain(filter.object(admin));
                    }
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            match nft.commit(batch) {
                Err(error) if error.errno() == Some(Errno::EBUSY) => {}
                outcome => return outcome,
            }
        }
        Ok(())
    }

    /// Whether containers of the network are left that have rules of their own. The administrator's come before those.
    fn has_owners_of_their_own(&self, removal: &Removal<'_>) -> bool {
        let all = Owners::all(removal.network());
        let mut rules = self.shared.iter().flat_map(|(_, rules)| rules);
        rules.any(|rule| {
            let owner = rule.comment.as_deref().filter(|text| is_owner(text));
            !removal.takes_owner(rule) && owner.is_some_and(|owner| all.has_in_iptables(owner))
        })
    }

    /// Whether anything is left that the shared chains are there for.
    fn needed(&self, removal: &Removal<'_>, deserted: bool) -> bool {
        let rules = self.shared.iter().flat_map(|(_, rules)| rules);
        let mut left = rules.filter(|rule| !self.goes(rule, removal, deserted));
        left.any(|rule| is_needed(rule, deserted))
    }

    /// Whether a rule of the shared chains is the removed owners' or, if that is deserted, the network's.
    fn goes(&self, rule: &Rule, removal: &Removal<'_>, deserted: bool) -> bool {
        let leads = |(branch, _): &(Branch, _)| jumps_to(rule, &branch.chain);
        let whole = network_comment(removal.network());
        removal.takes_owner(rule)
            || (deserted && (rule.comment == Some(whole) || self.branches.iter().any(leads)))
    }

    fn own(&self, filter: TableRef<'_>, removal: &Removal<'_>, deserted: bool) -> Batch {
        let mut batch = Batch::new();
        for (chain, rules) in &self.shared {
            for rule in rules.iter().filter(|it| self.goes(it, removal, deserted)) {
                batch.delete_rule(filter.object(chain), rule.handle);
            }
        }
        for (branch, _) in self.branches.iter().filter(|_| deserted) {
            batch.delete_chain(filter.object(&branch.chain));
        }
        batch
    }

    fn shared(
        &self,
        nft: &mut Nft,
        filter: TableRef<'_>,
        batch: &mut Batch,
    ) -> Result<(), HostError> {
        for rule in nft.rules(filter.object("FORWARD"))? {
            if jumps_to(&rule, FORWARD) {
                batch.delete_rule(filter.object("FORWARD"), rule.handle);
            }
        }
        for chain in SHARED {
            if nft.chain(filter.object(chain))?.is_some() {
                batch.delete_chain(filter.object(chain));
            }
        }
        Ok(())
    }

    fn admins(&self) -> Vec<&str> {
        let ways = self.branches.iter().flat_map(|(_, rules)| rules);
        let shared = self.shared.iter().flat_map(|(_, rules)| rules);
        let mut admins: Vec<&str> = ways.chain(shared).filter_map(leads_to_admin).collect();
        admins.sort_unstable();
        admins.dedup();
        admins
    }
}

impl Removal<'_> {
    fn network(&self) -> &NetworkName {
        self.selected.network()
    }

    fn takes_owner(&self, rule: &Rule) -> bool {
        let owner = rule.comment.as_deref().filter(|text| is_owner(text));
        owner.is_some_and(|owner| self.selected.has_in_iptables(owner))
    }
}

/// The administrator's chain that a rule of ours leads to: the only chain of others that one does. The comment may be
/// lost.
fn leads_to_admin(rule: &Rule) -> Option<&str> {
    let comment = rule.comment.as_deref();
    match &rule.verdict {
        Some(Verdict::Jump(to))
            if comment == Some(TO_ADMIN)
                || (comment.is_none() && !to.starts_with(super::PREFIX)) =>
        {
            Some(to)
        }
        _ => None,
    }
}

/// Whether a rule of the shared chains is there for a container or a network. One that has lost its comment may be
/// either, so it stays as long as its network may have somebody.
fn is_needed(rule: &Rule, deserted: bool) -> bool {
    match (&rule.verdict, rule.comment.as_deref()) {
        (Some(Verdict::Jump(to)), _) => network::is_branch(to),
        (_, Some(_)) => true,
        (_, None) => !deserted,
    }
}
