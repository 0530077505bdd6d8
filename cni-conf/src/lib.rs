//! The CNI contract: names, configuration, results, errors, requests and dispatch.
//!
//! This crate is pure data and control flow. It knows the CNI specification (versions 0.1.0 to 1.1.0) and the
//! habits of the Go implementation that runtimes rely on; it knows no kernel, no files and no processes
//! beyond the environment and the standard streams that a plugin is called with.
//!
//! The reading order is the way of a call: [`dispatch`] takes the process's input, [`request`] validates it,
//! a [`dispatch::Plugin`] answers with a [`result::CniResult`] or an [`error::Error`].

pub mod addr;
pub mod diagnostics;
pub mod dispatch;
pub mod error;
pub mod json;
pub mod names;
pub mod request;
pub mod result;
pub mod version;
