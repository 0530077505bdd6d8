//! How long plugins take: trestle beside the Go reference plugins and beside the kernel's floor.
//!
//! Everything is measured as a runtime sees it, from the start of a process to its end, on throw-away hosts. All
//! sides run in one go, in turn and in shuffled order, so that the machine's moods hit all of them: milliseconds
//! are worth nothing on another machine or another day, ratios are. Nothing here fails because it is slow. Only full
//! hosts of the Go plugin's have to wait until the others' are gone.
//!
//! Results: a table on standard output, `target/bench/bench.json` and `target/bench/bench.svg`; with `--publish`
//! the chart goes to `docs/bench.svg` too. What an implementation can't do (yet) is left out and named.

mod attach;
mod burst;
mod chart;
mod cost;
mod doctor;
mod kind;
mod network;
mod number;
mod options;
mod process;
mod report;
mod scale;
mod services;
mod stats;
mod store;
mod subject;
mod supervise;
mod target;
mod targets;
mod trace;
mod traffic;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use conformance::{Lab, Need, Pod, Subject as LabSubject};

use options::Options;
use report::{Report, section};
use stats::{Effort, interleave};
use subject::{Implementation, Kind, Network, Subject};

const BURST: usize = 200;

/// Measures one part and adds it to the report.
type Part = fn(&[Subject], &Options, &mut Report);

