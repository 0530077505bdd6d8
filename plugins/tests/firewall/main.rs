//! The firewall against the real kernel: what traffic gets through, and that nothing stays.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;
mod hostile;
mod isolation;
mod network;
mod open;
mod programs;
mod restore;
mod rules;
mod scene;
#[path = "../nft/scratch.rs"]
mod scratch;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use testbed::missing_program;

pub(crate) use testbed::Case;

fn main() -> ExitCode {
    if let Some(code) = programs::run_again() {
        return code;
    }
    testbed::cover_run();
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
    let start = |run: fn()| {
        // What tests before left there may be of a namespace whose number is this one's now.
        let _ = std::fs::remove_dir_all(scratch::shared());
        run();
    };
    let trials = cases
        .iter()
        .map(|case| case.trial(case.name, missing_program, start));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
