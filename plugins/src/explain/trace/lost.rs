//! Why a packet that no rule dropped did not get through this host, from where its way ends.

use nix::errno::Errno;

use super::links::Links;
use super::path::{Pass, Seen};
use super::verdict::{FILTERS, REACHING, Verdict};
use crate::explain::kernel::sysctl;
use crate::host::Sysctl;
use crate::host::rtnl::RouteLookup;

/// Why it did not get through this host; none if it did.
pub(super) fn stopped(pass: &Pass, links: &Links) -> Option<Verdict> {
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
        ("postrouting", true) => too_large(last, links),
        ("input", false) => None,
        // A bridge's last hook, which comes before that of the IP layer when bridge netfilter calls it.
        ("postrouting", false)
            if pass
                .iter()
                .any(|it| it.hook.bridge && it.hook.name == "postrouting") =>
        {
            None
        }
        ("postrouting", false) => into_bridge(last, links),
        ("prerouting", false) => Some(not_routed(last, links)),
        (_, true) => Some(not_bridged(pass, last, links)),
        _ => Some(Verdict::new(
            "not-forwarded",
            format!("it was lost behind {hook}, where nothing reports"),
            &["mtu-mismatch"],
        )),
    }
}

/// Behind the IP layer's last hook comes the bridge's, where it leaves by one.
fn into_bridge(last: &Seen, links: &Links) -> Option<Verdict> {
    let link = links.get(last.event.oif?)?;
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
fn not_routed(last: &Seen, links: &Links) -> Verdict {
    let (packet, event) = (&last.packet, &last.event);
    let to = packet.destination;
    let iif = event.iif.map(|index| links.name(index)).unwrap_or_default();
    let setting = match to.is_ipv4() {
        true => Sysctl::ipv4_conf(&iif, "forwarding"),
        false => Sysctl::ipv6_conf("all", "forwarding"),
    };
    if let Some(verdict) = too_large(last, links) {
        return verdict;
    }
    let way = links.rtnl.look_up_route(packet, event.iif, event.mark);
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
                "it was lost between prerouting and what comes next on the way to {to}, where nothing reports"
            ),
            &[
                "mtu-mismatch",
                "reverse-path-filter",
                "next-hop-unreachable",
            ],
        ),
    }
}

/// What may not be fragmented and is larger than what comes next. A TCP segment may be several that travel as one.
pub(super) fn too_large(last: &Seen, links: &Links) -> Option<Verdict> {
    let (event, packet) = (&last.event, &last.packet);
    let size = event.whole.filter(|_| packet.protocol != 6)?;
    let (name, mtu, spare) = match (last.hook.name, last.hook.bridge) {
        ("prerouting", false) => match links
            .rtnl
            .look_up_route(packet, event.iif, event.mark)
            .ok()?
        {
            RouteLookup::Out { link, mtu, .. } => {
                let link = links.get(link)?;
                (link.name.clone(), mtu.unwrap_or(link.mtu).min(link.mtu), 0)
            }
            _ => return None,
        },
        // A bridge leaves room for the tag of a VLAN (`is_skb_forwardable`).
        ("postrouting", true) => {
            let link = links.get(event.oif?)?;
            (link.name.clone(), link.mtu, 4)
        }
        _ => return None,
    };
    let told = match last.hook.bridge {
        true => "; a bridge drops such a packet and tells nobody",
        false => "",
    };
    (size > mtu + spare).then(|| {
        let text = format!(
            "it is too large and may not be fragmented: it has {size} bytes, and {name}, by which it is to leave, takes {mtu}{told}"
        );
        Verdict::new("not-forwarded", text, &["mtu-mismatch"])
    })
}

/// A bridge passed it on to nobody.
fn not_bridged(pass: &Pass, last: &Seen, links: &Links) -> Verdict {
    let to = last.packet.destination;
    if links.silent(to, last.event.mark).is_some() {
        let text = format!("it was to go to {to}, and nobody answers for its hardware address");
        return Verdict::new("no-answer", text, REACHING);
    }
    // The port that it came in by.
    let port = pass.first().and_then(|it| links.get(it.event.iif?));
    let from_there = pass
        .first()
        .is_some_and(|it| it.packet.source == last.packet.destination);
    match port.and_then(|link| Some((link.port?, link))) {
        Some((port, link)) if from_there && !port.hairpin => Verdict::new(
            "not-forwarded",
            format!(
                "it is to go back where it came from, and the bridge sends nothing back by {} (hairpin is off)",
                link.name
            ),
            &["hairpin-off"],
        ),
        Some((port, link)) if port.isolated => Verdict::new(
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
