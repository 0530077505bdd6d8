//! What Services need: that packets within a bridge meet the rules of the IP layer, and may come back where they came from.

use crate::attach::bridge_netfilter;
use crate::explain::kernel::{Services, release, sysctl};
use crate::explain::report::Finding;
use crate::explain::survey::{Observed, Survey, View};
use crate::host::Sysctl;
use crate::host::rtnl::Link;

/// Networks with a bridge that is there, and containers on it.
fn bridged(survey: &Survey) -> Observed<Vec<(&View, &Link)>> {
    let kernel = survey.kernel()?;
    let with_bridge = survey.networks.iter().filter_map(|network| {
        let link = kernel.named(network.bridge()?)?;
        let lives = survey.living(&network.name).next().is_some();
        (lives && link.kind.as_deref() == Some("bridge")).then_some((network, link))
    });
    Ok(with_bridge.collect())
}

fn services(survey: &Survey) -> Observed<Option<&Services>> {
    Ok(survey.firewall()?.services.as_ref())
}

/// Whether the kernel has the part of it that this is about.
fn has_module() -> bool {
    Sysctl::bridge("bridge-nf-call-iptables").exists()
}

pub(super) fn module_missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let services = services(survey)?;
    if has_module() {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    for (network, _) in bridged(survey)? {
        let asked = network.conf.bridge_netfilter.as_str();
        let named = network.conf.wants_bridge_netfilter() && !asked.is_empty();
        if !network.conf.is_gateway() || (services.is_none() && !named) || asked == "off" {
            continue;
        }
        let mut finding = Finding::fail(
            "bridge-netfilter-missing",
            format!(
                "Services answer containers of {} from the wrong address",
                network.name
            ),
        )
        .of(&network.name)
        .seen("net.bridge.bridge-nf-call-iptables does not exist");
        if let Some(services) = services {
            finding = finding.seen(format!("rules of {} stand", services.by));
        }
        findings.push(
            finding
                .because("the module br_netfilter is not loaded, so packets within a bridge pass by the rules that translate addresses")
                .remedy("load the module, now and at every boot (/etc/modules-load.d)")
                .command("echo br_netfilter > /etc/modules-load.d/br_netfilter.conf && modprobe br_netfilter"),
        );
    }
    Ok(findings)
}

pub(super) fn bridge_netfilter_off(survey: &Survey) -> Observed<Vec<Finding>> {
    let services = services(survey)?;
    let mut findings = Vec::new();
    for (network, bridge) in bridged(survey)? {
        let off = families(network)
            .into_iter()
            .any(|v6| !bridge_netfilter::is_on_for(bridge, v6));
        if !network.conf.is_gateway() || !has_module() || !off {
            continue;
        }
        let wanted = network.conf.wants_bridge_netfilter();
        let finding = match services {
            Some(services) => Finding::fail(
                "bridge-netfilter-off",
                format!(
                    "Services answer containers of {} from the wrong address",
                    network.name
                ),
            )
            .seen(format!("rules of {} stand", services.by)),
            None if wanted => Finding::warn(
                "bridge-netfilter-off",
                format!(
                    "packets between containers of {} pass by the host's rules",
                    network.name
                ),
            ),
            None => continue,
        };
        let value = |key: &str| sysctl(&Sysctl::bridge(key)).map(Option::unwrap_or_default);
        let (v4, v6) = (
            value("bridge-nf-call-iptables")?,
            value("bridge-nf-call-ip6tables")?,
        );
        let finding = finding
            .of(&network.name)
            .seen(format!(
                "net.bridge.bridge-nf-call-iptables is {v4}, bridge-nf-call-ip6tables is {v6}"
            ))
            .seen(own_switches(bridge));
        findings.push(match wanted {
            true => finding
                .because("ADD switched it on, and something has switched it off since, often a file in /etc/sysctl.d")
                .remedy("switch it on, and look for who switches it off")
                .command("sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"),
            false => finding
                .because(format!("{} says \"bridgeNetfilter\": \"off\"", network.path.display()))
                .remedy("remove \"bridgeNetfilter\" from the list; the next ADD switches it on")
                .command("sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"),
        });
    }
    Ok(findings)
}

