//! The `dummy` plugin: an interface that swallows what it is given, for addresses that a container is to have and no network
//! leads to.

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;

use crate::attach::interface::{self, Adding, Common};
use crate::attach::ipam;
use crate::host::Rtnl;
use crate::host::rtnl::{Kind, NewLink};
use crate::owner::Owner;

/// What the kernel calls the kind.
const KIND: &str = "dummy";

/// The plugin.
pub struct Dummy;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    Common::read_with_ipam(request).map(drop)
}

impl Plugin for Dummy {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let adding = Adding {
            request,
            attachment,
            common: Common::read_with_ipam(request)?,
            given: None,
            announces: false,
        };
        adding.run(|container| {
            let owner = Owner::of(request, attachment);
            let new = NewLink::new(attachment.ifname.as_str(), Kind::Dummy);
            interface::create(container, &container.rtnl, &owner, &new)
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        interface::del(request, attachment, KIND)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        Common::read_with_ipam(request)?;
        interface::check(request, attachment, KIND).map(drop)
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        interface::gc(request, valid)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let common = Common::read_with_ipam(request)?;
        interface::require_kind(&Rtnl::new()?, Kind::Dummy)?;
        ipam::delegate(request, &common.ipam, Call::Status)
    }
}
