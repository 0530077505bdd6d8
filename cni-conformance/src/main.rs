//! `trestle-conformance`: the checks of [`cni_conformance`] as a command.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use cni_conformance::{Report, Subject, checks, plugins_of};
use serde_json::Value;

const HELP: &str = "\
Usage: trestle-conformance [OPTIONS] DIR

Puts the checks of the CNI protocol to the plugins in DIR, on throw-away hosts (as root; without, some are skipped).

  --plugin NAME          only this one; may be given several times
  --conf FILE            a network configuration for the plugin that its \"type\" names. One with the key \"prevResult\" is a
                         chained plugin's. Plugins with the Go plugin's names need none
  --prepare SCRIPT       shell commands for each throw-away host; the container's namespace is `pod` to `ip`
  --except PLUGIN/CHECK  a difference that is known and meant; may be given several times
  --json                 for programs
  --list                 the checks, and what each asks

Status: 0 if no check failed, 1 if one did, 2 if nothing could be checked.
";

#[derive(Default)]
struct Options {
    directory: Option<PathBuf>,
    plugins: Vec<String>,
    confs: Vec<PathBuf>,
    prepare: Option<String>,
    except: Vec<String>,
    json: bool,
    list: bool,
    help: bool,
}

fn main() -> ExitCode {
    let done = parse(std::env::args_os().skip(1)).and_then(|options| run(&options));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "trestle-conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let flag = argument.to_string_lossy().into_owned();
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{flag} takes a value; see --help"))
        };
        let text = |value: OsString| value.to_string_lossy().into_owned();
        match flag.as_str() {
            "--plugin" => options.plugins.push(text(value()?)),
            "--conf" => options.confs.push(value()?.into()),
            "--prepare" => options.prepare = Some(text(value()?)),
            "--except" => options.except.push(text(value()?)),
            "--json" => options.json = true,
            "--list" => options.list = true,
            "--help" | "-h" => options.help = true,
            _ if flag.starts_with('-') => return Err(format!("no option {flag}; see --help")),
            _ if options.directory.is_some() => {
                return Err(format!("a second directory, {flag}; see --help"));
            }
            _ => options.directory = Some(argument.into()),
        }
    }
    Ok(options)
}

/// Whether no check failed.
fn run(options: &Options) -> Result<bool, String> {
    if options.help {
        print(HELP)?;
        return Ok(true);
    }
    if options.list {
        let lines = checks()
            .into_iter()
            .map(|check| format!("{:<32}{}\n", check.name, check.rule));
        print(&lines.collect::<String>())?;
        return Ok(true);
    }
    let mut report = Report::default();
    for subject in subjects(options)? {
        report.plugins.extend(subject.check().plugins);
    }
    let report = report.without(&options.except);
    let text = if options.json {
        format!("{:#}\n", report.to_json())
    } else {
        report.to_string()
    };
    print(&text)?;
    Ok(report.passed())
}

/// The plugins to check, with the configurations that were given.
fn subjects(options: &Options) -> Result<Vec<Subject>, String> {
    let directory = options
        .directory
        .as_ref()
        .ok_or("no directory; see --help")?;
    let mut subjects = if options.plugins.is_empty() {
        plugins_of(directory)
            .map_err(|error| format!("look for plugins in {}: {error}", directory.display()))?
    } else {
        let named = options
            .plugins
            .iter()
            .map(|name| Subject::new(directory.join(name)));
        named.collect()
    };
    for file in &options.confs {
        let (name, conf) = read_conf(file)?;
        let subject = subjects.iter_mut().find(|subject| subject.name() == name);
        let subject =
            subject.ok_or_else(|| format!("{}: no plugin {name} is checked", file.display()))?;
        let chained = conf.get("prevResult").is_some();
        let given = subject.clone().conf(conf);
        *subject = if chained { given.chained() } else { given };
    }
    if let Some(script) = &options.prepare {
        subjects = subjects
            .into_iter()
            .map(|subject| subject.prepare(script))
            .collect();
    }
    Ok(subjects)
}

/// A configuration and the plugin that it is for.
fn read_conf(file: &PathBuf) -> Result<(String, Value), String> {
    let text = fs::read(file).map_err(|error| format!("read {}: {error}", file.display()))?;
    let conf: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    match conf["type"].as_str() {
        Some(name) => Ok((name.to_owned(), conf)),
        None => Err(format!(
            "{}: no \"type\", which names the plugin",
            file.display()
        )),
    }
}

fn print(text: &str) -> Result<(), String> {
    let written = io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| format!("write to standard output: {error}"))
}
