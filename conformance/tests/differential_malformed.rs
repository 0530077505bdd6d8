//! x
pub(crate) fn cases() -> Vec<conformance::Case> { vec![] }
