//! The client of DHCPv4 as a state machine (RFC 2131, section 4.4): pure, with the time and what was received coming in, and what
//! is to be sent going out.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::lease::{Lease, Times};
use super::message::{self, Client, Kind, Purpose, Reply, Transaction};
use crate::host::packet::BROADCAST;
use crate::host::rtnl::Mac;

/// Milliseconds since the machine was started, those in which it slept included.
pub(super) type Millis = u64;

/// How often an offer is asked for before another one is looked for.
const SELECT_ATTEMPTS: u32 = 4;

/// The first wait for an answer; each next one is twice as long.
const FIRST_WAIT: Millis = 1_000;

/// Waits are shortened by up to this part of them, so that clients that began together don't go on together.
const SPREAD: Millis = 4;

/// The shortest and the longest wait for an answer while a lease is being extended.
const EXTEND_WAIT: (Millis, Millis) = (1_000, 60_000);

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For the answer to one message, at most.
    pub(super) answer: Millis,
    /// Between two messages, at most.
    pub(super) between: Millis,
    /// For a lease.
    pub(super) whole: Millis,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) via: Mac,
    pub(super) message: Vec<u8>,
}

/// What comes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// A message is to be sent.
    Send(Send),
    /// There is a lease, or the one there is lasts longer.
    Bound,
    /// None could be had, with the reason.
    Failed(String),
    /// The one there was is lost, with the reason: its address must not be used any more.
    Lost(String),
}

/// A lease that is held, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// When it was asked for.
    pub(super) since: Millis,
}

impl Held {
    fn at(&self, seconds: impl Fn(Times) -> u32) -> Millis {
        let seconds = self.lease.times.map(seconds);
        seconds.map_or(Millis::MAX, |seconds| {
            self.since.saturating_add(u64::from(seconds) * 1000)
        })
    }

    /// When it ends; never, if it has no end.
    pub(super) fn end(&self) -> Millis {
        self.at(|times| times.end)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// DISCOVER, for any server's offer.
    Selecting,
    /// REQUEST for one's offer.
    Requesting { offer: Box<Lease>, attempts: u32 },
    /// There is nothing to do for a while.
    Bound,
    /// REQUEST for more time, to the lease's server and later to any.
    Extending,
    /// It is over.
    Ended,
}

/// A client for one interface.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    client: Client,
    patience: Patience,
    phase: Phase,
    xid: u32,
    /// When it began to look for a lease, or to extend one.
    began: Millis,
    /// When the last message was sent.
    asked: Millis,
    wait: Millis,
    due: Millis,
    held: Option<Held>,
    /// Why the last answer was of no use.
    refused: Option<String>,
}

impl Machine {
    /// A client that looks for a lease from now on. `xid` is a number that nobody can guess.
    pub(super) fn acquire(client: Client, patience: Patience, xid: u32, now: Millis) -> Self {
        Self {
            client,
            patience,
            phase: Phase::Selecting,
            xid,
            began: now,
            asked: now,
            wait: FIRST_WAIT,
            due: now,
            held: None,
            refused: None,
        }
    }

    /// A client that holds a lease already.
    pub(super) fn resume(client: Client, patience: Patience, xid: u32, held: Held) -> Self {
        let mut machine = Self::acquire(client, patience, xid, held.since);
        machine.phase = Phase::Bound;
        machine.due = held.at(|times| times.renew);
        machine.held = Some(held);
        machine
    }

    /// The lease that is held.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// When [`Machine::tick`] is to be called.
    pub(super) fn due(&self) -> Millis {
        self.due
    }

    /// Whether an answer is being waited for.
    pub(super) fn listens(&self) -> bool {
        !matches!(self.phase, Phase::Bound | Phase::Ended)
    }

