//! The `tuning` plugin: sysctls of the container's namespace, and attributes of its interface.
//!
//! It changes what plugins before it made. The attributes that it changes are saved first, in a file that the
//! reference reads and writes too (see `state`), and put back by DEL where the interface outlives it. Sysctls go
//! with the namespace; only an ADD that fails puts them back.

mod add;
mod allowlist;
mod attributes;
mod check;
mod conf;
mod neighbours;
mod saved;
mod state;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

/// The plugin.
pub struct Tuning;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    conf::Settings::read(request, Some(attachment)).map(drop)
}

impl Plugin for Tuning {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        add::add(request, attachment)
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        state::Store::new(conf::data_dir(request)?, request).restore(attachment)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        check::check(request, attachment)
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        state::Store::new(conf::data_dir(request)?, request).collect(valid)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = conf::Settings::read(request, None)?;
        allowlist::require(&settings.sysctls)
    }
}
