//! Why a request had no result.

use std::io;

use nix::errno::Errno;

use super::transport::DUMP_ATTEMPTS;
use crate::host::HostError;

/// Why a request had no result.
#[derive(Debug)]
pub(crate) enum NetlinkError {
    /// The kernel said no.
    Refused(Refusal),
    /// A listing was interrupted by changes each time it was begun.
    Interrupted,
    /// No reply came.
    Unanswered,
    /// The reply can't be understood.
    Malformed,
    /// The socket refused to send or to receive.
    Io(io::Error),
}

/// The kernel's no.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The error number.
    pub(crate) errno: Errno,
    /// The kernel's words on it (extended acknowledgement).
    pub(crate) detail: Option<String>,
    /// Which of the requests was refused, counted from 0.
    pub(crate) position: usize,
    /// Where in the request, counted from its header, the attribute is that was refused, if the kernel tells.
    pub(crate) offset: Option<u32>,
}

impl NetlinkError {
    /// The kernel's error number, if it gave one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }

    /// Which of several requests was refused; the first where it isn't known.
    pub(crate) fn position(&self) -> usize {
        match self {
            Self::Refused(refusal) => refusal.position,
            _ => 0,
        }
    }

    /// Whether the kernel does not know the kind of link at all (net/core/rtnetlink.c).
    pub(crate) fn is_unknown_kind(&self) -> bool {
        matches!(self, Self::Refused(Refusal { detail: Some(text), .. }) if text == "Unknown device type")
    }

    /// The error to report, given what was being done.
    pub(crate) fn during(self, operation: impl Into<String>) -> HostError {
        let operation = operation.into();
        match self {
            Self::Refused(Refusal { errno, detail, .. }) => HostError::Netlink {
                operation,
                errno,
                detail,
            },
            Self::Interrupted => HostError::DumpInterrupted {
                operation,
                attempts: DUMP_ATTEMPTS,
            },
            Self::Unanswered => HostError::Protocol {
                operation,
                problem: "the kernel did not answer",
            },
            Self::Malformed => HostError::Protocol {
                operation,
                problem: "the kernel's answer can't be understood",
            },
            Self::Io(source) => HostError::System { operation, source },
        }
    }

    /// As [`NetlinkError::during`], with what to do about it if the kernel lacks the feature.
    pub(crate) fn during_or_unsupported(
        self,
        operation: impl Into<String>,
        remedy: &'static str,
    ) -> HostError {
        match self.errno() {
            Some(Errno::EOPNOTSUPP) => HostError::Unsupported {
                operation: operation.into(),
                remedy,
            },
            _ => self.during(operation),
        }
    }
}
