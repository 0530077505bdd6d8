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
mod renamed;
mod scene;
mod transactions;

use std::process::ExitCode;

use libtest_mimic::Arguments;

pub(crate) use testbed::Case;

fn main() -> ExitCode {
    testbed::cover_run();
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
    testbed::run(&arguments, &cases)
}
