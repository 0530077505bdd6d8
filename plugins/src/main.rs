//! `trestle`: one binary that is every plugin, by the name it is called with.

use std::process::ExitCode;

use plugins::{applets, process::Process};

fn main() -> ExitCode {
    Process::from_os().run(applets::ALL)
}
