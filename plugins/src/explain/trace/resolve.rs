//! Who is meant: a container by its ID or the beginning of it, a pod by its name, a network namespace by its path; and the
//! destination.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::CannotLook;
use super::links::Links;
use crate::explain::cache::{self, Cached};
use crate::explain::directories::Directories;
use crate::host::rtnl::Link;
use crate::host::{HostError, NetNs, Rtnl};
use crate::owner::Owner;

/// An ID or its beginning of this length is nobody's name by chance, so only files that are called so are read.
const SURELY_AN_ID: usize = 12;

/// The pod's end.
pub(super) struct Pod {
    pub(super) netns: NetNs,
    /// Of its namespace.
    pub(super) rtnl: Rtnl,
    /// How it is called in the output.
    pub(super) label: String,
    /// The network it is attached to by the interface that leads to the destination, if that is known.
    pub(super) network: Option<String>,
    /// The interface by which it would send there, and its other end on this host.
    pub(super) inside: Option<Link>,
    pub(super) end: Option<Rc<Link>>,
    /// The addresses of that interface.
    pub(super) addresses: Vec<IpAddr>,
}

/// An address with a port, or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

impl std::str::FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: None,
            });
        }
        match text.parse::<SocketAddr>() {
            Ok(both) if both.port() == 0 => Err("port 0 is no port".into()),
            Ok(both) => Ok(Self {
                address: both.ip(),
                port: Some(both.port()),
            }),
            Err(_) => Err("write it as 10.96.0.10:53, [fd00::1]:53, or as an address alone".into()),
        }
    }
}

/// Whether an attachment is called so.
fn is_called(cached: &Cached, name: &str) -> bool {
    let space = cached.arg("K8S_POD_NAMESPACE").unwrap_or("default");
    let of_pod = cached
        .arg("K8S_POD_NAME")
        .is_some_and(|pod| match name.split_once('/') {
            Some((asked_space, asked_pod)) => (asked_pod, asked_space) == (pod, space),
            None => name == pod,
        });
    of_pod || cached.id.container.as_str().starts_with(name)
}

/// What the runtime remembers of those who are called so.
fn called(directories: &Directories, name: &str) -> Result<Vec<Cached>, CannotLook> {
    let begins = format!("-{name}");
    let by_id = |file: &str| name.len() >= SURELY_AN_ID && file.contains(&begins);
    for wanted in [&by_id as &dyn Fn(&str) -> bool, &|_| true] {
        let mut entries = cache::read_all(&directories.cache_dir, wanted)
            .map_err(CannotLook::Survey)?
            .entries;
        entries.retain(|it| directories.selects(it.network.as_str()) && is_called(it, name));
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// The attachments of the one container that is meant.
fn attachments(directories: &Directories, name: &str) -> Result<Vec<Cached>, CannotLook> {
    let mut meant = called(directories, name)?;
    let is_whole = |it: &Cached| it.id.container.as_str() == name;
    // The whole ID of one may be how another's begins.
    if meant.iter().any(is_whole) {
        meant.retain(is_whole);
    }
    let ids: BTreeSet<&str> = meant.iter().map(|it| it.id.container.as_str()).collect();
    match ids.len() {
        0 => Err(CannotLook::NoSuchContainer(name.to_owned())),
        1 => Ok(meant),
        _ => Err(CannotLook::Ambiguous {
            name: name.to_owned(),
            among: ids.iter().map(|id| (*id).to_owned()).collect(),
        }),
    }
}

/// Finds the pod and its way towards `to`.
pub(super) fn pod(
    directories: &Directories,
    links: &Links,
    name: &str,
    to: IpAddr,
) -> Result<Pod, CannotLook> {
    let (netns, meant) = match name.starts_with('/') {
        true => (NetNs::open(name)?, Vec::new()),
        false => {
            let meant = attachments(directories, name)?;
            let mut paths = meant.iter().flat_map(|it| &it.netns);
            let netns = paths.find_map(|path| NetNs::open(path).ok());
            let netns = netns.ok_or_else(|| CannotLook::NoNamespace(name.to_owned()))?;
            (netns, meant)
        }
    };
    let rtnl = Rtnl::in_netns(&netns)?;
    let inside = match rtnl.link_towards(to)? {
        Some(index) => rtnl.link_by_index(index)?,
        None => None,
    };
    let end = end_of(links, &netns, inside.as_ref())?;
    let ifname = inside.as_ref().map_or("", |link| &link.name);
    let cached = meant.iter().find(|it| it.id.ifname.as_str() == ifname);
    let owner = match (cached, meant.first()) {
        (Some(it), _) | (None, Some(it)) => Some(Owner::new(&it.network, &it.id)),
        // The alias of the other end tells.
        _ => end
            .as_ref()
            .and_then(|link| Owner::of_alias(link.alias.as_deref()?)),
    };
    let addresses = match &inside {
        Some(link) => rtnl.addresses(link.index)?,
        None => Vec::new(),
    };
    Ok(Pod {
        netns,
        rtnl,
        label: match &owner {
            Some(owner) => owner.container.to_string(),
            None => name.to_owned(),
        },
        network: owner
            .filter(|it| it.ifname.as_str() == ifname)
            .map(|it| it.network.to_string()),
        addresses: addresses.iter().map(|it| it.net.addr()).collect(),
        inside,
        end,
    })
}

/// The other end of a veth pair, if it is on this host. Links of two containers may have the same number, so the namespace
/// is compared, too.
fn end_of(
    links: &Links,
    netns: &NetNs,
    inside: Option<&Link>,
) -> Result<Option<Rc<Link>>, HostError> {
    let Some(inside) = inside.filter(|link| link.kind.as_deref() == Some("veth")) else {
        return Ok(None);
    };
    let Some(end) = inside.link.and_then(|index| links.get(index)) else {
        return Ok(None);
    };
    let namespace = links.rtnl.netns_id(netns)?;
    let paired = end.link == Some(inside.index) && end.link_netnsid == namespace;
    Ok((paired && namespace.is_some()).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_an_address_with_or_without_a_port() {
        for (text, address, port) in [
            ("10.1.0.3", "10.1.0.3", None),
            ("10.1.0.3:80", "10.1.0.3", Some(80)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]:53", "fd00::1", Some(53)),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(text.parse(), Ok(Destination { address, port }), "{text}");
        }
        for text in [
            "",
            "web",
            "10.1.0.3:",
            "10.1.0.3:0",
            "10.1.0.3:70000",
            "[fd00::1]",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
