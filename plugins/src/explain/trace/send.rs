//! The packet: one of our own that is sent, or one of somebody else's that is waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::counted::{Counted, Counts};
use super::from::Outsider;
use super::links::{self, Links};
use super::resolve::Pod;
use super::watch::{self, Watched};
use super::{Asked, CannotLook};
use crate::explain::kernel::legacy_tables;
use crate::host::HostError;
use crate::host::conntrack::Tuple;
use crate::host::nft::Nft;
use crate::host::nft::trace::{Event, Tracer};
use crate::host::probe::Probe;
use crate::host::rtnl::{Behind, RouteLookup};

/// What came of it.
pub(super) struct Sent {
    /// How the flow began.
    pub(super) began: Tuple,
    pub(super) watched: Watched,
    /// How many packets the pod's interface sent meanwhile.
    pub(super) count: Option<u64>,
    pub(super) tracer: Tracer,
    /// Counters that rose meanwhile.
    pub(super) counted: Vec<Counted>,
}

/// What there is besides the packet.
pub(super) struct Surroundings {
    /// Whether connection tracking is in use.
    pub(super) tracked: bool,
    /// Tables of iptables-legacy.
    pub(super) legacy: Vec<String>,
}

impl Surroundings {
    /// Where nothing translates addresses, connection tracking stays as it is: to look at it would switch it on.
    pub(super) fn look() -> Result<Self, HostError> {
        let legacy = legacy_tables();
        let chains = Nft::open()?.chains(None)?;
        let nat = |base: &crate::host::nft::BaseChain| base.kind == "nat";
        let tracked = chains.iter().any(|it| it.base.as_ref().is_some_and(nat))
            || legacy.iter().any(|table| table.starts_with("nat"));
        Ok(Self { tracked, legacy })
    }
}

/// Sends the packet; the inner error is why the namespace has no way there.
pub(super) fn probe(
    links: &Links,
    asked: &Asked<'_>,
    pod: &Pod,
    around: &Surroundings,
) -> Result<Result<Sent, HostError>, CannotLook> {
    if let Some(name) = &asked.request.from {
        let outsider = Outsider::prepare(links, asked, name)?;
        let begin = || Tracer::begin(&watch::patterns(outsider.tuple, around.tracked));
        let came = |tracer: &Tracer| watch::outsider(tracer, &outsider, asked);
        return counting(links, pod, around, outsider.tuple, begin, came).map(Ok);
    }
    let probe = match Probe::prepare(Some(&pod.netns), asked.kind(), asked.to(), asked.size()) {
        Ok(probe) => probe,
        Err(error) if has_no_way(&error) => return Ok(Err(error)),
        Err(error) => return Err(error.into()),
    };
    let begin = || Tracer::begin(&watch::patterns(probe.tuple(), around.tracked));
    let came = |tracer: &Tracer| watch::probe(tracer, &probe, asked, around.tracked);
    counting(links, pod, around, probe.tuple(), begin, came).map(Ok)
}

/// Does something between two looks at the counters.
fn counting(
    links: &Links,
    pod: &Pod,
    around: &Surroundings,
    began: Tuple,
    begin: impl FnOnce() -> Result<Tracer, HostError>,
    work: impl FnOnce(&Tracer) -> Result<Watched, CannotLook>,
) -> Result<Sent, CannotLook> {
    let which = on_the_way(links, pod, &began);
    let tracer = begin()?;
    let before = (count(pod), Counts::take(links, &which, &around.legacy));
    let watched = work(&tracer)?;
    let (after, counts) = (count(pod), Counts::take(links, &which, &around.legacy));
    Ok(Sent {
        began,
        watched,
        count: before
            .0
            .and_then(|before| Some(after?.saturating_sub(before))),
        tracer,
        counted: counts.since(&before.1),
    })
}

