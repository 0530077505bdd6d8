//! Tables of the kernel that hold connections and neighbours: entries that lead nowhere, and how full they are.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use crate::explain::kernel::sysctl;
use crate::explain::report::{Finding, number};
use crate::explain::survey::{Observed, Survey};
use crate::host::conntrack::{Conntrack, Flow};
use crate::host::{Sysctl, module};

const UDP: u8 = 17;

/// From which share on a table is nearly full, in percent.
const NEARLY: u64 = 90;

pub(super) fn stale(survey: &Survey) -> Observed<Vec<Finding>> {
    let tracked = value("netfilter", "nf_conntrack_count")?;
    if tracked.is_none_or(|count| count == 0) {
        return Ok(Vec::new());
    }
    // What looks at them would be loaded for it.
    if !module::is_present("nf_conntrack_netlink") && !module::is_present("nf_conntrack") {
        return Err("nf_conntrack_netlink is not loaded, and is not loaded for a look".into());
    }
    let services: BTreeSet<IpAddr> = survey
        .firewall()?
        .services
        .iter()
        .flat_map(|it| it.addresses.iter().copied())
        .collect();
    let held = held(survey);
    let in_pool = |address: IpAddr| {
        let mut subnets = survey.networks.iter().flat_map(|it| &it.subnets);
        subnets.any(|subnet| subnet.contains(&address))
    };
    let unanswered = |flow: &Flow| {
        let (to, from) = (&flow.original, &flow.reply);
        // Nobody has translated it: the rules came later, or it goes to a Service without endpoints.
        !flow.replied && services.contains(&to.destination) && from.source == to.destination
    };
    let pinned = |flow: &Flow| {
        let (to, from) = (&flow.original, &flow.reply);
        let translated = from.source != to.destination;
        let pod = from.source;
        to.protocol == UDP && translated && in_pool(pod) && !held.contains(&pod)
    };
    let mut conntrack = Conntrack::open().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for v6 in [false, true] {
        let flows = conntrack.flows(v6, |flow| unanswered(flow) || pinned(flow));
        found.extend(flows.map_err(|error| error.to_string())?);
    }
    let (pinned, unanswered): (Vec<Flow>, Vec<Flow>) = found.into_iter().partition(pinned);
    let mut findings = Vec::new();
    if let Some(first) = unanswered.first() {
        findings.push(
            told(&unanswered, "connections to a Service get no answer")
                .because("they began before the rules of the Service were there, and keep going where there is nothing as long as packets come")
                .command(delete(first)),
        );
    }
    if let Some(first) = pinned.first() {
        findings.push(
            told(&pinned, "UDP flows are sent to containers that are gone")
                .because("the kernel keeps the translation that a flow began with for as long as packets come")
                .command(delete(first)),
        );
    }
    Ok(findings)
}

/// Every address that some container has.
fn held(survey: &Survey) -> BTreeSet<IpAddr> {
    let attachments = survey.attachments.values();
    attachments
        .flat_map(|it| it.addresses().into_iter().chain(it.held.iter().copied()))
        .collect()
}

fn told(flows: &[Flow], summary: &str) -> Finding {
    Finding::warn("conntrack-stale", summary)
        .seen_all(flows.iter().map(|flow| {
            let (to, from) = (&flow.original, &flow.reply);
            let unreplied = if flow.replied { "" } else { " [UNREPLIED]" };
            format!(
                "{} to {} port {}, led to {}{unreplied}",
                to.source, to.destination, to.destination_port, from.source
            )
        }))
        .remedy("have the kernel forget them: the next packet meets the rules of now")
}

fn delete(flow: &Flow) -> String {
    let protocol = match flow.original.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    };
    let to = flow.original.destination;
    format!(
        "conntrack -D -p {protocol} --orig-dst {to} --dport {}",
        flow.original.destination_port
    )
}

fn value(table: &str, key: &str) -> Observed<Option<u64>> {
    Ok(sysctl(&Sysctl::net([table, key]))?.and_then(|value| value.parse().ok()))
}

fn is_nearly(many: u64, limit: u64) -> bool {
    limit > 0 && many.saturating_mul(100) >= limit.saturating_mul(NEARLY)
}

pub(super) fn nearly_full(_: &Survey) -> Observed<Vec<Finding>> {
    let many = value("netfilter", "nf_conntrack_count")?;
    let limit = value("netfilter", "nf_conntrack_max")?;
    let Some((many, limit)) = many
        .zip(limit)
        .filter(|(many, limit)| is_nearly(*many, *limit))
    else {
        return Ok(Vec::new());
    };
    Ok(vec![
        Finding::fail("conntrack-nearly-full", "new connections are about to be dropped")
            .seen(format!("net.netfilter.nf_conntrack_count is {}, nf_conntrack_max is {}", number(many.into()), number(limit.into())))
            .because("the kernel drops packets of new connections once the table is full (dmesg: \"nf_conntrack: table full\")")
            .remedy("make the table larger, and look for who opens so many connections")
            .command(format!("sysctl -w net.netfilter.nf_conntrack_max={}", limit.saturating_mul(2))),
    ])
}

pub(super) fn neighbours(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = Vec::new();
    for (family, statistics) in [("ipv4", "arp_cache"), ("ipv6", "ndisc_cache")] {
        let key = Sysctl::net([family, "neigh", "default", "gc_thresh3"]);
        let limit = sysctl(&key)?.and_then(|value| value.parse().ok());
        let Some(limit) = limit else { continue };
        let here = || {
            let known = survey.kernel().map_or(&[][..], |it| &it.neighbours);
            let v6 = family == "ipv6";
            known.iter().filter(|it| it.address.is_ipv6() == v6).count() as u64
        };
        let many = entries(statistics).unwrap_or_else(here);
        if is_nearly(many, limit) {
            findings.push(
                Finding::fail("neighbours-nearly-full", "new neighbours are about to be refused")
                    .seen(format!("{} neighbours, {key} is {}", number(many.into()), number(limit.into())))
                    .because("the table is the whole machine's, containers included; once it is full, packets to new neighbours are dropped (dmesg: \"neighbor table overflow\")")
                    .remedy("make the table larger")
                    .command(format!("sysctl -w {key}={}", limit.saturating_mul(4))),
            );
        }
    }
    Ok(findings)
}

/// How many neighbours the kernel knows in all namespaces, which it tells in its first one alone: the first column, in
/// hexadecimal, the same in every line.
fn entries(statistics: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/stat/{statistics}")).ok()?;
    let line = text.lines().nth(1)?;
    u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
}
