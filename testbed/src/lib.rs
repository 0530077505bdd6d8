//! What the tests of several crates stand on: the list of tests with the reasons why one can't run, hosts in network
//! namespaces of their own, and mounts that the machine doesn't see.
//!
//! It knows no CNI and none of this workspace's crates, so that black box tests may use it too.

mod mounts;
mod node;
mod suite;

pub use mounts::{cover_run, detach_below};
pub use node::Node;
pub use suite::{Case, missing_program, panic_text, run, trial};
