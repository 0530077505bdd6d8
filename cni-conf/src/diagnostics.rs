//! What a plugin says to people. stdout belongs to the protocol, so it goes to stderr.

use std::fmt;
use std::io::{self, Write};

/// Writes a diagnostic for people to stderr, where runtimes pick it up for their logs. stdout is protocol.
pub fn warn(message: impl fmt::Display) {
    // Nothing sensible is left to do when stderr is closed.
    let _ = writeln!(io::stderr(), "trestle: warning: {message}");
}
