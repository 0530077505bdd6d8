//! GC of veth pairs: what belongs to no valid attachment of a network.
//!
//! A pair is found by the alias of its host end. The kernel takes no alias in the message that makes a link, so an ADD that
//! is killed before its next one leaves a pair without. DEL finds that by its name; GC, which is not told whose it was,
//! knows it by what only our own ADD makes: name and MAC address that are derived from the same owner. An ADD that is at
//! work looks the same for a moment, and the networks that share a bridge may each be told to collect while another adds. So
//! such a pair goes only if it still has no alias some time later.

use std::thread;
use std::time::{Duration, Instant};

use cni_conf::error::Error;
use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;

use super::veth::{KIND, NAMES};
use crate::host::rtnl::Link;
use crate::host::{HostError, Rtnl};
use crate::owner::{Owner, Owners};

/// How long an ADD may take between the pair and its alias. In between are sysctls and the masquerading of the addresses:
/// milliseconds, unless somebody else keeps the firewall busy.
const ADD_BOUND: Duration = Duration::from_secs(5);

/// How often it is looked whether it has got there.
const TICK: Duration = Duration::from_millis(100);

/// Deletes every pair of a network that belongs to no attachment of `valid`, and those that nobody will finish: ports of
/// `bridge`, or of none. Carries on after an error.
pub fn pairs(
    host: &Rtnl,
    network: &NetworkName,
    valid: &[AttachmentId],
    bridge: Option<&str>,
) -> Vec<Error> {
    let links = match host.links_of_kind(KIND) {
        Ok(links) => links,
        Err(error) => return vec![error.into()],
    };
    let keep: Vec<Owner> = valid.iter().map(|id| Owner::new(network, id)).collect();
    let owners = Owners::all_but(network, valid);
    let mut errors: Vec<Error> = links
        .iter()
        .filter(|link| {
            let alias = link.alias.as_deref();
            alias.is_some_and(|alias| owners.has_alias(alias))
        })
        .filter_map(|link| host.delete_link(link.index).err())
        .map(Error::from)
        .collect();
    let unfinished = links
        .into_iter()
        .filter(|link| is_unfinished(link) && !keep.iter().any(|owner| may_be_of(link, owner)))
        .collect();
    match abandoned(host, unfinished, bridge) {
        Ok(pairs) => {
            let failed = pairs
                .iter()
                .filter_map(|pair| host.delete_link(pair.index).err());
            errors.extend(failed.map(Error::from));
        }
        Err(error) => errors.push(error.into()),
    }
    errors
}

/// Those of the pairs that are as they were when an ADD would be further.
fn abandoned(
    host: &Rtnl,
    mut pairs: Vec<Link>,
    bridge: Option<&str>,
) -> Result<Vec<Link>, HostError> {
    if pairs.is_empty() {
        return Ok(pairs);
    }
    let bridge = bridge.map(|name| host.link_by_name(name)).transpose()?;
    let bridge = bridge.flatten().map(|link| link.index);
    pairs.retain(|link| link.master.is_none() || link.master == bridge);
    let begin = Instant::now();
    while !pairs.is_empty() && begin.elapsed() < ADD_BOUND {
        thread::sleep(TICK);
        let mut unfinished = Vec::new();
        for pair in pairs {
            let now = host.link_by_index(pair.index)?;
            if now.is_some_and(|now| now.name == pair.name && is_unfinished(&now)) {
                unfinished.push(pair);
            }
        }
        pairs = unfinished;
    }
    Ok(pairs)
}

/// True if the link may be the host's end of a pair that an ADD of ours has just made: down, without alias, the other end in
/// another namespace.
fn is_unfinished(link: &Link) -> bool {
    link.alias.is_none()
        && !link.up
        && link.link_netnsid.is_some()
        && link
            .mac
            .is_some_and(|mac| Owner::may_have_named(&link.name, mac, NAMES))
}

/// True if the link has one of the names of the owner's host end.
fn may_be_of(link: &Link, owner: &Owner) -> bool {
    (0..NAMES).any(|attempt| owner.host_ifname(attempt) == link.name)
}
