//! The host module against the real kernel, each test in network namespaces that it made itself.
//!
//! A test that needs what this machine lacks is counted as ignored and says what that is.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod address;
mod bridge;
mod bridge_vlan;
mod changes;
mod exchange;
mod link;
mod module;
mod monitor;
mod netns;
mod qdisc;
mod route;
mod support;
mod sysctl;
mod veth;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut tests = support::Tests::new();
    netns::add(&mut tests);
    exchange::add(&mut tests);
    link::add(&mut tests);
    bridge::add(&mut tests);
    bridge_vlan::add(&mut tests);
    veth::add(&mut tests);
    address::add(&mut tests);
    route::add(&mut tests);
    changes::add(&mut tests);
    monitor::add(&mut tests);
    qdisc::add(&mut tests);
    sysctl::add(&mut tests);
    module::add(&mut tests);
    libtest_mimic::run(&arguments, tests.into_trials()).exit_code()
}
