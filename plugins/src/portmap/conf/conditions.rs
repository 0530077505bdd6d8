//! Conditions of the iptables backend: which words of iptables are matches, and nothing else.
//!
//! iptables reads its arguments with `getopt_long(3)`: a letter takes its value with or without a blank (`-jDROP`), and a
//! long option may be cut (`--vers`). So letters are taken by a list of those that match, and long options are refused
//! when iptables might take them for one of its own that doesn't match.

use cni_conf::error::Error;
use cni_conf::json::FieldError;

/// The letters that match, each of which takes a value, save for `f`.
const MATCHES: &str = "sdiopmf";

/// The long options of iptables that are no matches (iptables(8); `xshared.h`).
const COMMANDS: [&str; 29] = [
    "append",
    "check",
    "delete",
    "delete-chain",
    "exact",
    "flush",
    "goto",
    "help",
    "insert",
    "ipv4",
    "ipv6",
    "jump",
    "line-numbers",
    "list",
    "list-rules",
    "modprobe",
    "new",
    "new-chain",
    "numeric",
    "policy",
    "rename-chain",
    "replace",
    "set-counters",
    "table",
    "verbose",
    "version",
    "wait",
    "wait-interval",
    "zero",
];

/// Options of the matches `recent` and `policy` that look like a command cut short. The whole word wins.
const WHOLE_WORDS: [&str; 2] = ["set", "pol"];

/// Reads a field's arguments. Those that would end the rule, choose another target, make iptables do something else or
/// leave their line are no conditions.
///
/// # Errors
/// Names the argument.
pub(super) fn read(field: &str, arguments: &[String]) -> Result<Vec<String>, Error> {
    for (index, argument) in arguments.iter().enumerate() {
        let Some(problem) = problem(argument) else {
            continue;
        };
        let at = format!("{field}[{index}]");
        let error = Error::from(FieldError::new(at, format_args!("{argument:?}"), problem));
        return Err(error.with_details(
            "a condition is made of matches as iptables takes them, such as [\"!\", \"-d\", \"192.0.2.0/24\"]: remove the rest",
        ));
    }
    Ok(arguments.to_vec())
}

fn problem(argument: &str) -> Option<&'static str> {
    let foreign = |c: char| c.is_control() || matches!(c, '"' | '\'' | '\\');
    if argument.is_empty() || argument.chars().any(foreign) {
        return Some(
            "an argument may not be empty or contain quotes, backslashes and control characters",
        );
    }
    let matches = match (argument.strip_prefix("--"), argument.strip_prefix('-')) {
        (Some(long), _) => !may_be_command(long),
        (None, Some(letters)) => letters.starts_with(|letter| MATCHES.contains(letter)),
        (None, None) => true,
    };
    (!matches).then_some("this is no match of iptables")
}

/// Whether iptables may take a long option for one of its own that is no match: the whole of its name, or its beginning.
fn may_be_command(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default();
    !WHOLE_WORDS.contains(&name) && COMMANDS.iter().any(|command| command.starts_with(name))
}
