//! The CNI plugins of trestle and the kernel side they stand on.

pub mod host;
