//! The firewall by iptables: a few rules for a network, in chains of its own, which a container costs nothing more.
//!
//! Whether they stand is seen by netlink ([`standing`]). Only where they don't, or where a container needs rules of its
//! own ([`plan`]), a table is listed, what has to change is decided from the listing, and the changes are one transaction
//! of `iptables-restore --noflush`. Of our own processes one at a time does that, lest the last container of a network
//! take along what the first one of the next counts on; others that change the table in between make the transaction
//! fail, and it is planned anew.
//!
//! A table that iptables itself can't read, because somebody wrote rules into it that only nftables has, is
//! [`Outcome::Unreadable`]: its chain FORWARD is served as that of any other nftables table then.
//!
//! A container counts on its network's rules only if it is written down ([`crate::attach::record`]): whoever is the last
//! one takes them along.

mod network;
mod plan;
mod remove;
mod standing;
mod words;

use cni_conf::diagnostics::warn;
use cni_conf::names::NetworkName;

use super::Kept;
use super::names::network_comment;
use super::wanted::{PAIRS, Wanted, has_strangers};
use crate::host::HostError;
use crate::host::iptables::LOCK_WAIT;
use crate::host::lock;
use crate::netfilter::iptables::{FilterTable, change};
use crate::owner::Owners;

pub(super) use plan::PREFIX;
use plan::{FORWARD, Listing, SHARED};
use remove::Removal;
use words::{Words, comment, is_owner};

/// What became of an attempt to work on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// There are rules in it that iptables does not know.
    Unreadable,
}

/// What a listing gives.
enum Listed {
    Rules(Listing),
    Unreadable,
}

fn list_table(table: FilterTable, purpose: &str) -> Result<Listed, HostError> {
    let [wait, seconds] = LOCK_WAIT;
    let args = [wait, seconds, "-t", "filter", "-S"];
    match table.command().run(purpose, args, "") {
        Ok(text) => Ok(Listed::Rules(Listing::parse(&text))),
        Err(HostError::ProgramFailed { complaint, .. }) if complaint.contains("incompatible") => {
            Ok(Listed::Unreadable)
        }
        Err(error) => Err(error),
    }
}

/// Changes the table as `plan` decides from a listing. The caller holds the lock.
fn change_table(
    table: FilterTable,
    purpose: &str,
    plan: impl Fn(&Listing) -> Result<Vec<String>, HostError>,
) -> Result<Outcome, HostError> {
    let mut done = Outcome::Done;
    change(table.restore_command(), purpose, || {
        Ok(match list_table(table, purpose)? {
            Listed::Rules(listing) => vec![("filter", plan(&listing)?)],
            Listed::Unreadable => {
                done = Outcome::Unreadable;
                Vec::new()
            }
        })
    })?;
    Ok(done)
}

/// Makes sure of the network's rules and of the container's own, and of those of the `others` where the network's are gone,
/// also if their chains are left. `always` says that they are wanted also where nothing is seen to drop forwarded packets.
pub(super) fn ensure<'a>(
    table: FilterTable,
    network: &NetworkName,
    wanted: &Wanted,
    others: &dyn Fn() -> &'a [Wanted],
    always: bool,
) -> Result<Outcome, HostError> {
    if !plan::concerns(table.v6, wanted) {
        return Ok(Outcome::Done);
    }
    if !table.legacy {
        // Beside those who look as well. Whoever takes the rules away, or makes them anew, waits.
        let _lock = lock::share()?;
        if standing::stands(table, network, wanted)? {
            return Ok(Outcome::Done);
        }
    }
    let wanted = apart(wanted)?;
    let purpose = format!("let traffic of {} through", wanted.comment);
    let _lock = lock::take()?;
    let outcome = change_table(table, &purpose, |listing| {
        if !(always || serves(listing, &wanted)) {
            return Ok(Vec::new());
        }
        let others = match is_known(listing, network, wanted.isolation.is_some()) {
            true => &[],
            false => others(),
        };
        let others = others.iter().filter(|one| plan::concerns(table.v6, one));
        let others = others.map(apart).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<&Wanted> = others.iter().chain([&wanted]).collect();
        Ok(listing.ensure(table.v6, network, &all))
    })?;
    if outcome == Outcome::Done && !table.legacy {
        standing::write_digests(table, network, &wanted)?;
    }
    Ok(outcome)
}

