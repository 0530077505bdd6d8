//! The firewall by iptables: rules per container, found by the owner in their comments.
//!
//! A table is listed, what has to change is decided from the listing ([`plan`]), and the changes are one transaction
//! of `iptables-restore --noflush`. Of our own processes one at a time does that, lest the last container of a network
//! take along what the first one of the next counts on; others that change the table in between make the transaction
//! fail, and it is planned anew.

mod plan;

use cni_conf::names::NetworkName;

use super::Kept;
use super::guard::IpTable;
use super::names::belongs_to;
use super::wanted::Wanted;
use crate::attach::rules_lock;
use crate::host::HostError;
use crate::host::iptables::{LOCK_WAIT, command, legacy_command, restore_command};
use crate::host::program::Program;

use plan::Listing;
pub(super) use plan::{FORWARD, PREFIX};

/// How often a change that another process crossed is tried again.
const ATTEMPTS: u32 = 6;

impl IpTable {
    fn command(self) -> Program {
        if self.legacy {
            legacy_command(self.v6)
        } else {
            command(self.v6)
        }
    }

    fn restore_command(self) -> Program {
        let name = if self.v6 {
            "ip6tables-legacy-restore"
        } else {
            "iptables-legacy-restore"
        };
        let common = restore_command(self.v6);
        let legacy = Program { name, ..common };
        match self.legacy && legacy.find("").is_ok() {
            true => legacy,
            false => common,
        }
    }

    fn listing(self, purpose: &str) -> Result<Listing, HostError> {
        let [wait, seconds] = LOCK_WAIT;
        let text = self
            .command()
            .run(purpose, [wait, seconds, "-t", "filter", "-S"], "")?;
        Ok(Listing::parse(&text))
    }

    /// Lists and changes the table until there is nothing to change.
    fn change(
        self,
        purpose: &str,
        plan: impl Fn(&Listing) -> Vec<String>,
    ) -> Result<(), HostError> {
        let _lock = rules_lock::take()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let lines = plan(&self.listing(purpose)?);
            if lines.is_empty() {
                return Ok(());
            }
            let input = format!("*filter\n{}\nCOMMIT\n", lines.join("\n"));
            let [wait, seconds] = LOCK_WAIT;
            match self
                .restore_command()
                .run(purpose, [wait, seconds, "--noflush"], &input)
            {
                Err(HostError::ProgramFailed { .. }) if attempt < ATTEMPTS => {}
                outcome => return outcome.map(drop),
            }
        }
    }
}

/// Makes sure of the shared rules and of the container's own, and of those of the `others` where none of the network has
/// any.
pub(super) fn ensure<'a>(
    table: IpTable,
    network: &NetworkName,
    wanted: &Wanted,
    others: &dyn Fn() -> &'a [Wanted],
) -> Result<(), HostError> {
    if !plan::concerns(table.v6, wanted) {
        return Ok(());
    }
    let purpose = format!("let traffic of {} through", wanted.comment);
    table.change(&purpose, |listing| {
        if listing.owned().any(|(owner, _)| belongs_to(network, owner)) {
            return listing.ensure(table.v6, wanted);
        }
        let mut lines = Vec::new();
        let concerned = |other: &&Wanted| plan::concerns(table.v6, other);
        for one in others().iter().filter(concerned).chain([wanted]) {
            // They share chains and jumps.
            let missing = listing.ensure(table.v6, one).into_iter();
            lines.extend(
                missing
                    .filter(|line| !lines.contains(line))
                    .collect::<Vec<_>>(),
            );
        }
        lines
    })
}

/// Takes out the rules of the network's owners whom `condemned` says so of, and the shared rules that nobody needs any
/// more.
pub(super) fn remove(
    table: IpTable,
    network: &NetworkName,
    condemned: &dyn Fn(&str) -> bool,
) -> Result<(), HostError> {
    let purpose = format!("remove firewall rules of network {network}");
    table.change(&purpose, |listing| listing.remove(network, condemned))
}

/// A sentence for each difference between what is there and what is wanted.
pub(super) fn check(table: IpTable, wanted: &Wanted) -> Result<Vec<String>, HostError> {
    if !plan::concerns(table.v6, wanted) {
        return Ok(Vec::new());
    }
    let listing = table.listing(&format!("check the firewall rules of {}", wanted.comment))?;
    let program = table.command().name;
    Ok(listing
        .ensure(table.v6, wanted)
        .into_iter()
        .map(|line| format!("a rule is missing in {program}: {line}"))
        .collect())
}

/// The rules that have owners.
pub(super) fn list(table: IpTable) -> Result<Vec<Kept>, HostError> {
    let listing = table.listing("list firewall rules")?;
    let program = table.command().name;
    Ok(listing
        .owned()
        .map(|(owner, rule)| Kept {
            owner: owner.to_owned(),
            what: format!("{program} {rule}"),
        })
        .collect())
}
