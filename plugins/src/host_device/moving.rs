//! The way of a device into a container and back.
//!
//! A device changes namespace and name in one request: the kernel takes the new name where the old one is taken over there
//! (`dev_change_net_namespace` in net/core/dev.c). On the way it goes down and loses its addresses.
//!
//! When a container's namespace ends without DEL, the kernel moves hardware back to the first namespace by itself, under
//! the name that it had in the container or, where that is taken, as `dev` and a number (`default_device_exit_net`). What is
//! written down tells which one it is.

use cni_conf::diagnostics::warn;
use cni_conf::error::{Code, Error};
use cni_conf::names::IfName;
use nix::errno::Errno;

use super::state::{Moved, Store};
use crate::attach::container::Container;
use crate::host::rtnl::{AddressFlags, AddressOptions, AddressScope, Link, LinkChange};
use crate::host::{HostError, NetNs, Rtnl};
use crate::owner::Owner;

/// A name that is free, for a device whose own one is taken on the host: the kernel puts a number for `%d`.
const ANY_NAME: &str = "dev%d";

/// Writes down what the device is like, and moves it into the container, where it is down and has the name of the attachment.
pub(super) fn move_in(
    host: &Rtnl,
    container: &Container,
    store: &Store,
    owner: &Owner,
    device: &Link,
) -> Result<Link, Error> {
    let mut moved = describe(host, container, owner, device)?;
    store.write(&moved)?;
    let change = LinkChange {
        name: Some(owner.ifname.as_str()),
        alias: Some(&device.name),
        netns: Some(&container.netns),
        ..LinkChange::default()
    };
    let outcome = host
        .set_link(device.index, &change)
        .map_err(|error| explain(error, device));
    let link = outcome.and_then(|()| {
        let link = container.rtnl.link_by_name(owner.ifname.as_str())?;
        link.ok_or_else(|| {
            Error::new(
                Code::Conflict,
                format!(
                    "device {} left the container as soon as it was there",
                    device.name
                ),
            )
        })
    });
    let written = link.and_then(|link| {
        moved.index = Some(link.index);
        store.write(&moved).map(|()| link)
    });
    // It may be in the container, if only the new name could not be had, or its index not be written down.
    written.map_err(
        |error| match bring_back(host, Some(container), store, owner) {
            Ok(()) => error,
            Err(left) => error.with_details(format!("left behind: {left}")),
        },
    )
}

fn describe(
    host: &Rtnl,
    container: &Container,
    owner: &Owner,
    device: &Link,
) -> Result<Moved, Error> {
    let moved = Moved::new(owner, &container.netns, device.name.clone()).map_err(|error| {
        Error::new(
            Code::Io,
            format!("look at the own network namespace: {error}"),
        )
    })?;
    let addresses = host.addresses(device.index)?.into_iter();
    let stays = |address: &crate::host::rtnl::Address| {
        address.flags.contains(AddressFlags::Permanent) && address.scope != AddressScope::Link
    };
    Ok(Moved {
        kind: device.kind.clone(),
        mac: device.mac,
        up: device.up,
        mtu: device.mtu,
        addresses: addresses.filter(stays).map(|address| address.net).collect(),
        ..moved
    })
}

fn explain(error: HostError, device: &Link) -> Error {
    let local = error.errno() == Some(Errno::EINVAL);
    let error = Error::from(error);
    if local {
        return error.with_details(format!(
            "{} can't leave its network namespace: the kernel keeps loopback, bridges and some tunnels where they are",
            device.name
        ));
    }
    error
}

/// Brings the device of an attachment back to the host, from the container or from where the kernel has put it, and
/// forgets it. Succeeds when there is none.
pub(super) fn bring_back(
    host: &Rtnl,
    container: Option<&Container>,
    store: &Store,
    owner: &Owner,
) -> Result<(), Error> {
    let moved = store.find(owner);
    let inside = match container {
        Some(container) => find_inside(container, owner, moved.as_ref())?
            .map(|(link, name)| (container, link, name)),
        None => None,
    };
    match inside {
        Some((container, link, name)) => {
            let name = move_out(host, container, &link, &name)?;
            if let Some(moved) = &moved {
                restore(host, &name, moved)?;
            }
        }
        None => {
            if let Some(moved) = &moved {
                retrieve_from_kernel(host, moved)?;
            }
        }
    }
    store.remove(owner)
}

