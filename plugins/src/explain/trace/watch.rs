//! Sending the probe, or waiting for traffic, while the kernel tells of it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::CannotLook;
use crate::host::HostError;
use crate::host::conntrack::{Conntrack, Flow, Tuple};
use crate::host::nft::trace::{Event, Pattern, Tracer};
use crate::host::probe::{Outcome, Probe};

/// How long after the outcome the last events may take.
const GRACE: Duration = Duration::from_millis(30);

/// What a packet that nobody has to answer gets for an error to come back.
const DELIVERY: Duration = Duration::from_millis(700);

/// When a second packet is sent, by then followed by what connection tracking knows.
const AGAIN: Duration = Duration::from_millis(800);

/// How long one look at the sockets takes at most.
const TICK: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) events: Vec<Event>,
    /// Whether some were lost.
    pub(super) lost: bool,
    pub(super) outcome: Option<Outcome>,
    /// Why nothing could be sent.
    pub(super) unsent: Option<HostError>,
    /// What connection tracking has of the flow.
    pub(super) flow: Option<Flow>,
}

/// The reverse of a direction.
pub(super) fn reverse(tuple: Tuple) -> Tuple {
    Tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        ..tuple
    }
}

/// What is followed for a flow that begins so.
pub(super) fn patterns(tuple: Tuple, tracked: bool) -> Vec<Pattern> {
    let mut patterns = vec![Pattern::Exactly(tuple)];
    if tuple.source_port != 0 && !tuple.source.is_unspecified() {
        patterns.push(Pattern::To(reverse(tuple)));
    } else if !tuple.source.is_unspecified() && tuple.destination_port != 0 {
        patterns.push(Pattern::Exactly(reverse(tuple)));
    }
    if tracked {
        patterns.push(Pattern::Begun(tuple));
    }
    patterns
}

/// What connection tracking has of a flow. A kernel without it has nothing.
fn flow(tuple: &Tuple) -> Option<Flow> {
    let mut conntrack = Conntrack::open().ok()?;
    let is = |flow: &Flow| {
        let it = &flow.original;
        // The numbers of echo requests are not told.
        let ports =
            matches!(tuple.protocol, 6 | 17).then_some((tuple.source_port, tuple.destination_port));
        (it.source, it.destination, it.protocol)
            == (tuple.source, tuple.destination, tuple.protocol)
            && ports.is_none_or(|ports| ports == (it.source_port, it.destination_port))
    };
    conntrack.flows(tuple.destination.is_ipv6(), is).ok()?.pop()
}

/// Sends the probe and watches until there is an outcome or the time is over. `expected` says whether an answer is to be
/// expected; without, it ends earlier.
pub(super) fn probe(
    tracer: &Tracer,
    probe: &Probe,
    expected: bool,
    timeout: Duration,
) -> Result<Watched, CannotLook> {
    let mut watched = Watched::default();
    let begun = Instant::now();
    if let Err(error) = probe.send() {
        watched.unsent = Some(error);
        return Ok(watched);
    }
    let end = begun
        + if expected {
            timeout
        } else {
            timeout.min(DELIVERY)
        };
    let mut repeated = false;
    loop {
        wait(tracer, Some(probe), end)?;
        watched.lost |= tracer.collect(&mut watched.events)?;
        watched.outcome = probe.outcome()?;
        if watched.outcome.is_some() || Instant::now() >= end {
            break;
        }
        if !repeated && begun.elapsed() >= AGAIN {
            repeated = true;
            follow_translation(tracer, &probe.tuple())?;
            // What fails now has failed before.
            let _ = probe.send();
        }
    }
    std::thread::sleep(GRACE);
    watched.lost |= tracer.collect(&mut watched.events)?;
    watched.flow = flow(&probe.tuple());
    Ok(watched)
}

/// Follows answers from their first rule on, where they come to a translated address.
fn follow_translation(tracer: &Tracer, tuple: &Tuple) -> Result<(), HostError> {
    let reply = flow(tuple).map(|flow| flow.reply);
    match reply.filter(|it| it.destination != tuple.source && it.destination_port != 0) {
        Some(reply) => tracer.follow(&Pattern::Exactly(reply)),
        None => Ok(()),
    }
}

/// Waits for traffic that somebody else sends. `is_it` tells its first packet, from which on it is watched for a while.
pub(super) fn live(
    tracer: &Tracer,
    timeout: Duration,
    is_it: impl Fn(&Event) -> bool,
) -> Result<Option<(Tuple, Watched)>, CannotLook> {
    let end = Instant::now() + timeout;
    let mut watched = Watched::default();
    let first = loop {
        wait(tracer, None, end)?;
        watched.lost |= tracer.collect(&mut watched.events)?;
        let first = watched.events.iter().find(|event| is_it(event));
        if let Some(tuple) = first.and_then(|event| event.packet) {
            break tuple;
        }
        if Instant::now() >= end {
            return Ok(None);
        }
    };
    // An answer that was too quick for these rules is repeated, or comes again for the next question.
    tracer.follow(&Pattern::To(reverse(first)))?;
    let settled = Instant::now() + DELIVERY * 2;
    while Instant::now() < settled {
        wait(tracer, None, settled)?;
        watched.lost |= tracer.collect(&mut watched.events)?;
    }
    watched.flow = flow(&first);
    if watched.flow.as_ref().is_some_and(|flow| flow.replied) {
        watched.outcome = Some(Outcome::Answered);
    }
    Ok(Some((first, watched)))
}

fn wait(tracer: &Tracer, probe: Option<&Probe>, end: Instant) -> Result<(), HostError> {
    let left = end.saturating_duration_since(Instant::now()).min(TICK);
    let mut sockets = vec![PollFd::new(tracer.as_fd(), PollFlags::POLLIN)];
    if let Some(probe) = probe {
        let writable = probe.tuple().protocol == 6;
        let flags = if writable {
            PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        sockets.push(PollFd::new(probe.as_fd(), flags));
    }
    let bound = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    match poll(&mut sockets, bound) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(HostError::System {
            operation: "wait for what nftables traces".into(),
            source: errno.into(),
        }),
    }
}
