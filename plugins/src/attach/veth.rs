//! The veth pair between the host and a container, found by its owner.

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use nix::errno::Errno;

use super::container::Container;
use super::{ipv6, mac};
use crate::host::rtnl::{Link, LinkChange, NewVeth, VethEnd, VethPair};
use crate::host::{HostError, Rtnl};
use crate::owner::{Owner, Owners};

/// How many names an owner's host end may have, should others be taken. Two of 10,000 owners share the first name
/// with a probability of about 1%, the first two with one of 1 to 40 million.
pub(super) const NAMES: u32 = 3;

/// The kind of link that the kernel calls it.
pub const KIND: &str = "veth";

/// How many ports the kernel lets a bridge have: `BR_MAX_PORTS` of net/bridge/br_private.h, without the number 0.
const PORTS_MAX: usize = 1023;

/// A pair to create.
pub struct Pair<'a> {
    /// Whose it is.
    pub owner: &'a Owner,
    /// The container.
    pub container: &'a Container,
    /// MAC address of the container's end.
    pub mac: MacAddr,
    /// MTU of both ends in bytes, `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Index of the bridge that the host's end becomes a port of.
    pub master: Option<u32>,
}

/// Creates the pair. The host's end is left down, with router advertisements ignored: nobody may tell the host from
/// inside a container where its routes lead (CVE-2020-10749).
pub fn create(host: &Rtnl, pair: &Pair<'_>) -> Result<VethPair, Error> {
    let alias = pair.owner.alias();
    let created = (0..NAMES).find_map(|attempt| {
        create_as(host, pair, &alias, &pair.owner.host_ifname(attempt)).transpose()
    });
    let Some(created) = created else {
        return Err(Error::new(
            Code::Conflict,
            "every name for the host's veth end is taken by another attachment",
        )
        .with_details(format!(
            "see `ip link`; the names are derived from {}",
            pair.owner.path()
        )));
    };
    let mut created = created?;
    ipv6::ignore_advertisements(&mut created.host)?;
    Ok(created)
}

/// One attempt under one name; `None` if another attachment has it.
fn create_as(
    host: &Rtnl,
    pair: &Pair<'_>,
    alias: &str,
    name: &str,
) -> Result<Option<VethPair>, Error> {
    let new = NewVeth {
        host: VethEnd {
            name,
            mac: Some(mac::of_host_end(pair.owner).bytes()),
            mtu: pair.mtu,
        },
        alias: None,
        master: pair.master,
        up: false,
        peer: VethEnd {
            name: pair.owner.ifname.as_str(),
            mac: Some(pair.mac.bytes()),
            mtu: pair.mtu,
        },
        peer_netns: &pair.container.netns,
    };
    let error = match host.create_veth(&new) {
        Ok(created) => return Ok(Some(created)),
        Err(error) => error,
    };
    if let (Some(Errno::EXFULL), Some(bridge)) = (error.errno(), pair.master) {
        return Err(explain_full(host, bridge, error));
    }
    if !error.already_exists() {
        return Err(error.into());
    }
    match host.link_by_name(name)? {
        // The name is free, so it was the one in the container that is taken.
        None => pair
            .container
            .require_free(pair.owner.ifname.as_str())
            .and(Err(error.into())),
        // Left over from an ADD that was killed, in a namespace that somebody still holds.
        Some(link) if is_of(&link, alias) => {
            pair.container.require_free(pair.owner.ifname.as_str())?;
            host.delete_link(link.index)?;
            Ok(Some(host.create_veth(&new)?))
        }
        Some(_) => Ok(None),
    }
}

/// The error of a port that a bridge has no room for. Only the kernel counts ports; a listing in each ADD would cost more
/// than an address that is given back.
fn explain_full(host: &Rtnl, bridge: u32, error: HostError) -> Error {
    let (Ok(Some(bridge)), Ok(ports)) = (host.link_by_index(bridge), host.bridge_ports(bridge))
    else {
        return error.into();
    };
    let (name, ports) = (bridge.name, ports.len());
    Error::new(
        Code::Kernel,
        format!("the bridge {name} is full: it has {ports} ports, and the kernel allows {PORTS_MAX}"),
    )
    .with_details(format!(
        "divide the containers among networks with a \"bridge\" each, or use the plugin ptp, which needs none; `ip link \
         show master {name}` lists the ports"
    ))
}

