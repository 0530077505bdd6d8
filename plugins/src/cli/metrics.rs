//! `trestle metrics`: the text format of Prometheus.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;

use super::CliError;
use super::doctor::DirectoryArgs;
use crate::explain::checks;
use crate::explain::report::Severity;
use crate::explain::state::Kept;
use crate::explain::survey::Survey;

#[derive(Args)]
pub(super) struct MetricsArgs {
    #[command(flatten)]
    directories: DirectoryArgs,
}

/// A metric with all its values.
struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Metric<'a> {
    fn new(text: &'a mut String, name: &'static str, help: &str) -> Self {
        // Writing into a text can't fail.
        let _ = writeln!(
            text,
            "# HELP trestle_{name} {help}\n# TYPE trestle_{name} gauge"
        );
        Self { text, name }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "trestle_{}{labels} {value}", self.name);
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

pub(super) fn metrics(args: &MetricsArgs, out: &mut impl Write) -> Result<(), CliError> {
    let survey = Survey::take(&args.directories.directories());
    let mut text = String::new();
    attachments(&survey, &mut text);
    pools(&survey, &mut text);
    let kept = Kept::look(&survey);
    let mut rules = Metric::new(
        &mut text,
        "rules",
        "Rules and elements kept for attachments.",
    );
    for (network, part, count) in kept.counts() {
        rules.add(&[("network", network.as_str()), ("part", part)], count);
    }
    let report = checks::run(&survey);
    let mut findings = Metric::new(&mut text, "findings", "What `trestle doctor` finds.");
    for (name, severity) in [("fail", Severity::Fail), ("warn", Severity::Warn)] {
        let count = report
            .findings
            .iter()
            .filter(|it| it.severity == severity)
            .count();
        findings.add(&[("severity", name)], count);
    }
    Metric::new(&mut text, "checks_skipped", "Checks that could not look.")
        .add(&[], report.skipped.len());
    Metric::new(
        &mut text,
        "log_errors",
        "Calls that failed, in the end of the log that lists name.",
    )
    .add(&[], survey.failures.count);
    Metric::new(&mut text, "build_info", "The release.")
        .add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.write_all(text.as_bytes())?;
    Ok(())
}

fn attachments(survey: &Survey, text: &mut String) {
    let mut living = Metric::new(text, "attachments", "Attachments that live.");
    for network in &survey.networks {
        let name = network.name.as_str();
        living.add(&[("network", name)], survey.living(&network.name).count());
    }
    let mut gone = Metric::new(
        text,
        "attachments_gone",
        "Attachments of which only state is left.",
    );
    for network in &survey.networks {
        let count = survey
            .of(&network.name)
            .filter(|(_, it)| it.gone().is_some())
            .count();
        gone.add(&[("network", network.name.as_str())], count);
    }
}

fn pools(survey: &Survey, text: &mut String) {
    let pools = || {
        survey
            .networks
            .iter()
            .flat_map(|it| it.pools.iter().map(move |pool| (it, pool)))
    };
    let mut total = Metric::new(text, "pool_addresses", "Addresses that a pool has.");
    for (network, pool) in pools() {
        total.add(
            &[("network", network.name.as_str()), ("ranges", &pool.ranges)],
            pool.total,
        );
    }
    let mut free = Metric::new(
        text,
        "pool_addresses_free",
        "Addresses of a pool that nobody holds.",
    );
    for (network, pool) in pools() {
        let left = pool.total.saturating_sub(pool.used);
        free.add(
            &[("network", network.name.as_str()), ("ranges", &pool.ranges)],
            left,
        );
    }
}
