//! What plugins write down of an attachment, for when the host's firewall has forgotten it.
//!
//! Rules are found by their owner and nothing needs a record to remove them. But when somebody flushes all rules, nothing
//! in the kernel tells any more which ports or addresses the containers had that live on, and a plugin is told of its own
//! attachment only. So ADD writes down what it was called with, one file for each attachment, and an ADD that has to
//! make shared rules anew does again what the records of living containers say. Nobody else reads them; DEL and GC
//! remove them.
//!
//! An attachment lives if its record is there, this is still the same boot and the same namespace of the host, and the
//! container's namespace is still the one at its path. DEL removes the record *before* the rules. So whoever restores
//! rules and then looks for the record again either finds that it is gone, and takes the rules out, or was early enough
//! for DEL to find them.
//!
//! A record appears whole or not at all, and one that is written again stays until the new one takes its place: a
//! temporary file, then rename. Nothing is synced to disk: rules don't outlive a boot either.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use cni_conf::diagnostics::warn;
use cni_conf::error::{Code, Error};
use cni_conf::names::{ContainerId, IfName, NetworkName, PluginName};
use cni_conf::request::{Attachment, AttachmentId, CniArgs, Request};
use cni_conf::result::CniResult;
use cni_conf::version::SpecVersion;
use ipam::store::{Candidate, Liveness, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::liveness::KernelLiveness;
use super::settings;
use super::siblings::Siblings;
use crate::host::{NetNs, regular};
use crate::owner::Owner;

/// Version of the format.
const VERSION: u32 = 1;

/// Where the plugins' directories are unless `dataDir` says something else.
const DEFAULT_DIR: &str = "/run/cni";

/// The plugins that ask for the attachments of one container. For them it is kept which they are.
const BY_CONTAINER: [&str; 1] = ["portmap"];

/// The records of one plugin.
#[derive(Debug, Clone)]
pub struct Records {
    /// What the names of its files begin with: plugins may be told to share a directory.
    plugin: &'static str,
    dir: PathBuf,
}

/// An attachment as ADD was called for it.
#[derive(Debug)]
pub struct Recorded {
    /// The call, with the result of the plugins before.
    pub request: Request,
    /// Whose it is. `CNI_ARGS` are not recorded.
    pub attachment: Attachment,
    origin: Origin,
}

impl Recorded {
    /// The owner.
    pub fn owner(&self) -> Owner {
        Owner::of(&self.request, &self.attachment)
    }

    /// Whether the machine has not been started since and the namespace is still at its path.
    pub fn is_living(&self) -> bool {
        self.origin.is_current(&KernelLiveness)
    }

    /// Whether its namespace is no longer at the path that ADD was told. Something of it may stand yet.
    pub fn has_lost_netns(&self) -> bool {
        self.origin.netns.is_some() && !self.is_living()
    }

    /// Whether the container is known to be gone: by the evidence that host-local takes addresses back on.
    pub fn is_gone(&self) -> bool {
        let Some(now) = Origin::now(None, &KernelLiveness) else {
            return false;
        };
        let earlier_boot = now.boot != self.origin.boot;
        if !earlier_boot && (self.origin.netns.is_none() || self.is_living()) {
            return false;
        }
        let owner = self.owner();
        let candidate = Candidate {
            network: &owner.network,
            owner: &ipam::store::LeaseOwner::from(&self.attachment.id()),
            origin: &self.origin,
            earlier_boot,
        };
        KernelLiveness.alive(&[candidate]) == [false]
    }
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    network: NetworkName,
    container: ContainerId,
    ifname: IfName,
    /// Device and inode of the host's own namespace. Two hosts may share a directory.
    host: (u64, u64),
    origin: Origin,
    cni_version: String,
    plugin: PluginName,
    conf: Value,
    result: Option<Value>,
}

impl Records {
    /// Those of a plugin in the directory that `dataDir` names, or in `/run/cni/PLUGIN`.
    ///
    /// # Errors
    /// Where `dataDir` is no absolute path.
    pub fn of(request: &Request, plugin: &'static str) -> Result<Self, Error> {
        let default = format!("{DEFAULT_DIR}/{plugin}");
        settings::data_dir(request, &default).map(|dir| Self { plugin, dir })
    }

    /// The same for DEL and GC, which must work when the configuration is invalid by now.
    pub fn to_remove(request: &Request, plugin: &'static str) -> Self {
        Self::of(request, plugin).unwrap_or_else(|_| Self {
            plugin,
            dir: Path::new(DEFAULT_DIR).join(plugin),
        })
    }

    /// Writes down what ADD was called with. Where that fails ADD can do without it, so it is a warning. Says whether it
    /// is written.
    pub fn write(&self, request: &Request, attachment: &Attachment) -> bool {
        let owner = Owner::of(request, attachment);
        let path = self.path(&owner);
        let written = content(request, attachment).and_then(|content| self.save(&path, &content));
        let former = self.paths_of(&owner).into_iter().skip(1);
        former.for_each(|former| drop(remove(&former)));
        let written = written.and_then(|()| match self.siblings() {
            Some(siblings) => siblings.add(&owner.container, &path),
            None => Ok(()),
        });
        if let Err(error) = written {
            warn(format_args!(
                "write {}: {error}; if the firewall is flushed, the rules of container {} come back only when it is \
                 attached again",
                path.display(),
                attachment.container
            ));
            return false;
        }
        true
    }

    /// Whether an attachment is recorded.
    pub fn holds(&self, owner: &Owner) -> bool {
        self.paths_of(owner).iter().any(|path| path.exists())
    }

    /// Whether any attachment to the network is recorded for this host. Where the directory can't be read there may be
    /// some.
    pub fn hold_any(&self, network: &NetworkName) -> bool {
        let here = NetNs::current_id().ok();
        // A name that was cut may not tell its network, and what it is of is inside.
        let may_be = |path: &PathBuf| {
            let name = name_of(path);
            Owner::file_is_of(network, self.plugin, &name) || name.contains('#')
        };
        // No further than to the first.
        self.paths().map_or(true, |paths| {
            let mut paths = paths.filter(may_be);
            paths.any(|path| {
                read(&path).is_some_and(|wire| wire.network == *network && Some(wire.host) == here)
            })
        })
    }

    /// Removes the record of an attachment, if there is one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, owner: &Owner) -> Result<(), Error> {
        for path in self.paths_of(owner) {
            remove(&path)?;
            remove(&temporary(&path))?;
            if let Some(siblings) = self.siblings() {
                siblings.remove(&owner.container, &path);
            }
        }
        Ok(())
    }

    /// Removes the records of the network's attachments that are not in `valid`. Carries on after an error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn collect(&self, network: &NetworkName, valid: &[AttachmentId]) -> Result<(), Error> {
        let keep: BTreeSet<PathBuf> = valid
            .iter()
            .flat_map(|id| self.paths_of(&Owner::new(network, id)))
            .collect();
        let belongs = |path: &Path| {
            Owner::file_is_of(network, self.plugin, &name_of(path))
                || read(path).is_some_and(|wire| wire.network == *network)
        };
        let paths: Vec<_> = self.paths()?.collect();
        let errors = paths
            .into_iter()
            .filter(|path| !keep.contains(path) && belongs(path))
            .filter_map(|path| remove(&path).err());
        let left = self.temporaries(network);
        let errors = errors.chain(left.iter().filter_map(|path| remove(path).err()));
        let outcome = Error::join(errors).map_or(Ok(()), Err);
        if let Some(siblings) = self.siblings() {
            siblings.collect();
        }
        outcome
    }

    /// The living attachments that are recorded, of all networks, save for one. Those that came first come first.
    pub fn living(&self, except: &Owner) -> Vec<Recorded> {
        let mut all = self.all();
        all.retain(|recorded| recorded.owner() != *except && recorded.is_living());
        all
    }

    /// All attachments that are recorded, of all networks, whether they live or not. Those that came first come first.
    pub fn all(&self) -> Vec<Recorded> {
        self.load(|_| true)
    }

    /// Those of one container.
    pub fn of_container(&self, container: &ContainerId) -> Vec<Recorded> {
        let mut found = match self.siblings().and_then(|it| it.find(container)) {
            Some(paths) => load(paths),
            // Names that are cut don't tell.
            None => self.load(|name| {
                name.split(':').nth(2) == Some(container.as_str()) || name.contains('#')
            }),
        };
        found.retain(|recorded| recorded.attachment.container == *container);
        found
    }

    /// What was written down of an attachment.
    pub fn find(&self, owner: &Owner) -> Option<Recorded> {
        let mut paths = self.paths_of(owner).into_iter();
        paths.find_map(|path| read(&path).and_then(recorded))
    }

    /// The attachments in the files whose names `counts` says so of.
    fn load(&self, counts: impl Fn(&str) -> bool) -> Vec<Recorded> {
        let paths = self.paths().map_err(warn).into_iter().flatten();
        load(paths.filter(|path| counts(&name_of(path))))
    }

    /// Whether there are any, which takes one look at the directory.
    pub fn exist(&self) -> bool {
        self.paths().is_ok_and(|mut paths| paths.next().is_some())
    }

    /// Whether an attachment lives still.
    pub fn has(&self, recorded: &Recorded) -> bool {
        let mut paths = self.paths_of(&recorded.owner()).into_iter();
        paths.any(|path| path.exists()) && recorded.is_living()
    }

    /// The records' files, in the order of the directory. What nobody asks for is not read.
    fn paths(&self) -> Result<impl Iterator<Item = PathBuf> + use<>, Error> {
        let beginning = format!("{}:", self.plugin);
        let paths = self.each_file()?;
        Ok(paths.filter(move |path| name_of(path).starts_with(&beginning)))
    }

    /// Temporary files of ADDs to the network that were killed. One that is being written now is not lost on anybody: its ADD
    /// says so.
    fn temporaries(&self, network: &NetworkName) -> Vec<PathBuf> {
        let is_left = |path: &PathBuf| {
            let name = name_of(path);
            let record = name.strip_prefix('.');
            record.is_some_and(|record| Owner::file_is_of(network, self.plugin, record))
        };
        let files = self.each_file().into_iter().flatten();
        files.filter(is_left).collect()
    }

    fn each_file(&self) -> Result<impl Iterator<Item = PathBuf> + use<>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => Some(entries),
            Err(error) if not_found(&error) => None,
            Err(error) => return Err(failed("list", &self.dir, &error)),
        };
        Ok(entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()))
    }

    fn siblings(&self) -> Option<Siblings> {
        let kept = BY_CONTAINER.contains(&self.plugin);
        kept.then(|| Siblings::of(self.plugin, &self.dir))
    }

    fn save(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut dir = DirBuilder::new();
        dir.recursive(true).mode(0o700).create(&self.dir)?;
        if let Some(siblings) = self.siblings() {
            siblings.prepare(|| !self.exist())?;
        }
        regular::replace(path, &temporary(path), content)
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.dir.join(owner.file_name(self.plugin))
    }

    /// The path, and the one that former versions had for it where that differs.
    fn paths_of(&self, owner: &Owner) -> Vec<PathBuf> {
        let (path, former) = (self.path(owner), owner.former_file_name(self.plugin));
        let former = Some(self.dir.join(former)).filter(|former| *former != path);
        [path].into_iter().chain(former).collect()
    }
}

