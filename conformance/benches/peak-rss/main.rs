//! Runs a program and says on standard error how much memory it held at its peak: `peak-rss PROGRAM ARGUMENT…`
//!
//! The kernel counts for a child the memory of whoever started it until it executes its own program, so the one
//! that starts it has to be small; hence a program of its own. Prints kibibytes. Ends with the program's status.

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        return ExitCode::from(2);
    };
    let ended = Command::new(program).args(arguments).status();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    match (ended, usage) {
        (Ok(status), Ok(usage)) => {
            let _ = writeln!(io::stderr(), "peak-rss {}", usage.max_rss());
            u8::try_from(status.code().unwrap_or(255)).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        _ => ExitCode::from(2),
    }
}
