//! What the checks of a node found, and how that is told: to a person on a terminal, or as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Something does not work.
    Fail,
    /// Something may not work, or soon won't.
    Warn,
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Remedy {
    /// In words.
    pub(crate) text: String,
    /// A command line that does it, where there is one.
    pub(crate) command: Option<String>,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) network: Option<String>,
    pub(crate) summary: String,
    pub(crate) evidence: Vec<String>,
    pub(crate) cause: String,
    pub(crate) remedy: Remedy,
}

impl Finding {
    /// Something that does not work.
    pub(crate) fn fail(id: &'static str, summary: impl Into<String>) -> Self {
        Self {
            id,
            severity: Severity::Fail,
            network: None,
            summary: summary.into(),
            evidence: Vec::new(),
            cause: String::new(),
            remedy: Remedy {
                text: String::new(),
                command: None,
            },
        }
    }

    /// Something that may not work.
    pub(crate) fn warn(id: &'static str, summary: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warn,
            ..Self::fail(id, summary)
        }
    }

    pub(crate) fn of(mut self, network: impl ToString) -> Self {
        self.network = Some(network.to_string());
        self
    }

    pub(crate) fn seen(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// Several of a kind, the first few of them by name.
    pub(crate) fn seen_all(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        const SHOWN: usize = 4;
        let all: Vec<String> = evidence.into_iter().collect();
        let more = all.len().saturating_sub(SHOWN);
        self.evidence.extend(all.into_iter().take(SHOWN));
        if more > 0 {
            self.evidence
                .push(format!("and {} more", number(more as u128)));
        }
        self
    }

    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }

    pub(crate) fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy.text = text.into();
        self
    }

    pub(crate) fn command(mut self, command: impl Into<String>) -> Self {
        self.remedy.command = Some(command.into());
        self
    }
}

/// A check that could not look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    pub(crate) check: &'static str,
    pub(crate) why: String,
}

/// What all checks came to.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// How many checks there were.
    pub(crate) checks: usize,
    pub(crate) findings: Vec<Finding>,
    pub(crate) skipped: Vec<Skipped>,
    /// The last call that failed, as the log has it.
    #[serde(rename = "lastFailure", skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<Value>,
    #[serde(skip)]
    pub(crate) names: Vec<&'static str>,
    /// What stands above the findings: the node, its kernel and its networks.
    #[serde(skip)]
    pub(crate) title: String,
}

impl Report {
    /// 2 when something fails, else 3 when something could not be looked at, else 1 when there are warnings.
    pub(crate) fn status(&self) -> u8 {
        let any = |severity| self.findings.iter().any(|it| it.severity == severity);
        match () {
            () if any(Severity::Fail) => 2,
            () if !self.skipped.is_empty() => 3,
            () if any(Severity::Warn) => 1,
            () => 0,
        }
    }

    /// For a person. Lines are 80 columns at most, where words allow.
    pub(crate) fn text(&self, paint: Paint, verbose: bool) -> String {
        let mut text = String::new();
        wrapped(&mut text, "", &self.title, 6);
        let wide = self
            .findings
            .iter()
            .map(|it| it.id.len())
            .max()
            .unwrap_or(0)
            .min(24);
        for finding in &self.findings {
            let (word, color) = match finding.severity {
                Severity::Fail => ("FAIL", Color::Red),
                Severity::Warn => ("warn", Color::Yellow),
            };
            let head = format!("{}  {:wide$}  ", paint.in_color(color, word), finding.id);
            let indent = 4 + 2 + wide.max(finding.id.len()) + 2;
            wrapped_from(&mut text, &head, indent, &finding.summary, indent.min(24));
            let command = finding.remedy.command.iter().map(|it| ("", it));
            let evidence = finding.evidence.iter().map(|it| ("evidence", it));
            let parts = evidence
                .chain([("cause", &finding.cause), ("remedy", &finding.remedy.text)])
                .chain(command);
            let mut before = "";
            for (name, part) in parts.filter(|(_, part)| !part.is_empty()) {
                let shown = if name == before { "" } else { name };
                before = name;
                let head = format!("      {shown:<9} ");
                // A command is to be pasted: it stays in one line.
                match name {
                    "" => text.push_str(&format!("{head}{part}\n")),
                    _ => wrapped(&mut text, &head, part, 16),
                }
            }
        }
        for skipped in &self.skipped {
            let head = format!(
                "{}  {}  ",
                paint.in_color(Color::Yellow, "????"),
                skipped.check
            );
            let why = format!("could not look: {}", skipped.why);
            wrapped_from(&mut text, &head, 8 + skipped.check.len(), &why, 16);
        }
        if let Some(last) = self.last_failure.as_ref().map(failure) {
            wrapped(&mut text, "last  ", &last, 6);
        }
        self.ending(&mut text, paint, verbose);
        text
    }

