//! What can go wrong while addresses are managed, and what to do about it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_conf::error::Code;
use nix::errno::Errno;
use thiserror::Error;

use crate::flock::Holder;
use crate::lease_owner::LeaseOwner;
use crate::ranges::RangeError;

/// A failure of IPAM. The text says operation, object and cause; [`Error::remedy`] what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration can't be used.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Reading or writing the state failed.
    #[error("{operation} {}: {}", path.display(), cause(source))]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another process has held the lock of the network for too long.
    #[error("lock {}: {} still holds it after {} s", path.display(), Named(holder), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// The process that holds it, if the kernel tells.
        holder: Option<Holder>,
    },
    /// No address of a range set is free.
    #[error(
        "allocate an address: {used} of {total} are used in range set {set} ({ranges}) of {}",
        directory.display()
    )]
    Exhausted {
        /// Index of the range set.
        set: usize,
        /// The set's ranges.
        ranges: String,
        /// Addresses of the set that are handed out.
        used: u128,
        /// Addresses that the set can hand out.
        total: u128,
        /// Where the state is.
        directory: PathBuf,
        /// True if addresses of containers that are gone may be taken back.
        reclaim: bool,
    },
    /// A requested address is held already.
    #[error("allocate {address}: held by {}", Named(owner))]
    Taken {
        /// The address that was requested.
        address: IpAddr,
        /// Who holds it, if its file tells.
        owner: Option<LeaseOwner>,
    },
    /// The attachment holds addresses already.
    #[error(
        "allocate an address for {owner}: it already holds {}",
        List(addresses)
    )]
    Duplicate {
        /// The attachment.
        owner: LeaseOwner,
        /// What it holds.
        addresses: Vec<IpAddr>,
    },
}

impl Error {
    /// Wraps an I/O error with what was tried on which file.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Number of the error in the protocol.
    pub fn code(&self) -> Code {
        match self {
            Self::Range(_) => Code::InvalidConfig,
            Self::Io { .. } => Code::Io,
            Self::Locked { .. } => Code::TryAgainLater,
            Self::Exhausted { .. } | Self::Taken { .. } => Code::NoAddress,
            Self::Duplicate { .. } => Code::Conflict,
        }
    }

    /// Whether it may pass without anybody's doing: a lock is held, a disk is full.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Io { source, .. } => matches!(
                source.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
            ),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Range(error) => error.remedy.clone(),
            Self::Io { path, source, .. } => io_remedy(path, source),
            Self::Locked { .. } => {
                "try again; if that process hangs, end it: the lock goes with it".into()
            }
            Self::Exhausted {
                directory, reclaim, ..
            } => {
                let mut text = format!(
                    "widen the range, or release what is not in use: each file in {} is an address and names its \
                     container",
                    directory.display()
                );
                if !reclaim {
                    text.push_str("; \"reclaim\" is false, so nothing is taken back from containers that are gone");
                }
                text
            }
            Self::Taken { .. } => "request another address, or delete that container first".into(),
            Self::Duplicate { .. } => {
                "run DEL for this container and interface before a second ADD".into()
            }
        }
    }
}

fn cause(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => source.to_string(),
    }
}

fn io_remedy(path: &Path, source: &io::Error) -> String {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            format!("free space or inodes on the file system of {}", path.display())
        }
        Some(Errno::EROFS) => "dataDir must be on a file system that is mounted read-write".into(),
        Some(Errno::ENOTDIR | Errno::ELOOP | Errno::EEXIST) => {
            "dataDir and the network's directory in it must be directories, and nothing in it a symbolic link"
                .into()
        }
        Some(Errno::EXDEV) => {
            "the network's directory must be on the same file system as dataDir".into()
        }
        Some(Errno::EACCES | Errno::EPERM) => "the plugin must run as root".into(),
        _ => String::new(),
    }
}

impl From<Error> for cni_conf::error::Error {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string()).with_details(error.remedy())
    }
}

/// Something that may be unknown.
struct Named<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for Named<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(known) => known.fmt(f),
            None => f.write_str("an unknown holder"),
        }
    }
}

struct List<'a>(&'a [IpAddr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}
