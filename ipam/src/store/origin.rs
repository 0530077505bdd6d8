//! Where an address went: under which boot of the machine, into which namespace, and whether that is still so.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cni_conf::names::NetworkName;
use serde::{Deserialize, Serialize};

use crate::lease_owner::LeaseOwner;

/// A container of which only the records know: what a [`Liveness`] is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Name of the network.
    pub network: &'a NetworkName,
    /// Who holds the addresses.
    pub owner: &'a LeaseOwner,
    /// Where they came from.
    pub origin: &'a Origin,
    /// True if that was before the last start of the machine.
    pub earlier_boot: bool,
}

/// What only a caller with access to the kernel's network interfaces can tell.
///
/// Addresses are taken back from a container only if its namespace is gone from its path (or the machine was started
/// since) *and* nothing of it stands.
pub trait Liveness: Sync {
    /// SO_NETNS_COOKIE of the namespace at a path; `None` if it can't be known.
    fn netns_cookie(&self, netns: &Path) -> Option<u64>;

    /// For each candidate, in order, whether something of its attachment still stands on this host, such as its
    /// host veth. All are asked about at once, so that one look at the kernel serves them all.
    fn alive(&self, candidates: &[Candidate<'_>]) -> Vec<bool>;
}

/// A network namespace as it was seen when an address was given to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its path, from CNI_NETNS.
    pub path: String,
    /// Device and inode number of the path. The kernel uses a number again once the namespace is gone.
    pub inode: Option<(u64, u64)>,
    /// SO_NETNS_COOKIE, which the kernel never uses again within a boot.
    pub cookie: Option<u64>,
}

impl Namespace {
    /// Looks at the namespace at `path`.
    pub fn observe(path: &Path, liveness: &dyn Liveness) -> Option<Self> {
        Some(Self {
            path: path.to_str()?.to_owned(),
            inode: inode(path),
            cookie: liveness.netns_cookie(path),
        })
    }

    /// True if the path does not lead to this namespace any more. Doubt counts as "it still does".
    pub(super) fn is_gone(&self, liveness: &dyn Liveness) -> bool {
        let path = Path::new(&self.path);
        match fs::metadata(path) {
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ),
            Ok(now) => {
                let other_inode = self
                    .inode
                    .is_some_and(|then| then != (now.dev(), now.ino()));
                other_inode
                    || self.cookie.is_some_and(|then| {
                        liveness.netns_cookie(path).is_some_and(|now| then != now)
                    })
            }
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Under which boot of the machine, and for which namespace, addresses were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// /proc/sys/kernel/random/boot_id; empty for a boot that is over and of which no more is known.
    pub boot: String,
    /// The namespace, if ADD was told one.
    pub netns: Option<Namespace>,
}

impl Origin {
    /// The origin of what was given before the power was lost, by a record that did not reach the disk.
    pub(super) fn lost() -> Self {
        Self {
            boot: String::new(),
            netns: None,
        }
    }

    /// The origin of what is given now. `None` if the kernel does not tell the boot.
    pub fn now(netns: Option<&Path>, liveness: &dyn Liveness) -> Option<Self> {
        Some(Self {
            boot: current_boot()?,
            netns: netns.and_then(|path| Namespace::observe(path, liveness)),
        })
    }

    /// True if the machine has not been started since, and the namespace is still at its path. Of an origin without a
    /// namespace nothing is known.
    pub fn is_current(&self, liveness: &dyn Liveness) -> bool {
        let there = self.netns.as_ref();
        there.is_some_and(|netns| !netns.is_gone(liveness))
            && current_boot().as_ref() == Some(&self.boot)
    }
}

/// The ID of this boot of the machine.
pub(super) fn current_boot() -> Option<String> {
    // A UUID and a newline, which procfs hands out at once.
    let mut text = [0; 64];
    let mut file = fs::File::open("/proc/sys/kernel/random/boot_id").ok()?;
    let length = file.read(&mut text).ok()?;
    let boot = std::str::from_utf8(&text[..length]).ok()?.trim();
    (!boot.is_empty()).then(|| boot.to_owned())
}
