//! What Service traffic needs of the host beyond the bridge itself: bridge netfilter, and filter rules that let
//! forwarded packets through.
//!
//! A Service address is translated by rules of the IP layer. Packets between two containers of one bridge don't get
//! there unless bridge netfilter is on, and then an answer would come back from an address that nobody asked.

use std::net::IpAddr;

use cni_conf::dispatch::warn;
use cni_conf::error::{Code, Error};
use cni_conf::json::FieldError;
use cni_conf::names::NetworkName;
use cni_conf::request::Request;

use super::conf::Settings;
use crate::attach::bridge_netfilter::{self, Mode, REMEDY};
use crate::attach::check::failed;
use crate::attach::forwarding::{self, Finding, Path};
use crate::attach::{ipam, list};
use crate::host::rtnl::{Family, Link};
use crate::host::{HostError, Rtnl};

/// The plugin that lets forwarded packets through.
const FIREWALL: &str = "firewall";

/// The key `bridgeNetfilter`, with its default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Netfilter {
    pub(super) mode: Mode,
    /// Asked for by name: then not to have it is an error, and otherwise a warning.
    pub(super) by_name: bool,
}

impl Netfilter {
    /// Reads the key; absent or empty, it is on for a gateway.
    pub(super) fn read(text: &str, gateway: bool) -> Result<Self, Error> {
        let mode = match text {
            "" if gateway => Mode::Sysctl,
            "" | "off" => Mode::Off,
            "sysctl" => Mode::Sysctl,
            "bridge" => Mode::Bridge,
            other => {
                let problem = "the values are \"sysctl\", \"bridge\" and \"off\"";
                return Err(
                    FieldError::new("bridgeNetfilter", format!("{other:?}"), problem).into(),
                );
            }
        };
        Ok(Self {
            mode,
            by_name: !text.is_empty(),
        })
    }

    /// ADD: makes sure of it.
    pub(super) fn ensure(self, host: &Rtnl, bridge: &Link) -> Result<(), Error> {
        self.judge(
            bridge_netfilter::ensure(host, bridge, self.mode),
            Code::Kernel,
        )
    }

    /// STATUS: whether ADD could make sure of it.
    pub(super) fn status(self) -> Result<(), Error> {
        self.judge(bridge_netfilter::status(self.mode), Code::NotAvailable)
    }

    /// CHECK: whether it is on still. Where it could not be had and was not asked for by name, ADD said so.
    pub(super) fn check(self, bridge: &Link) -> Result<(), Error> {
        let differences = bridge_netfilter::check(bridge, self.mode)?;
        if differences.is_empty() || (!self.by_name && bridge_netfilter::status(self.mode).is_err())
        {
            return Ok(());
        }
        Err(failed(differences.join("; ")).with_details(REMEDY))
    }

    fn judge(self, outcome: Result<(), HostError>, code: Code) -> Result<(), Error> {
        let Err(error) = outcome else { return Ok(()) };
        if self.by_name {
            return Err(
                Error::new(code, format!("field \"bridgeNetfilter\": {error}"))
                    .with_details(REMEDY),
            );
        }
        warn(format_args!(
            "bridge netfilter is not available ({error}): a Service address may not answer from its own node. {REMEDY}"
        ));
        Ok(())
    }
}

/// Warns on stderr where the host's filter rules would drop what a container at `address` sends or gets beyond the
/// host, unless the plugin that takes care of it stands in the network's list.
pub(super) fn warn_of_dropped_traffic(
    host: &Rtnl,
    network: &NetworkName,
    settings: &Settings,
    address: IpAddr,
) {
    match dropped_traffic(host, network, settings, address) {
        Ok(findings) => findings.iter().for_each(warn),
        Err(error) => warn(format_args!(
            "the host's filter rules could not be looked at: {error}"
        )),
    }
}

/// Dearest look last: most hosts have no rules that drop, and following them takes a child process.
fn dropped_traffic(
    host: &Rtnl,
    network: &NetworkName,
    settings: &Settings,
    address: IpAddr,
) -> Result<Vec<Finding>, HostError> {
    if !forwarding::may_drop(address)? || list::names_plugin(network, FIREWALL) {
        return Ok(Vec::new());
    }
    let uplink = uplink(host, address)?;
    forwarding::judge(&Path {
        bridge: settings.bridge.as_str(),
        address,
        uplink: uplink.as_deref(),
    })
}

/// The interface of the host's default route.
fn uplink(host: &Rtnl, address: IpAddr) -> Result<Option<String>, HostError> {
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let Some(route) = host.default_routes(family)?.into_iter().next() else {
        return Ok(None);
    };
    Ok(host.link_by_index(route.link)?.map(|link| link.name))
}

/// STATUS: what can be said before there is a container.
pub(super) fn status(request: &Request, settings: &Settings) -> Result<(), Error> {
    settings.netfilter.status()?;
    settings
        .masquerade
        .as_ref()
        .map_or(Ok(()), |masquerade| masquerade.status())?;
    if !settings.gateway {
        return Ok(());
    }
    let host = Rtnl::new()?;
    // Any address of the subnet will do: the second one is no gateway's in most networks.
    let addresses = ipam::subnets(request)?
        .into_iter()
        .filter_map(|subnet| subnet.hosts().nth(1));
    for address in addresses {
        warn_of_dropped_traffic(&host, &request.network, settings, address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_bridge_netfilter_unless_it_is_switched_off() {
        for (text, gateway, mode, by_name) in [
            ("", true, Mode::Sysctl, false),
            ("", false, Mode::Off, false),
            ("sysctl", false, Mode::Sysctl, true),
            ("bridge", true, Mode::Bridge, true),
            ("off", true, Mode::Off, true),
        ] {
            assert_eq!(
                Netfilter::read(text, gateway).unwrap(),
                Netfilter { mode, by_name }
            );
        }
        let error = Netfilter::read("yes", true).unwrap_err();
        assert!(
            error.msg.contains("bridgeNetfilter") && error.msg.contains("yes"),
            "{error}"
        );
    }
}
