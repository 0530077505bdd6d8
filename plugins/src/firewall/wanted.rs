//! What one attachment wants of the firewall, whoever carries it out.

use std::net::IpAddr;

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::CniResult;
use ipnet::IpNet;

use super::conf::{Policy, Settings};
use super::names;
use crate::host::rtnl::Link;
use crate::host::{HostError, Rtnl};
use crate::owner::{Owner, printable};

/// What bridges are in rtnetlink.
pub(super) const BRIDGE: &str = "bridge";

/// The wishes of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What stands for the network in names.
    pub(super) network: String,
    /// What the rules for the network as a whole carry as their comment.
    pub(super) network_comment: String,
    /// The owner, as nftables spells it.
    pub(super) comment: String,
    /// The owner, as iptables spells it.
    pub(super) iptables_comment: String,
    /// The container's addresses, each once.
    pub(super) addresses: Vec<IpAddr>,
    /// What is kept from the container; nothing with the policy `open`.
    pub(super) isolation: Option<Isolation>,
    /// The administrator's chain.
    pub(super) admin: String,
    /// Who may open connections to the container.
    pub(super) ingress: Vec<IpNet>,
    /// Where the container's addresses are, as far as a rule for all containers there can stand for them.
    pub(super) places: Vec<Place>,
}

/// Where containers of a network are, so that a rule can be about all of them: a subnet behind a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// A bridge, or [`PAIRS`].
    pub(super) link: String,
    /// The prefix of the containers' addresses.
    pub(super) subnet: IpNet,
}

/// All links that are a pair's end, in the words of iptables: each container has one of its own with ptp.
pub(super) const PAIRS: &str = "veth+";

/// The kind of a pair's end in rtnetlink, and what the names of ours and of the Go plugin's begin with.
const VETH: &str = "veth";

/// Which packets between containers are dropped: those that come in from this link and go to a protected
/// container behind another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Isolation {
    /// The host's interface that the container is behind.
    pub(super) link: String,
    /// Whether the network's other containers are behind it too: it is a bridge.
    pub(super) shared: bool,
    /// Whether containers of one network are kept apart too.
    pub(super) within: bool,
}

impl Wanted {
    /// Reads the result of the plugins before this one.
    pub(super) fn new(
        request: &Request,
        attachment: &Attachment,
        result: &CniResult,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let isolation = match settings.policy {
            Policy::Open => None,
            policy => Some(isolation(result, policy)?),
        };
        let owner = Owner::of(request, attachment);
        Ok(Self {
            network: names::label(&request.network),
            network_comment: names::network_comment(&request.network),
            comment: owner.comment(),
            iptables_comment: owner.iptables_comment(),
            addresses: addresses(result),
            isolation,
            admin: settings.admin.clone(),
            ingress: settings.ingress.clone(),
            places: places(result)?,
        })
    }

    /// The container's addresses that are in none of its places.
    pub(super) fn lone(&self) -> impl Iterator<Item = IpAddr> {
        let placed = |address: &IpAddr| {
            self.places
                .iter()
                .any(|place| place.subnet.contains(address))
        };
        self.addresses.iter().copied().filter(move |it| !placed(it))
    }

    /// The same with the container's addresses alone, where no rule may stand for them that others share.
    pub(super) fn by_itself(&self) -> Self {
        Self {
            places: Vec::new(),
            ..self.clone()
        }
    }
}

/// The subnets behind the host's interface that the result begins with. None where that says nothing of who is there: an
/// address without a subnet, or a link of another kind.
fn places(result: &CniResult) -> Result<Vec<Place>, Error> {
    let Some(name) = host_link(result) else {
        return Ok(Vec::new());
    };
    let Some(link) = Rtnl::new()?.link_by_name(name)? else {
        return Ok(Vec::new());
    };
    let link = match link.kind.as_deref() {
        Some(BRIDGE) if can_be_spelt(name) => name,
        Some(VETH) if name.starts_with(VETH) => PAIRS,
        _ => return Ok(Vec::new()),
    };
    let inside = addresses(result);
    let subnets = result.ips.iter().map(|ip| ip.address);
    let mut places: Vec<Place> = subnets
        .filter(|subnet| inside.contains(&subnet.addr()) && is_subnet(*subnet))
        .map(|subnet| Place {
            link: link.to_owned(),
            subnet: subnet.trunc(),
        })
        .collect();
    places.sort();
    places.dedup();
    Ok(places)
}

