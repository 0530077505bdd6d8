//! Whether the owner of a host port is known to be gone, so that the port can be given to who asks for it.
//!
//! A container may go without DEL, and rules that were saved may be restored at boot when nothing else is left of their
//! owners. What ADD wrote down is the best evidence: the boot, and the namespace. Where there is no record, an owner is gone
//! if the host has no interface that may be its own, where the address is routed that its port leads to, and no
//! living namespace has that address, other than one whose interface is another attachment's. Doubt counts as "it lives".

use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ipam::store::living_namespaces;

use super::claims::Rival;
use crate::attach::record::{Recorded, Records};
use crate::host::rtnl::Link;
use crate::host::{HostError, NetNs, Rtnl};
use crate::owner::{Owner, Owners};

/// What is known of an owner.
enum State {
    /// It is gone, and why that is known.
    Gone(&'static str),
    /// Nothing but an interface of it is left, as while the kernel takes its namespace down.
    Going,
    /// It lives, or nothing tells.
    MayLive,
}

/// How often it is looked whether one that is going has gone.
const LOOKS: u32 = 100;

/// How long to wait between two looks.
const TICK: Duration = Duration::from_millis(20);

/// Why the owner is known to be gone, or none.
pub(super) fn evidence(
    rival: &Rival,
    records: &Records,
    own_netns: Option<&Path>,
) -> Result<Option<&'static str>, HostError> {
    for _ in 0..LOOKS {
        match look(rival, records, own_netns)? {
            State::Gone(why) => return Ok(Some(why)),
            State::MayLive => return Ok(None),
            State::Going => thread::sleep(TICK),
        }
    }
    Ok(None)
}

fn look(rival: &Rival, records: &Records, own_netns: Option<&Path>) -> Result<State, HostError> {
    if let Some(recorded) = recorded(records, &rival.comment) {
        return Ok(if recorded.is_gone() {
            State::Gone("its network namespace is gone, or the machine was started since")
        } else if recorded.has_lost_netns() {
            State::Going
        } else {
            State::MayLive
        });
    }
    let host = Rtnl::new()?;
    let Some(address) = rival.to else {
        return Ok(State::MayLive);
    };
    if may_stand(&host, address)? || is_held(&host, address, &rival.comment, own_netns)? {
        return Ok(State::MayLive);
    }
    Ok(match stands(&host, &rival.comment)? {
        true => State::Going,
        false => State::Gone("no record, no interface and no address of it is left on this host"),
    })
}

/// What ADD wrote down of the attachment with this comment.
pub(super) fn recorded(records: &Records, found: &str) -> Option<Recorded> {
    records
        .all()
        .into_iter()
        .find(|recorded| is_of(&recorded.owner(), found))
}

fn is_of(owner: &Owner, found: &str) -> bool {
    Owners::one(owner).has(found)
}

/// Whether the host has an interface of the attachment, or one of which it can't be told whose it is.
fn stands(host: &Rtnl, found: &str) -> Result<bool, HostError> {
    let links = host.links_with_alias("veth", ALIAS)?;
    Ok(links.iter().any(|link| match of_alias(link) {
        Some(owner) => is_of(&owner, found),
        // Cut, as comments are.
        None => found.contains('#'),
    }))
}

/// What the aliases of our host ends begin with.
const ALIAS: &str = "trestle:";

/// The attachment whose host end a link is.
fn of_alias(link: &Link) -> Option<Owner> {
    link.alias.as_deref().and_then(Owner::of_alias)
}

/// Whether an interface by which the host reaches the address may be the owner's: one into another namespace of which nobody
/// knows whose it is, as other plugins make them. Where the host has no way to the address, nothing tells.
fn may_stand(host: &Rtnl, address: IpAddr) -> Result<bool, HostError> {
    let Some(index) = host.link_towards(address)? else {
        return Ok(true);
    };
    let Some(link) = host.link_by_index(index)? else {
        return Ok(true);
    };
    let ports = host.bridge_ports(index)?;
    let nameless = |link: &Link| link.link_netnsid.is_some() && of_alias(link).is_none();
    Ok(link.loopback || nameless(&link) || ports.iter().any(nameless))
}

/// Whether a living namespace may be the owner's: it has the address, and its interface is nobody else's.
fn is_held(
    host: &Rtnl,
    address: IpAddr,
    found: &str,
    own_netns: Option<&Path>,
) -> Result<bool, HostError> {
    let own = own_netns.and_then(|path| NetNs::open(path).ok()?.cookie().ok());
    for (inode, path) in living_namespaces() {
        let Ok(netns) = NetNs::open(&path) else {
            // The process that it was found by may have ended, and others be in it still.
            if living_namespaces().contains_key(&inode) {
                return Ok(true);
            }
            continue;
        };
        if netns.is_current()? || (own.is_some() && netns.cookie().ok() == own) {
            continue;
        }
        let inside = netns.enter(Rtnl::new)??;
        let holders = inside.addresses(0)?.into_iter();
        for holder in holders.filter(|it| it.net.addr() == address) {
            let Some(link) = inside.link_by_index(holder.link)? else {
                continue;
            };
            if !is_anothers(host, (&netns, &inside), &link, found)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the interface in a namespace is the inside of a pair that ends on another host, or whose host end names another
/// attachment. What the kernel tells of the host's end nobody inside can change.
fn is_anothers(
    host: &Rtnl,
    (netns, inside): (&NetNs, &Rtnl),
    link: &Link,
    found: &str,
) -> Result<bool, HostError> {
    let Some(index) = link.link.filter(|_| link.kind.as_deref() == Some("veth")) else {
        return Ok(false);
    };
    if inside.netns_id(&NetNs::current()?)? != link.link_netnsid {
        return Ok(true);
    }
    let Some(end) = host.link_by_index(index)? else {
        return Ok(false);
    };
    let joined = end.link == Some(link.index)
        && end.link_netnsid.is_some()
        && end.link_netnsid == host.netns_id(netns)?;
    Ok(joined && of_alias(&end).is_some_and(|owner| !is_of(&owner, found)))
}
