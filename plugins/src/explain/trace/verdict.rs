//! What became of the packet, and where and why it was lost.

use std::net::IpAddr;

use serde::Serialize;

use super::lost::stopped;
use super::path::Direction;
use super::path::{Pass, Paths, Seen};
use super::step::{self, Step, Teller};
use super::watch::Watched;
use crate::host::conntrack::Tuple;
use crate::host::nft::family_name;
use crate::host::nft::trace::Decision;
use crate::host::probe::Outcome;
use crate::host::rtnl::RouteLookup;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// One of a fixed list.
    pub(crate) id: &'static str,
    /// The index of the step where it was decided.
    pub(crate) step: Option<usize>,
    pub(crate) text: String,
    /// Checks of `doctor` whose findings explain it.
    #[serde(skip)]
    pub(crate) checks: &'static [&'static str],
}

impl Verdict {
    pub(super) fn new(
        id: &'static str,
        text: impl Into<String>,
        checks: &'static [&'static str],
    ) -> Self {
        Self {
            id,
            step: None,
            text: text.into(),
            checks,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        matches!(self.id, "answered" | "delivered")
    }
}

/// Checks about what filters do.
pub(super) const FILTERS: &[&str] = &["forward-dropped", "iptables-mixed"];
pub(super) const REACHING: &[&str] = &[
    "next-hop-unreachable",
    "masquerade-missing",
    "masquerade-between-nodes",
    "subnet-overlap",
    "address-twice",
    "mtu-mismatch",
    "port-down",
    "vlan-missing",
    "conntrack-stale",
    "conntrack-nearly-full",
];
const UNTRANSLATED: &[&str] = &["bridge-netfilter-off", "bridge-netfilter-missing"];

/// What the judge knows.
pub(super) struct Case<'a> {
    pub(super) began: Tuple,
    pub(super) paths: &'a Paths,
    pub(super) watched: &'a Watched,
    /// Whether an answer was to be expected.
    pub(super) expected: bool,
    /// Whether somebody else sent it, who keeps to himself what came of it.
    pub(super) live: bool,
    /// Packets that the pod's interface sent meanwhile.
    pub(super) sent: Option<u64>,
    /// The pod's next hop, if nobody answers for its hardware address.
    pub(super) unanswered: Option<IpAddr>,
}