/// The device in the container, and the name that it had on the host.
fn find_inside(
    container: &Container,
    owner: &Owner,
    moved: Option<&Moved>,
) -> Result<Option<(Link, String)>, Error> {
    if let Some(moved) = moved {
        let found = match moved.index {
            Some(index) => container.rtnl.link_by_index(index)?,
            // ADD was killed on the way.
            None => container
                .rtnl
                .link_by_name(owner.ifname.as_str())?
                .or(container.rtnl.link_by_name(&moved.device)?),
        };
        // The container may have put something else in its place, which is none of the host's.
        let found = found.filter(|link| link.kind == moved.kind && !link.loopback);
        return Ok(found.map(|link| (link, moved.device.clone())));
    }
    let Some(link) = container.rtnl.link_by_name(owner.ifname.as_str())? else {
        return Ok(None);
    };
    let name = link
        .alias
        .clone()
        .filter(|alias| IfName::try_from(alias.as_str()).is_ok());
    Ok(name.map(|name| (link, name)))
}

/// Moves the device to the host, under its name or, where that is taken, under another one. The name it has then.
fn move_out(host: &Rtnl, container: &Container, link: &Link, name: &str) -> Result<String, Error> {
    let home = NetNs::current()?;
    let taken = host.link_by_name(name)?;
    let change = LinkChange {
        name: Some(if taken.is_some() { ANY_NAME } else { name }),
        alias: Some(if taken.is_some() { name } else { "" }),
        netns: Some(&home),
        ..LinkChange::default()
    };
    let before: Vec<u32> = host.links()?.into_iter().map(|link| link.index).collect();
    container.rtnl.set_link(link.index, &change)?;
    let Some(taken) = taken else {
        return Ok(name.to_owned());
    };
    let found = host
        .links()?
        .into_iter()
        .find(|found| !before.contains(&found.index) && found.alias.as_deref() == Some(name));
    let now = found.map_or_else(|| ANY_NAME.replace("%d", "?"), |found| found.name);
    warn(format_args!(
        "the host has another interface {name} (index {}) by now: the device that had this name comes back as {now}",
        taken.index
    ));
    Ok(now)
}

/// Finds a device that came back by itself when its container's namespace ended, and gives it its name again.
fn retrieve_from_kernel(host: &Rtnl, moved: &Moved) -> Result<(), Error> {
    let is_it = |link: &Link| {
        link.kind == moved.kind && link.mac == moved.mac && link.mac.is_some() && !link.loopback
    };
    if let Some(link) = host.link_by_name(&moved.device)?
        && is_it(&link)
    {
        return restore(host, &moved.device, moved);
    }
    let returned = host
        .links()?
        .into_iter()
        .find(|link| is_it(link) && link.alias.as_deref() == Some(&moved.device));
    let Some(link) = returned else {
        return Ok(());
    };
    let free = !host.has_link(&moved.device)?;
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    let rename = LinkChange {
        name: free.then_some(moved.device.as_str()),
        alias: free.then_some(""),
        ..LinkChange::default()
    };
    // Kernels before 6.2 rename nothing that is up.
    for change in [down, rename] {
        host.set_link(link.index, &change)?;
    }
    let name = if free { &moved.device } else { &link.name };
    restore(host, name, moved)
}

/// Gives the device what it had on the host. What is there already stays.
fn restore(host: &Rtnl, name: &str, moved: &Moved) -> Result<(), Error> {
    let Some(link) = host.link_by_name(name)? else {
        return Ok(());
    };
    let change = LinkChange {
        up: moved.up.then_some(true),
        mtu: (link.mtu != moved.mtu).then_some(moved.mtu),
        ..LinkChange::default()
    };
    host.set_link(link.index, &change)?;
    let errors = moved.addresses.iter().filter_map(|net| {
        match host.add_address(link.index, *net, AddressOptions::default()) {
            Err(error) if !error.already_exists() => Some(Error::from(error)),
            _ => None,
        }
    });
    Error::join(errors).map_or(Ok(()), Err)
}
