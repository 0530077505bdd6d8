//! What is known of a node: its network lists, what the runtime remembers, what host-local holds and what the kernel has.
//! Everything here only reads.

pub(crate) mod cache;
pub(crate) mod calls;
pub(crate) mod checks;
pub(crate) mod directories;
pub(crate) mod kernel;
pub(crate) mod lint;
pub(crate) mod list;
mod locate;
mod network_conf;
pub(crate) mod report;
pub(crate) mod state;
pub(crate) mod survey;
pub(crate) mod svg;
pub(crate) mod topology;
pub(crate) mod trace;