/// Links that the packet passes, as far as that is known before.
fn on_the_way(links: &Links, pod: &Pod, packet: &Tuple) -> Vec<u32> {
    let mut which: Vec<u32> = pod.end.iter().map(|link| link.index).collect();
    which.extend(pod.end.iter().filter_map(|link| link.master));
    let way = links
        .rtnl
        .look_up_route(&links::towards(packet.destination), None, 0);
    if let Ok(RouteLookup::Out { link, gateway, .. }) = way {
        which.push(link);
        let hop = gateway.unwrap_or(packet.destination);
        // Pods of one bridge know each other, the host need not.
        let inside = pod.inside.as_ref().map(|link| link.index);
        let known = inside.and_then(|inside| pod.rtnl.neighbour(inside, hop).ok().flatten());
        let known = known.or_else(|| links.rtnl.neighbour(link, hop).ok().flatten());
        let port = known.and_then(|it| links.rtnl.find_fdb(link, it.mac?, None).ok().flatten());
        if let Some(Behind::Port(port)) = port {
            which.push(port);
        }
    }
    which.sort_unstable();
    which.dedup();
    which
}

fn has_no_way(error: &HostError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL | Errno::EACCES)
    ) && matches!(error, HostError::System { operation, .. } if operation.starts_with("prepare"))
}

/// Waits for a packet from the pod, or with `--from` for one that comes in by that interface.
pub(super) fn live(
    links: &Links,
    asked: &Asked<'_>,
    pod: &Pod,
    around: &Surroundings,
) -> Result<Sent, CannotLook> {
    let none = |name: &str| CannotLook::NoInterface(name.to_owned());
    let link = match &asked.request.from {
        Some(name) => Some(links.named(name)?.ok_or_else(|| none(name))?),
        None => None,
    };
    let wanted = wanted(asked, pod, link.is_some());
    let began = wanted.first().copied();
    let began = began.ok_or_else(|| none(&asked.request.container))?;
    let patterns: Vec<_> = wanted
        .iter()
        .flat_map(|it| watch::patterns(*it, around.tracked))
        .collect();
    let is_it = |event: &Event| {
        let fits = event
            .packet
            .is_some_and(|it| wanted.iter().any(|wanted| is_like(wanted, &it)));
        let index = link.as_ref().map(|link| link.index);
        fits && index.is_none_or(|index| event.iif == Some(index))
    };
    let mut first = began;
    let begin = || Tracer::begin(&patterns);
    let came = |tracer: &Tracer| {
        let seen = watch::live(tracer, asked.request.timeout, is_it)?;
        let (began, watched) = seen.unwrap_or((began, Watched::default()));
        first = began;
        Ok(watched)
    };
    let sent = counting(links, pod, around, began, begin, came)?;
    Ok(Sent {
        began: first,
        // Who sends, and how much, is not our doing.
        count: None,
        ..sent
    })
}

/// How a packet may look that is waited for: from each address of the pod, or from anywhere.
fn wanted(asked: &Asked<'_>, pod: &Pod, from_anywhere: bool) -> Vec<Tuple> {
    let to = asked.to();
    let any: IpAddr = match to.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let own = |it: &&IpAddr| {
        let local = matches!(it, IpAddr::V6(it) if it.is_unicast_link_local());
        it.is_ipv4() == to.is_ipv4() && !it.is_loopback() && !local
    };
    let sources: Vec<IpAddr> = match from_anywhere {
        true => vec![any],
        // More addresses than anybody gives a pod make more rules than are good for others' packets.
        false => pod.addresses.iter().filter(own).take(8).copied().collect(),
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

/// How many packets the pod's interface has sent.
fn count(pod: &Pod) -> Option<u64> {
    let link = pod.inside.as_ref()?.index;
    Some(pod.rtnl.counters(link).ok()??.sent)
}

/// The next hop of the pod that nobody answers for.
pub(super) fn unanswered(asked: &Asked<'_>, pod: &Pod) -> Option<IpAddr> {
    if asked.request.from.is_some() || asked.request.live {
        return None;
    }
    links::silent(&pod.rtnl, asked.request.to.address, 0)
}