/// What gives the host's end the alias that tells whose it is, while it is still down; the kernel takes none when a link
/// is created.
pub fn label(alias: &str) -> LinkChange<'_> {
    LinkChange {
        alias: Some(alias),
        ..LinkChange::default()
    }
}

/// The host's end, if there is one.
pub fn find(host: &Rtnl, owner: &Owner) -> Result<Option<Link>, Error> {
    let alias = owner.alias();
    for attempt in 0..NAMES {
        if let Some(link) = host.link_by_name(&owner.host_ifname(attempt))?
            && is_of(&link, &alias)
        {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// Whether the host's end stands of whoever a comment of a rule or an element names. Doubt counts as yes: a comment that is
/// cut tells nobody's name, and so may an alias.
pub fn stands_for(comment: &str) -> bool {
    let look = || {
        let host = Rtnl::new()?;
        if let Some(owner) = Owner::parse(comment) {
            return Ok(find(&host, &owner)?.is_some());
        }
        let links = host.links_of_kind(KIND)?;
        let mut aliases = links.iter().filter_map(|link| link.alias.as_deref());
        Ok(aliases.any(|alias| match Owner::parse_alias(alias) {
            Some(owner) => Owners::one(&owner).has_in_iptables(comment),
            None => Owner::alias_is_ours(alias),
        }))
    };
    let found: Result<bool, Error> = look();
    found.unwrap_or(true)
}

/// True if a link with one of the owner's names is the owner's: by its alias, or because an ADD was killed before
/// there was one.
fn is_of(link: &Link, alias: &str) -> bool {
    link.kind.as_deref() == Some(KIND) && link.alias.as_deref().is_none_or(|found| found == alias)
}

/// Deletes the pair by its host end. Returns false if there is none.
pub fn delete(host: &Rtnl, owner: &Owner) -> Result<bool, Error> {
    match find(host, owner)? {
        Some(link) => Ok(host.delete_link(link.index)?),
        None => Ok(false),
    }
}

/// Undoes a creation, over a socket of its own: the one of the ADD that failed may be what failed.
pub fn delete_anew(owner: &Owner) -> Result<(), Error> {
    delete(&Rtnl::new()?, owner).map(drop)
}

/// Deletes the container's end of a pair that another implementation made, which has no alias to find it by.
/// An interface of another kind, or of another attachment of ours, is not touched.
pub fn delete_in_container(
    host: &Rtnl,
    container: &Container,
    owner: &Owner,
) -> Result<bool, Error> {
    let Some(link) = container.rtnl.link_by_name(owner.ifname.as_str())? else {
        return Ok(false);
    };
    if link.kind.as_deref() != Some(KIND) {
        return Ok(false);
    }
    let of_another = other_end(host, container, &link)?
        .and_then(|end| end.alias)
        .is_some_and(|alias| Owner::alias_is_ours(&alias) && alias != owner.alias());
    if of_another {
        return Ok(false);
    }
    Ok(container.rtnl.delete_link(link.index)?)
}

/// The host's end of the pair whose other end is the container's link `inside`, whoever made it.
///
/// A container chooses the indices of its links and of what they claim to be joined to. They only say where to look.
pub fn other_end(host: &Rtnl, container: &Container, inside: &Link) -> Result<Option<Link>, Error> {
    let end = inside
        .link
        .map(|index| host.link_by_index(index))
        .transpose()?;
    match end.flatten() {
        Some(end) if are_joined(host, &end, container, inside)? => Ok(Some(end)),
        _ => Ok(None),
    }
}

/// Whether `end` on the host and `inside` in the container are the two ends of one pair. What the kernel tells of the
/// host's end, namespace and index together, nobody inside can change.
pub fn are_joined(
    host: &Rtnl,
    end: &Link,
    container: &Container,
    inside: &Link,
) -> Result<bool, Error> {
    let is_end = |link: &Link| link.kind.as_deref() == Some(KIND);
    if !is_end(end)
        || !is_end(inside)
        || end.link != Some(inside.index)
        || inside.link != Some(end.index)
    {
        return Ok(false);
    }
    Ok(match end.link_netnsid {
        Some(id) => host.netns_id(&container.netns)? == Some(id),
        // The other end is in the host's own namespace.
        None => container.netns.is_current()?,
    })
}
