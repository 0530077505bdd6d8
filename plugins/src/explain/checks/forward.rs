//! Whether the host passes on what containers send and get.

use std::net::IpAddr;

use super::masquerade::is_between_nodes;
use crate::explain::kernel::{Firewall, Kernel, chain_name, sysctl};
use crate::explain::network_conf::Main;
use crate::explain::report::{Finding, number};
use crate::explain::survey::{Observed, Survey, View};
use crate::host::Sysctl;
use crate::host::nft::{Chain, Family};
use crate::host::rtnl::Route;
use crate::netfilter::forward_hook::{self, Behind, Path};

/// One address of a network's containers of a family, and whether it is somebody's already.
fn sample(survey: &Survey, network: &View, v6: bool) -> Option<(IpAddr, bool)> {
    let mut held = survey
        .living(&network.name)
        .flat_map(|(_, it)| it.addresses());
    if let Some(address) = held.find(|it| it.is_ipv6() == v6) {
        return Some((address, true));
    }
    // The second one is no gateway's in most networks.
    let subnet = network.subnet(v6)?;
    Some((subnet.hosts().nth(1)?, false))
}

pub(super) fn forwarding_off(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = Vec::new();
    for v6 in [false, true] {
        let setting = match v6 {
            false => Sysctl::ipv4_forwarding(),
            true => Sysctl::ipv6_forwarding(),
        };
        let off = sysctl(&setting)?.is_some_and(|value| value == "0");
        for network in survey.networks.iter().filter(|it| it.is_routed()) {
            let concerned = survey
                .living(&network.name)
                .any(|(_, it)| it.addresses().iter().any(|address| address.is_ipv6() == v6));
            // IPv4 has a setting for each interface, too.
            let own = network.bridge().filter(|_| !v6);
            let setting = match own.map(|bridge| Sysctl::ipv4_conf(bridge, "forwarding")) {
                Some(own) if !off && sysctl(&own)?.is_some_and(|value| value == "0") => own,
                _ if off => setting.clone(),
                _ => continue,
            };
            if !concerned {
                continue;
            }
            let family = if v6 { "IPv6" } else { "IPv4" };
            let name = &network.name;
            findings.push(
                Finding::fail(
                    "forwarding-off",
                    format!("containers of {name} reach nothing beyond this host by {family}"),
                )
                .of(name)
                .seen(format!("{setting} is 0"))
                .because("ADD switched it on, and something has switched it off since")
                .remedy("switch it on, and look for who writes it in /etc/sysctl.d")
                .command(format!("sysctl -w {setting}=1")),
            );
        }
    }
    Ok(findings)
}

pub(super) fn dropped(survey: &Survey) -> Observed<Vec<Finding>> {
    let (kernel, firewall) = (survey.kernel()?, survey.firewall()?);
    let mut findings: Vec<Finding> = Vec::new();
    for network in survey.networks.iter().filter(|it| it.is_routed()) {
        for v6 in [false, true] {
            let Some((address, lives)) = sample(survey, network, v6) else {
                continue;
            };
            // Its rules come with the first container.
            if !lives && network.has_plugin("firewall") {
                continue;
            }
            let pair = first_pair(survey, network, kernel);
            let behind = match (&network.main, pair) {
                (Main::Bridge(name), _) => Behind::Link(name),
                (_, Some(name)) => Behind::Link(name),
                _ => Behind::NewPair,
            };
            let path = Path {
                behind,
                address,
                uplink: kernel.uplink(v6).map(|link| link.name.as_str()),
            };
            if !firewall.legacy.is_empty() || !firewall.chains.is_empty() {
                let stopped = forward_hook::judge(&path).map_err(|error| error.to_string())?;
                if stopped.is_empty() && lives {
                    findings.extend(from_other_nodes(network, kernel, &path)?);
                }
                findings.extend(stopped.iter().map(|it| told(network, it, firewall, lives)));
            }
        }
    }
    findings.dedup();
    Ok(findings)
}

/// What containers of other nodes begin to send to those of this one.
fn from_other_nodes(network: &View, kernel: &Kernel, path: &Path<'_>) -> Observed<Option<Finding>> {
    let between = |route: &&Route| {
        let mut own = network.subnets.iter();
        own.any(|own| is_between_nodes(route, *own))
            && route.dst.addr().is_ipv6() == path.address.is_ipv6()
    };
    let Some(route) = kernel.routes.iter().find(between) else {
        return Ok(None);
    };
    let path = Path {
        uplink: route.oif.map(|link| kernel.name(link)),
        ..*path
    };
    let Some(source) = route.dst.hosts().nth(1) else {
        return Ok(None);
    };
    let stopping = forward_hook::judge_from(&path, source).map_err(|error| error.to_string())?;
    if stopping.is_empty() {
        return Ok(None);
    }
    let summary = format!(
        "containers of other nodes don't reach those of {}",
        network.name
    );
    Ok(Some(
        Finding::fail("forward-dropped", summary)
            .of(&network.name)
            .seen(format!("route {} leads to containers of another node", route.dst))
            .seen_all(stopping.iter().map(|chain| {
                format!("{chain}: drops what no rule lets through; none is for packets from {source} to {}", path.address)
            }))
            .because("the rules let through what containers here begin, and the replies, but nothing that begins elsewhere")
            .remedy("let the other nodes' containers in: \"ingressCIDRs\" of the plugin firewall, or a rule in that chain"),
    ))
}

