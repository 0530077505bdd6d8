//! The list of tests of one executable, run by libtest-mimic: a test that can't run here is listed as ignored, with the
//! reason as its kind, and never counts as passed.

use std::any::Any;
use std::panic;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by name, with the programs it can't do without.
#[derive(Clone, Copy, Debug)]
pub struct Case<F = fn()> {
    /// What it shows: the name of its function.
    pub name: &'static str,
    /// Programs that it needs in `PATH`.
    pub needs: &'static [&'static str],
    /// The test; it fails by a panic.
    pub run: F,
}

/// A [`Case`] with the name of the function that is its test, and what it needs.
#[macro_export]
macro_rules! case {
    ($test:ident, $needs:expr) => {
        $crate::Case {
            name: stringify!($test),
            needs: $needs,
            run: $test,
        }
    };
}

impl<F: Copy> Case<F> {
    /// This test as one that `start` runs, under `name`. `lacks` says why a need can't be met.
    pub fn trial(
        &self,
        name: &str,
        lacks: impl Fn(&str) -> Option<String>,
        start: impl FnOnce(F) + Send + 'static,
    ) -> Trial
    where
        F: Send + 'static,
    {
        let reason = if nix::unistd::geteuid().is_root() {
            self.needs.iter().find_map(|need| lacks(need))
        } else {
            Some("not root".to_owned())
        };
        let run = self.run;
        trial(name, reason, move || start(run))
    }
}

/// A test of libtest-mimic that fails by a panic, or is skipped for a reason.
pub fn trial(name: &str, reason: Option<String>, test: impl FnOnce() + Send + 'static) -> Trial {
    let run = move || {
        panic::catch_unwind(panic::AssertUnwindSafe(test))
            .map_err(|panic| Failed::from(panic_text(&*panic)))
    };
    Trial::test(name, run)
        .with_ignored_flag(reason.is_some())
        .with_kind(reason.map_or_else(String::new, |reason| format!("skipped: {reason}")))
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "panicked".to_owned())
}

/// Why a need can't be met that is a program's name.
pub fn missing_program(program: &str) -> Option<String> {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let found = found.is_ok_and(|output| output.status.success());
    (!found).then(|| format!("no {program}"))
}

/// Runs tests that need nothing but programs, as the command line asks.
pub fn run(arguments: &Arguments, cases: &[Case]) -> ExitCode {
    let trials = cases
        .iter()
        .map(|case| case.trial(case.name, missing_program, |run| run()));
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}
