//! The picture as an SVG: uplinks at the top, networks below each other, their containers in rows of boxes. Colors follow
//! the browser's scheme, dark or light.

use std::fmt::Write as _;

use super::report::{Finding, Severity};
use super::topology::{Container, Net, Topology};

/// Sizes in pixels.
const WIDTH: usize = 960;
const MARGIN: usize = 24;
const LINE: usize = 18;
const PAD: usize = 12;
const BOX: usize = 216;
const GAP: usize = 16;

/// How many boxes stand in one row.
const PER_ROW: usize = 4;

/// How many containers of a network are drawn; a number stands for the rest.
const SHOWN: usize = 48;

const STYLE: &str = "\
svg { background: #fff; color: #1c2530; font: 13px system-ui, sans-serif }
text { fill: currentColor } .h { font-weight: 600 } .s { fill: #5b6875 }
rect { fill: #f4f6f8; stroke: #b8c2cc } .net { fill: #eaf2fb; stroke: #6b9bd1 }
.gone { stroke: #c62f2f; stroke-dasharray: 4 3 } .fail { fill: #c62f2f; font-weight: 600 } .warn { fill: #9a6700 }
line { stroke: #8a97a5 }
@media (prefers-color-scheme: dark) {
svg { background: #14191f; color: #e4e9ee } .s { fill: #9aa7b4 }
rect { fill: #1e262e; stroke: #46525e } .net { fill: #182635; stroke: #4f7fb5 }
.gone { stroke: #ff7b72 } .fail { fill: #ff7b72 } .warn { fill: #e3b341 } line { stroke: #5b6875 } }";

struct Canvas {
    body: String,
    y: usize,
}

/// Draws it.
pub(crate) fn draw(topology: &Topology) -> String {
    let mut canvas = Canvas {
        body: String::new(),
        y: MARGIN,
    };
    canvas.line(MARGIN, "h", &format!("node {}", topology.node));
    canvas.y += GAP / 2;
    canvas.findings(&topology.findings, MARGIN);
    for uplink in &topology.uplinks {
        let text = format!("{}  {}", uplink.name, uplink.facts.join("  ·  "));
        canvas.frame("", &[("h", text)]);
    }
    if !topology.beyond.is_empty() {
        let mut lines = vec![("h", "containers of other nodes".to_owned())];
        lines.extend(
            topology
                .beyond
                .iter()
                .take(SHOWN)
                .map(|route| ("s", route.clone())),
        );
        canvas.frame("", &lines);
    }
    for network in &topology.networks {
        canvas.network(network);
    }
    let height = canvas.y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"networks of node {}\">\n<style>{STYLE}</style>\n{}</svg>\n",
        escaped(&topology.node),
        canvas.body
    )
}

impl Canvas {
    fn text(&mut self, x: usize, y: usize, class: &str, text: &str, width: usize) {
        // Some 7 pixels a character; what does not fit is cut, and stands whole in the title.
        let room = width / 7;
        let shown: String = match text.chars().count() > room {
            true => text
                .chars()
                .take(room.saturating_sub(1))
                .chain(['…'])
                .collect(),
            false => text.to_owned(),
        };
        let title = match shown == text {
            true => String::new(),
            false => format!("<title>{}</title>", escaped(text)),
        };
        // Writing into a text can't fail.
        let _ = writeln!(
            self.body,
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{}{title}</text>",
            escaped(&shown)
        );
    }

    fn line(&mut self, x: usize, class: &str, text: &str) {
        self.y += LINE;
        self.text(x, self.y - 5, class, text, WIDTH - x - MARGIN);
    }

    fn rect(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), class: &str) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" class=\"{class}\"/>"
        );
    }

    /// A frame as wide as the picture, with lines in it.
    fn frame(&mut self, class: &str, lines: &[(&str, String)]) {
        let height = lines.len() * LINE + PAD;
        self.rect((MARGIN, self.y), (WIDTH - 2 * MARGIN, height), class);
        self.y += PAD / 2;
        for (class, text) in lines {
            self.line(MARGIN + PAD, class, text);
        }
        self.y += PAD / 2 + GAP;
    }

    fn findings(&mut self, findings: &[Finding], x: usize) {
        for finding in findings {
            let class = match finding.severity {
                Severity::Fail => "fail",
                Severity::Warn => "warn",
            };
            self.line(x, class, &format!("{}: {}", finding.id, finding.summary));
        }
    }

    fn network(&mut self, network: &Net) {
        let shown = network.containers.len().min(SHOWN);
        let height_of = |it: &Container| (2 + it.addresses.len() + it.ports.len()) * LINE + PAD;
        let rows: Vec<&[Container]> = network.containers[..shown].chunks(PER_ROW).collect();
        let heights: Vec<usize> = rows
            .iter()
            .map(|row| row.iter().map(height_of).max().unwrap_or(0))
            .collect();
        let more = network.containers.len() - shown;
        let head = (2 + network.findings.len() + usize::from(more > 0)) * LINE;
        let height = head + heights.iter().map(|height| height + GAP).sum::<usize>() + PAD;
        self.rect((MARGIN, self.y), (WIDTH - 2 * MARGIN, height), "net");
        let bottom = self.y + height;
        self.y += PAD / 2;
        self.line(
            MARGIN + PAD,
            "h",
            &format!("{}  ·  {}", network.name, network.middle),
        );
        self.line(MARGIN + PAD, "s", &network.facts.join("  ·  "));
        self.findings(&network.findings, MARGIN + PAD);
        for (row, height) in rows.iter().zip(&heights) {
            self.y += GAP / 2;
            for (column, container) in row.iter().enumerate() {
                self.container(container, MARGIN + PAD + column * (BOX + GAP / 2), *height);
            }
            self.y += height + GAP / 2;
        }
        if more > 0 {
            self.line(MARGIN + PAD, "s", &format!("and {more} more"));
        }
        self.y = bottom + GAP;
    }

    fn container(&mut self, container: &Container, x: usize, height: usize) {
        let class = if container.lives { "" } else { "gone" };
        self.rect((x, self.y), (BOX, height), class);
        let mut lines = vec![("h", container.name.clone())];
        lines.push(("s", format!("{}  {}", container.ifname, container.end)));
        lines.extend(
            container
                .addresses
                .iter()
                .map(|address| ("", address.clone())),
        );
        lines.extend(container.ports.iter().map(|port| ("s", port.clone())));
        for (index, (class, text)) in lines.iter().enumerate() {
            let y = self.y + PAD / 2 + (index + 1) * LINE - 5;
            self.text(x + PAD / 2, y, class, text, BOX - PAD);
        }
    }
}

/// A text that is no markup, nor anything that XML has no character for.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::topology::Uplink;

    fn container(name: &str) -> Container {
        Container {
            name: name.into(),
            ifname: "eth0".into(),
            end: "veth0".into(),
            addresses: vec!["10.1.0.2".into()],
            ports: vec!["0.0.0.0:8080/tcp -> 10.1.0.2:80".into()],
            lives: name != "gone",
        }
    }

    #[test]
    fn a_picture_is_sound_whatever_the_names_are() {
        let topology = Topology {
            node: "<a1>&\u{1}".into(),
            uplinks: vec![Uplink {
                name: "eth0".into(),
                facts: vec!["x".repeat(500)],
            }],
            networks: vec![Net {
                name: "net".into(),
                middle: "bridge cni0".into(),
                facts: vec!["masqueraded".into()],
                containers: (0..1000)
                    .map(|_| container("c"))
                    .chain([container("gone")])
                    .collect(),
                findings: vec![Finding::fail("forward-dropped", "they reach \"nothing\"")],
            }],
            beyond: vec!["10.1.1.0/24 via 198.51.100.3".into()],
            findings: Vec::new(),
        };
        let svg = draw(&topology);
        assert!(svg.contains("&lt;a1&gt;&amp;\u{fffd}") && !svg.contains("<a1>"));
        assert!(svg.contains("class=\"fail\"") && svg.contains("and 953 more"));
        assert_eq!(svg.matches("<rect").count(), 2 + 1 + SHOWN);
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
        assert!(svg.contains("prefers-color-scheme: dark"));
    }
}
