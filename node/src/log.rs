//! What the agent says: lines on stderr, which a container's runtime or systemd keeps.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a line. Text from others has its control characters replaced, so that one message stays one line.
pub(crate) fn say(message: Arguments<'_>) {
    let text = message.to_string().replace(|c: char| c.is_control(), " ");
    // Nothing sensible is left to do when stderr is closed.
    let _ = writeln!(io::stderr(), "trestle-node: {text}");
}
