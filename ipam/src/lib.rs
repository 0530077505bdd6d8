//! IP address management: which address an attachment gets, and where that is written down.

pub mod ranges;
