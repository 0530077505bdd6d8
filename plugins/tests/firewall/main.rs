//! The firewall against the real kernel: what traffic gets through, and that nothing stays.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;
mod hostile;
mod isolation;
mod network;
#[path = "../nft/node.rs"]
mod node;
mod open;
#[path = "../nft/private.rs"]
mod private;
mod programs;
mod restore;
mod rules;
mod scene;
#[path = "../nft/scratch.rs"]
mod scratch;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by name, with the programs it can't do without.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [&'static str],
    pub(crate) run: fn(),
}

fn main() -> ExitCode {
    if let Some(code) = programs::run_again() {
        return code;
    }
    private::cover_run();
    let mut arguments = Arguments::from_args();
    // The tests' containers have the same names, and what is written down of them is in one directory.
    arguments.test_threads = Some(1);
    let _scratch = scratch::make();
    let cases = [
        open::CASES,
        isolation::CASES,
        rules::CASES,
        restore::CASES,
        network::CASES,
        cluster::CASES,
        hostile::CASES,
    ]
    .concat();
    let trials = cases.into_iter().map(|case| {
        let reason = reason_to_skip(&case);
        if let Some(reason) = &reason {
            eprintln!("skipped {}: {reason}", case.name);
        }
        let run = move || {
            // What tests before left there may be of a namespace whose number is this one's now.
            let _ = std::fs::remove_dir_all(scratch::shared());
            std::panic::catch_unwind(case.run).map_err(|panic| {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
            })
        };
        Trial::test(case.name, run)
            .with_ignored_flag(reason.is_some())
            .with_kind(reason.map_or_else(String::new, |reason| format!("skipped: {reason}")))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Why a test can't run here, if it can't.
fn reason_to_skip(case: &Case) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    case.needs
        .iter()
        .find(|program| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            !found.is_ok_and(|output| output.status.success())
        })
        .map(|program| format!("no {program}"))
}
