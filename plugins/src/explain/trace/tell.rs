//! What goes around the way itself: its beginning, what explains it, what could not be seen; and all of it as text.

use super::path::{Direction, Pass, Paths};
use super::resolve::Pod;
use super::step::{self, Step, Teller};
use super::watch::Watched;
use super::{Asked, Trace, Verdict};
use crate::explain::checks;
use crate::explain::kernel::Firewall;
use crate::explain::report::{Color, Finding, Paint, plain, wrapped};
use crate::explain::survey::Survey;
use crate::host::conntrack::Tuple;
use crate::host::nft::trace::Tracer;

/// The steps before the first hook.
pub(super) fn begin(asked: &Asked<'_>, pod: &Pod, teller: &Teller<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(name) = &asked.request.from {
        let text = match asked.request.live {
            true => format!("waits for a packet that comes in by {name}"),
            false => format!("this host itself sends, from the address of {name}"),
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
        let text = format!("host end {}", teller.link(end));
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

/// What `doctor` finds that explains the verdict.
pub(super) fn findings(survey: &Survey, pod: &Pod, verdict: &Verdict) -> Vec<Finding> {
    if verdict.is_good() {
        return Vec::new();
    }
    let mut findings = checks::run(survey).findings;
    findings.retain(|finding| {
        let of_pod = match (&finding.network, &pod.network) {
            (Some(network), Some(own)) => network == own,
            _ => true,
        };
        of_pod && verdict.checks.contains(&finding.id)
    });
    findings
}

/// What could not be seen.
pub(super) fn unseen(
    firewall: &Firewall,
    paths: &Paths,
    tracer: Option<&Tracer>,
    watched: &Watched,
) -> Vec<String> {
    let mut unseen = Vec::new();
    if !firewall.legacy.is_empty() {
        unseen.push(format!(
            "rules of iptables-legacy (tables {}): they don't report",
            firewall.legacy.join(", ")
        ));
    }
    if tracer.is_some_and(|tracer| !tracer.sees_bridges()) {
        unseen.push("bridges: this kernel's nftables has no family bridge".to_owned());
    }
    if watched.lost {
        unseen.push("some events, which came faster than they could be read".to_owned());
    }
    let ends = |pass: &Pass| {
        let last = pass.last();
        last.is_some_and(|it| it.drops() || it.own == Some(true) && it.hook.name != "prerouting")
    };
    if !ends(&paths.there) || (!paths.back.is_empty() && !ends(&paths.back)) {
        unseen.push(
            "tc and XDP programs, and drops of the kernel outside of hooks: retis shows them"
                .to_owned(),
        );
    }
    unseen
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
        for unseen in &self.unseen {
            wrapped(&mut text, "not seen: ", unseen, 10);
        }
        text
    }
}
