//! DEL and GC.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Request};

use super::ifb;
use crate::attach::chained;
use crate::attach::container::Container;
use crate::attach::owner::Owner;
use crate::attach::veth;
use crate::host::Rtnl;
use crate::host::rtnl::Link;

/// Removes the ifb, and the limits of a host's end that is still there. A configuration that has become invalid does
/// not matter here.
pub(super) fn del(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let owner = Owner::of(request, attachment);
    let host = Rtnl::new()?;
    let ifb = ifb::find(&host, &owner)?;
    let unlimited = match host_end(&host, attachment, &owner) {
        Ok(Some(end)) => lift(&host, &end, ifb.as_ref()),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let removed = match ifb {
        Some(ifb) => host.delete_link(ifb.index).map(drop).map_err(Error::from),
        None => Ok(()),
    };
    Error::join([unlimited, removed].into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
}

/// By the alias that our plugins give it, or else by the container's interface.
fn host_end(host: &Rtnl, attachment: &Attachment, owner: &Owner) -> Result<Option<Link>, Error> {
    if let Some(end) = veth::find(host, owner)? {
        return Ok(Some(end));
    }
    let Some(container) = Container::open_if_there(attachment)? else {
        return Ok(None);
    };
    match chained::find_link(&container, &attachment.ifname)? {
        Some(inside) => chained::host_end(host, &inside),
        None => Ok(None),
    }
}

/// Takes the limits off a link, unless they are not what ADD makes.
fn lift(host: &Rtnl, end: &Link, ifb: Option<&Link>) -> Result<(), Error> {
    let shaped =
        host.token_bucket(end.index)?.is_some() || host.bands_token_bucket(end.index)?.is_some();
    if shaped {
        host.stop_shaping(end.index)?;
    }
    let redirect = host.ingress_redirect(end.index)?;
    if redirect.is_some() && redirect == ifb.map(|ifb| ifb.index) {
        host.stop_ingress_redirect(end.index)?;
    }
    Ok(())
}

pub(super) fn gc(request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
    let host = Rtnl::new()?;
    Error::join(ifb::collect(&host, &request.network, valid)).map_or(Ok(()), Err)
}
