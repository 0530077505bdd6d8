//! What plugins write down: directories for it, which go when the test program ends, and paths that it tells of.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use testbed::Node;

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

/// The names of the files in a directory, and the paths of what is kept in directories of it about files that are gone.
pub(crate) fn files(dir: &str) -> Vec<String> {
    let dir = Path::new(dir);
    let (dirs, files): (Vec<_>, Vec<_>) = list(dir).into_iter().partition(|path| path.is_dir());
    let names = files.iter().filter_map(|path| path.file_name());
    let mut names: Vec<String> = names.map(|it| it.to_string_lossy().into_owned()).collect();
    let of_each = dirs.iter().flat_map(|dir| list(dir));
    let kept = of_each.flat_map(|of_one| match list(&of_one) {
        entries if entries.is_empty() => vec![of_one],
        entries => entries,
    });
    let gone = |path: &PathBuf| !path.file_name().is_some_and(|name| dir.join(name).exists());
    names.extend(kept.filter(gone).map(|path| path.display().to_string()));
    names.sort();
    names
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
