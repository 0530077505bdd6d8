//! The chart: one line per case, one dot per implementation, on a logarithmic axis, so that equal distances are
//! equal ratios.
//!
//! It is shown on pages that are light or dark: nothing is painted behind it, and colours follow the reader's
//! preference.

use std::fmt::Write as _;

use crate::number::number;
use crate::report::{Report, section};
use crate::subject::Implementation;

const WIDTH: f64 = 820.0;
const LABELS: f64 = 300.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 64.0;
const LINE: f64 = 30.0;
const GAP: f64 = 14.0;

const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}\
.t{font-size:16px;font-weight:600}.n{font-size:11px}.s,.a{fill:#59636e}.a,.n{text-anchor:middle}\
.g{stroke:#d1d9e0}.c{stroke:#b6bfc8;stroke-width:3}\
.floor{fill:#818b98}.trestle{fill:#0969da}.go{fill:#bc4c00}\
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.s,.a{fill:#9198a1}.g{stroke:#30363d}.c{stroke:#4d5661}\
.trestle{fill:#58a6ff}.go{fill:#f0883e}}";

/// The figures that are drawn: section, case, metric, label; an empty line where the section is empty.
const LINES: [(&str, &str, &str, &str); 13] = [
    (section::ONE, "bridge", "ADD", "ADD bridge + host-local"),
    (
        section::ONE,
        "bridge, nftables masquerade",
        "ADD",
        "ADD, nftables masquerade",
    ),
    (
        section::ONE,
        "bridge, iptables masquerade",
        "ADD",
        "ADD, iptables masquerade",
    ),
    (section::ONE, "ptp + portmap", "ADD", "ADD ptp + portmap"),
    ("", "", "", ""),
    (section::ONE, "bridge", "DEL", "DEL bridge + host-local"),
    (
        section::ONE,
        "bridge, nftables masquerade",
        "DEL",
        "DEL, nftables masquerade",
    ),
    (section::ONE, "ptp + portmap", "DEL", "DEL ptp + portmap"),
    ("", "", "", ""),
    (
        section::BURST,
        "bridge, nftables masquerade, 8 at once",
        "ADD",
        "200 ADDs, 8 at once, nftables",
    ),
    (
        section::FULL,
        "bridge, nftables masquerade, 1000 attached",
        "ADD",
        "ADD, 1,000 containers attached",
    ),
    (
        section::STORE,
        "0 allocated",
        "ADD",
        "host-local ADD, empty",
    ),
    (
        section::STORE,
        "60000 allocated",
        "ADD",
        "host-local ADD, 60,000 allocated",
    ),
];

/// One line: its label and a dot per implementation.
struct Line {
    label: &'static str,
    dots: Vec<(Implementation, f64)>,
}

/// The chart of what there is; none if nothing of it was measured.
pub(crate) fn draw(report: &Report) -> Option<String> {
    let lines = lines(report);
    let values = || {
        lines
            .iter()
            .flat_map(|line| line.dots.iter().map(|(_, value)| *value))
    };
    let low = values().min_by(f64::total_cmp)?.log10().floor();
    let high = values()
        .max_by(f64::total_cmp)?
        .log10()
        .ceil()
        .max(low + 1.0);
    let x = |value: f64| LABELS + (value.log10() - low) / (high - low) * (WIDTH - LABELS - RIGHT);
    let (mut body, mut y) = (String::new(), TOP);
    for line in &lines {
        if line.label.is_empty() {
            y += GAP;
            continue;
        }
        y += LINE;
        draw_line(&mut body, line, y, x);
    }
    let mut svg = String::new();
    let height = y + 44.0;
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Time of CNI operations: kernel floor, trestle, Go plugins\"><style>{STYLE}</style>\n\
         <text class=\"t\" x=\"12\" y=\"24\">How long a container's network takes</text>\n\
         <text class=\"s\" x=\"12\" y=\"44\">milliseconds, median, whole processes; \
         each step to the right is ten times slower</text>\n"
    );
    draw_legend(&mut svg);
    for decade in low as i32..=high as i32 {
        let (at, value) = (x(10f64.powi(decade)), 10f64.powi(decade));
        let _ = writeln!(
            svg,
            "<line class=\"g\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"a\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            y + 12.0,
            y + 30.0,
            number(value)
        );
    }
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The lines that have anything on them, gaps kept between those.
fn lines(report: &Report) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (section, case, metric, label) in LINES {
        let median = |who| {
            report
                .median(section, case, metric, who)
                .map(|value| (who, value))
        };
        let dots: Vec<_> = Implementation::ALL.into_iter().filter_map(median).collect();
        let gap = label.is_empty() && lines.last().is_some_and(|line| !line.label.is_empty());
        if gap || !dots.is_empty() {
            lines.push(Line { label, dots });
        }
    }
    lines
}

fn draw_line(body: &mut String, line: &Line, y: f64, x: impl Fn(f64) -> f64) {
    let label = line.label;
    let _ = writeln!(body, "<text x=\"12\" y=\"{:.1}\">{label}</text>", y + 4.0);
    let at = || line.dots.iter().map(|(_, value)| x(*value));
    let (left, right) = (at().fold(f64::MAX, f64::min), at().fold(f64::MIN, f64::max));
    let _ = writeln!(
        body,
        "<line class=\"c\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
    );
    // Two figures side by side would overlap; then the floor keeps its dot and loses its number.
    let trestle = line
        .dots
        .iter()
        .find(|(who, _)| *who == Implementation::Trestle);
    for (who, value) in &line.dots {
        let at = x(*value);
        let _ = writeln!(
            body,
            "<circle class=\"{}\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"6\"/>",
            who.name()
        );
        let hidden = *who == Implementation::Floor
            && trestle.is_some_and(|(_, other)| (x(*other) - at).abs() < 34.0);
        if !hidden {
            let _ = writeln!(
                body,
                "<text class=\"n\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                y - 9.0,
                number(*value)
            );
        }
    }
}

fn draw_legend(svg: &mut String) {
    let names = [
        (Implementation::Floor, "kernel floor", 480.0),
        (Implementation::Trestle, "trestle", 600.0),
        (Implementation::Go, "Go plugins", 690.0),
    ];
    for (who, label, at) in names {
        let _ = writeln!(
            svg,
            "<circle class=\"{}\" cx=\"{at}\" cy=\"19\" r=\"6\"/><text x=\"{}\" y=\"24\">{label}</text>",
            who.name(),
            at + 12.0
        );
    }
}
