//! `trestle doctor` and `trestle lint`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::CliError;
use crate::explain::checks;
use crate::explain::directories::{Directories, own_bin_dir};
use crate::explain::lint::{self, Flaw, Linted};
use crate::explain::report::{Paint, Severity, plain};
use crate::explain::survey::Survey;

/// Where plugins are on most hosts.
const BIN_DIR: &str = "/opt/cni/bin";

/// Where to look for what belongs to a node's networks.
#[derive(Args)]
pub(super) struct DirectoryArgs {
    /// Directory of the network lists
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Directory of the plugins [default: that of this program, else /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Directory in which the runtime's CNI library keeps its cache
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni")]
    cache_dir: PathBuf,
    /// Only this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

impl DirectoryArgs {
    pub(super) fn directories(&self) -> Directories {
        let own = || own_bin_dir().ok().filter(|dir| dir.join("bridge").exists());
        Directories {
            conf_dir: self.conf_dir.clone(),
            bin_dir: self
                .bin_dir
                .clone()
                .or_else(own)
                .unwrap_or_else(|| BIN_DIR.into()),
            cache_dir: self.cache_dir.clone(),
            network: self.network.clone(),
        }
    }
}

#[derive(Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    directories: DirectoryArgs,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
    /// List the checks that found nothing too
    #[arg(short, long)]
    verbose: bool,
}

/// Whether colors are wanted: on a terminal, unless somebody says no (no-color.org).
pub(super) fn paint() -> Paint {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match std::io::stdout().is_terminal() && !refused {
        true => Paint::Colored,
        false => Paint::Plain,
    }
}

pub(super) fn doctor(args: &DoctorArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let survey = Survey::take(&args.directories.directories());
    let report = checks::run(&survey);
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        }
        false => write!(out, "{}", report.text(paint(), args.verbose))?,
    }
    Ok(ExitCode::from(report.status()))
}

#[derive(Args)]
pub(super) struct LintArgs {
    /// Network configurations, .conf or .conflist
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn lint(args: &LintArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let linted: Vec<Linted> = args.files.iter().map(|path| lint::file(path)).collect();
    match args.json {
        true => {
            let text =
                serde_json::to_string_pretty(&as_json(&linted)).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        }
        false => {
            for file in &linted {
                write_flaws(file, out)?;
            }
        }
    }
    let flaws = || {
        linted
            .iter()
            .filter_map(|file| file.flaws.as_ref().ok())
            .flatten()
    };
    let any = |severity| flaws().any(|flaw| flaw.severity == severity);
    Ok(ExitCode::from(match () {
        () if any(Severity::Fail) => 2,
        () if linted.iter().any(|file| file.flaws.is_err()) => 3,
        () if any(Severity::Warn) => 1,
        () => 0,
    }))
}

/// One line each, in the form that editors know: `FILE:LINE:COLUMN: severity: what (remedy) [id]`.
fn write_flaws(file: &Linted, out: &mut impl Write) -> Result<(), CliError> {
    let path = plain(&file.path.display().to_string());
    match &file.flaws {
        Err(problem) => writeln!(out, "{path}: could not look: {}", plain(problem))?,
        Ok(flaws) => {
            for flaw in flaws {
                let (line, column) = flaw.place;
                let severity = severity(flaw);
                let (problem, remedy) = (plain(&flaw.problem), plain(&flaw.remedy));
                writeln!(
                    out,
                    "{path}:{line}:{column}: {severity}: {problem}; {remedy} [{}]",
                    flaw.id
                )?;
            }
        }
    }
    Ok(())
}

fn severity(flaw: &Flaw) -> &'static str {
    match flaw.severity {
        Severity::Fail => "fail",
        Severity::Warn => "warn",
    }
}

fn as_json(linted: &[Linted]) -> serde_json::Value {
    let finding = |path: &Path, flaw: &Flaw| {
        json!({
            "file": path.display().to_string(), "line": flaw.place.0, "column": flaw.place.1, "id": flaw.id,
            "severity": severity(flaw), "summary": flaw.problem, "remedy": flaw.remedy,
        })
    };
    let findings: Vec<_> = linted
        .iter()
        .filter_map(|file| Some((file, file.flaws.as_ref().ok()?)))
        .flat_map(|(file, flaws)| flaws.iter().map(|flaw| finding(&file.path, flaw)))
        .collect();
    let skipped: Vec<_> = linted
        .iter()
        .filter_map(|file| {
            Some(
                json!({"file": file.path.display().to_string(), "why": file.flaws.as_ref().err()?}),
            )
        })
        .collect();
    json!({"checks": linted.len(), "findings": findings, "skipped": skipped})
}
