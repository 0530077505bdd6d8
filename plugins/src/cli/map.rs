//! `trestle map`: a node as a tree in the terminal, and as an SVG.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::doctor::{DirectoryArgs, paint};
use super::{CliError, file};
use crate::explain::report::{Color, Finding, Paint, Severity, plain};
use crate::explain::survey::Survey;
use crate::explain::svg;
use crate::explain::topology::{self, Container, Net, Topology};

#[derive(Args)]
pub(super) struct MapArgs {
    #[command(flatten)]
    directories: DirectoryArgs,
    /// Write a picture into this file, for a browser
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) fn map(args: &MapArgs, out: &mut impl Write) -> Result<(), CliError> {
    let topology = topology::of(&Survey::take(&args.directories.directories()));
    if let Some(path) = &args.svg {
        fs::write(path, svg::draw(&topology)).map_err(file("write", path))?;
        writeln!(out, "wrote {}", path.display())?;
        return Ok(());
    }
    let mut tree = Tree {
        paint: paint(),
        lines: vec![format!("node {}", plain(&topology.node))],
    };
    tree.topology(&topology);
    for line in tree.lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

struct Tree {
    paint: Paint,
    lines: Vec<String>,
}

/// A line and what hangs below it.
struct Branch {
    text: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(text: String) -> Self {
        Self {
            text,
            below: Vec::new(),
        }
    }
}

impl Tree {
    fn topology(&mut self, topology: &Topology) {
        let uplinks = topology.uplinks.iter().map(|uplink| {
            Branch::leaf(plain(&format!(
                "uplink {}  {}",
                uplink.name,
                uplink.facts.join("  ")
            )))
        });
        let networks = topology
            .networks
            .iter()
            .map(|network| self.network(network));
        let beyond = (!topology.beyond.is_empty()).then(|| Branch {
            text: "containers of other nodes".into(),
            below: topology
                .beyond
                .iter()
                .map(|route| Branch::leaf(plain(route)))
                .collect(),
        });
        let findings = topology
            .findings
            .iter()
            .map(|finding| self.finding(finding));
        let all: Vec<Branch> = uplinks
            .chain(networks)
            .chain(beyond)
            .chain(findings)
            .collect();
        self.grow(&all, "");
    }

    fn network(&self, network: &Net) -> Branch {
        let head = format!(
            "network {}  {}  {}",
            network.name,
            network.middle,
            network.facts.join("  ")
        );
        let findings = network.findings.iter().map(|finding| self.finding(finding));
        let containers = network.containers.iter().map(|it| self.container(it));
        Branch {
            text: plain(&head),
            below: findings.chain(containers).collect(),
        }
    }

    fn container(&self, container: &Container) -> Branch {
        let mut words = vec![container.name.clone(), container.ifname.clone()];
        words.extend(container.addresses.iter().cloned());
        words.extend(Some(container.end.clone()).filter(|end| !end.is_empty()));
        let text = plain(&words.join("  "));
        Branch {
            text: match container.lives {
                true => text,
                false => format!("{text}  {}", self.paint.in_color(Color::Red, "gone")),
            },
            below: container
                .ports
                .iter()
                .map(|port| Branch::leaf(plain(port)))
                .collect(),
        }
    }

    fn finding(&self, finding: &Finding) -> Branch {
        let (word, color) = match finding.severity {
            Severity::Fail => ("FAIL", Color::Red),
            Severity::Warn => ("warn", Color::Yellow),
        };
        let text = format!("{word} {}: {}", finding.id, finding.summary);
        Branch::leaf(self.paint.in_color(color, &plain(&text)))
    }

    fn grow(&mut self, branches: &[Branch], indent: &str) {
        for (index, branch) in branches.iter().enumerate() {
            let last = index + 1 == branches.len();
            let (knot, rest) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            self.lines.push(format!("{indent}{knot}{}", branch.text));
            self.grow(&branch.below, &format!("{indent}{rest}"));
        }
    }
}
