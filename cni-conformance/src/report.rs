//! What came out, for a person and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The plugin does what the rule asks.
    Passed,
    /// It does not; what it did.
    Failed(String),
    /// It could not be found out; why.
    Skipped(String),
}

/// One check of one plugin.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The check's name, such as `del/twice`.
    pub check: &'static str,
    /// What it asks of a plugin.
    pub rule: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// All checks of one plugin.
#[derive(Debug, Clone)]
pub struct PluginReport {
    /// The plugin's name: that of its file.
    pub name: String,
    /// Its file.
    pub program: PathBuf,
    /// The versions that it says it supports.
    pub versions: Vec<String>,
    /// In the order of [`crate::checks`].
    pub findings: Vec<Finding>,
}

impl PluginReport {
    /// The checks that failed, with what the plugin did.
    pub fn failures(&self) -> impl Iterator<Item = (&Finding, &str)> {
        self.findings
            .iter()
            .filter_map(|finding| match &finding.outcome {
                Outcome::Failed(how) => Some((finding, how.as_str())),
                Outcome::Passed | Outcome::Skipped(_) => None,
            })
    }

    fn count(&self, wanted: fn(&Outcome) -> bool) -> usize {
        let outcomes = self.findings.iter().map(|finding| &finding.outcome);
        outcomes.filter(|outcome| wanted(outcome)).count()
    }
}

/// All checks of some plugins. Its `Display` is what a person reads.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One for each plugin.
    pub plugins: Vec<PluginReport>,
}

impl Report {
    /// Whether no check failed. Skipped ones don't count.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Every failure as `PLUGIN/CHECK`, with what the plugin did.
    pub fn failures(&self) -> impl Iterator<Item = (String, &str)> {
        self.plugins.iter().flat_map(|plugin| {
            let failures = plugin.failures();
            failures.map(|(finding, how)| (format!("{}/{}", plugin.name, finding.check), how))
        })
    }

    /// Forget the findings that are called `PLUGIN/CHECK`: differences that are known and meant.
    pub fn without(mut self, names: &[String]) -> Self {
        for plugin in &mut self.plugins {
            let name = plugin.name.clone();
            plugin
                .findings
                .retain(|finding| !names.contains(&format!("{name}/{}", finding.check)));
        }
        self
    }

    /// The same for a program: `{"passed": bool, "plugins": [{"name", "program", "versions", "checks": [{"name", "rule", "outcome",
    /// "detail"}]}]}`, `outcome` being `passed`, `failed` or `skipped`.
    pub fn to_json(&self) -> Value {
        let checks = |plugin: &PluginReport| -> Vec<Value> {
            let one = |finding: &Finding| {
                let (outcome, detail) = match &finding.outcome {
                    Outcome::Passed => ("passed", None),
                    Outcome::Failed(how) => ("failed", Some(how)),
                    Outcome::Skipped(why) => ("skipped", Some(why)),
                };
                json!({"name": finding.check, "rule": finding.rule, "outcome": outcome, "detail": detail})
            };
            plugin.findings.iter().map(one).collect()
        };
        let plugins: Vec<Value> = self
            .plugins
            .iter()
            .map(|plugin| {
                json!({
                    "name": plugin.name, "program": plugin.program, "versions": plugin.versions, "checks": checks(plugin)
                })
            })
            .collect();
        json!({"passed": self.passed(), "plugins": plugins})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plugins.iter().try_for_each(|plugin| plugin.fmt(f))
    }
}

impl fmt::Display for PluginReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.count(|outcome| *outcome == Outcome::Passed);
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let versions = match self.versions.as_slice() {
            [] => "no version".to_owned(),
            [only] => only.clone(),
            [first, .., last] => format!("{first} to {last}"),
        };
        writeln!(
            f,
            "{} ({versions}): {passed} passed, {failed} failed, {skipped} skipped",
            self.name
        )?;
        for (finding, how) in self.failures() {
            writeln!(
                f,
                "  failed   {}: {}\n           {how}",
                finding.check, finding.rule
            )?;
        }
        // Several checks are skipped for one reason.
        let mut said: Vec<&str> = Vec::new();
        for finding in &self.findings {
            if let Outcome::Skipped(why) = &finding.outcome
                && !said.contains(&why.as_str())
            {
                said.push(why);
                writeln!(f, "  skipped  {} and others like it: {why}", finding.check)?;
            }
        }
        Ok(())
    }
}
