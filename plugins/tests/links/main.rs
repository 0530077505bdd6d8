//! Plugins that bring one interface into a container (macvlan, ipvlan, vlan, dummy, tap, host-device) and those that change
//! its routing (vrf, sbr), against the real kernel, each test in network namespaces that it made itself.
//!
//! A test that needs what this machine lacks is counted as ignored and says what that is. `make vm` runs all of them under
//! Debian's kernel.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod alike;
mod host_device;
mod macvlan;
mod sbr;
mod stacked;
mod support;
mod tap;
mod vrf;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut tests = support::Tests::default();
    macvlan::add(&mut tests);
    alike::add(&mut tests);
    stacked::add(&mut tests);
    tap::add(&mut tests);
    host_device::add(&mut tests);
    sbr::add(&mut tests);
    vrf::add(&mut tests);
    libtest_mimic::run(&arguments, tests.into_trials()).exit_code()
}
