//! Who is meant: a container by its ID or the beginning of it, a pod by its name, a network namespace by its path; and the
//! destination.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::CannotLook;
use crate::explain::kernel::Kernel;
use crate::explain::survey::{Attached, Survey};
use crate::host::rtnl::Link;
use crate::host::{NetNs, Rtnl};
use crate::owner::Owner;

/// The pod's end.
pub(super) struct Pod {
    pub(super) netns: NetNs,
    /// How it is called in the output.
    pub(super) label: String,
    /// The network it is attached to by the interface that leads to the destination, if the runtime's cache tells.
    pub(super) network: Option<String>,
    /// The interface by which it would send there, and its other end on this host.
    pub(super) inside: Option<Link>,
    pub(super) end: Option<Link>,
    /// All of its addresses.
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
fn is_called(owner: &Owner, attached: &Attached, name: &str) -> bool {
    let pod = attached.cached.as_ref().and_then(|it| {
        let space = it.arg("K8S_POD_NAMESPACE").unwrap_or("default");
        Some((it.arg("K8S_POD_NAME")?, space))
    });
    let of_pod = pod.is_some_and(|(pod, space)| match name.split_once('/') {
        Some((asked_space, asked_pod)) => (asked_pod, asked_space) == (pod, space),
        None => name == pod,
    });
    of_pod || owner.container.as_str().starts_with(name)
}

/// The attachments of the one container that is meant.
fn attachments<'s>(
    survey: &'s Survey,
    name: &str,
) -> Result<Vec<(&'s Owner, &'s Attached)>, CannotLook> {
    let all = survey.attachments.iter();
    let mut meant: Vec<_> = all
        .filter(|(owner, it)| is_called(owner, it, name))
        .collect();
    // The whole ID of one may be how another's begins.
    if meant
        .iter()
        .any(|(owner, _)| owner.container.as_str() == name)
    {
        meant.retain(|(owner, _)| owner.container.as_str() == name);
    }
    let ids: BTreeSet<&str> = meant.iter().map(|it| it.0.container.as_str()).collect();
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
pub(super) fn pod(survey: &Survey, name: &str, to: IpAddr) -> Result<Pod, CannotLook> {
    let (netns, meant) = match name.starts_with('/') {
        true => {
            let of_path = survey.attachments.iter().filter(|(_, it)| {
                let mut paths = it.cached.iter().flat_map(|cached| &cached.netns);
                paths.any(|path| path == Path::new(name))
            });
            (NetNs::open(name)?, of_path.collect())
        }
        false => {
            let meant = attachments(survey, name)?;
            let mut paths = meant
                .iter()
                .filter_map(|(_, it)| it.cached.as_ref())
                .flat_map(|cached| &cached.netns);
            let netns = paths.find_map(|path| NetNs::open(path).ok());
            let netns = netns.ok_or_else(|| CannotLook::NoNamespace(name.to_owned()))?;
            (netns, meant)
        }
    };
    let inner = Kernel::look(Some(&netns))?;
    let towards = Rtnl::in_netns(&netns)?.link_towards(to)?;
    let inside = towards.and_then(|index| inner.link(index)).cloned();
    let end = end_of(survey, &netns, inside.as_ref());
    let ifname = inside.as_ref().map_or("", |link| &link.name);
    let network = meant
        .iter()
        .find(|(owner, _)| owner.ifname.as_str() == ifname)
        .map(|(owner, _)| owner.network.to_string());
    let label = match meant.first() {
        Some((owner, _)) => owner.container.to_string(),
        None => name.to_owned(),
    };
    let addresses = inner.addresses.iter().map(|it| it.net.addr()).collect();
    Ok(Pod {
        netns,
        label,
        network,
        inside,
        end,
        addresses,
    })
}

/// The other end of a veth pair, if it is on this host. Links of two containers may have the same number, so the namespace
/// is compared, too.
fn end_of(survey: &Survey, netns: &NetNs, inside: Option<&Link>) -> Option<Link> {
    let inside = inside.filter(|link| link.kind.as_deref() == Some("veth"))?;
    let kernel = survey.kernel.as_ref().ok()?;
    let end = kernel.link(inside.link?)?;
    let namespace = Rtnl::new().ok()?.netns_id(netns).ok()?;
    let paired = end.link == Some(inside.index) && end.link_netnsid == namespace;
    (paired && namespace.is_some()).then(|| end.clone())
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
