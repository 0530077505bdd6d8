//! Port mappings against the real kernel: what traffic sees, who gets a port, and that nothing stays.

mod alike;
mod claims;
mod exposed;
mod iptables;
mod many;
mod nftables;
mod restore;
mod scene;
#[path = "../nft/scratch.rs"]
mod scratch;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use testbed::missing_program;

use scene::Backend;

/// A test, with the programs that it needs.
pub(crate) type Case = testbed::Case<fn(Backend)>;

fn main() -> ExitCode {
    testbed::cover_run();
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
    let trials = cases.iter().map(|&(backend, ref case)| {
        let name = format!("{}::{}", backend.name(), case.name);
        case.trial(&name, lacks, move |run| run(backend))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Why a need can't be met: the kernel's SCTP, or a program.
fn lacks(need: &str) -> Option<String> {
    match need {
        "sctp" => {
            (!scene::has_sctp()).then(|| "this kernel has no SCTP: run modprobe sctp".to_owned())
        }
        program => missing_program(program),
    }
}
