//! Bridges and their ports.

use ipnet::IpNet;

use crate::explain::kernel;
use crate::explain::report::{Finding, count};
use crate::explain::survey::{Observed, Survey, View};
use crate::host::Rtnl;
use crate::host::rtnl::{Link, PortState};

/// How many ports a bridge may have (`BR_MAX_PORTS` in net/bridge/br_private.h).
const PORTS_MAX: usize = 1024;

/// From how many on that is worth a word.
const PORTS_MANY: usize = PORTS_MAX * 9 / 10;

fn bridges(survey: &Survey) -> Observed<Vec<(&View, &Link)>> {
    let kernel = survey.kernel()?;
    let found = survey.networks.iter().filter_map(|network| {
        let link = kernel.named(network.bridge()?)?;
        Some((network, link))
    });
    Ok(found.collect())
}

pub(super) fn foreign_address(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for (network, bridge) in bridges(survey)? {
        let conf = &network.conf;
        if !conf.is_gateway() || conf.force_address || conf.vlan > 0 || network.subnets.is_empty() {
            continue;
        }
        // Networks may share a bridge.
        let own: Vec<IpNet> = survey
            .networks
            .iter()
            .filter(|other| other.bridge() == network.bridge())
            .flat_map(|other| other.subnets.iter().copied())
            .collect();
        let foreign: Vec<String> = kernel
            .addresses_of(bridge.index)
            .map(|address| address.net)
            .filter(|net| net.addr().is_ipv4() && !own.iter().any(|own| own.contains(&net.addr())))
            .map(|net| format!("{} has {net}", bridge.name))
            .collect();
        let concerned = network.subnets.iter().any(|net| net.addr().is_ipv4());
        if foreign.is_empty() || !concerned {
            continue;
        }
        let subnets: Vec<String> = network.subnets.iter().map(ToString::to_string).collect();
        findings.push(
            Finding::fail("bridge-address-foreign", format!("network {} can't start a container: its bridge has another address", network.name))
                .of(&network.name)
                .seen_all(foreign)
                .seen(format!("{}: subnet {}", network.path.display(), subnets.join(", ")))
                .because("the subnet was changed while the bridge stands, or another program uses a bridge of the same name")
                .remedy("remove the old address, or name another bridge in the list, or set \"forceAddress\": true")
                .command(format!("ip address flush dev {}", bridge.name)),
        );
    }
    Ok(findings)
}

pub(super) fn port_down(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for network in &survey.networks {
        let bridge = network.bridge();
        let link = bridge.and_then(|name| kernel.named(name));
        if let Some(link) =
            link.filter(|link| !link.up && survey.living(&network.name).next().is_some())
        {
            findings.push(
                Finding::fail(
                    "port-down",
                    format!("the bridge of {} is down", network.name),
                )
                .of(&network.name)
                .seen(format!("{} is down", link.name))
                .because("somebody has taken it down since ADD")
                .remedy("bring it up; the next ADD does so too")
                .command(format!("ip link set {} up", link.name)),
            );
        }
        let mut wrong = Vec::new();
        let mut first = None;
        for (owner, attached) in survey.living(&network.name) {
            let Some(end) = attached.end.and_then(|end| kernel.link(end)) else {
                continue;
            };
            if let Some(problem) = problem(network, end, link) {
                wrong.push(format!(
                    "container {}: {} {problem}",
                    owner.container, end.name
                ));
                first = first.or(Some((end, bridge.filter(|_| end.master.is_none()))));
            }
        }
        if let Some((end, left)) = first {
            let command = match left {
                Some(bridge) => format!("ip link set {} master {bridge} up", end.name),
                None => format!("ip link set {} up", end.name),
            };
            findings.push(
                Finding::fail(
                    "port-down",
                    format!(
                        "{} of {} are cut off",
                        count(wrong.len(), "container"),
                        network.name
                    ),
                )
                .of(&network.name)
                .seen_all(wrong)
                .because("somebody has changed the host's end, or the container its own, since ADD")
                .remedy("bring it up, or start the container anew")
                .command(command),
            );
        }
    }
    Ok(findings)
}

/// What keeps a host's end from passing packets on.
fn problem(network: &View, end: &Link, bridge: Option<&Link>) -> Option<String> {
    if !end.up {
        return Some("is down".into());
    }
    if let Some(bridge) = bridge.filter(|bridge| end.master != Some(bridge.index)) {
        return Some(format!("is no port of {}", bridge.name));
    }
    if network.conf.disable_container_interface {
        return None;
    }
    if !end.running {
        return Some("has no carrier: the container's interface is down or gone".into());
    }
    let port = end.port.filter(|_| bridge.is_some_and(|bridge| bridge.up));
    port.filter(|port| port.state != PortState::Forwarding)
        .map(|port| format!("is {} as a port", kernel::state(port.state)))
}

pub(super) fn vlan_missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let concerned: Vec<(&View, &Link)> = bridges(survey)?
        .into_iter()
        .filter(|(network, _)| !network.conf.vlans().is_empty())
        .collect();
    let mut findings = Vec::new();
    if concerned.is_empty() {
        return Ok(findings);
    }
    let rtnl = Rtnl::new().map_err(|error| error.to_string())?;
    for (network, bridge) in concerned {
        let filtering = bridge.bridge.and_then(|it| it.vlan_filtering);
        let mut wrong = Vec::new();
        for (owner, attached) in survey.living(&network.name) {
            let Some(end) = attached.end.and_then(|end| kernel.link(end)) else {
                continue;
            };
            let has = rtnl
                .bridge_vlans(end.index)
                .map_err(|error| error.to_string())?;
            let missing = network.conf.vlans().into_iter().find(|(low, high)| {
                !(*low..=*high).all(|vid| has.iter().any(|vlan| vlan.vids.contains(&vid)))
            });
            if let Some((low, _)) = missing {
                wrong.push(format!(
                    "container {}: port {} is not in VLAN {low}",
                    owner.container, end.name
                ));
            }
        }
        if filtering != Some(true) && survey.living(&network.name).next().is_some() {
            wrong.push(format!("{}: vlan_filtering is off", bridge.name));
        }
        if !wrong.is_empty() {
            findings.push(
                Finding::fail(
                    "vlan-missing",
                    format!("ports of {} are not in their VLANs", network.name),
                )
                .of(&network.name)
                .seen_all(wrong)
                .because("somebody has changed the bridge or its ports since ADD")
                .remedy(
                    "put the port into its VLAN (bridge vlan add), or start the container anew",
                ),
            );
        }
    }
    Ok(findings)
}

pub(super) fn nearly_full(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for (network, bridge) in bridges(survey)? {
        let ports = kernel.ports(bridge.index).count();
        if ports < PORTS_MANY {
            continue;
        }
        let summary = format!(
            "the bridge of {} has room for {} more",
            network.name,
            PORTS_MAX.saturating_sub(ports)
        );
        let finding = match ports >= PORTS_MAX {
            true => Finding::fail("bridge-nearly-full", summary),
            false => Finding::warn("bridge-nearly-full", summary),
        };
        findings.push(
            finding
                .of(&network.name)
                .seen(format!("{} has {} of {PORTS_MAX}", bridge.name, count(ports, "port")))
                .because("the kernel's bridges have 1,024 ports at most")
                .remedy("spread the containers over several networks with a bridge each, or use ptp, which has no such limit"),
        );
    }
    Ok(findings)
}
