//! DEL and GC.

use cni_conf::error::Error;
use cni_conf::names::NetworkName;
use cni_conf::request::{Attachment, AttachmentId, Request};

use super::ifb;
use crate::attach::chained;
use crate::attach::container::Container;
use crate::attach::veth;
use crate::host::Rtnl;
use crate::host::rtnl::Link;
use crate::owner::Owner;

/// What the kernel calls the kind of link that the host's end is.
const PAIR: &str = "veth";

/// Removes the ifb, and the limits of a host's end that is still there. A configuration that has become invalid does
/// not matter here.
pub(super) fn del(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let owner = Owner::of(request, attachment);
    let host = Rtnl::new()?;
    let ifb = ifb::find(&host, &owner)?;
    let unlimited = match host_end(&host, attachment, &owner) {
        Ok(Some(end)) => remove_limits(&host, &end, ifb.as_slice()),
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
    // Mostly there is no need to look inside.
    if let Some(end) = veth::find(host, owner)? {
        return Ok(Some(end));
    }
    let Some(container) = Container::open_if_there(attachment)? else {
        return Ok(None);
    };
    match chained::find_link(&container, &attachment.ifname)? {
        Some(inside) => chained::host_end(host, owner, &container, &inside),
        None => Ok(None),
    }
}

/// Takes the limits off a link, unless they are not what ADD makes. What it receives goes on its way again where it
/// was redirected to one of these.
fn remove_limits(host: &Rtnl, end: &Link, ifbs: &[Link]) -> Result<(), Error> {
    let shaped =
        host.token_bucket(end.index)?.is_some() || host.bands_token_bucket(end.index)?.is_some();
    if shaped {
        host.stop_shaping(end.index)?;
    }
    let redirect = host.ingress_redirect(end.index)?;
    if redirect.is_some_and(|target| ifbs.iter().any(|ifb| ifb.index == target)) {
        host.stop_ingress_redirect(end.index)?;
    }
    Ok(())
}

/// An ifb without an alias was made by the Go plugin; whose it is can't be told, so it is left to DEL.
pub(super) fn gc(request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
    let host = Rtnl::new()?;
    let dead = |kind| links_of_others(&host, kind, &request.network, valid);
    let (ends, ifbs) = (dead(PAIR)?, dead(ifb::KIND)?);
    // In this order: what is redirected to a device that is gone is lost.
    let lifted = ends.iter().map(|end| remove_limits(&host, end, &ifbs));
    let removed = ifbs.iter().map(|ifb| {
        let removed = host.delete_link(ifb.index);
        removed.map(drop).map_err(Error::from)
    });
    Error::join(lifted.chain(removed).filter_map(Result::err)).map_or(Ok(()), Err)
}

/// The host's links of a kind that carry the alias of an attachment to this network which is not in `valid`.
fn links_of_others(
    host: &Rtnl,
    kind: &str,
    network: &NetworkName,
    valid: &[AttachmentId],
) -> Result<Vec<Link>, Error> {
    let keep: Vec<String> = valid
        .iter()
        .map(|id| Owner::new(network, id).alias())
        .collect();
    let mut links = host.links_of_kind(kind)?;
    links.retain(|link| {
        let alias = link.alias.as_deref().unwrap_or_default();
        Owner::alias_is_of(network, alias) && !keep.iter().any(|kept| kept == alias)
    });
    Ok(links)
}
