//! The `bridge` plugin: containers on a bridge of the host.
//!
//! ADD makes sure of the bridge, asks IPAM for addresses, and connects the container with a veth pair whose host
//! end is a port of the bridge. The bridge is shared and stays; everything else belongs to one attachment and is
//! found by its owner ([`crate::owner`]).

mod add;
mod check;
mod conf;
mod gateway;
mod isolation;
mod link;
mod neighbours;
mod netfilter;
mod outside;
mod plan;
mod repair;
mod service;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;

use crate::attach::{detach, ipam};

/// The plugin.
pub struct Bridge;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    conf::Settings::read(request, Some(attachment)).map(drop)
}

/// Puts back what CHECK finds missing on the host.
pub(crate) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    repair::repair(request, attachment)
}

impl Plugin for Bridge {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        add::add(request, attachment)
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let routes = outside::del(request, attachment);
        let detached = both(routes, detach::del(request, attachment));
        both(detached, neighbours::forget(request, attachment))
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        check::check(request, attachment)
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        let bridge = conf::bridge_of(request);
        let pairs = detach::gc(request, valid, bridge.as_ref().map(IfName::as_str));
        both(pairs, outside::gc(request))
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = conf::Settings::read(request, None)?;
        service::status(request, &settings)?;
        ipam::delegate(request, &settings.ipam, Call::Status)
    }
}

fn both(one: Result<(), Error>, other: Result<(), Error>) -> Result<(), Error> {
    Error::join([one, other].into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
}
