//! The plugins ptp, tuning and bandwidth against the real kernel, each test in network namespaces that it made itself.
//!
//! A test that needs what this machine lacks is counted as ignored and says what that is.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod bandwidth;
mod lying;
mod ptp;
mod support;
mod tuning;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    testbed::cover_run();
    let arguments = Arguments::from_args();
    let mut tests = support::Tests::default();
    ptp::add(&mut tests);
    tuning::add(&mut tests);
    bandwidth::add(&mut tests);
    lying::add(&mut tests);
    libtest_mimic::run(&arguments, tests.into_trials()).exit_code()
}
