//! The `ptp` plugin: containers that the host routes to, each over a veth pair of its own.
//!
//! The container's only neighbour is the host. Its end has an address of the subnet, and everything in the subnet
//! lies behind the gateway; the host's end has the gateway's address as a /32 (/128), the same one for every container,
//! and a route to the container's address. So containers reach each other through the host's routing and its
//! firewall, never past them, and there is nothing shared between attachments that could be in another's way.

mod add;
mod check;
mod conf;
mod plan;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;

use crate::attach::forwarding;
use crate::attach::{detach, ipam};
use crate::netfilter::forward_hook::Behind;

/// The plugin.
pub struct Ptp;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    conf::Settings::read(request).map(drop)
}

/// Puts the masquerading of a container that lives back.
pub(crate) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let settings = conf::Settings::read(request)?;
    let expected = crate::attach::check::expected(request)?;
    match &settings.masquerade {
        Some(masquerade) => {
            let owner = crate::owner::Owner::of(request, attachment);
            masquerade.repair(request, &owner, &expected.ips)
        }
        None => Ok(()),
    }
}

impl Plugin for Ptp {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        add::add(request, attachment)
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        detach::del(request, attachment)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        check::check(request, attachment)
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        detach::gc(request, valid, None)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = conf::Settings::read(request)?;
        settings
            .masquerade
            .as_ref()
            .map_or(Ok(()), |masquerade| masquerade.status())?;
        forwarding::warn_beforehand(request, Behind::NewPair)?;
        ipam::delegate(request, &settings.ipam, Call::Status)
    }
}