/// The versions of IP that a network gives addresses of (IPv6: true); both where its IPAM plugin doesn't say.
fn families(network: &View) -> Vec<bool> {
    let has = |v6: &bool| {
        network
            .subnets
            .iter()
            .any(|subnet| subnet.addr().is_ipv6() == *v6)
    };
    match network.subnets.is_empty() {
        true => vec![false, true],
        false => [false, true].into_iter().filter(has).collect(),
    }
}

/// What a bridge's own switches say.
fn own_switches(bridge: &Link) -> String {
    let say = |on: Option<bool>| if on == Some(true) { "on" } else { "off" };
    let (v4, v6) = bridge.bridge.map_or((None, None), |settings| {
        (settings.nf_call_iptables, settings.nf_call_ip6tables)
    });
    format!(
        "bridge {}: nf_call_iptables is {}, nf_call_ip6tables is {}",
        bridge.name,
        say(v4),
        say(v6)
    )
}

pub(super) fn hairpin_off(survey: &Survey) -> Observed<Vec<Finding>> {
    let (kernel, services) = (survey.kernel()?, services(survey)?);
    let mut findings = Vec::new();
    for (network, bridge) in bridged(survey)? {
        let conf = &network.conf;
        let off: Vec<&str> = survey
            .living(&network.name)
            .filter_map(|(_, it)| kernel.link(it.end?))
            .filter(|link| link.port.is_some_and(|port| !port.hairpin))
            .map(|link| link.name.as_str())
            .collect();
        if off.is_empty() {
            continue;
        }
        let ports = || {
            off.iter()
                .map(|name| format!("port {name} of {}: hairpin off", bridge.name))
        };
        if conf.hairpin_mode {
            findings.push(
                Finding::fail(
                    "hairpin-off",
                    format!(
                        "containers of {} don't reach themselves through a Service",
                        network.name
                    ),
                )
                .of(&network.name)
                .seen_all(ports())
                .because("the list says \"hairpinMode\", and something has switched it off since")
                .remedy("switch it on again")
                .command(format!("bridge link set dev {} hairpin on", off[0])),
            );
        } else if let Some(services) = services.filter(|_| conf.is_gateway() && !conf.promisc_mode)
        {
            findings.push(
                Finding::warn("hairpin-off", format!("containers of {} don't reach themselves through a Service", network.name))
                    .of(&network.name)
                    .seen(format!("rules of {} stand", services.by))
                    .seen_all(ports())
                    .because("the list has neither \"hairpinMode\" nor \"promiscMode\", so the bridge sends nothing back by the port it came from")
                    .remedy(format!("add \"hairpinMode\": true to the bridge in {}; new containers get it", network.path.display())),
            );
        }
    }
    Ok(findings)
}

pub(super) fn promiscuous(survey: &Survey) -> Observed<Vec<Finding>> {
    let (release, version) = release();
    if version < (6, 8) {
        return Ok(Vec::new());
    }
    let concerned = bridged(survey)?
        .into_iter()
        .filter(|(network, _)| network.conf.promisc_mode && !network.conf.hairpin_mode);
    Ok(concerned
        .map(|(network, bridge)| {
            Finding::warn("promiscuous-no-hairpin", format!("containers of {} don't reach themselves through a Service", network.name))
                .of(&network.name)
                .seen(format!("{}: \"promiscMode\" is true", network.path.display()))
                .seen(format!("{} is promiscuous: {}; kernel {release}", bridge.name, if bridge.promisc { "yes" } else { "no" }))
                .because("from Linux 6.8 on, with bridge netfilter on, a promiscuous bridge alone no longer brings translated packets back to the port they came from")
                .remedy("write \"hairpinMode\": true in place of \"promiscMode\"; new containers get it")
        })
        .collect())
}