    /// What is to be done now that it is time. `xid` as in [`Machine::acquire`]; it is used where something new begins.
    pub(super) fn tick(&mut self, now: Millis, xid: u32) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        match &mut self.phase {
            Phase::Ended => {
                self.due = Millis::MAX;
                Step::Wait
            }
            Phase::Bound => {
                self.begin(now, xid);
                self.phase = Phase::Extending;
                self.extend(now)
            }
            Phase::Extending => self.extend(now),
            Phase::Requesting { attempts, .. } if *attempts < SELECT_ATTEMPTS => {
                *attempts += 1;
                self.ask(now)
            }
            Phase::Requesting { .. } | Phase::Selecting => {
                self.phase = Phase::Selecting;
                self.ask(now)
            }
        }
    }

    /// What comes of a server's message.
    pub(super) fn hear(&mut self, reply: &Reply, now: Millis) -> Step {
        if reply.xid != self.xid || reply.mac != self.client.mac {
            return Step::Wait;
        }
        match (&self.phase, reply.kind) {
            (Phase::Selecting, Kind::Offer) => self.consider(reply, now),
            (Phase::Requesting { .. } | Phase::Extending, Kind::Ack) => self.take(reply),
            (Phase::Requesting { offer, .. }, Kind::Nak) => {
                let server = offer.server;
                self.refused = Some(format!("the server at {server} took back its offer"));
                self.phase = Phase::Selecting;
                // Not at once, or the two would play ping-pong.
                self.due = now + self.spread(self.wait);
                Step::Wait
            }
            (Phase::Extending, Kind::Nak) => {
                // A server that forgot the lease gives the same address again to who asks for it.
                self.refused = Some(refusal(reply));
                self.phase = Phase::Selecting;
                self.began = now;
                self.wait = FIRST_WAIT;
                self.ask(now)
            }
            _ => Step::Wait,
        }
    }

    /// The message that gives the lease back, if there is one. The client ends with it.
    pub(super) fn release(&mut self, xid: u32) -> Option<Send> {
        self.phase = Phase::Ended;
        let lease = self.held.take()?.lease;
        let (address, server) = (lease.address.addr(), lease.server);
        let purpose = Purpose::Release { address, server };
        let transaction = Transaction { xid, secs: 0 };
        Some(Send {
            from: address,
            to: server,
            via: lease.via,
            message: message::write(&self.client, purpose, transaction),
        })
    }

    /// A wait of about that length.
    fn spread(&self, wait: Millis) -> Millis {
        // A number that is this client's, and another one at each attempt.
        let number = u64::from(self.xid) ^ self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        wait - (number >> 16) % (wait / SPREAD + 1)
    }

    fn begin(&mut self, now: Millis, xid: u32) {
        self.xid = xid;
        self.began = now;
        self.wait = FIRST_WAIT;
    }

    /// Asks for a lease once more, or gives up.
    fn ask(&mut self, now: Millis) -> Step {
        let held = self.held.as_ref();
        if held.is_some_and(|held| now >= held.end()) {
            let reason = self.refused.take().unwrap_or_default();
            return self.lose(format!("it ended; {reason}"));
        }
        if held.is_none() && now - self.began >= self.patience.whole {
            self.phase = Phase::Ended;
            self.due = Millis::MAX;
            let whole = self.patience.whole / 1000;
            return Step::Failed(match self.refused.take() {
                Some(reason) => format!("no lease within {whole} s; {reason}"),
                None => format!("no server answered within {whole} s"),
            });
        }
        let purpose = match &self.phase {
            Phase::Requesting { offer, .. } => Purpose::Select {
                address: offer.address.addr(),
                server: offer.server,
            },
            _ => Purpose::Discover {
                like: held.map(|held| held.lease.address.addr()),
            },
        };
        let most = match held {
            Some(_) => EXTEND_WAIT.1,
            None => self.patience.answer.min(self.patience.between).max(1),
        };
        self.asked = now;
        self.due = now + self.spread(self.wait.min(most));
        self.wait = self.wait.saturating_mul(2);
        self.message(
            purpose,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            BROADCAST,
        )
    }

    /// Asks for more time, or finds that there is none left.
    fn extend(&mut self, now: Millis) -> Step {
        let Some(held) = &self.held else {
            self.phase = Phase::Ended;
            return Step::Wait;
        };
        let (rebind, end) = (held.at(|times| times.rebind), held.end());
        if now >= end {
            return self.lose("it ended, and no server extended it".to_owned());
        }
        let (address, server, via) = (held.lease.address.addr(), held.lease.server, held.lease.via);
        let bound = if now < rebind { rebind } else { end };
        let (least, most) = EXTEND_WAIT;
        let wait = ((bound - now) / 2).clamp(least, most);
        self.asked = now;
        self.due = (now + self.spread(wait)).min(bound.max(now + 1));
        let purpose = Purpose::Extend { address };
        if now < rebind {
            self.message(purpose, address, server, via)
        } else {
            self.message(purpose, address, Ipv4Addr::BROADCAST, BROADCAST)
        }
    }

    fn message(&self, purpose: Purpose, from: Ipv4Addr, to: Ipv4Addr, via: Mac) -> Step {
        let secs = (self.asked - self.began) / 1000;
        let transaction = Transaction {
            xid: self.xid,
            secs: u16::try_from(secs).unwrap_or(u16::MAX),
        };
        Step::Send(Send {
            from,
            to,
            via,
            message: message::write(&self.client, purpose, transaction),
        })
    }

    fn consider(&mut self, reply: &Reply, now: Millis) -> Step {
        let held = self.held.as_ref().map(|held| held.lease.address.addr());
        match Lease::read(reply) {
            Ok(offer) if held.is_some_and(|held| held != offer.address.addr()) => {
                let (address, server) = (offer.address.addr(), offer.server);
                self.refused = Some(format!("the server at {server} gives {address} instead"));
                Step::Wait
            }
            Ok(offer) => {
                self.phase = Phase::Requesting {
                    offer: Box::new(offer),
                    attempts: 1,
                };
                self.wait = FIRST_WAIT;
                self.ask(now)
            }
            Err(problem) => {
                self.refused = Some(format!("a server {problem}"));
                Step::Wait
            }
        }
    }

    fn take(&mut self, reply: &Reply) -> Step {
        let lease = match Lease::read(reply) {
            Ok(lease) => lease,
            Err(problem) => {
                self.refused = Some(format!("a server {problem}"));
                return Step::Wait;
            }
        };
        let expected = match (&self.phase, &self.held) {
            (Phase::Requesting { offer, .. }, _) => offer.address.addr(),
            (_, Some(held)) => held.lease.address.addr(),
            _ => return Step::Wait,
        };
        if lease.address.addr() != expected {
            let address = lease.address.addr();
            self.refused = Some(format!("a server gave {address} instead of {expected}"));
            return Step::Wait;
        }
        let held = Held {
            lease,
            since: self.asked,
        };
        self.phase = Phase::Bound;
        self.due = held.at(|times| times.renew);
        self.held = Some(held);
        self.refused = None;
        Step::Bound
    }

    fn lose(&mut self, reason: String) -> Step {
        self.phase = Phase::Ended;
        self.due = Millis::MAX;
        self.held = None;
        Step::Lost(reason)
    }
}

fn refusal(reply: &Reply) -> String {
    match reply.text() {
        text if text.is_empty() => "the server refused to extend it".to_owned(),
        text => format!("the server refused to extend it ({text})"),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