    fn ending(&self, text: &mut String, paint: Paint, verbose: bool) {
        let mut found: BTreeMap<&str, ()> = self.findings.iter().map(|it| (it.id, ())).collect();
        found.extend(self.skipped.iter().map(|it| (it.check, ())));
        let fine: Vec<&str> = self
            .names
            .iter()
            .copied()
            .filter(|it| !found.contains_key(it))
            .collect();
        let ok = paint.in_color(Color::Green, "ok");
        let hint = if verbose { "" } else { " (-v lists them)" };
        text.push_str(&format!("{ok}    {} checks{hint}\n", fine.len()));
        if verbose {
            wrapped(text, "      ", &fine.join(" "), 6);
        }
    }
}

/// A call that failed, from its line in the log.
fn failure(entry: &Value) -> String {
    let word = |key: &str| entry[key].as_str().unwrap_or("?");
    format!(
        "{}: {} of {} for container {} of {} failed: {}",
        word("time"),
        word("verb"),
        word("plugin"),
        word("container"),
        word("network"),
        word("error")
    )
}

/// Whether there is color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Colored,
}

/// A color of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Color {
    Red,
    Yellow,
    Green,
}

impl Paint {
    /// The text in a color, and bold.
    pub(crate) fn in_color(self, color: Color, text: &str) -> String {
        let number = match color {
            Color::Red => 31,
            Color::Yellow => 33,
            Color::Green => 32,
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Colored => format!("\x1b[1;{number}m{text}\x1b[0m"),
        }
    }
}

/// How wide lines are, in characters.
pub(crate) const WIDTH: usize = 80;

/// Adds `head` and `text`, in lines of [`WIDTH`] that go on behind `indent` spaces.
pub(crate) fn wrapped(out: &mut String, head: &str, text: &str, indent: usize) {
    wrapped_from(out, head, head.chars().count(), text, indent);
}

/// The same with a head that shows as `column` characters.
fn wrapped_from(out: &mut String, head: &str, mut column: usize, text: &str, indent: usize) {
    out.push_str(head);
    let mut first = true;
    for word in text.split(' ') {
        let length = word.chars().count();
        if !first && column + 1 + length > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(&plain(word));
        column += length;
        first = false;
    }
    out.push('\n');
}

/// A text from who knows where, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A number with commas: 18,204.
pub(crate) fn number(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How full a pool is. That of an IPv6 subnet is told as a power of two.
pub(crate) fn fullness(used: u128, total: u128) -> String {
    const READABLE: u128 = 1_000_000_000;
    let total = match total <= READABLE {
        true => number(total),
        false => format!("2^{}", total.saturating_add(2).ilog2()),
    };
    format!("{} of {total}", number(used))
}

/// A number and what it counts: `1 attachment`, `41 attachments`.
pub(crate) fn count(many: usize, what: &str) -> String {
    let plural = match (many, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {what}{plural}", number(many as u128))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let finding = Finding::fail("forward-dropped", "pods of podnet reach nothing beyond this host")
            .of("podnet")
            .seen("ip filter FORWARD: policy drop, 18,204 packets; no rule lets cni0 through")
            .seen_all((1..7).map(|it| format!("c{it}")))
            .because("Docker set the policy; podnet.conflist has no \"firewall\"")
            .remedy("append {\"type\": \"firewall\"} to /etc/cni/net.d/10-podnet.conflist")
            .command("a command line that is much longer than eighty columns but stays in one line, since it is to be pasted");
        Report {
            checks: 3,
            findings: vec![finding],
            skipped: vec![Skipped {
                check: "other",
                why: "not\x1b[2Jallowed".into(),
            }],
            last_failure: None,
            names: vec!["forward-dropped", "other", "third"],
            title: "node a1".into(),
        }
    }

    #[test]
    fn a_person_reads_eighty_columns_and_a_terminal_obeys_nothing() {
        let text = report().text(Paint::Plain, true);
        for line in text.lines().filter(|line| !line.contains("pasted")) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(
            text.contains("FAIL  forward-dropped  pods of podnet"),
            "{text}"
        );
        assert!(text.contains("\n      evidence  ip filter"), "{text}");
        assert!(
            text.contains("and 2 more") && !text.contains('\x1b'),
            "{text}"
        );
        assert!(text.contains("ok    1 checks\n      third\n"), "{text}");
        assert!(
            report()
                .text(Paint::Colored, false)
                .contains("\x1b[1;31mFAIL\x1b[0m")
        );
    }

    #[test]
    fn the_status_is_that_of_the_worst() {
        let mut report = report();
        assert_eq!(report.status(), 2);
        report.findings[0].severity = Severity::Warn;
        assert_eq!(report.status(), 3);
        report.skipped.clear();
        assert_eq!(report.status(), 1);
        report.findings.clear();
        assert_eq!(report.status(), 0);
    }

    #[test]
    fn numbers_have_commas() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(fullness(3, 253), "3 of 253");
        assert_eq!(fullness(1, (1 << 64) - 2), "1 of 2^64");
        assert_eq!(count(1, "pod"), "1 pod");
        assert_eq!(count(2, "pod"), "2 pods");
        assert_eq!(count(0, "address"), "0 addresses");
    }
}