fn main() -> ExitCode {
    match supervise::stand_by().and_then(|end| end.map_or_else(run_here, Ok)) {
        Ok(status) => status,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run_here() -> Result<ExitCode, String> {
    run().map(|()| ExitCode::SUCCESS)
}

fn run() -> Result<(), String> {
    let options = Options::from_os()?;
    let lab = Lab::open();
    let mut report = Report::default();
    let subjects = subjects(&lab, &options, &mut report);
    let parts: [(&str, Part); 10] = [
        ("one", one_container),
        ("burst", bursts),
        ("store", stores),
        ("services", services::measure),
        ("costs", costs),
        ("full", full_hosts),
        ("doctor", doctor::measure),
        ("density", scale::density),
        ("ports", scale::ports),
        ("traffic", traffic::measure),
    ];
    for (part, measure) in parts {
        if options.wants(part) {
            say(&format!("measuring: {part}"));
            measure(&subjects, &options, &mut report);
        }
    }
    publish(&report, &options)
}

/// Whoever is here.
fn subjects(lab: &Lab, options: &Options, report: &mut Report) -> Vec<Subject> {
    let mut subjects = vec![Subject {
        who: Implementation::Floor,
        bin: PathBuf::from(env!("CARGO_BIN_EXE_bench-floor")),
    }];
    let trestle = match lab.problem() {
        Some(problem) => Err(problem.to_owned()),
        None if lab.subject == LabSubject::Go => Err("TRESTLE_SUBJECT asks for Go's".to_owned()),
        None => Ok(lab.bin().to_owned()),
    };
    let go = match (&options.go, lab.lacks(Need::GoPlugins)) {
        (Some(dir), _) => Ok(dir.clone()),
        (None, Some(problem)) => Err(problem),
        (None, None) => Ok(lab.go_plugins()),
    };
    for (who, bin) in [(Implementation::Trestle, trestle), (Implementation::Go, go)] {
        match bin {
            Ok(bin) => subjects.push(Subject { who, bin }),
            Err(problem) => report.skip(format!("{}: {problem}", who.name())),
        }
    }
    subjects
}

/// Networks of these kinds by everybody who can make them.
fn networks(
    subjects: &[Subject],
    kinds: &[Kind],
    options: &Options,
    report: &mut Report,
) -> Vec<Network> {
    let mut networks = Vec::new();
    for subject in subjects {
        for &kind in kinds.iter().filter(|kind| options.wants_case(kind.name())) {
            if subject.who == Implementation::Floor && !kind.has_floor() {
                continue;
            }
            match Network::new(subject, kind) {
                Ok(network) => {
                    if let Some(complaint) = &network.complaint {
                        report.note(format!(
                            "DEL of {}, {}, does its work and ends with an error: {complaint}",
                            subject.who.name(),
                            kind.name()
                        ));
                    }
                    networks.push(network);
                }
                Err(reason) => {
                    report.skip(format!("{}, {}: {reason}", subject.who.name(), kind.name()));
                }
            }
        }
    }
    networks
}

fn one_container(subjects: &[Subject], options: &Options, report: &mut Report) {
    let networks = networks(subjects, &Kind::EACH, options, report);
    let pods: Vec<Pod> = networks
        .iter()
        .map(|network| network.host.pod("pod"))
        .collect();
    let mut all_series: Vec<_> = networks
        .iter()
        .zip(&pods)
        .map(|(network, pod)| attach::series(network.kind.name(), network, pod))
        .collect();
    interleave(&mut all_series, patient(options.rounds, 15));
    report.take(section::ONE, "ms", &all_series);
    for kind in Kind::EACH.iter().filter(|kind| !kind.has_floor()) {
        report.share_floor(section::ONE, Kind::Bridge.name(), kind.name());
    }
}

fn bursts(subjects: &[Subject], options: &Options, report: &mut Report) {
    let networks = networks(
        subjects,
        &[Kind::Bridge, Kind::Nftables, Kind::List],
        options,
        report,
    );
    let pods: Vec<Vec<Pod>> = networks
        .iter()
        .map(|network| {
            let names = (0..BURST).map(|number| format!("burst-{number}"));
            names.map(|name| network.host.pod(&name)).collect()
        })
        .collect();
    for workers in [8, 32] {
        let case = |kind: Kind| format!("{}, {workers} at once", kind.name());
        // Go's masquerading takes as long as everything else together and is no faster by 32; its lists take longer.
        let too_long = |network: &Network| {
            network.subject.who == Implementation::Go
                && (network.kind == Kind::List || workers > 8 && network.kind != Kind::Bridge)
        };
        let mut all_series: Vec<_> = networks
            .iter()
            .zip(&pods)
            .filter(|(network, _)| !too_long(network))
            .map(|(network, pods)| burst::series(case(network.kind), network, pods, workers))
            .collect();
        let effort = Effort {
            warm_up: 0,
            ..patient(options.rounds.div_ceil(12), 30)
        };
        interleave(&mut all_series, effort);
        report.take(section::BURST, "ms", &all_series);
        report.share_floor(section::BURST, &case(Kind::Bridge), &case(Kind::Nftables));
    }
}

fn stores(subjects: &[Subject], options: &Options, report: &mut Report) {
    let real = || {
        subjects
            .iter()
            .filter(|subject| subject.who != Implementation::Floor)
    };
    let hosts: Vec<_> = store::LEVELS
        .iter()
        .flat_map(|&level| real().map(move |subject| (level, subject, store::prepare(level))))
        .collect();
    let mut all_series: Vec<_> = hosts
        .iter()
        .map(|(level, subject, host)| store::series(format!("{level} allocated"), subject, host))
        .collect();
    interleave(&mut all_series, patient(options.rounds, 5));
    report.take(section::STORE, "ms", &all_series);
}

fn costs(subjects: &[Subject], options: &Options, report: &mut Report) {
    let peak_rss = Path::new(env!("CARGO_BIN_EXE_bench-peak-rss"));
    for kind in Kind::EACH {
        if !options.wants_case(kind.name()) {
            continue;
        }
        for subject in subjects {
            if subject.who == Implementation::Floor && !kind.has_floor() {
                continue;
            }
            match cost::count(subject, kind, peak_rss) {
                Ok(rows) => report.rows.extend(rows),
                Err(reason) => {
                    report.skip(format!("{}, {}: {reason}", subject.who.name(), kind.name()));
                }
            }
        }
        if !kind.has_floor() {
            report.share_floor(section::COSTS, Kind::Bridge.name(), kind.name());
        }
    }
    report.rows.extend(subjects.iter().filter_map(cost::size));
}

fn full_hosts(subjects: &[Subject], options: &Options, report: &mut Report) {
    // The Go plugin's containers leave something in the kernel's cache that slows down everybody on the machine, so they
    // come when the others are gone.
    let (go, ours): (Vec<&Subject>, Vec<&Subject>) = subjects
        .iter()
        .partition(|subject| subject.who == Implementation::Go);
    for subjects in [ours, go] {
        full_hosts_of(&subjects, options, report);
    }
    for level in network::LEVELS {
        let case = |kind: Kind| full_case(kind, level);
        report.share_floor(section::FULL, &case(Kind::Bridge), &case(Kind::Nftables));
    }
}

fn full_hosts_of(subjects: &[&Subject], options: &Options, report: &mut Report) {
    let mut full = Vec::new();
    for subject in subjects {
        for &kind in network::kinds(subject.who) {
            for level in network::LEVELS {
                if !options.wants_case(&full_case(kind, level)) {
                    continue;
                }
                let what = format!("{}, {}", subject.who.name(), full_case(kind, level));
                say(&format!("preparing {what}"));
                match network::Populated::new(subject, kind, level) {
                    Ok(populated) => full.push(populated),
                    Err(reason) => report.skip(format!("{what}: {reason}")),
                }
            }
        }
    }
    network::wait_for_quiet();
    let case = |full: &network::Populated| full_case(full.network.kind, full.level);
    let mut all_series: Vec<_> = full
        .iter()
        .map(|full| attach::series(&case(full), &full.network, &full.spare))
        .collect();
    interleave(&mut all_series, patient(options.rounds, 10));
    report.take(section::FULL, "ms", &all_series);
    let mut all_series: Vec<_> = full
        .iter()
        .filter(|full| full.network.kind == Kind::Nftables)
        .map(|full| full.connections(case(full)))
        .collect();
    interleave(&mut all_series, patient(options.rounds.div_ceil(4), 8));
    report.take(section::FULL, "1/s", &all_series);
}

fn full_case(kind: Kind, level: usize) -> String {
    format!("{}, {level} attached", kind.name())
}

fn patient(rounds: usize, seconds: u64) -> Effort {
    Effort {
        rounds: rounds.max(1),
        warm_up: 2,
        patience: Duration::from_secs(seconds),
    }
}

fn publish(report: &Report, options: &Options) -> Result<(), String> {
    let targets = targets::all(report);
    let shown = writeln!(io::stdout(), "{}", report.table(&targets));
    shown.map_err(|error| format!("write the table: {error}"))?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().unwrap_or(here);
    let json = format!("{:#}\n", report.json(&targets));
    report::write(&workspace.join("target/bench/bench.json"), &json)?;
    let Some(svg) = chart::draw(report) else {
        return Ok(());
    };
    report::write(&workspace.join("target/bench/bench.svg"), &svg)?;
    if options.publish {
        report::write(&workspace.join("docs/bench.svg"), &svg)?;
    }
    Ok(())
}

fn say(what: &str) {
    let _ = writeln!(io::stderr(), "bench: {what}");
}
