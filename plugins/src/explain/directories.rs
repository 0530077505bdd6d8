//! Where to look.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directories of a node.
#[derive(Debug, Clone)]
pub(crate) struct Directories {
    /// Where the runtime reads network lists.
    pub(crate) conf_dir: PathBuf,
    /// Where plugins are.
    pub(crate) bin_dir: PathBuf,
    /// Where the runtime's CNI library keeps its cache; the results are in `results` below it.
    pub(crate) cache_dir: PathBuf,
    /// The only network to look at.
    pub(crate) network: Option<String>,
}

impl Directories {
    /// Whether a network is to be looked at.
    pub(crate) fn selects(&self, network: &str) -> bool {
        self.network.as_deref().is_none_or(|only| only == network)
    }
}

/// Where plugins delegate to unless told otherwise: the directory that this binary was installed in.
///
/// # Errors
/// Where /proc does not tell.
pub(crate) fn own_bin_dir() -> io::Result<PathBuf> {
    let path = fs::read_link("/proc/self/exe")?;
    Ok(path.parent().unwrap_or(Path::new("/")).to_owned())
}
