//! What goes around the way itself: its beginning, what explains it, what could not be seen; and all of it as text.

use std::collections::BTreeSet;

use super::path::{Direction, Pass, Paths};
use super::resolve::Pod;
use super::send::Sent;
use super::step::{self, Step, Teller};
use super::{Asked, Trace, Verdict};
use crate::explain::checks;
use crate::explain::directories::Directories;
use crate::explain::report::{Color, Finding, Paint, Severity, plain, wrapped};
use crate::explain::survey::Survey;
use crate::host::conntrack::Tuple;

/// The steps before the first hook.
pub(super) fn begin(asked: &Asked<'_>, pod: &Pod, teller: &Teller<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(name) = &asked.request.from {
        let text = match asked.request.live {
            true => format!("waits for a packet that comes in by {name}"),
            false => format!("a packet comes in by {name}, as from outside"),
        };
        steps.push(Step::new(Direction::There, "link", text));
        return steps;
    }
    let oif = pod.inside.as_ref().map(|link| link.name.clone());
    let text = match &pod.inside {
        Some(link) => format!(
            "pod {}: sends by {}, mtu {}",
            pod.label, link.name, link.mtu
        ),
        None => format!("pod {}: has no interface that leads there", pod.label),
    };
    steps.push(Step {
        oif,
        ..Step::new(Direction::There, "pod", text)
    });
    if let Some(end) = &pod.end {
        let text = format!("host end {}", teller.links.describe(end));
        steps.push(Step {
            iif: Some(end.name.clone()),
            ..Step::new(Direction::There, "link", text)
        });
    }
    steps
}

pub(super) fn title(asked: &Asked<'_>, pod: &Pod, began: &Tuple) -> String {
    let (from, to) = (step::source(began), step::destination(began));
    let who = match &asked.request.from {
        Some(name) => format!("{name} of this host"),
        None => pod.label.clone(),
    };
    format!("{} from {who} ({from}) to {to}", asked.word())
}

/// What keeps packets from their way wherever it is found, whatever the verdict.
const PATH: &[&str] = &[
    "forwarding-off",
    "forward-dropped",
    "route-missing",
    "reverse-path-filter",
    "next-hop-unreachable",
    "bridge-address-foreign",
    "address-twice",
];

/// What `doctor` finds that explains the verdict. A packet that was answered needs none, and so no look at all of the node.
pub(super) fn findings(directories: &Directories, pod: &Pod, verdict: &Verdict) -> Vec<Finding> {
    if verdict.is_good() {
        return Vec::new();
    }
    let mut findings = checks::run(&Survey::take(directories)).findings;
    findings.retain(|finding| {
        let of_pod = match (&finding.network, &pod.network) {
            (Some(network), Some(own)) => network == own,
            _ => true,
        };
        let stops = finding.severity == Severity::Fail && PATH.contains(&finding.id);
        of_pod && (stops || verdict.checks.contains(&finding.id))
    });
    findings
}

/// What could not be seen: `legacy` are tables of iptables-legacy.
pub(super) fn unseen(
    legacy: &[String],
    paths: &Paths,
    pod: &Pod,
    sent: &Sent,
    teller: &Teller<'_>,
) -> Vec<String> {
    let mut unseen = Vec::new();
    if !legacy.is_empty() {
        unseen.push(format!(
            "rules of iptables-legacy (tables {}): they don't report",
            legacy.join(", ")
        ));
    }
    if !sent.tracer.sees_bridges() {
        unseen.push("bridges: this kernel's nftables has no family bridge".to_owned());
    }
    if sent.watched.lost {
        unseen.push("some events, which came faster than they could be read".to_owned());
    }
    let ends = |pass: &Pass| {
        let last = pass.last();
        last.is_some_and(|it| it.drops() || it.own == Some(true) && it.hook.name != "prerouting")
    };
    if !ends(&paths.there) || (!paths.back.is_empty() && !ends(&paths.back)) {
        unseen.extend(programs(paths, pod, teller));
        unseen.push(
            "eBPF programs, and drops of the kernel outside of hooks: retis shows them".to_owned(),
        );
    }
    unseen
}

/// What of traffic control and XDP takes a hand in packets of the links on the way.
fn programs(paths: &Paths, pod: &Pod, teller: &Teller<'_>) -> Vec<String> {
    let seen = paths.there.iter().chain(&paths.back);
    let met = seen.flat_map(|it| [it.event.iif, it.event.oif]).flatten();
    let end = pod.end.iter().map(|link| link.index);
    let links: BTreeSet<u32> = end.chain(met).collect();
    let mut found = Vec::new();
    for index in links {
        let (rtnl, name) = (&teller.links.rtnl, teller.links.name(index));
        let kinds = rtnl.traffic_control(index).unwrap_or_default();
        found.extend(kinds.into_iter().map(|kind| format!("{name}: {kind}")));
        if matches!(rtnl.counters(index), Ok(Some(counters)) if counters.xdp) {
            found.push(format!("{name}: an XDP program"));
        }
    }
    found
}

impl Trace {
    /// 0 when it was answered or delivered, else 2.
    pub(crate) fn status(&self) -> u8 {
        if self.verdict.is_good() { 0 } else { 2 }
    }

    /// For a person.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        wrapped(&mut text, "", &self.probe, 6);
        let mut direction = None;
        for (number, step) in (1..).zip(&self.steps) {
            if direction != Some(step.direction) {
                direction = Some(step.direction);
                text.push_str(match step.direction {
                    Direction::There => "there\n",
                    Direction::Back => "back\n",
                });
            }
            let indent = if matches!(step.kind, "rule" | "policy" | "translation") {
                "  "
            } else {
                ""
            };
            wrapped(&mut text, &format!("{number:>4}  {indent}"), &step.text, 10);
        }
        let color = if self.verdict.is_good() {
            Color::Green
        } else {
            Color::Red
        };
        let id = paint.in_color(color, self.verdict.id);
        let at = self
            .verdict
            .step
            .map_or_else(String::new, |step| format!(" (step {})", step + 1));
        wrapped(&mut text, &format!("{id}{at}: "), &self.verdict.text, 6);
        for finding in &self.findings {
            wrapped(
                &mut text,
                &format!("      doctor    {}: ", finding.id),
                &finding.summary,
                16,
            );
            wrapped(&mut text, "      cause     ", &finding.cause, 16);
            wrapped(&mut text, "      remedy    ", &finding.remedy.text, 16);
            if let Some(command) = &finding.remedy.command {
                text.push_str(&format!("                {}\n", plain(command)));
            }
        }
        for counted in &self.counters {
            wrapped(&mut text, "counted:  ", &counted.text(), 10);
        }
        for unseen in &self.unseen {
            wrapped(&mut text, "not seen: ", unseen, 10);
        }
        text
    }
}
