//! The node's list: a template that is filled in, and a file that a runtime reads at any moment.

mod fill;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

pub(crate) use fill::Values;

/// What stands for a template where none is given.
const DEFAULT: &str = include_str!("default.conflist");

/// How a file is called while it is written: beside its place, with an ending that no runtime reads.
const TEMPORARY: &str = ".trestle-node.tmp";

/// Why a list can't be written.
#[derive(Debug, Error)]
pub(crate) enum ListError {
    #[error("{operation} {}: {source}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("read the template: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the template is no list: {0}")]
    NoList(&'static str),
    #[error("fill in the template: {0}")]
    Fill(#[from] fill::FillError),
}

/// Whether a file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It has this content already.
    Same,
    /// For the first time.
    New,
    /// In place of one with other content.
    Changed,
}

/// The list that a template makes of these values.
pub(crate) fn make(template: Option<&Path>, values: &Values) -> Result<String, ListError> {
    let text = match template {
        Some(path) => fs::read_to_string(path).map_err(file("read", path))?,
        None => DEFAULT.to_owned(),
    };
    let template: Value = serde_json::from_str(&text)?;
    let list = fill::fill(&template, values)?;
    check(&list).map_err(ListError::NoList)?;
    let mut text = serde_json::to_string_pretty(&list)?;
    text.push('\n');
    Ok(text)
}

/// What a runtime needs of a list to find it.
fn check(list: &Value) -> Result<(), &'static str> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !is_text(&list["name"]) || !is_text(&list["cniVersion"]) {
        return Err("it needs texts \"name\" and \"cniVersion\"");
    }
    let plugins = list["plugins"].as_array();
    let typed =
        plugins.is_some_and(|all| !all.is_empty() && all.iter().all(|it| is_text(&it["type"])));
    match typed {
        true => Ok(()),
        false => Err("it needs \"plugins\", each with a \"type\""),
    }
}

/// Puts a list into its place, if something else or nothing is there. It is there as a whole or not at all, whoever is killed
/// meanwhile.
pub(crate) fn write(path: &Path, text: &str) -> Result<Written, ListError> {
    let before = match fs::read(path) {
        Ok(found) if found == text.as_bytes() => return Ok(Written::Same),
        Ok(_) => Written::Changed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Written::New,
        Err(error) => return Err(file("read", path)(error)),
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(file("create directory", dir))?;
    let temporary = temporary(path);
    // One that a killed agent left.
    let _ = fs::remove_file(&temporary);
    let written = put(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(file("write", path))?;
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(file("sync directory", dir))?;
    Ok(before)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut made = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    made.write_all(text.as_bytes())?;
    // The umask must not decide whether a runtime can read it.
    made.set_permissions(Permissions::from_mode(0o644))?;
    made.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListError + use<> {
    let path = path.to_owned();
    move |source| ListError::File {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let nets = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect();
        Values {
            pods: nets(&["10.244.1.0/24", "fd00:244:1::/64"]),
            cluster: nets(&["10.244.0.0/16", "fd00:244::/48"]),
            nodes: nets(&["192.168.0.0/24"]),
            mtu: Some(1450),
        }
    }

    #[test]
    fn the_default_is_a_list_of_this_node() {
        let list: Value = serde_json::from_str(&make(None, &values()).unwrap()).unwrap();
        let bridge = &list["plugins"][0];
        assert_eq!(
            bridge["ipam"]["ranges"],
            serde_json::json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:1::/64"}]])
        );
        assert_eq!(bridge["mtu"], 1450);
        assert_eq!(
            bridge["nonMasqueradeCIDRs"],
            serde_json::json!(["10.244.0.0/16", "fd00:244::/48"])
        );
        let ingress = serde_json::json!(["10.244.0.0/16", "fd00:244::/48", "192.168.0.0/24"]);
        assert_eq!(list["plugins"][2]["ingressCIDRs"], ingress);
    }

    #[test]
    fn what_is_no_list_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"name": "n", "cniVersion": "1.0.0", "plugins": []}"#,
            r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [{"bridge": "cni0"}]}"#,
            r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "x", "y": "{{nonsense}}"}]}"#,
        ] {
            let path = dir.path().join("template");
            fs::write(&path, text).unwrap();
            assert!(make(Some(&path), &values()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_is_written_when_it_differs_and_a_half_one_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.d/10-trestle.conflist");
        assert_eq!(write(&path, "one").unwrap(), Written::New);
        assert_eq!(write(&path, "one").unwrap(), Written::Same);
        // A link that somebody put where the temporary file goes is not followed.
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, temporary(&path)).unwrap();
        assert_eq!(write(&path, "two").unwrap(), Written::Changed);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1);
    }
}
