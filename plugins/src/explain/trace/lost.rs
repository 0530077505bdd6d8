//! Why a packet that no rule dropped did not get through this host, from where its way ends.

use nix::errno::Errno;

use super::path::{Pass, Seen};
use super::step::Teller;
use super::verdict::{FILTERS, REACHING, Verdict};
use crate::explain::kernel::sysctl;
use crate::host::Sysctl;
use crate::host::rtnl::RouteLookup;

/// Why it did not get through this host; none if it did.
pub(super) fn stopped(pass: &Pass, teller: &Teller<'_>) -> Option<Verdict> {
    let last = pass.iter().rev().find(|it| it.own.is_some())?;
    let (hook, bridge) = (last.hook.name, last.hook.bridge);
    if last.own == Some(false) {
        return Some(Verdict::new(
            "dropped",
            format!(
                "it was lost in {hook}, and no rule of nftables says so: iptables-legacy, connection tracking or address \
                 translation may have dropped it"
            ),
            FILTERS,
        ));
    }
    match (hook, bridge) {
        ("postrouting", true) | ("input", false) => None,
        // A bridge's last hook, which comes before that of the IP layer when bridge netfilter calls it.
        ("postrouting", false)
            if pass
                .iter()
                .any(|it| it.hook.bridge && it.hook.name == "postrouting") =>
        {
            None
        }
        ("postrouting", false) => into_bridge(last, teller),
        ("prerouting", false) => Some(not_routed(last, teller)),
        (_, true) => Some(not_bridged(pass, last, teller)),
        _ => Some(Verdict::new(
            "not-forwarded",
            format!("it was lost behind {hook}, where nothing reports"),
            &["mtu-mismatch"],
        )),
    }
}

/// Behind the IP layer's last hook comes the bridge's, where it leaves by one.
fn into_bridge(last: &Seen, teller: &Teller<'_>) -> Option<Verdict> {
    let link = teller.kernel.link(last.event.oif?)?;
    if link.kind.as_deref() != Some("bridge") {
        return None;
    }
    let to = last.packet.destination;
    let text = format!(
        "nobody on {} answers for the hardware address of {to}",
        link.name
    );
    Some(Verdict::new("no-answer", text, REACHING))
}

/// Between prerouting and what comes next, the kernel decides where it goes.
fn not_routed(last: &Seen, teller: &Teller<'_>) -> Verdict {
    let (packet, event) = (&last.packet, &last.event);
    let to = packet.destination;
    let iif = teller.name(event.iif).unwrap_or_default();
    let setting = match to.is_ipv4() {
        true => Sysctl::ipv4_conf(&iif, "forwarding"),
        false => Sysctl::ipv6_conf("all", "forwarding"),
    };
    let way = teller.rtnl.look_up_route(packet, event.iif, event.mark);
    let off = matches!(sysctl(&setting), Ok(Some(value)) if value == "0");
    match way {
        Ok(RouteLookup::Unreachable(Errno::EXDEV | Errno::EINVAL)) if !off => Verdict::new(
            "not-forwarded",
            format!(
                "the reverse path filter drops it: by this host's routes, {} does not come in by {iif}",
                packet.source
            ),
            &["reverse-path-filter"],
        ),
        Ok(RouteLookup::Local) => Verdict::new(
            "not-forwarded",
            format!("it is for this host itself, but was lost before {to} got it"),
            &["reverse-path-filter"],
        ),
        _ if off => Verdict::new(
            "not-forwarded",
            format!("this host does not forward what comes in by {iif}: {setting} is 0"),
            &["forwarding-off"],
        ),
        Ok(RouteLookup::Unreachable(_)) => Verdict::new(
            "no-route",
            format!("this host has no route to {to}"),
            &["route-missing", "next-hop-unreachable"],
        ),
        _ => Verdict::new(
            "not-forwarded",
            format!(
                "it was lost between prerouting and what comes next, where nothing reports (too large for the way to {to}?)"
            ),
            &[
                "mtu-mismatch",
                "reverse-path-filter",
                "next-hop-unreachable",
            ],
        ),
    }
}

/// A bridge passed it on to nobody.
fn not_bridged(pass: &Pass, last: &Seen, teller: &Teller<'_>) -> Verdict {
    let to = last.packet.destination;
    let neighbours = teller.rtnl.neighbours().unwrap_or_default();
    if neighbours
        .iter()
        .any(|it| it.address == to && (it.failed || it.asking))
    {
        let text = format!("it was to go to {to}, and nobody answers for its hardware address");
        return Verdict::new("no-answer", text, REACHING);
    }
    // The port that it came in by.
    let port = pass
        .first()
        .and_then(|it| teller.kernel.link(it.event.iif?));
    let from_there = pass
        .first()
        .is_some_and(|it| it.packet.source == last.packet.destination);
    match port.and_then(|link| Some((link, link.port?))) {
        Some((link, port)) if from_there && !port.hairpin => Verdict::new(
            "not-forwarded",
            format!(
                "it is to go back where it came from, and the bridge sends nothing back by {} (hairpin is off)",
                link.name
            ),
            &["hairpin-off"],
        ),
        Some((link, port)) if port.isolated => Verdict::new(
            "not-forwarded",
            format!(
                "the bridge passes it on to no port: {} is isolated from others",
                link.name
            ),
            &[],
        ),
        _ => Verdict::new(
            "not-forwarded",
            format!(
                "the bridge passed it on to no port behind {}",
                last.hook.name
            ),
            &["port-down", "vlan-missing", "hairpin-off"],
        ),
    }
}
