//! What interfaces were like before they were tuned, in files.
//!
//! One file per attachment, `<containerID>_<ifname>.json` in `dataDir`, as the Go plugin has it: either implementation
//! can restore what the other saved. Only a name that no file can have, which the Go plugin refuses, is hashed. Three keys are added that the Go plugin ignores: the network, by which GC knows
//! what is this network's to remove, and the namespace's cookie and the interface's index, by which a file that a
//! missed DEL left behind is told from the file of an earlier tuning plugin of the same list. A file without a network
//! was saved by the Go plugin; nobody can say whose it is, so GC leaves it to DEL.
//!
//! Files appear whole or not at all: a temporary file, fsync, rename.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_conf::error::{Code, Error};
use cni_conf::names::NetworkName;
use cni_conf::request::{Attachment, AttachmentId, Request};

use super::attributes::Attributes;
use super::saved::Saved;
use crate::attach::chained;
use crate::attach::container::Container;
use crate::host::regular;
use crate::owner::{fnv1a, saved_file_name};

/// The files of one network in a directory that networks share.
pub(super) struct Store<'a> {
    dir: PathBuf,
    network: &'a NetworkName,
}

impl<'a> Store<'a> {
    pub(super) fn new(dir: PathBuf, request: &'a Request) -> Self {
        Self {
            dir,
            network: &request.network,
        }
    }

