//! What can go wrong between this crate and the kernel.
//!
//! Every message names the operation, the object and the cause, in that order: `add address
//! 10.1.0.2/24 to eth0: File exists (Address already assigned)`. The text in parentheses is the
//! kernel's own (extended acknowledgement). What a person can do about it is apart, in
//! [`HostError::remedy`], so that callers can report it in a field of its own.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

/// A failure on the kernel's side.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Nothing exists at the path of a network namespace.
    #[error("open network namespace {}: No such file or directory", path.display())]
    NetNsMissing {
        /// The path as it was given.
        path: PathBuf,
    },

    /// The path leads to something that is not a network namespace: another file, or the name of a
    /// namespace whose bind mount is gone, or a namespace of another kind.
    #[error("open network namespace {}: not a network namespace, but {found}", path.display())]
    NotANetNs {
        /// The path as it was given.
        path: PathBuf,
        /// What was found there instead, in words.
        found: &'static str,
    },

    /// The network namespace exists, but may not be opened, or the system refused for another
    /// reason.
    #[error("open network namespace {}: {}", path.display(), os_text(source))]
    NetNsOpen {
        /// The path as it was given.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// Switching to a network namespace failed; the thread is still where it was.
    #[error("enter network namespace {}: {errno}", path.display(), errno = errno.desc())]
    NetNsEnter {
        /// The path the namespace was opened by.
        path: PathBuf,
        /// The system's reason.
        errno: Errno,
    },

    /// The kernel refused a netlink request.
    #[error("{operation}: {}{}", errno.desc(), in_parentheses(detail.as_deref()))]
    Netlink {
        /// Operation and object, such as `create bridge cni0`.
        operation: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's extended acknowledgement, if it gave one.
        detail: Option<String>,
    },

    /// A system call that is neither a netlink request nor a sysctl failed.
    #[error("{operation}: {}", os_text(source))]
    System {
        /// Operation and object.
        operation: String,
        /// The system's reason.
        source: io::Error,
    },

    /// The kernel's answer to a netlink request did not come, was cut off, or could not be
    /// understood.
    #[error("{operation}: {problem}")]
    Protocol {
        /// Operation and object.
        operation: String,
        /// What was wrong with the answer.
        problem: &'static str,
    },

    /// Somebody else changed or flushed the firewall's rules during each of several attempts to change them.
    #[error("{operation}: the firewall's rules were changed or flushed each time")]
    Crossed {
        /// Operation and object.
        operation: String,
    },

    /// Objects changed during each of several attempts to list them.
    #[error("{operation}: interrupted by changes {attempts} times in a row")]
    DumpInterrupted {
        /// Operation and object.
        operation: String,
        /// How often the listing was begun.
        attempts: u32,
    },

    /// The running kernel was built without a feature, or its module can't be loaded.
    #[error("{operation}: not supported by this kernel")]
    Unsupported {
        /// Operation and object.
        operation: String,
        /// What to do about it, such as which kernel option or module is needed.
        remedy: &'static str,
    },

    /// Something did not happen in the time allowed for it.
    #[error("{operation}: still waiting after {} ms", waited.as_millis())]
    Timeout {
        /// What was waited for, and the object.
        operation: String,
        /// The bound that was exceeded.
        waited: Duration,
    },

    /// Duplicate address detection found another owner of an IPv6 address.
    #[error(
        "add address {address} to {link}: duplicate address detected, another host answers for it"
    )]
    DuplicateAddress {
        /// The address.
        address: ipnet::IpNet,
        /// The interface's name.
        link: String,
    },

    /// An interface that the operation needs does not exist.
    #[error("{operation}: no such interface")]
    LinkMissing {
        /// Operation and object.
        operation: String,
    },

    /// A name or number can't be what the kernel takes; nothing was asked of the kernel.
    #[error("{operation}: {problem}")]
    Invalid {
        /// Operation and object.
        operation: String,
        /// What is wrong with the value.
        problem: &'static str,
    },

    /// A program that is needed is not installed.
    #[error("{operation}: {program} not found")]
    ProgramMissing {
        /// What it was needed for.
        operation: String,
        /// The program's name.
        program: &'static str,
        /// Which package to install.
        remedy: &'static str,
    },

    /// A program that was run reported failure.
    #[error("{operation}: {program} failed: {complaint}")]
    ProgramFailed {
        /// What it was run for.
        operation: String,
        /// The program's name.
        program: &'static str,
        /// What it wrote to standard error.
        complaint: String,
    },

    /// A program that was run did not end in time; it was ended, with what it had started.
    #[error("{operation}: {program} was still running after {} s and was killed", waited.as_secs())]
    ProgramHung {
        /// What it was run for.
        operation: String,
        /// The program's name.
        program: &'static str,
        /// The time it had.
        waited: Duration,
    },

    /// Another process has held a lock for too long.
    #[error(
        "lock {what} ({}): {} still holds it after {} s",
        path.display(), holder.as_deref().unwrap_or("an unknown process"), waited.as_secs()
    )]
    Locked {
        /// What the lock is for.
        what: &'static str,
        /// The lock's file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// The process that holds it, if the kernel tells.
        holder: Option<String>,
    },

    /// Something that only we are to have belongs to another user.
    #[error("{operation}: it belongs to user {uid}")]
    Foreign {
        /// Operation and object.
        operation: String,
        /// The user's number.
        uid: u32,
    },

    /// A service on the system bus answered with an error.
    #[error("{operation}: {complaint}")]
    ServiceRefused {
        /// Operation and object.
        operation: String,
        /// What the service says.
        complaint: String,
    },

    /// A sysctl could not be read or written.
    #[error("{action} sysctl {name}: {}", os_text(source))]
    Sysctl {
        /// `read` or `write`.
        action: &'static str,
        /// The name in sysctl(8)'s spelling, a dot inside an interface's name written as `/`.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl HostError {
    /// The system's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Netlink { errno, .. } | Self::NetNsEnter { errno, .. } => Some(*errno),
            Self::NetNsOpen { source, .. }
            | Self::System { source, .. }
            | Self::Sysctl { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::NetNsMissing { .. } => Some(Errno::ENOENT),
            _ => None,
        }
    }

    /// Whether the object that was to be created is there already (`EEXIST`).
    pub fn already_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the object that the operation was about does not exist.
    pub fn not_found(&self) -> bool {
        matches!(self, Self::LinkMissing { .. })
            || matches!(
                self.errno(),
                Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
            )
    }

    /// Whether the running kernel lacks what the operation needs.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
            || matches!(self.errno(), Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT))
    }

    /// What a person can do about it, where that is known. One or two sentences.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Unsupported { remedy, .. } | Self::ProgramMissing { remedy, .. } => Some(remedy),
            Self::NetNsMissing { .. } => {
                Some("The container's network namespace is gone or was never made.")
            }
            Self::NotANetNs { .. } => Some(
                "Give the path of a network namespace, such as /run/netns/NAME or \
                 /proc/PID/ns/net.",
            ),
            Self::Sysctl { source, .. } => sysctl_remedy(source),
            Self::Locked { .. } => {
                Some("Try again; if that process hangs, end it: the lock goes with it.")
            }
            Self::ProgramHung { .. } => {
                Some("Try again; run the program by hand to see what it waits for.")
            }
            Self::Crossed { .. } => Some(
                "Try again later; something on this host loads or flushes the firewall all the time.",
            ),
            Self::Foreign { .. } => Some("Find out who made it, and remove it."),
            // The only use that route netlink has for this number.
            Self::Netlink {
                errno: Errno::EACCES,
                ..
            } => Some(
                "IPv6 is switched off here: set net.ipv6.conf.all.disable_ipv6 and that of the \
                 interface to 0.",
            ),
            _ => match self.errno() {
                Some(Errno::EMSGSIZE) => Some(
                    "Raise net.core.wmem_max, or run with CAP_NET_ADMIN of the host, which needs no \
                     such bound.",
                ),
                Some(Errno::EPERM | Errno::EACCES) => {
                    Some("Run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN.")
                }
                _ => None,
            },
        }
    }
}

/// What to do when a file under /proc/sys could not be used.
fn sysctl_remedy(source: &io::Error) -> Option<&'static str> {
    match source.raw_os_error().map(Errno::from_raw)? {
        Errno::EROFS => Some(
            "/proc/sys is mounted read-only here, as in an unprivileged container: run on the \
             host, or set the value there.",
        ),
        Errno::ENOENT => Some(
            "The kernel has no such setting: the interface does not exist, or the module or \
             protocol (IPv6?) is not loaded.",
        ),
        Errno::EACCES | Errno::EPERM => {
            Some("Run as root; some settings can only be changed in the host's user namespace.")
        }
        Errno::EINVAL => Some("The kernel does not accept this value for this setting."),
        _ => None,
    }
}

/// The system's text for an error, without the ` (os error N)` that the standard library appends.
fn os_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

fn in_parentheses(detail: Option<&str>) -> String {
    detail.map_or_else(String::new, |text| {
        format!(" ({})", text.trim_end_matches(['.', '\n']))
    })
}