/// Whether rules in a table do anything for a container.
fn serves(listing: &Listing, wanted: &Wanted) -> bool {
    listing.drops() || listing.has_rules(&wanted.admin)
}

/// Whether nobody flushed the chains that the network's containers have their rules in: `iptables -F` keeps them, empty,
/// and other networks fill the shared ones again.
fn is_known(listing: &Listing, network: &NetworkName, isolates: bool) -> bool {
    let [way, ..] = network::branches(network).map(|branch| branch.chain);
    let all = Owners::all(network);
    if !listing.has_chain(&way) {
        // An old version's containers have rules in the shared chain only.
        return listing.owned().any(|(owner, _)| all.has_in_iptables(owner));
    }
    let whole = network_comment(network);
    let of_network = |rule: &Words| {
        comment(rule)
            .is_some_and(|text| text == whole || is_owner(text) && all.has_in_iptables(text))
    };
    let needed = match isolates {
        true => &SHARED[..],
        false => &[FORWARD],
    };
    listing.has_rules(&way)
        && needed
            .iter()
            .all(|chain| listing.rules(chain).any(of_network))
}

/// The same without the places in which there are others than containers: a rule that stands for all who are there would
/// let the host's neighbours through.
fn apart(wanted: &Wanted) -> Result<Wanted, HostError> {
    for place in wanted.places.iter().filter(|place| place.link != PAIRS) {
        if has_strangers(place)? {
            return Ok(wanted.by_itself());
        }
    }
    Ok(wanted.clone())
}

/// Removes the rules of these owners, the network's own if it is `deserted`, and the shared rules that nobody needs any more. An old table that can't be read is worth a warning.
pub(super) fn remove(
    table: FilterTable,
    selected: &Owners,
    deserted: &dyn Fn() -> bool,
) -> Result<(), HostError> {
    if !table.legacy {
        let removal = Removal { selected, deserted };
        return remove::remove(table, &removal);
    }
    let purpose = format!("remove firewall rules of network {}", selected.network());
    if let Err(error) = list_table(table, &purpose) {
        warn(error);
        return Ok(());
    }
    let _lock = lock::take()?;
    let plan = |listing: &Listing| Ok(listing.remove(selected, deserted()));
    change_table(table, &purpose, plan).map(drop)
}

/// A sentence for each difference between what is there and what is wanted.
pub(super) fn check(
    table: FilterTable,
    network: &NetworkName,
    wanted: &Wanted,
    always: bool,
) -> Result<Vec<String>, HostError> {
    if !plan::concerns(table.v6, wanted) {
        return Ok(Vec::new());
    }
    // Somebody may be making them anew.
    let _lock = lock::share()?;
    if !table.legacy && standing::stands(table, network, wanted)? {
        return Ok(Vec::new());
    }
    let wanted = apart(wanted)?;
    let program = table.command().name;
    let purpose = format!("check the firewall rules of {}", wanted.comment);
    let Listed::Rules(listing) = list_table(table, &purpose)? else {
        let chain = table.filter().object("FORWARD").to_string();
        return Ok(vec![format!(
            "{program} can't read the table of nft chain {chain}, and no rules of network {network} are in it"
        )]);
    };
    if !(always || serves(&listing, &wanted)) {
        return Ok(Vec::new());
    }
    let lines = listing.ensure(table.v6, network, &[&wanted]).into_iter();
    Ok(lines
        .map(|line| format!("a rule is missing or differs in {program}: {line}"))
        .collect())
}

/// The rules that have owners. An old table that can't be read is worth a warning.
pub(super) fn list(table: FilterTable) -> Result<Vec<Kept>, HostError> {
    let program = table.command().name;
    if !table.legacy {
        let owners = remove::owned(table)?.into_iter();
        return Ok(owners
            .map(|owner| Kept {
                what: format!("a rule in {program} {FORWARD} of {owner}"),
                owner,
            })
            .collect());
    }
    let listing = match list_table(table, "list firewall rules") {
        Ok(Listed::Rules(listing)) => listing,
        Ok(Listed::Unreadable) => return Ok(Vec::new()),
        Err(error) => {
            warn(error);
            return Ok(Vec::new());
        }
    };
    Ok(listing
        .owned()
        .map(|(owner, rule)| Kept {
            owner: owner.to_owned(),
            what: format!("{program} {rule}"),
        })
        .collect())
}
