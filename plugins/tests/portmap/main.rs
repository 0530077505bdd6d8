//! Port mappings against the real kernel: what traffic sees, who gets a port, and that nothing stays.

mod alike;
mod claims;
mod exposed;
mod iptables;
mod many;
mod nftables;
#[path = "../nft/node.rs"]
mod node;
#[path = "../nft/private.rs"]
mod private;
mod restore;
mod scene;
#[path = "../nft/scratch.rs"]
mod scratch;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use scene::Backend;

/// A test by name, with the programs it can't do without.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [&'static str],
    pub(crate) run: fn(Backend),
}

fn main() -> ExitCode {
    private::cover_run();
    let arguments = Arguments::from_args();
    let _scratch = scratch::make();
    let on = |backend: Backend, cases: &[Case]| -> Vec<(Backend, Case)> {
        cases.iter().map(|case| (backend, *case)).collect()
    };
    let cases = [
        on(Backend::Nftables, alike::CASES),
        on(Backend::Iptables, alike::CASES),
        on(Backend::Nftables, restore::CASES),
        on(Backend::Iptables, restore::CASES),
        on(Backend::Nftables, claims::CASES),
        on(Backend::Iptables, claims::CASES),
        on(Backend::Nftables, exposed::CASES),
        on(Backend::Iptables, exposed::CASES),
        on(Backend::Nftables, many::CASES),
        on(Backend::Iptables, many::CASES),
        on(Backend::Nftables, nftables::CASES),
        on(Backend::Iptables, iptables::CASES),
    ]
    .concat();
    let trials = cases.into_iter().map(|(backend, case)| {
        let name = format!("{}::{}", backend.name(), case.name);
        let reason = reason_to_skip(&case);
        if let Some(reason) = &reason {
            eprintln!("skipped {name}: {reason}");
        }
        let run = move || {
            std::panic::catch_unwind(|| (case.run)(backend)).map_err(|panic| {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
            })
        };
        Trial::test(name, run)
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
            if **program == "sctp" {
                return !scene::has_sctp();
            }
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            !found.is_ok_and(|output| output.status.success())
        })
        .map(|program| match *program {
            "sctp" => "this kernel has no SCTP: run modprobe sctp".to_owned(),
            program => format!("no {program}"),
        })
}
