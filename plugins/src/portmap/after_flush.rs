//! What is done after somebody flushed the host's rules, by whoever comes next: an ADD, a DEL or a GC, of any container.
//!
//! The ports of living containers are mapped again, by what their ADD wrote down. A flush takes the rules that keep
//! neighbours away from 127.0.0.1 and the list of those who need it, but not `route_localnet`: the setting is guarded
//! again with the ports of the living, and switched off where nobody is left.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::net::Ipv4Addr;

use cni_conf::diagnostics::warn;
use cni_conf::request::{Attachment, Request};

use super::conf::Backend;
use super::{Plan, iptables, localnet, map_again, nftables};
use crate::attach::chained;
use crate::attach::record::{Recorded, Records};
use crate::host::HostError;
use crate::owner::Owner;

/// Maps the ports of others again whose rules are gone: all of this backend, for which the caller has seen that there are
/// none, and those of the other one if it has none either.
pub(super) fn restore(records: &Records, except: Option<&Owner>, backend: &Backend) {
    let lost = |plan: &Plan| {
        discriminant(&plan.settings.backend) == discriminant(backend)
            || is_forgotten(plan).unwrap_or_default()
    };
    restore_those(records, except, &lost);
}

/// The same for a call that has no ports of its own to map. `left` gives the addresses of those that are gone that
/// localhost reached.
///
/// Costs a look at the rules, unless these are gone and something is recorded.
pub(super) fn recover(
    records: &Records,
    except: Option<&Owner>,
    backend: &Backend,
    left: &dyn Fn() -> Vec<Ipv4Addr>,
) {
    let gone = match backend {
        Backend::Nftables => nftables::is_forgotten(),
        Backend::Iptables(_) => iptables::are_forgotten(),
    };
    if gone.unwrap_or_default() {
        let lost = |plan: &Plan| is_forgotten(plan).unwrap_or_default();
        if records.exist() {
            restore_those(records, except, &lost);
        }
        close(left());
    }
}

/// The same for GC, which looks at both backends.
pub(super) fn recover_all(records: &Records, left: Vec<Ipv4Addr>) {
    let lost = |plan: &Plan| is_forgotten(plan).unwrap_or_default();
    restore_those(records, None, &lost);
    close(left);
}

/// The container's address, if localhost reaches it by what its ADD was called with.
pub(super) fn localhost_of(
    request: &Request,
    attachment: &Attachment,
    recorded: Option<&Recorded>,
    records: &Records,
) -> Vec<Ipv4Addr> {
    let plan = match recorded {
        Some(recorded) => Plan::recorded(recorded, records),
        None => chained::previous(request)
            .and_then(|previous| Plan::new(request, attachment, previous, records))
            .ok(),
    };
    plan.and_then(|plan| plan.wanted().localhost())
        .into_iter()
        .collect()
}

fn restore_those(records: &Records, except: Option<&Owner>, lost: &dyn Fn(&Plan) -> bool) {
    let mut all = records.all();
    all.retain(|recorded| Some(&recorded.owner()) != except);
    let (living, dead): (Vec<_>, Vec<_>) = all.into_iter().partition(Recorded::is_living);
    // Which are lost is seen before the first of them is back.
    let plan = |recorded: &Recorded| Plan::recorded(recorded, records);
    let lost: Vec<_> = living
        .into_iter()
        .filter(|recorded| plan(recorded).is_some_and(|plan| lost(&plan)))
        .collect();
    for recorded in lost {
        map_again(&recorded, records, "restore the mapped ports of");
    }
    let address = |recorded: &Recorded| plan(recorded)?.wanted().localhost();
    close(dead.iter().filter_map(address).collect());
}

/// Switches the setting off where nobody is listed.
fn close(addresses: Vec<Ipv4Addr>) {
    let addresses: BTreeSet<_> = addresses.into_iter().collect();
    if let Err(error) = localnet::close_unlisted(&addresses) {
        warn(format_args!(
            "switch off route_localnet, which nobody needs any more: {error}"
        ));
    }
}

/// Whether there are no rules at all that forward, as after a flush.
fn is_forgotten(plan: &Plan) -> Result<bool, HostError> {
    match plan.settings.backend {
        Backend::Nftables => nftables::is_forgotten(),
        Backend::Iptables(_) => iptables::is_forgotten(&plan.wanted()),
    }
}