/// Whether a prefix is one that a network's containers may be in, more than one and not everybody.
fn is_subnet(prefix: IpNet) -> bool {
    (8..prefix.max_prefix_len()).contains(&prefix.prefix_len())
}

/// Whether a rule of iptables can name a link: a `+` at the end would stand for others too.
fn can_be_spelt(link: &str) -> bool {
    printable(link) == link && !link.ends_with('+')
}

/// The host's interface that the result begins with.
fn host_link(result: &CniResult) -> Option<&str> {
    let first = result.interfaces.first()?;
    let named = first.sandbox.is_empty() && !first.name.is_empty();
    named.then_some(first.name.as_str())
}

/// Whether a place has others than containers in it: a bridge with the host's own interface or a virtual machine as a
/// port.
pub(super) fn has_strangers(place: &Place) -> Result<bool, HostError> {
    let host = Rtnl::new()?;
    let Some(bridge) = host.link_by_name(&place.link)? else {
        return Ok(false);
    };
    let of_containers = |link: &Link| matches!(link.kind.as_deref(), Some(VETH | "dummy"));
    Ok(!host.bridge_ports(bridge.index)?.iter().all(of_containers))
}

/// The addresses of interfaces in the container; those of results before 0.3.0 belong to no interface.
pub(super) fn addresses(result: &CniResult) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for ip in &result.ips {
        let inside = ip
            .interface
            .and_then(|index| result.interfaces.get(index))
            .is_none_or(|interface| !interface.sandbox.is_empty());
        if inside && !addresses.contains(&ip.address.addr()) {
            addresses.push(ip.address.addr());
        }
    }
    addresses
}

/// The first interface of the result is the one that the plugin before this one put the containers behind.
fn isolation(result: &CniResult, policy: Policy) -> Result<Isolation, Error> {
    let Some(first) = host_link(result) else {
        return Err(Error::config(
            "\"ingressPolicy\" needs to know the host's interface, and prevResult does not begin with one",
        )
        .with_details("put firewall behind bridge or ptp in the \"plugins\" of a .conflist file"));
    };
    let link = Rtnl::new()?.link_by_name(first)?;
    let shared = link.is_some_and(|link| link.kind.as_deref() == Some(BRIDGE));
    Ok(Isolation {
        link: first.to_owned(),
        shared,
        within: policy == Policy::Isolated || !shared,
    })
}

#[cfg(test)]
mod tests {
    use cni_conf::result::{Interface, IpConfig};

    use super::*;

    #[test]
    fn only_the_containers_own_addresses_count_and_each_once() {
        let ip = |text: &str, interface| IpConfig {
            interface,
            address: text.parse().unwrap(),
            gateway: None,
        };
        let named = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            sandbox: sandbox.into(),
            ..Interface::default()
        };
        let result = CniResult {
            interfaces: vec![named("cni0", ""), named("eth0", "/run/netns/c")],
            ips: vec![
                ip("10.1.0.1/24", Some(0)),
                ip("10.1.0.5/24", Some(1)),
                ip("10.1.0.5/24", None),
                ip("fd00::5/64", None),
            ],
            ..CniResult::default()
        };
        let expected: Vec<IpAddr> = ["10.1.0.5", "fd00::5"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(addresses(&result), expected);
    }

    #[test]
    fn neither_a_host_nor_everybody_is_a_subnet() {
        for (prefix, expected) in [
            ("10.1.0.5/24", true),
            ("10.1.0.5/8", true),
            ("10.1.0.5/31", true),
            ("10.1.0.5/32", false),
            ("10.1.0.5/0", false),
            ("fd00::5/64", true),
            ("fd00::5/128", false),
        ] {
            assert_eq!(is_subnet(prefix.parse().unwrap()), expected, "{prefix}");
        }
    }

    #[test]
    fn a_link_whose_name_means_more_to_iptables_is_no_place() {
        for name in ["cni+", "a$b", "a\"b"] {
            assert!(!can_be_spelt(name), "{name}");
        }
        assert!(can_be_spelt("cni0") && can_be_spelt("br-lan.5"));
    }
}
