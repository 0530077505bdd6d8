//! What is written down about a device that a container has: where it came from, and what it was like on the host.
//!
//! The Go plugin keeps the name in the interface's alias, and so do we; but whoever is root in the container can change that,
//! and addresses are lost on the way. A file for each attachment in `/run/cni/host-device` (`dataDir`) has the rest. Without one,
//! as for a device that the Go plugin moved, the alias alone counts.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cni_conf::error::{Code, Error};
use cni_conf::names::{ContainerId, IfName, NetworkName};
use cni_conf::request::{AttachmentId, Request};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::attach::settings;
use crate::host::rtnl::Mac;
use crate::host::{NetNs, regular};
use crate::owner::Owner;

/// Where the files are unless `dataDir` says something else.
const DEFAULT_DIR: &str = "/run/cni/host-device";

/// What the names of the files begin with.
const WHAT: &str = "host-device";

/// Version of the format.
const VERSION: u32 = 1;

/// A device that a container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moved {
    pub(super) version: u32,
    pub(super) network: NetworkName,
    pub(super) container: ContainerId,
    pub(super) ifname: IfName,
    /// Device and inode of the host's own namespace. Two hosts may share a directory.
    pub(super) host: (u64, u64),
    /// Path of the container's namespace, and its cookie where the kernel tells it.
    pub(super) netns: PathBuf,
    pub(super) netns_cookie: Option<u64>,
    /// The device's name on the host.
    pub(super) device: String,
    /// What kind of link it is; none for hardware.
    pub(super) kind: Option<String>,
    pub(super) mac: Option<Mac>,
    /// Whether it was up.
    pub(super) up: bool,
    /// Its MTU in bytes.
    pub(super) mtu: u32,
    /// Its addresses, but for those that the kernel gives and takes by itself.
    pub(super) addresses: Vec<IpNet>,
    /// Its index in the container, once it is there.
    pub(super) index: Option<u32>,
}

impl Moved {
    /// What is known before a device is moved.
    pub(super) fn new(owner: &Owner, netns: &NetNs, device: String) -> io::Result<Self> {
        Ok(Self {
            version: VERSION,
            network: owner.network.clone(),
            container: owner.container.clone(),
            ifname: owner.ifname.clone(),
            host: NetNs::current_id()?,
            netns: netns.path().to_owned(),
            // Before Linux 5.14 there is none.
            netns_cookie: netns.cookie().ok(),
            device,
            kind: None,
            mac: None,
            up: false,
            mtu: 0,
            addresses: Vec::new(),
            index: None,
        })
    }

    /// The owner.
    pub(super) fn owner(&self) -> Owner {
        Owner {
            network: self.network.clone(),
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// The attachment.
    pub(super) fn id(&self) -> AttachmentId {
        AttachmentId {
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

/// The files.
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn of(request: &Request) -> Result<Self, Error> {
        settings::data_dir(request, DEFAULT_DIR).map(|dir| Self { dir })
    }

    /// The same for DEL and GC, which must work when the configuration is invalid by now.
    pub(super) fn to_remove(request: &Request) -> Self {
        Self::of(request).unwrap_or_else(|_| Self {
            dir: DEFAULT_DIR.into(),
        })
    }

    pub(super) fn write(&self, moved: &Moved) -> Result<(), Error> {
        let path = self.path(&moved.owner());
        self.write_whole(&path, moved)
            .map_err(|error| failed("write", &path, &error))
    }

    /// The file appears whole or not at all. Nothing is synced to disk: after a restart every device is back on the host.
    fn write_whole(&self, path: &Path, moved: &Moved) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        regular::replace(path, &self.temporary(path), &serde_json::to_vec(moved)?)
    }

    /// Every attachment has its own, so a crash leaves at most one, which the next ADD or DEL of the attachment removes.
    fn temporary(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hash = crate::owner::fnv1a(name.as_bytes());
        self.dir.join(format!(".{hash:016x}"))
    }

    /// What is written down about an attachment.
    pub(super) fn find(&self, owner: &Owner) -> Option<Moved> {
        read(&self.path(owner))
    }

    /// All that is written down by this host.
    pub(super) fn all(&self) -> Result<Vec<Moved>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if not_found(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.dir, &error)),
        };
        let beginning = format!("{WHAT}:");
        let of_this_plugin = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&beginning)
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let own = NetNs::current_id().ok();
        let moved = paths.filter(of_this_plugin).filter_map(|path| read(&path));
        Ok(moved.filter(|moved| Some(moved.host) == own).collect())
    }

    pub(super) fn remove(&self, owner: &Owner) -> Result<(), Error> {
        let path = self.path(owner);
        for path in [self.temporary(&path), path] {
            match fs::remove_file(&path) {
                Err(error) if !not_found(&error) => return Err(failed("remove", &path, &error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.dir.join(owner.file_name(WHAT))
    }
}

fn read(path: &Path) -> Option<Moved> {
    let moved: Moved = serde_json::from_slice(&regular::read(path).ok()?).ok()?;
    (moved.version == VERSION).then_some(moved)
}

fn not_found(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(
        Code::Io,
        format!(
            "{action} what a device was like on the host, {}: {error}",
            path.display()
        ),
    )
    .with_details(
        "\"dataDir\" says where that is kept; it must be a directory that root can write to",
    )
}