fn content(request: &Request, attachment: &Attachment) -> io::Result<Vec<u8>> {
    let origin = Origin::now(attachment.netns.as_deref(), &KernelLiveness)
        .ok_or_else(|| io::Error::other("the kernel does not tell its boot ID"))?;
    let mut conf = request.conf.clone();
    if let Some(conf) = conf.as_object_mut() {
        // It is recorded as it was understood.
        conf.retain(|key, _| !key.eq_ignore_ascii_case("prevResult"));
    }
    let result = request.prev_result.as_ref();
    let wire = Wire {
        version: VERSION,
        network: request.network.clone(),
        container: attachment.container.clone(),
        ifname: attachment.ifname.clone(),
        host: NetNs::current_id()?,
        origin,
        cni_version: request.version.to_string(),
        plugin: request.plugin.clone(),
        conf,
        result: result.map(|result| result.to_value(SpecVersion::LATEST)),
    };
    Ok(serde_json::to_vec(&wire)?)
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// What is written before it takes the place of the record. Every attachment has its own, so a crash leaves at most one,
/// which the next ADD or DEL of the attachment removes.
fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", name_of(path)))
}

/// The attachments in these files. Those that came first come first.
fn load(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Recorded> {
    let found = paths.into_iter().filter_map(|path| {
        let written = fs::metadata(&path).ok()?;
        let recorded = read(&path).and_then(recorded)?;
        Some(((written.mtime(), written.mtime_nsec()), recorded))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(age, _)| *age);
    found.into_iter().map(|(_, recorded)| recorded).collect()
}

fn read(path: &Path) -> Option<Wire> {
    let wire: Wire = serde_json::from_slice(&regular::read(path).ok()?).ok()?;
    (wire.version == VERSION).then_some(wire)
}

/// The attachment, if it is one of this host's.
fn recorded(wire: Wire) -> Option<Recorded> {
    if NetNs::current_id().ok() != Some(wire.host) {
        return None;
    }
    let result = wire.result.as_ref();
    let result = result.map(|result| CniResult::from_json(result, SpecVersion::LATEST));
    let request = Request {
        version: wire.cni_version.parse().ok()?,
        network: wire.network,
        plugin: wire.plugin,
        conf: wire.conf,
        cni_path: Vec::new(),
        prev_result: result.transpose().ok()?,
    };
    let attachment = Attachment {
        container: wire.container,
        ifname: wire.ifname,
        netns: wire.origin.netns.as_ref().map(|it| it.path.clone().into()),
        args: CniArgs::default(),
        netns_override: false,
    };
    Some(Recorded {
        request,
        attachment,
        origin: wire.origin,
    })
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if !not_found(&error) => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

fn not_found(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(
        Code::Io,
        format!("{action} what ADD wrote down {}: {error}", path.display()),
    )
    .with_details(
        "\"dataDir\" says where that is kept; it must be a directory that root can write to",
    )
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
