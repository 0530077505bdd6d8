//! What plugins write down: directories for it, which go when the test program ends, and paths that it tells of.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::node::Node;

static DIR: OnceLock<PathBuf> = OnceLock::new();

/// To be called once; the directories go with what it returns.
pub(crate) fn make() -> TempDir {
    let dir = tempfile::tempdir().expect("make a directory");
    DIR.set(dir.path().to_owned()).expect("the first call");
    dir
}

/// A directory that all tests of this program share, as the default for `dataDir` is shared on a host.
pub(crate) fn shared() -> String {
    path("shared")
}

/// A directory that nobody else has.
pub(crate) fn own() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    path(&COUNT.fetch_add(1, Ordering::Relaxed).to_string())
}

fn path(name: &str) -> String {
    let dir = DIR.get().expect("make() was called").join(name);
    dir.to_str().expect("a path in UTF-8").to_owned()
}

/// The path of a node's namespace, as a runtime would tell it. It is gone with the node.
pub(crate) fn netns(node: &Node) -> PathBuf {
    format!("/proc/{}/ns/net", node.netns()).into()
}

/// The names of the files in a directory.
pub(crate) fn files(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