    /// What is saved for an attachment. A file that a crash cut short counts as none.
    pub(super) fn read(&self, id: &AttachmentId) -> Result<Option<Saved>, Error> {
        let path = self.path(id);
        match regular::read(&path) {
            Ok(content) => Ok(Saved::parse(&content)),
            Err(error) if not_found(&error) => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    pub(super) fn write(&self, id: &AttachmentId, saved: &Saved) -> Result<(), Error> {
        let path = self.path(id);
        self.write_whole(&path, &self.temporary(id), saved)
            .map_err(|error| failed("save", &path, &error))
    }

    fn write_whole(&self, path: &Path, temporary: &Path, saved: &Saved) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        // One of an ADD that died. What else may be there is not written to, as it would be through a link.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        file.write_all(&serde_json::to_vec_pretty(saved)?)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes the file of an attachment, if there is one.
    pub(super) fn remove(&self, id: &AttachmentId) -> Result<(), Error> {
        for path in [self.temporary(id), self.path(id)] {
            remove(&path)?;
        }
        Ok(())
    }

    /// Gives the interface of an attachment back what was saved, if it is still the one that it was saved of, and
    /// removes the file.
    ///
    /// A value that can't be restored is reported, but not tried again: the runtime's next DEL has to get through to
    /// the plugins that stand before this one.
    pub(super) fn restore(&self, attachment: &Attachment) -> Result<(), Error> {
        let id = attachment.id();
        let Some(saved) = self.read(&id)? else {
            return self.remove(&id);
        };
        let restored = self.restore_interface(attachment, &saved);
        let removed = self.remove(&id);
        Error::join([restored, removed].into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
    }

    fn restore_interface(&self, attachment: &Attachment, saved: &Saved) -> Result<(), Error> {
        let Some(container) = Container::open_if_there(attachment)? else {
            return Ok(());
        };
        let Some(link) = chained::find_link(&container, &attachment.ifname)? else {
            return Ok(());
        };
        let now = Saved::new(
            self.network,
            &container,
            &link,
            &Attributes::default(),
            None,
        );
        if saved.is_of(&now) == Some(false) {
            return Ok(());
        }
        match saved.attributes().apply(&container.rtnl, link.index) {
            // Gone meanwhile.
            Err(_) if chained::find_link(&container, &attachment.ifname)?.is_none() => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes the files of this network's attachments that are not in `valid`. Carries on after an error.
    pub(super) fn collect(&self, valid: &[AttachmentId]) -> Result<(), Error> {
        let keep: Vec<PathBuf> = valid
            .iter()
            .flat_map(|id| [self.path(id), self.temporary(id)])
            .collect();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if not_found(&error) => return Ok(()),
            Err(error) => return Err(failed("list", &self.dir, &error)),
        };
        let errors = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| !keep.contains(path) && self.owns(path))
            .filter_map(|path| remove(&path).err());
        Error::join(errors).map_or(Ok(()), Err)
    }

    fn owns(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&self.temporary_prefix()) {
            return true;
        }
        let saved = match regular::read(path) {
            Ok(content) if name.ends_with(".json") => Saved::parse(&content),
            _ => None,
        };
        saved.is_some_and(|saved| saved.network == self.network.as_str())
    }

    fn path(&self, id: &AttachmentId) -> PathBuf {
        self.dir.join(saved_file_name(id))
    }

    /// Every attachment has its own, so a crash leaves at most one, which the next ADD overwrites.
    fn temporary(&self, id: &AttachmentId) -> PathBuf {
        let attachment = fnv1a(saved_file_name(id).as_bytes());
        self.dir
            .join(format!("{}{attachment:016x}", self.temporary_prefix()))
    }

    fn temporary_prefix(&self) -> String {
        format!(".trestle-{:016x}-", fnv1a(self.network.as_str().as_bytes()))
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if !not_found(&error) => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// A name that is too long for a file is one that no file has.
fn not_found(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(
        Code::Io,
        format!(
            "{action} the interface's former settings {}: {error}",
            path.display()
        ),
    )
    .with_details(
        "\"dataDir\" says where they are kept; it must be a directory that root can write to",
    )
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::json;

    use super::*;

    fn request(network: &str) -> Request {
        Request {
            version: SpecVersion::LATEST,
            network: network.try_into().unwrap(),
            plugin: "tuning".try_into().unwrap(),
            conf: json!({}),
            cni_path: Vec::new(),
            prev_result: None,
        }
    }

    fn id(container: &str) -> AttachmentId {
        AttachmentId {
            container: container.try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        }
    }

    fn saved(network: &str) -> Saved {
        Saved {
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            promisc: Some(false),
            network: network.into(),
            ..Saved::default()
        }
    }

    #[test]
    fn a_file_has_the_go_plugins_name_and_keys() {
        let dir = tempfile::tempdir().unwrap();
        let request = request("net");
        let store = Store::new(dir.path().join("a/b"), &request);
        let full = Saved {
            allmulti: Some(true),
            tx_q_len: Some(1000),
            ..saved("net")
        };
        store.write(&id("c1"), &full).unwrap();
        let content = fs::read(dir.path().join("a/b/c1_eth0.json")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(
            value,
            json!({
                "mac": "02:00:00:00:00:01", "promisc": false, "mtu": 1500, "allmulti": true, "txQLen": 1000,
                "network": "net",
            })
        );
        assert_eq!(store.read(&id("c1")).unwrap(), Some(full));
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_the_go_plugin_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let request = request("net");
        let store = Store::new(dir.path().into(), &request);
        let text = "{\n \"mac\": \"c2:b0:57:49:47:f1\",\n \"promisc\": false,\n \"mtu\": 1454\n}";
        fs::write(dir.path().join("c1_eth0.json"), text).unwrap();
        let attributes = store.read(&id("c1")).unwrap().unwrap().attributes();
        assert_eq!(
            (attributes.mtu, attributes.promisc, attributes.allmulti),
            (Some(1454), Some(false), None)
        );
        assert_eq!(attributes.mac.unwrap().to_string(), "c2:b0:57:49:47:f1");
    }

    #[test]
    fn debris_of_a_crash_is_no_saved_value() {
        let dir = tempfile::tempdir().unwrap();
        let request = request("net");
        let store = Store::new(dir.path().into(), &request);
        for text in ["", "{\"mtu\": 15", "[]", "{\"mtu\": \"x\"}"] {
            fs::write(dir.path().join("c1_eth0.json"), text).unwrap();
            assert_eq!(store.read(&id("c1")).unwrap(), None, "{text:?}");
        }
        assert_eq!(store.read(&id(&"x".repeat(240))).unwrap(), None);
    }

    #[test]
    fn the_longest_container_ids_have_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let request = request("net");
        let store = Store::new(dir.path().into(), &request);
        let ids = ["x", "y"].map(|last| AttachmentId {
            container: format!("{}{last}", "c".repeat(239)).try_into().unwrap(),
            ifname: "fifteen-bytes-x".try_into().unwrap(),
        });
        for (id, mtu) in ids.iter().zip([1400, 1300]) {
            store
                .write(
                    id,
                    &Saved {
                        mtu,
                        ..saved("net")
                    },
                )
                .unwrap();
        }
        for (id, mtu) in ids.iter().zip([1400, 1300]) {
            assert_eq!(store.read(id).unwrap().unwrap().mtu, mtu);
        }
        store.collect(&ids[..1]).unwrap();
        assert!(store.read(&ids[0]).unwrap().is_some() && store.read(&ids[1]).unwrap().is_none());
        store.remove(&ids[0]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn gc_removes_what_is_this_networks_and_not_valid() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (request("one"), request("two"));
        let (store, other) = (
            Store::new(dir.path().into(), &one),
            Store::new(dir.path().into(), &two),
        );
        for container in ["live", "dead"] {
            store.write(&id(container), &saved("one")).unwrap();
        }
        other.write(&id("others"), &saved("two")).unwrap();
        other.write(&id("references"), &saved("")).unwrap();
        fs::write(store.temporary(&id("crashed")), "{").unwrap();
        fs::write(other.temporary(&id("crashed")), "{").unwrap();
        store.collect(&[id("live")]).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        let mut expected = vec![
            other.temporary(&id("crashed")),
            store.path(&id("live")),
            store.path(&id("others")),
            store.path(&id("references")),
        ];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_link_in_the_place_of_a_temporary_file_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let request = request("one");
        let store = Store::new(dir.path().join("data"), &request);
        let precious = dir.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        store.write(&id("c"), &saved("one")).unwrap();
        std::os::unix::fs::symlink(&precious, store.temporary(&id("c"))).unwrap();
        store.write(&id("c"), &saved("one")).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(store.read(&id("c")).unwrap().is_some());
    }

    #[test]
    fn gc_without_a_directory_has_nothing_to_do() {
        let request = request("net");
        Store::new("/nonexistent/x".into(), &request)
            .collect(&[])
            .unwrap();
    }
}