fn first_pair<'a>(survey: &Survey, network: &View, kernel: &'a Kernel) -> Option<&'a str> {
    let mut living = survey.living(&network.name);
    let link = living.find_map(|(_, it)| kernel.link(it.end?))?;
    Some(&link.name)
}

fn told(
    network: &View,
    stopped: &forward_hook::Finding,
    firewall: &Firewall,
    lives: bool,
) -> Finding {
    let name = &network.name;
    let summary = format!("containers of {name} reach nothing beyond this host");
    let finding = match lives {
        true => Finding::fail("forward-dropped", summary),
        false => Finding::warn("forward-dropped", format!("{summary}, once there are any")),
    };
    let chain = firewall
        .chains
        .iter()
        .find(|chain| chain_name(chain) == stopped.chain);
    let packets = chain.and_then(|it| it.base.as_ref()?.policy_packets);
    let packets = packets.map(|it| format!(", {} packets so far", number(it.into())));
    let direction = if stopped.outbound {
        "packets from"
    } else {
        "answers to"
    };
    let who = who(stopped, chain, firewall);
    let remedy = match network.has_plugin("firewall") {
        true => (
            "put back the rules that the plugin firewall had made".to_owned(),
            Some(format!("trestle repair --conf {}", network.path.display())),
        ),
        false => (
            format!(
                "append {{\"type\": \"firewall\"}} to the plugins of {}",
                network.path.display()
            ),
            None,
        ),
    };
    let why = match network.has_plugin("firewall") {
        true => "and the rules of the plugin firewall are gone",
        false => "and the list has no plugin \"firewall\"",
    };
    let mut finding = finding
        .of(name)
        .seen(format!(
            "{}: drops what no rule lets through{}; none is for {direction} {}",
            stopped.chain,
            packets.unwrap_or_default(),
            stopped.behind
        ))
        .because(format!("{who}, {why}"))
        .remedy(remedy.0);
    finding.remedy.command = remedy.1;
    finding
}

/// Who made the chain drop, as far as its company tells.
fn who(
    stopped: &forward_hook::Finding,
    chain: Option<&Chain>,
    firewall: &Firewall,
) -> &'static str {
    let Some(chain) = chain else {
        return match stopped.chain.contains("legacy") {
            true => "somebody set the policy with iptables-legacy",
            false => "somebody's rules drop them",
        };
    };
    let beside = |begins: &str| firewall.has_chain(chain.family, &chain.table, begins);
    match () {
        () if chain.table == "firewalld" => "firewalld rejects what no zone lets through",
        () if beside("DOCKER") => "Docker set the policy",
        () if beside("ufw") => "ufw set the policy",
        () if chain.table == "filter"
            && chain.name == "FORWARD"
            && chain.family != Family::Inet =>
        {
            "somebody set the policy with iptables"
        }
        () => "a ruleset of this host's administrator says so (see /etc/nftables.conf)",
    }
}

pub(super) fn mixed(survey: &Survey) -> Observed<Vec<Finding>> {
    let firewall = survey.firewall()?;
    if firewall.legacy.is_empty() {
        return Ok(Vec::new());
    }
    let is_iptables = |chain: &&Chain| {
        let family = matches!(chain.family, Family::IPv4 | Family::IPv6);
        let table = matches!(chain.table.as_str(), "filter" | "nat" | "mangle" | "raw");
        family && table
    };
    let new: Vec<&Chain> = firewall.chains.iter().filter(is_iptables).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![
        Finding::warn("iptables-mixed", "this host has rules of two kinds of iptables")
            .seen(format!("iptables-legacy: tables {}", firewall.legacy.join(", ")))
            .seen(format!("iptables-nft: {} chains, such as {}", new.len(), chain_name(new[0])))
            .because("some programs use iptables-legacy and others iptables-nft; a packet must pass both, and neither shows the other's")
            .remedy("choose one for all programs (update-alternatives --config iptables), move the rules over, and start the machine anew"),
    ])
}
