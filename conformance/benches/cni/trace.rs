//! What a program asks of the kernel, as strace sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

/// Counts that do not depend on how fast the machine is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// System calls by name, those of children included.
    pub(crate) calls: BTreeMap<String, usize>,
    /// Messages sent on netlink sockets; several in one datagram count each.
    pub(crate) netlink_messages: usize,
    /// Processes started.
    pub(crate) children: usize,
    /// Threads started.
    pub(crate) threads: usize,
}

/// Why nothing can be traced here.
pub(crate) fn unavailable() -> Option<String> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "/bin/true"]);
    match strace.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => None,
        Ok(_) => Some("strace can't trace here".to_owned()),
        Err(_) => Some("no strace on this machine: install strace".to_owned()),
    }
}

/// The words before a program whose trace goes to this file.
pub(crate) fn wrapper(file: &str) -> Vec<String> {
    let words = ["strace", "-f", "-qq", "-s", "200", "-o", file];
    words.map(str::to_owned).to_vec()
}

impl Trace {
    /// Reads what `strace -f` wrote: a line begins with the number of the thread; a call during which another
    /// thread ran is spread over two lines, `name(… <unfinished ...>` and `<... name resumed>…`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        let mut netlink = BTreeSet::new();
        for line in text.lines() {
            let rest = line
                .split_once(' ')
                .map_or("", |(_, rest)| rest.trim_start());
            let Some((name, arguments)) = rest.split_once('(') else {
                continue;
            };
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                // The end of an interrupted call, a signal, or the end of a process.
                note_resumed_socket(rest, &mut netlink);
                continue;
            }
            if arguments.contains("F_GETFD") {
                // How a debug build looks whether what it closes is open.
                continue;
            }
            *trace.calls.entry(name.to_owned()).or_default() += 1;
            let descriptor = arguments.split([',', ')']).next().unwrap_or_default();
            match name {
                "clone" | "clone3" | "fork" | "vfork" => {
                    if arguments.contains("CLONE_THREAD") {
                        trace.threads += 1;
                    } else {
                        trace.children += 1;
                    }
                }
                "socket" if arguments.starts_with("AF_NETLINK") => {
                    netlink.extend(returned(arguments));
                }
                "close" => {
                    netlink.remove(descriptor);
                }
                "sendto" | "sendmsg" | "send" | "write" | "writev"
                    if netlink.contains(descriptor) =>
                {
                    trace.netlink_messages += arguments.matches("{nlmsg_len=").count().max(1);
                }
                _ => {}
            }
        }
        trace
    }

    /// All system calls.
    pub(crate) fn total(&self) -> usize {
        self.calls.values().sum()
    }
}

/// The descriptor at the end of `… = 5`.
fn returned(arguments: &str) -> Option<String> {
    let (_, value) = arguments.rsplit_once(" = ")?;
    let value = value.split_whitespace().next()?;
    value.parse::<u32>().ok().map(|_| value.to_owned())
}

/// What kind of socket it is stands in the other half; taking it for netlink counts a message too many at most.
fn note_resumed_socket(rest: &str, netlink: &mut BTreeSet<String>) {
    if rest.starts_with("<... socket resumed>") {
        netlink.extend(returned(rest));
    }
}
