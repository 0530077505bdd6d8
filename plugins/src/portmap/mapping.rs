//! Mapping ports until it is done: taking over from the dead, handing over to the living.

use std::collections::BTreeSet;

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use cni_conf::names::ContainerId;
use cni_conf::request::Attachment;

use super::claims::{Outcome, Rival};
use super::conf::Backend;
use super::{Plan, Selected, Wanted, gone, iptables, nftables, remove, stale};
use crate::attach::record::{Recorded, Records};
use crate::host::HostError;

/// Makes sure that everything is forwarded. `restore` is called where there are no rules at all. A port of a container that
/// is known to be gone is taken over.
pub(super) fn map(
    plan: &Plan,
    records: &Records,
    attachment: &Attachment,
    restore: &dyn Fn(),
) -> Result<(), Error> {
    let wanted = plan.wanted();
    let mut taken_over = BTreeSet::new();
    loop {
        let outcome = match &plan.settings.backend {
            Backend::Nftables => nftables::ensure(&wanted, restore)?,
            Backend::Iptables(settings) => iptables::ensure(&wanted, settings, restore)?,
        };
        match outcome {
            Outcome::Mapped => break,
            Outcome::Taken(rival) => {
                let first = taken_over.insert(rival.comment.clone());
                if !first || !take_over(&rival, records, attachment)? {
                    return Err(rival.refusal());
                }
            }
        }
    }
    if let Err(error) = stale::forget_former(wanted.forwards) {
        warn(format_args!("stale UDP connections may linger: {error}"));
    }
    Ok(())
}

/// Removes what is mapped for a container that is known to be gone. False for one that may live.
fn take_over(rival: &Rival, records: &Records, attachment: &Attachment) -> Result<bool, Error> {
    let Some(why) = gone::evidence(rival, records, attachment.netns.as_deref())? else {
        return Ok(false);
    };
    warn(format_args!(
        "host port {} was of {} and is taken over: {why}",
        rival.wanted, rival.comment
    ));
    if let Some(recorded) = gone::recorded(records, &rival.comment) {
        records.remove(&recorded.owner())?;
    }
    remove(&Selected::Comment(rival.comment.clone()), true, &|| {})?;
    Ok(true)
}

/// Maps the ports of the living attachments of these containers, which may have waited for one that is gone now.
pub(super) fn hand_over(records: &Records, containers: &BTreeSet<&ContainerId>) {
    for container in containers {
        let mut living = records.of_container(container);
        living.retain(Recorded::is_living);
        for recorded in living {
            map_again(&recorded, records, "hand the mapped ports over to");
        }
    }
}

/// Maps the ports of an attachment once more that was mapped before or had to wait. What can't be done is no reason to fail.
pub(super) fn map_again(recorded: &Recorded, records: &Records, what: &str) {
    let Some(plan) = Plan::recorded(recorded, records) else {
        return;
    };
    let whose = &plan.identity.comment;
    if let Err(error) = map(&plan, records, &recorded.attachment, &|| {}) {
        warn(format_args!("{what} {whose}: {error}"));
    }
    // Its DEL may have looked before. One that has not yet will find what was mapped.
    if !records.has(recorded)
        && let Err(error) = remove(&Selected::one(&plan.identity.owner), true, &|| {})
    {
        warn(format_args!(
            "take the mapped ports of {whose} out again: {error}"
        ));
    }
}

/// The wanted ports, in words.
pub(super) fn ports(wanted: &Wanted<'_>) -> String {
    match wanted.forwards {
        [one] => format!("host port {one}"),
        [first, rest @ ..] => format!("host port {first} and {} more", rest.len()),
        [] => "host ports".to_owned(),
    }
}

/// The error where others change the rules whenever this attachment's are made.
pub(super) fn crossed(wanted: &Wanted<'_>) -> Error {
    let operation = format!("map {}", ports(wanted));
    HostError::Crossed { operation }.into()
}
