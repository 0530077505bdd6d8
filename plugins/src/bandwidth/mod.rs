//! The `bandwidth` plugin: limits to how fast a container receives and sends.
//!
//! Only what leaves a link can be made to wait. What the container receives leaves the host's end of its pair and waits
//! there, in a token bucket filter. What it sends comes in at the host's end, is redirected to an ifb device of the
//! attachment's own, and waits there before it goes on. Both are found by their owner: the host's end by the
//! container's interface or its alias, the ifb by a name derived from the owner, see `ifb`.

mod add;
mod check;
mod conf;
mod del;
mod ifb;
mod shape;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

/// The plugin.
pub struct Bandwidth;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    conf::Settings::read(request).map(drop)
}

impl Plugin for Bandwidth {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        add::add(request, attachment)
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        del::del(request, attachment)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        check::check(request, attachment)
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        del::gc(request, valid)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        conf::Settings::read(request).map(drop)
    }
}
