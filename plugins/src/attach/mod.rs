//! Steps that two or more plugins share.

pub mod masquerade;
