//! The command line of the benchmark.

use std::env;
use std::path::PathBuf;

/// What is measured, how often, and where it goes.
#[derive(Debug)]
pub(crate) struct Options {
    /// The parts to run; none means all.
    only: Vec<String>,
    /// Networks to measure, by a part of their name; none means all.
    cases: Vec<String>,
    /// Samples of each figure that is cheap to take.
    pub(crate) rounds: usize,
    /// Refresh the chart of the documentation as well.
    pub(crate) publish: bool,
    /// Another directory of Go plugins than the one that is fetched.
    pub(crate) go: Option<PathBuf>,
}

/// Shown when the command line makes no sense.
const USAGE: &str = "cni [--only one,burst,store,services,costs,full,doctor,density,ports,traffic] [--case bridge,ptp,...] [--rounds N] [--go DIR] [--publish]";

impl Options {
    /// Those of this process.
    pub(crate) fn from_os() -> Result<Self, String> {
        let mut options = Self {
            only: Vec::new(),
            cases: Vec::new(),
            rounds: 40,
            publish: false,
            go: None,
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            match argument.as_str() {
                // cargo bench says so.
                "--bench" => {}
                "--publish" => options.publish = true,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--case" => options.cases = value()?.split(',').map(str::to_owned).collect(),
                "--rounds" => options.rounds = value()?.parse().map_err(|_| USAGE)?,
                "--go" => options.go = Some(value()?.into()),
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(options)
    }

    /// Whether this part is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    /// Whether this network is wanted.
    pub(crate) fn wants_case(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| name.contains(case.as_str()))
    }
}
