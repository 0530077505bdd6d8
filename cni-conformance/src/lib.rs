//! The protocol between container runtimes and CNI plugins, as checks that can be put to any plugin.
//!
//! A plugin is executed the way `libcni` does it, with the verb and the attachment in the environment and the network
//! configuration on standard input, and judged by what it answers and by the interfaces that come and go. Nothing is known
//! of how it is made: the checks are as good for a program in Go or a shell script as for one in Rust.
//!
//! In a test of a plugin of your own:
//!
//! ```no_run
//! use cni_conformance::Subject;
//! use serde_json::json;
//!
//! let report = Subject::new("target/debug/label")
//!     .conf(json!({"text": "web server"}))
//!     .chained()
//!     .check();
//! assert!(report.passed(), "{report}");
//! ```
//!
//! Or for all plugins of a directory, of which the names of the Go plugin's plugins bring configurations along:
//!
//! ```no_run
//! let report = cni_conformance::check_directory("/opt/cni/bin".as_ref())?;
//! print!("{report}");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! As root every check happens on a throw-away host: a network and a mount namespace of its own, in which `/run` and
//! `/var/lib` are empty. Nothing is changed on the machine. Without root the checks that change a namespace are skipped, and say so.

mod answer;
mod call;
mod checks;
mod known;
mod report;
mod shape;
mod stage;
mod subject;

pub use checks::{CheckInfo, checks};
pub use report::{Finding, Outcome, PluginReport, Report};
pub use subject::{Subject, plugins_of};

use std::io;
use std::path::Path;

/// Put all checks to every plugin of a directory. A plugin with a name of the Go plugin's is called with a configuration that suits it;
/// of others only what needs none is checked (see [`Subject::conf`]).
///
/// # Errors
/// When the directory can't be read or has no plugin in it.
pub fn check_directory(directory: &Path) -> io::Result<Report> {
    let subjects = plugins_of(directory)?;
    Ok(Report {
        plugins: subjects.iter().map(Subject::check_one).collect(),
    })
}

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
