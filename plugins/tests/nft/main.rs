//! nftables, masquerade and what belongs to it, against the real kernel.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bridge_netfilter;
mod changed;
mod conntrack;
mod elements;
mod forward_hook;
mod iptables;
mod masquerade;
mod monitor;
mod neighbours;
mod node;
mod private;
mod renamed;
mod scene;
mod transactions;

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
    private::cover_run();
    let arguments = Arguments::from_args();
    let cases = [
        elements::CASES,
        transactions::CASES,
        conntrack::CASES,
        masquerade::CASES,
        neighbours::CASES,
        changed::CASES,
        renamed::CASES,
        iptables::CASES,
        bridge_netfilter::CASES,
        forward_hook::CASES,
        monitor::CASES,
    ]
    .concat();
    let trials = cases.into_iter().map(|case| {
        let reason = reason_to_skip(&case);
        if let Some(reason) = &reason {
            eprintln!("skipped {}: {reason}", case.name);
        }
        let run = move || {
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
