//! The packet: one of our own that is sent, or one of somebody else's that is waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::resolve::Pod;
use super::watch::{self, Watched};
use super::{Asked, CannotLook};
use crate::explain::kernel::{Firewall, Kernel};
use crate::host::conntrack::Tuple;
use crate::host::nft::trace::{Event, Tracer};
use crate::host::probe::Probe;
use crate::host::rtnl::RouteLookup;
use crate::host::{HostError, Rtnl};

/// How the flow began, what was seen, how many packets the pod's interface sent meanwhile, and the tracer.
pub(super) type Probed = (Tuple, Watched, Option<u64>, Option<Tracer>);

/// Sends the packet; the inner error is why the namespace has no way there.
pub(super) fn probe(
    kernel: &Kernel,
    asked: &Asked<'_>,
    pod: &Pod,
    tracked: bool,
) -> Result<Result<Probed, HostError>, CannotLook> {
    let from = match &asked.request.from {
        Some(name) => Some(address_of(kernel, name, asked)?),
        None => None,
    };
    let netns = asked.request.from.is_none().then_some(&pod.netns);
    let probe = match Probe::prepare(netns, asked.kind(), asked.to(), from) {
        Ok(probe) => probe,
        Err(error) if has_no_way(&error) => return Ok(Err(error)),
        Err(error) => return Err(error.into()),
    };
    let began = probe.tuple();
    let tracer = Tracer::begin(&watch::patterns(began, tracked))?;
    let before = sent(pod);
    let watched = watch::probe(&tracer, &probe, asked.expected, asked.request.timeout)?;
    let sent = before.and_then(|before| Some(sent(pod)?.saturating_sub(before)));
    Ok(Ok((began, watched, sent, Some(tracer))))
}

fn has_no_way(error: &HostError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL | Errno::EACCES)
    ) && matches!(error, HostError::System { operation, .. } if operation.starts_with("prepare"))
}

/// Waits for a packet from the pod, or with `--from` for one that comes in by that interface.
pub(super) fn live(
    kernel: &Kernel,
    asked: &Asked<'_>,
    pod: &Pod,
    tracked: bool,
) -> Result<Probed, CannotLook> {
    let none = |name: &str| CannotLook::NoInterface(name.to_owned());
    let link = match &asked.request.from {
        Some(name) => Some(kernel.named(name).ok_or_else(|| none(name))?),
        None => None,
    };
    let wanted = wanted(asked, pod, link.is_some());
    let began = wanted.first().copied();
    let began = began.ok_or_else(|| none(&asked.request.container))?;
    let patterns: Vec<_> = wanted
        .iter()
        .flat_map(|it| watch::patterns(*it, tracked))
        .collect();
    let tracer = Tracer::begin(&patterns)?;
    let is_it = |event: &Event| {
        let fits = event
            .packet
            .is_some_and(|it| wanted.iter().any(|wanted| is_like(wanted, &it)));
        fits && link.is_none_or(|link| event.iif == Some(link.index))
    };
    let seen = watch::live(&tracer, asked.request.timeout, is_it)?;
    let (began, watched) = seen.unwrap_or((began, Watched::default()));
    Ok((began, watched, None, Some(tracer)))
}

/// How a packet may look that is waited for: from each address of the pod, or from anywhere.
fn wanted(asked: &Asked<'_>, pod: &Pod, from_anywhere: bool) -> Vec<Tuple> {
    let to = asked.to();
    let any: IpAddr = match to.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let own = |it: &&IpAddr| it.is_ipv4() == to.is_ipv4() && !it.is_loopback();
    let sources: Vec<IpAddr> = match from_anywhere {
        true => vec![any],
        false => pod.addresses.iter().filter(own).copied().collect(),
    };
    let tuple = |source| Tuple {
        source,
        destination: to.ip(),
        protocol: asked.number(),
        source_port: 0,
        destination_port: to.port(),
    };
    sources.into_iter().map(tuple).collect()
}

fn is_like(wanted: &Tuple, packet: &Tuple) -> bool {
    let to = |it: &Tuple| (it.destination, it.protocol, it.destination_port);
    to(wanted) == to(packet) && (wanted.source.is_unspecified() || wanted.source == packet.source)
}

/// The address that a host's interface has like the destination.
fn address_of(kernel: &Kernel, name: &str, asked: &Asked<'_>) -> Result<IpAddr, CannotLook> {
    let none = || CannotLook::NoInterface(name.to_owned());
    let link = kernel.named(name).ok_or_else(none)?;
    let v4 = asked.request.to.address.is_ipv4();
    let mut addresses = kernel.addresses_of(link.index).map(|it| it.net.addr());
    addresses
        .find(|it| {
            it.is_ipv4() == v4 && !matches!(it, IpAddr::V6(it) if it.is_unicast_link_local())
        })
        .ok_or_else(none)
}

/// Whether anything here translates addresses. Where nothing does, connection tracking stays as it is: to look at it would
/// switch it on.
pub(super) fn translates(firewall: &Firewall) -> bool {
    let mut chains = firewall.chains.iter();
    let nat = chains.any(|it| it.base.as_ref().is_some_and(|base| base.kind == "nat"));
    nat || firewall.legacy.iter().any(|table| table.starts_with("nat"))
}

/// How many packets the pod's interface has sent.
fn sent(pod: &Pod) -> Option<u64> {
    let name = pod.inside.as_ref()?.name.as_str();
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let text = pod.netns.enter(read).ok()?.ok()?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

/// The next hop of the pod that nobody answers for.
pub(super) fn unanswered(asked: &Asked<'_>, pod: &Pod) -> Option<IpAddr> {
    if asked.request.from.is_some() || asked.request.live {
        return None;
    }
    let rtnl = Rtnl::in_netns(&pod.netns).ok()?;
    let to = asked.request.to.address;
    let own = pod
        .addresses
        .iter()
        .find(|it| it.is_ipv4() == to.is_ipv4() && !it.is_loopback());
    let packet = Tuple {
        source: *own?,
        destination: to,
        protocol: 0,
        source_port: 0,
        destination_port: 0,
    };
    let hop = match rtnl.look_up_route(&packet, None, 0).ok()? {
        RouteLookup::Out { gateway, .. } => gateway.unwrap_or(to),
        _ => return None,
    };
    let neighbours = rtnl.neighbours().ok()?;
    let failed = neighbours
        .iter()
        .any(|it| it.address == hop && (it.failed || it.asking));
    failed.then_some(hop)
}
