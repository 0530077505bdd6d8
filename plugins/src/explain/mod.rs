//! What is known of a node: its network lists, what the runtime remembers, what host-local holds and what the kernel has.
//! Everything here only reads.

pub(crate) mod cache;
pub(crate) mod list;
