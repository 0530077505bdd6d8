//! Programs that manage network interfaces and think that ours are theirs.

use std::fs;

use crate::explain::kernel::{Kernel, sysctl};
use crate::explain::report::Finding;
use crate::explain::survey::{Observed, Survey, View};
use crate::host::Sysctl;
use crate::host::rtnl::Link;

pub(super) fn by_others(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let ours = our_links(survey, kernel);
    let mut findings = Vec::new();
    for (who, managed, remedy) in [
        (
            "NetworkManager",
            by_network_manager as fn(&Link) -> Option<String>,
            "write [keyfile] unmanaged-devices=interface-name:veth*;interface-name:cni* into a file in /etc/NetworkManager/conf.d, and reload it",
        ),
        (
            "systemd-networkd",
            by_networkd,
            "write [Match] Name=veth* cni* and [Link] Unmanaged=yes into a file in /etc/systemd/network whose name sorts first, and reload it",
        ),
    ] {
        let managed: Vec<String> = ours.iter().filter_map(|link| managed(link)).collect();
        if !managed.is_empty() {
            findings.push(
                Finding::warn("managed-by-others", format!("{who} manages interfaces of containers"))
                    .seen_all(managed)
                    .because(format!("{who} has no file that says to leave them alone: it may take their addresses away, or take them down"))
                    .remedy(remedy),
            );
        }
    }
    findings.extend(advertisements(&ours)?);
    Ok(findings)
}

/// The bridges of the networks and the ends of their containers on the host.
fn our_links<'a>(survey: &Survey, kernel: &'a Kernel) -> Vec<&'a Link> {
    // ADD sees to a bridge when the first container comes.
    let in_use = |network: &&View| survey.living(&network.name).next().is_some();
    let bridges = survey
        .networks
        .iter()
        .filter(|it| it.conf.is_gateway())
        .filter(in_use);
    let bridges = bridges.filter_map(|it| kernel.named(it.bridge()?));
    let ends = survey
        .attachments
        .values()
        .filter_map(|it| kernel.link(it.end?));
    bridges.chain(ends).collect()
}

/// NetworkManager keeps a file for each interface (NetworkManager(8), "managed").
fn by_network_manager(link: &Link) -> Option<String> {
    let path = format!("/run/NetworkManager/devices/{}", link.index);
    let text = fs::read_to_string(&path).ok()?;
    let managed = text.lines().any(|line| line.trim() == "managed=true");
    managed.then(|| format!("{path}: managed=true ({})", link.name))
}

/// systemd-networkd too.
fn by_networkd(link: &Link) -> Option<String> {
    let path = format!("/run/systemd/netif/links/{}", link.index);
    let text = fs::read_to_string(&path).ok()?;
    let state = text
        .lines()
        .find_map(|line| line.strip_prefix("ADMIN_STATE="))?;
    let managed = matches!(state, "configuring" | "configured" | "failed");
    managed.then(|| format!("{path}: {state} ({})", link.name))
}

/// Whether a container may tell the host its routes (CVE-2020-10749).
fn advertisements(ours: &[&Link]) -> Observed<Option<Finding>> {
    let forwarding = sysctl(&Sysctl::ipv6_forwarding())?.unwrap_or_default();
    let accepts = |link: &&&Link| match link.accept_ra {
        Some(2) => true,
        // A host that forwards takes no notice of them.
        Some(value) => value > 0 && forwarding == "0",
        None => false,
    };
    let accepting: Vec<&Link> = ours.iter().filter(accepts).copied().collect();
    let Some(first) = accepting.first() else {
        return Ok(None);
    };
    Ok(Some(
        Finding::fail("managed-by-others", "a container may tell this host where its routes lead")
            .seen_all(accepting.iter().map(|link| {
                let setting = Sysctl::ipv6_conf(&link.name, "accept_ra");
                format!("{setting} is {}", link.accept_ra.unwrap_or_default())
            }))
            .because("somebody switched router advertisements on again; ADD switches them off (CVE-2020-10749)")
            .remedy("switch them off, and look for who does it: udev, NetworkManager, a file in /etc/sysctl.d")
            .command(format!("sysctl -w {}=0", Sysctl::ipv6_conf(&first.name, "accept_ra"))),
    ))
}
