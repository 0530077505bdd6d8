//! The checks, and how one is carried out.

mod answers;
mod life;
mod refusals;

use std::path::Path;

use serde_json::Value;

use crate::answer::Answer;
use crate::call::Call;
use crate::report::{Finding, Outcome};
use crate::stage::{NETNS, Stage, on_stage};
use crate::subject::Subject;

/// Versions of the specification that checks go through.
const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// What a check can't do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Only the executable.
    Nothing,
    /// A configuration that ADD succeeds with, and a host to do it on.
    Configuration,
    /// The same, for a plugin that stands behind another.
    Chained,
    /// The same, for a plugin that does not.
    First,
}

struct Check {
    name: &'static str,
    rule: &'static str,
    need: Need,
    /// Whether every version has a host of its own; else there is one, and the check chooses.
    each_version: bool,
    run: fn(&Trial<'_>) -> Result<(), String>,
}

impl Check {
    /// One that needs no host and chooses the version itself.
    fn anywhere(
        name: &'static str,
        rule: &'static str,
        run: fn(&Trial<'_>) -> Result<(), String>,
    ) -> Self {
        Self {
            name,
            rule,
            need: Need::Nothing,
            each_version: false,
            run,
        }
    }
}

/// A check's name and what it asks of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckInfo {
    /// Such as `del/twice`.
    pub name: &'static str,
    /// One sentence.
    pub rule: &'static str,
}

/// All checks, in the order they are carried out.
pub fn checks() -> Vec<CheckInfo> {
    let info = |check: &Check| CheckInfo {
        name: check.name,
        rule: check.rule,
    };
    all().iter().map(info).collect()
}

fn all() -> Vec<Check> {
    [answers::checks(), refusals::checks(), life::checks()]
        .into_iter()
        .flatten()
        .collect()
}

/// Every check of a plugin that says it supports these versions.
pub(crate) fn run_all(subject: &Subject, versions: &[String]) -> Vec<Finding> {
    let problem = Stage::problem();
    let supported = |version: &&'static str| versions.iter().any(|found| found == version);
    let versions: Vec<&'static str> = VERSIONS.into_iter().filter(supported).collect();
    let one = |check: Check| Finding {
        outcome: run_one(&check, subject, &versions, problem.as_deref()),
        check: check.name,
        rule: check.rule,
    };
    all().into_iter().map(one).collect()
}

fn run_one(
    check: &Check,
    subject: &Subject,
    versions: &[&'static str],
    problem: Option<&str>,
) -> Outcome {
    if let Some(reason) = reason_to_skip(check.need, subject, versions, problem) {
        return Outcome::Skipped(reason);
    }
    if !check.each_version {
        return set_and_run(check, subject, versions, problem.is_none());
    }
    let outcomes = versions
        .iter()
        .map(|version| set_and_run(check, subject, &[*version], problem.is_none()));
    let worst = outcomes.reduce(|worst, next| {
        if worst == Outcome::Passed {
            next
        } else {
            worst
        }
    });
    worst.unwrap_or(Outcome::Passed)
}

/// Carry out a check on a host that is made for it; on this machine where none can be made.
fn set_and_run(
    check: &Check,
    subject: &Subject,
    versions: &[&'static str],
    stages: bool,
) -> Outcome {
    let directory = subject.directory();
    if !stages {
        // Nobody who isn't root changes anything by this.
        return attempt(check, subject, versions, None, &directory);
    }
    let prepare = check.need != Need::Nothing;
    let done = on_stage(&directory, |stage, plugins| {
        if prepare && let Err(reason) = stage.sh(&subject.preparation()) {
            return Outcome::Skipped(reason);
        }
        attempt(check, subject, versions, Some(stage), plugins)
    });
    done.unwrap_or_else(|error| Outcome::Skipped(error.to_string()))
}

fn attempt(
    check: &Check,
    subject: &Subject,
    versions: &[&'static str],
    stage: Option<&Stage>,
    plugins: &Path,
) -> Outcome {
    let trial = Trial {
        subject,
        versions,
        stage,
        plugins,
    };
    match (check.run)(&trial) {
        Ok(()) => Outcome::Passed,
        Err(how) => Outcome::Failed(how),
    }
}

fn reason_to_skip(
    need: Need,
    subject: &Subject,
    versions: &[&str],
    problem: Option<&str>,
) -> Option<String> {
    match need {
        Need::Nothing => return None,
        Need::Chained if !subject.is_chained() => {
            return Some("stands behind no other plugin".to_owned());
        }
        Need::First if subject.is_chained() => {
            return Some("stands behind another plugin".to_owned());
        }
        Need::Configuration | Need::Chained | Need::First => {}
    }
    if !subject.has_conf() {
        return Some("needs a configuration for the plugin, and none is given".to_owned());
    }
    if versions.is_empty() {
        return Some("VERSION names no version of the specification".to_owned());
    }
    problem.map(str::to_owned)
}

/// One check of one plugin, on a stage of its own where there can be one.
struct Trial<'a> {
    subject: &'a Subject,
    /// Those of the specification that the plugin says it supports, oldest first.
    versions: &'a [&'static str],
    stage: Option<&'a Stage>,
    plugins: &'a Path,
}

impl Trial<'_> {
    /// The host. Checks that need one don't run without.
    fn stage(&self) -> Result<&Stage, String> {
        self.stage.ok_or_else(|| "there is no stage".to_owned())
    }

    /// The newest version that the plugin supports; 1.0.0 if it names none.
    fn newest(&self) -> &'static str {
        self.versions.last().copied().unwrap_or("1.0.0")
    }

    /// Whether the plugin supports a version that has this verb.
    fn has(&self, verb: &str) -> bool {
        self.newest() >= since(verb)
    }

    fn call(&self, call: &Call, stdin: &[u8]) -> Result<Answer, String> {
        call.run(&self.plugins.join(self.subject.name()), self.plugins, stdin)
    }

    /// A verb for the container's interface.
    fn verb(&self, verb: &str, network: &Value) -> Result<Answer, String> {
        self.call(&self.attachment(verb), network.to_string().as_bytes())
    }

    fn attachment(&self, verb: &str) -> Call {
        let ifname = if self.subject.name() == "loopback" {
            "lo"
        } else {
            "eth0"
        };
        Call {
            verb: Some(verb.to_owned()),
            container: Some("c1".to_owned()),
            netns: Some(NETNS.to_owned()),
            ifname: Some(ifname.to_owned()),
        }
    }
}

/// The version that a verb came with.
fn since(verb: &str) -> &'static str {
    match verb {
        "CHECK" => "0.4.0",
        "GC" | "STATUS" => "1.1.0",
        _ => "0.1.0",
    }
}