impl Case<'_> {
    pub(super) fn judge(&self, teller: &Teller<'_>) -> Verdict {
        let (there, back) = (&self.paths.there, &self.paths.back);
        if self.watched.outcome == Some(Outcome::Answered) {
            return Verdict::new("answered", "an answer came", &[]);
        }
        if let Some(error) = &self.watched.unsent {
            return Verdict::new(
                "not-sent",
                format!("the pod could not send it: {error}"),
                REACHING,
            );
        }
        if there.is_empty() {
            return self.never_seen();
        }
        if let Some(drop) = dropped(there, self.watched.outcome) {
            return Verdict::new("dropped", drop, FILTERS);
        }
        if let Some(drop) = dropped(back, None) {
            return Verdict::new("answer-dropped", format!("the answer: {drop}"), FILTERS);
        }
        if self.watched.outcome == Some(Outcome::Refused) {
            let who = back.first().map_or_else(
                || step::destination(&there[there.len() - 1].packet),
                |it| step::source(&it.packet),
            );
            return refused(&who);
        }
        if let Some(last) = back.last() {
            return self.answer_lost(back, last, teller);
        }
        if let Some(verdict) = stopped(there, teller) {
            return verdict;
        }
        self.left(there, teller)
    }

    fn never_seen(&self) -> Verdict {
        let checks = &[
            "port-down",
            "vlan-missing",
            "address-twice",
            "reverse-path-filter",
            "bridge-address-foreign",
        ];
        let text = match (self.watched.outcome, self.unanswered, self.sent) {
            (_, Some(hop), _) => {
                format!("it did not leave the pod: nobody answers for the hardware address of {hop}")
            }
            (Some(Outcome::Undeliverable(errno)), ..) => {
                format!("it did not leave the pod: {}", errno.desc())
            }
            (Some(Outcome::Refused), ..) => {
                "the pod itself refuses it: look at its own rules".to_owned()
            }
            (_, _, Some(0)) => {
                "the pod's interface sent nothing: look at the pod's own rules".to_owned()
            }
            (_, _, Some(_)) => "the pod's interface sent packets, but this one came to no hook of this host: a tc or XDP \
                                program, a VLAN or the hardware took it, which nftables can't see (retis can)"
                .to_owned(),
            (_, _, None) => "no packet of it came to a hook of this host".to_owned(),
        };
        Verdict::new("not-sent", text, checks)
    }

    fn answer_lost(&self, back: &Pass, last: &Seen, teller: &Teller<'_>) -> Verdict {
        let asked = step::destination(&self.began);
        let is_icmp = matches!(self.began.protocol, 1 | 58);
        let from = step::source(&last.packet);
        let arrived = stopped(back, teller).is_none();
        let to_pod = last.packet.destination == self.began.source;
        if self.live && arrived && (is_icmp || from == asked) {
            return match back.iter().any(|it| it.event.resets) {
                true => refused(&from),
                false => Verdict::new("answered", format!("an answer came from {from}"), &[]),
            };
        }
        if from != asked && arrived && to_pod && !is_icmp {
            let bridged = back.iter().all(|it| it.hook.bridge);
            let how = if bridged {
                "went from port to port of the bridge, past"
            } else {
                "passed"
            };
            return Verdict::new(
                "answer-untranslated",
                format!(
                    "the answer {how} the rules that would translate it: it comes from {from}, but {asked} was asked"
                ),
                UNTRANSLATED,
            );
        }
        match stopped(back, teller) {
            Some(verdict) => Verdict {
                id: "answer-dropped",
                text: format!("the answer: {}", verdict.text),
                ..verdict
            },
            None => Verdict::new(
                "answer-dropped",
                format!(
                    "the answer from {from} left this host towards the pod, and the pod did not take it"
                ),
                REACHING,
            ),
        }
    }

    /// It got through this host, and nothing came back.
    fn left(&self, there: &Pass, teller: &Teller<'_>) -> Verdict {
        let last = step::exit(there).unwrap_or(&there[there.len() - 1]);
        let to = step::destination(&last.packet);
        let by = teller.name(last.event.oif);
        let place = by.as_ref().map_or_else(
            || format!("it came to {to} on this host itself"),
            |by| format!("it left by {by} to {to}"),
        );
        let said = match self.watched.outcome {
            Some(Outcome::Undeliverable(errno)) => {
                format!(", and the answer was: {}", errno.desc())
            }
            _ => String::new(),
        };
        if !self.expected && said.is_empty() {
            return Verdict::new(
                "delivered",
                format!("{place}; no answer was to be expected"),
                &[],
            );
        }
        if last.packet.source == last.packet.destination {
            let text = format!(
                "{place}, which is who sent it: nobody takes a packet from his own address, so it has to be masqueraded on \
                 the way"
            );
            return Verdict::new("no-answer", text, REACHING);
        }
        let neighbour = teller.rtnl.neighbours().unwrap_or_default();
        let hop = match teller
            .rtnl
            .look_up_route(&last.packet, None, last.event.mark)
        {
            Ok(RouteLookup::Out {
                gateway: Some(gateway),
                ..
            }) => gateway,
            _ => last.packet.destination,
        };
        let failed = neighbour
            .iter()
            .any(|it| it.address == hop && (it.failed || it.asking));
        let why = match failed {
            true => format!("; nobody answers for the hardware address of {hop}"),
            false if said.is_empty() => ", and no answer came".to_owned(),
            false => String::new(),
        };
        Verdict::new("no-answer", format!("{place}{said}{why}"), REACHING)
    }
}

fn refused(who: &str) -> Verdict {
    let text = format!("{who} answers that nobody listens there");
    Verdict::new("refused", text, &[])
}

/// Where rules drop it.
fn dropped(pass: &Pass, outcome: Option<Outcome>) -> Option<String> {
    let last = pass.last()?;
    let event = &last.event;
    let place = format!(
        "{} {} {}",
        family_name(event.family),
        event.table,
        event.chain
    );
    let verb = match outcome {
        Some(Outcome::Refused | Outcome::Undeliverable(_)) => "rejects",
        _ => "drops",
    };
    match &event.what {
        Decision::Rule(rule, _) if last.drops() => {
            Some(format!("rule {rule} of {place} {verb} it"))
        }
        Decision::End { drops: true } => Some(format!("the policy of {place} drops it")),
        Decision::Taken(rule) => Some(format!(
            "rule {rule} of {place} handed it to somebody else (a queue, for example), where it was lost"
        )),
        _ => None,
    }
}

/// The step at which it was decided: the last one of the direction that the verdict is about.
pub(super) fn place(verdict: &Verdict, steps: &[Step]) -> Option<usize> {
    let direction = match verdict.id {
        "answered" | "answer-dropped" | "answer-untranslated" | "refused" => Direction::Back,
        _ => Direction::There,
    };
    steps
        .iter()
        .rposition(|step| step.direction == direction)
        .or(steps.len().checked_sub(1))
}
