//! What became of the packet, and where and why it was lost.

use std::net::IpAddr;

use nix::errno::Errno;
use serde::Serialize;

use super::links::Links;
use super::lost::{self, stopped};
use super::path::{Direction, Pass, Paths, Seen};
use super::step::{self, Step};
use super::watch::Watched;
use crate::host::HostError;
use crate::host::conntrack::Tuple;
use crate::host::nft::family_name;
use crate::host::nft::trace::Decision;
use crate::host::probe::{Outcome, Said};

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
    /// The interface by which it was to leave the pod, and its MTU.
    pub(super) inside: Option<(&'a str, u32)>,
    /// The rule or policy of iptables-legacy that has dropped something meanwhile.
    pub(super) legacy: Option<String>,
}

impl Case<'_> {
    pub(super) fn judge(&self, links: &Links) -> Verdict {
        let (there, back) = (&self.paths.there, &self.paths.back);
        if self.watched.outcome == Some(Outcome::Answered) {
            return Verdict::new("answered", "an answer came", &[]);
        }
        if let Some(error) = &self.watched.unsent {
            return self.unsent(error);
        }
        if there.is_empty() {
            return self.never_seen();
        }
        let told = self.watched.outcome.is_some() || !back.is_empty();
        if let Some(drop) = dropped(there, told) {
            return Verdict::new("dropped", drop, FILTERS);
        }
        if let Some(verdict) = there.last().and_then(|last| lost::too_large(last, links)) {
            return self.too_large(verdict);
        }
        // A message of ICMP about it is no answer.
        let error = back.first().is_some_and(|it| it.event.error.is_some());
        if let Some(drop) = dropped(back, false).filter(|_| !error) {
            return Verdict::new("answer-dropped", format!("the answer: {drop}"), FILTERS);
        }
        if self.watched.outcome == Some(Outcome::Refused)
            || (self.nobody_listens() && stopped(there, links).is_none())
        {
            let who = back.first().filter(|_| !error).map_or_else(
                || step::destination(&there[there.len() - 1].packet),
                |it| step::source(&it.packet),
            );
            return refused(&who);
        }
        if let Some(last) = back.last().filter(|_| !error) {
            return self.answer_lost(back, last, links);
        }
        if let Some(verdict) = stopped(there, links) {
            return self.with_legacy(verdict);
        }
        self.left(there, links)
    }

    /// Whether a message of ICMP says so.
    fn nobody_listens(&self) -> bool {
        let first = self.paths.back.first();
        let said = first.and_then(|it| Some((it.event.error?, it.packet.source.is_ipv6())));
        said.is_some_and(|(error, v6)| step::nobody_listens(error, v6))
    }

    fn unsent(&self, error: &HostError) -> Verdict {
        let text = match self.inside {
            Some((name, mtu)) if error.errno() == Some(Errno::EMSGSIZE) => {
                format!("the pod could not send it: {name} takes {mtu} bytes at once")
            }
            _ => format!("the pod could not send it: {error}"),
        };
        Verdict::new("not-sent", text, REACHING)
    }

    /// Whether somebody told the sender.
    fn too_large(&self, verdict: Verdict) -> Verdict {
        let back = &self.paths.back;
        let told = match (self.watched.said, dropped(back, false)) {
            (Some(Said { by: Some(by), .. }), _) => format!("; {by} told the pod so"),
            (_, Some(drop)) => format!("; {drop}, the message that tells who sent it"),
            _ if verdict.text.contains("tells nobody") => String::new(),
            _ if self.live && !back.is_empty() => "; who sent it was told so".to_owned(),
            _ => "; nobody told who sent it".to_owned(),
        };
        Verdict {
            text: verdict.text + &told,
            ..verdict
        }
    }

    /// Names the rule of iptables-legacy that counted where nothing reports.
    fn with_legacy(&self, verdict: Verdict) -> Verdict {
        let rule = self.legacy.as_ref().filter(|_| verdict.id == "dropped");
        match rule {
            Some(rule) => Verdict {
                text: format!("{}; meanwhile this has counted: {rule}", verdict.text),
                ..verdict
            },
            None => verdict,
        }
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

    fn answer_lost(&self, back: &Pass, last: &Seen, links: &Links) -> Verdict {
        let asked = step::destination(&self.began);
        let is_icmp = matches!(self.began.protocol, 1 | 58);
        let from = step::source(&last.packet);
        let arrived = stopped(back, links).is_none();
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
        match stopped(back, links) {
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

    /// What the sender was told in place of an answer.
    fn said(&self, there: &Pass) -> String {
        let v6 = there[0].packet.source.is_ipv6();
        let seen = self
            .paths
            .back
            .first()
            .and_then(|it| Some((it, it.event.error?)));
        match (self.watched.outcome, self.watched.said, seen) {
            (
                _,
                Some(Said {
                    by: Some(by),
                    mtu: Some(mtu),
                }),
                _,
            ) => {
                format!(", and {by} says that it is too large, {mtu} bytes may pass")
            }
            (_, _, Some((it, error))) => {
                format!(", and {} {}", it.packet.source, step::says(error, v6))
            }
            (Some(Outcome::Undeliverable(errno)), ..) => {
                format!(", and the answer was: {}", errno.desc())
            }
            _ => String::new(),
        }
    }

    /// It got through this host, and nothing came back.
    fn left(&self, there: &Pass, links: &Links) -> Verdict {
        let last = step::exit(there).unwrap_or(&there[there.len() - 1]);
        let to = step::destination(&last.packet);
        let by = last.event.oif.map(|index| links.name(index));
        let place = by.as_ref().map_or_else(
            || format!("it came to {to} on this host itself"),
            |by| format!("it left by {by} to {to}"),
        );
        let said = self.said(there);
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
        let why = match links.silent(last.packet.destination, last.event.mark) {
            Some(hop) => format!("; nobody answers for the hardware address of {hop}"),
            None if said.is_empty() => ", and no answer came".to_owned(),
            None => String::new(),
        };
        Verdict::new("no-answer", format!("{place}{said}{why}"), REACHING)
    }
}

impl Paths {
    /// Whether rules or the answer itself say all that there is to say.
    pub(super) fn explain(&self, verdict: &Verdict) -> bool {
        let drops = |pass: &Pass| pass.last().is_some_and(Seen::drops);
        verdict.is_good()
            || matches!(verdict.id, "refused" | "answer-untranslated")
            || drops(&self.there)
            || drops(&self.back)
    }
}

fn refused(who: &str) -> Verdict {
    let text = format!("{who} answers that nobody listens there");
    Verdict::new("refused", text, &[])
}

/// Where rules drop it. `told` says that who sent it heard of that.
fn dropped(pass: &Pass, told: bool) -> Option<String> {
    let last = pass.last()?;
    let event = &last.event;
    let place = format!(
        "{} {} {}",
        family_name(event.family),
        event.table,
        event.chain
    );
    let verb = if told { "rejects" } else { "drops" };
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
