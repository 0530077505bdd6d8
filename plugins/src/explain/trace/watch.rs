//! Sending the probe, or waiting for traffic, while the kernel tells of it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::from::Outsider;
use super::{Asked, CannotLook};
use crate::host::HostError;
use crate::host::conntrack::{Conntrack, Flow, Tuple};
use crate::host::nft::trace::{EVENTS_AT_MOST, Event, Pattern, Tracer};
use crate::host::probe::{Outcome, Probe, Said};

/// How long after the outcome the last events may take.
const GRACE: Duration = Duration::from_millis(30);

/// What a packet that nobody has to answer gets for an error to come back.
pub(super) const DELIVERY: Duration = Duration::from_millis(700);

/// When a second packet is sent.
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
    /// Who said that it can't be delivered.
    pub(super) said: Option<Said>,
}

impl Watched {
    fn gather(&mut self, tracer: &Tracer) -> Result<(), HostError> {
        if !self.is_full() {
            self.lost |= tracer.collect(&mut self.events)?;
        }
        Ok(())
    }

    /// Whether somebody sends more than is worth reading.
    fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_AT_MOST
    }
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
    if tuple.source_port != 0 {
        patterns.push(Pattern::About(tuple));
    }
    patterns
}

/// What connection tracking has of a flow. A kernel without it has nothing.
fn flow(tuple: &Tuple) -> Option<Flow> {
    Conntrack::open().ok()?.flow(tuple).ok()?
}

/// Sends the probe and watches until there is an outcome or the time is over. If no answer is to be expected, it ends
/// earlier. `tracked` says whether connection tracking may translate it.
pub(super) fn probe(
    tracer: &Tracer,
    probe: &Probe,
    asked: &Asked<'_>,
    tracked: bool,
) -> Result<Watched, CannotLook> {
    let mut watched = Watched::default();
    let begun = Instant::now();
    if let Err(error) = probe.send() {
        watched.unsent = Some(error);
        return Ok(watched);
    }
    let end = begun + asked.time_limit();
    let (mut repeated, mut followed) = (false, !tracked);
    loop {
        wait(tracer, Some(probe), end)?;
        watched.gather(tracer)?;
        watched.outcome = probe.outcome()?;
        if watched.outcome.is_some() || watched.is_full() || Instant::now() >= end {
            break;
        }
        if !followed {
            followed = follow_translation(tracer, &probe.tuple())?;
        }
        if !repeated && begun.elapsed() >= AGAIN {
            repeated = true;
            // What fails now has failed before.
            let _ = probe.send();
        }
    }
    std::thread::sleep(GRACE);
    watched.gather(tracer)?;
    watched.said = probe.said();
    watched.flow = flow(&probe.tuple());
    Ok(watched)
}

/// Has a packet come in from outside, and watches until its answer leaves or the time is over.
pub(super) fn outsider(
    tracer: &Tracer,
    outsider: &Outsider,
    asked: &Asked<'_>,
) -> Result<Watched, CannotLook> {
    let mut watched = Watched::default();
    let begun = Instant::now();
    outsider.send()?;
    let end = begun + asked.time_limit();
    let asker = (outsider.tuple.source, outsider.tuple.source_port);
    // Who has answered leaves by the last hook, translated back.
    let answers = |event: &Event| {
        let place = tracer.own_chain(event);
        let to = event.packet.map(|it| (it.destination, it.destination_port));
        place == Some(("postrouting", true)) && event.oif.is_some() && to == Some(asker)
    };
    let (mut repeated, mut followed) = (false, false);
    loop {
        wait(tracer, None, end)?;
        watched.gather(tracer)?;
        if watched.events.iter().any(answers) || watched.is_full() || Instant::now() >= end {
            break;
        }
        if !followed {
            followed = follow_translation(tracer, &outsider.tuple)?;
        }
        if !repeated && begun.elapsed() >= AGAIN {
            repeated = true;
            outsider.send()?;
        }
    }
    std::thread::sleep(GRACE);
    watched.gather(tracer)?;
    watched.flow = flow(&outsider.tuple);
    outsider.end();
    Ok(watched)
}

/// Follows answers from their first rule on, where they come to a translated address. Returns whether the flow is known.
fn follow_translation(tracer: &Tracer, tuple: &Tuple) -> Result<bool, HostError> {
    let Some(flow) = flow(tuple) else {
        return Ok(false);
    };
    let reply = flow.reply;
    if reply.destination != tuple.source && reply.destination_port != 0 {
        tracer.follow(&Pattern::Exactly(reply))?;
        tracer.follow(&Pattern::About(reverse(reply)))?;
    }
    Ok(true)
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
        watched.gather(tracer)?;
        let first = watched.events.iter().find(|event| is_it(event));
        if let Some(tuple) = first.and_then(|event| event.packet) {
            break tuple;
        }
        if watched.is_full() || Instant::now() >= end {
            return Ok(None);
        }
    };
    // An answer that was too quick for these rules is repeated, or comes again for the next question.
    tracer.follow(&Pattern::To(reverse(first)))?;
    tracer.follow(&Pattern::About(first))?;
    let settled = Instant::now() + DELIVERY * 2;
    while Instant::now() < settled && !watched.is_full() {
        wait(tracer, None, settled)?;
        watched.gather(tracer)?;
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
