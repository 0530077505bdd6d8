//! What one attachment wants of the firewall, whoever carries it out.

use std::net::IpAddr;

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::CniResult;

use super::conf::{Policy, Settings};
use super::names;
use crate::attach::comment;
use crate::attach::owner::Owner;
use crate::host::Rtnl;

/// What bridges are in rtnetlink.
pub(super) const BRIDGE: &str = "bridge";

/// The wishes of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What stands for the network in names.
    pub(super) network: String,
    /// What the rules for the network as a whole carry as their comment.
    pub(super) network_comment: String,
    /// The owner.
    pub(super) comment: String,
    /// The container's addresses, each once.
    pub(super) addresses: Vec<IpAddr>,
    /// What is kept from the container; nothing with the policy `open`.
    pub(super) isolation: Option<Isolation>,
    /// The administrator's chain.
    pub(super) admin: String,
}

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
        Ok(Self {
            network: names::label(&request.network),
            network_comment: names::network_comment(&request.network),
            comment: comment::of(&Owner::of(request, attachment)),
            addresses: addresses(result),
            isolation,
            admin: settings.admin.clone(),
        })
    }
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
    let first = result
        .interfaces
        .first()
        .filter(|interface| interface.sandbox.is_empty() && !interface.name.is_empty());
    let Some(first) = first else {
        return Err(Error::config(
            "\"ingressPolicy\" needs to know the host's interface, and prevResult does not begin with one",
        )
        .with_details("put firewall behind bridge or ptp in the \"plugins\" of a .conflist file"));
    };
    let link = Rtnl::new()?.link_by_name(&first.name)?;
    let shared = link.is_some_and(|link| link.kind.as_deref() == Some(BRIDGE));
    Ok(Isolation {
        link: first.name.clone(),
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
}
