//! What was measured, as a table for people and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::number::number;
use crate::stats::{Series, Summary};
use crate::subject::Implementation;
use crate::target::Target;

/// The parts of the report.
pub(crate) mod section {
    /// ADD and DEL, one after the other.
    pub(crate) const ONE: &str = "One container";
    /// Many at once.
    pub(crate) const BURST: &str = "200 containers";
    /// The address store.
    pub(crate) const STORE: &str = "host-local";
    /// On a node of a cluster.
    pub(crate) const SERVICES: &str = "Beside kube-proxy";
    /// With many attached already.
    pub(crate) const FULL: &str = "A full host";
    /// Thousands of containers.
    pub(crate) const DENSITY: &str = "Density";
    /// Thousands of ports.
    pub(crate) const PORTS: &str = "Ports";
    /// Packets.
    pub(crate) const TRAFFIC: &str = "Traffic";
    /// Counted, not timed.
    pub(crate) const COSTS: &str = "Costs";
}

/// One figure of one implementation.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) section: &'static str,
    pub(crate) case: String,
    pub(crate) metric: String,
    pub(crate) unit: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) summary: Summary,
}

/// Everything of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) skipped: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// Takes over what the series have measured.
    pub(crate) fn take(
        &mut self,
        section: &'static str,
        unit: &'static str,
        all_series: &[Series<'_>],
    ) {
        for series in all_series {
            if let Some(reason) = series.failure() {
                self.skip(format!(
                    "{section}, {}, {}: {reason}",
                    series.case, series.subject
                ));
            }
            self.rows
                .extend(series.summaries().map(|(metric, summary)| Row {
                    section,
                    case: series.case.clone(),
                    metric: metric.to_owned(),
                    unit,
                    subject: series.subject,
                    summary,
                }));
        }
    }

    /// Sets the floor of one case beside the figures of another, which has none of its own: what is asked for
    /// on top of plain attaching is what the ratio shows.
    pub(crate) fn share_floor(&mut self, section: &str, from: &str, to: &str) {
        let shared: Vec<_> = self
            .rows
            .iter()
            .filter(|row| {
                (row.section, row.case.as_str(), row.subject)
                    == (section, from, Implementation::Floor.name())
            })
            .cloned()
            .collect();
        self.rows.extend(shared.into_iter().map(|row| Row {
            case: to.to_owned(),
            ..row
        }));
    }

    /// Notes what could not be measured, once.
    pub(crate) fn skip(&mut self, what: String) {
        if !self.skipped.contains(&what) {
            self.skipped.push(what);
        }
    }

    /// Notes something that explains figures, once.
    pub(crate) fn note(&mut self, what: String) {
        if !self.notes.contains(&what) {
            self.notes.push(what);
        }
    }

    /// The median of a figure.
    pub(crate) fn median(
        &self,
        section: &str,
        case: &str,
        metric: &str,
        who: Implementation,
    ) -> Option<f64> {
        let mut rows = self.rows.iter();
        let row = rows.find(|row| {
            (
                row.section,
                row.case.as_str(),
                row.metric.as_str(),
                row.subject,
            ) == (section, case, metric, who.name())
        })?;
        Some(row.summary.median)
    }

    /// The table: a line per figure, the implementations side by side with quartiles, then ratios.
    pub(crate) fn table(&self, targets: &[Target]) -> String {
        let mut text = String::new();
        let mut lines: Vec<(&str, &str, &str)> = Vec::new();
        for row in &self.rows {
            let line = (row.section, row.case.as_str(), row.metric.as_str());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let mut sections: Vec<&str> = Vec::new();
        for (section, ..) in &lines {
            if !sections.contains(section) {
                sections.push(section);
            }
        }
        for section in sections {
            let _ = writeln!(
                text,
                "\n{section:<64} {:>22} {:>22} {:>22} {:>9} {:>9}",
                "floor", "trestle", "go", "trestle", "go to"
            );
            let _ = writeln!(
                text,
                "{:<64} {:>22} {:>22} {:>22} {:>9} {:>9}",
                "median (quartiles)", "", "", "", "to floor", "trestle"
            );
            for (_, case, metric) in lines.iter().filter(|line| line.0 == section) {
                self.table_line(&mut text, section, case, metric);
            }
        }
        self.table_end(&mut text, targets);
        text
    }

    fn table_line(&self, text: &mut String, section: &str, case: &str, metric: &str) {
        let found = |who: Implementation| {
            self.rows.iter().find(|row| {
                (
                    row.section,
                    row.case.as_str(),
                    row.metric.as_str(),
                    row.subject,
                ) == (section, case, metric, who.name())
            })
        };
        let unit = Implementation::ALL
            .iter()
            .find_map(|&who| found(who))
            .map_or("", |row| row.unit);
        let cell = |who| found(who).map_or_else(|| "-".to_owned(), |row| shown(&row.summary));
        let ratio = |over: Implementation, under: Implementation| {
            let (over, under) = (found(over)?.summary.median, found(under)?.summary.median);
            (under > 0.0).then(|| format!("{:.2}", over / under))
        };
        let ratio = |over, under| ratio(over, under).unwrap_or_else(|| "-".to_owned());
        let label = format!(
            "  {case}, {metric}{}{unit}",
            if unit.is_empty() { "" } else { " " }
        );
        let _ = writeln!(
            text,
            "{label:<64} {:>22} {:>22} {:>22} {:>9} {:>9}",
            cell(Implementation::Floor),
            cell(Implementation::Trestle),
            cell(Implementation::Go),
            ratio(Implementation::Trestle, Implementation::Floor),
            ratio(Implementation::Go, Implementation::Trestle),
        );
    }

    fn table_end(&self, text: &mut String, targets: &[Target]) {
        let _ = writeln!(text, "\nTargets (on a quiet machine with two cores)");
        for target in targets {
            let _ = writeln!(text, "  {}", target.line());
        }
        for (title, lines) in [("Not measured", &self.skipped), ("Notes", &self.notes)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{title}");
            }
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    }

    /// The same for programs.
    pub(crate) fn json(&self, targets: &[Target]) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "section": row.section, "case": row.case, "metric": row.metric, "unit": row.unit,
                "subject": row.subject, "summary": row.summary.json()
            })
        });
        json!({
            "environment": environment(),
            "figures": rows.collect::<Vec<_>>(),
            "targets": targets.iter().map(Target::json).collect::<Vec<_>>(),
            "skipped": self.skipped, "notes": self.notes
        })
    }
}

fn shown(summary: &Summary) -> String {
    let Summary {
        median,
        first_quartile,
        third_quartile,
        samples,
    } = *summary;
    if samples == 1 {
        return number(median);
    }
    let (low, high) = (number(first_quartile), number(third_quartile));
    format!("{} ({low}-{high})", number(median))
}

/// The machine, as far as it explains figures.
fn environment() -> Value {
    let first = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let cpu = cpu.unwrap_or_default().trim_start_matches(['\t', ' ', ':']);
    json!({
        "kernel": first("/proc/sys/kernel/osrelease"), "cpu": cpu,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "load": first("/proc/loadavg")
    })
}

/// Writes a file, its directory made if need be.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    written
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("write {}: {error}", path.display()))
}
