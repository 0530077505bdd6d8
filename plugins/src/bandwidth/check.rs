//! CHECK.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use super::conf::{Limit, Scope, Settings};
use super::{ifb, shape};
use crate::attach::chained;
use crate::attach::check::failed;
use crate::attach::container::Container;
use crate::host::Rtnl;
use crate::host::rtnl::Link;
use crate::owner::Owner;

pub(super) fn check(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let settings = Settings::read(request)?;
    if settings.is_empty() {
        return Ok(());
    }
    let container = Container::open(attachment)?;
    let host = Rtnl::new()?;
    let owner = Owner::of(request, attachment);
    let end = match chained::find_link(&container, &attachment.ifname)? {
        Some(inside) => chained::host_end(&host, &owner, &container, &inside)?,
        None => None,
    };
    let Some(end) = end else {
        return Err(failed(format!(
            "interface {} is missing in the container, or its other end on the host",
            attachment.ifname
        )));
    };
    if let Some(limit) = settings.ingress {
        is_limited(&host, &end, limit, &settings.scope)?;
    }
    let Some(limit) = settings.egress else {
        return Ok(());
    };
    let Some(ifb) = ifb::find(&host, &owner)? else {
        return Err(failed("the attachment's ifb device is missing"));
    };
    if !ifb.up {
        return Err(failed(format!("the ifb device {} is down", ifb.name)));
    }
    if host.ingress_redirect(end.index)? != Some(ifb.index) {
        return Err(failed(format!(
            "what {} receives is not redirected to {}",
            end.name, ifb.name
        )));
    }
    is_limited(&host, &ifb, limit, &settings.scope)
}

/// The kernel keeps the burst as a time, so only rate and queue are compared.
fn is_limited(host: &Rtnl, link: &Link, limit: Limit, scope: &Scope) -> Result<(), Error> {
    let wanted = shape::bucket(limit, link.mtu);
    match shape::current(host, link, scope)? {
        Some(is) if (is.rate, is.limit) == (wanted.rate, wanted.limit) => Ok(()),
        Some(is) => Err(failed(format!(
            "{} is limited to {} bits/s with a queue of {} bytes, not to {} bits/s with {}",
            link.name,
            is.rate.saturating_mul(8),
            is.limit,
            wanted.rate.saturating_mul(8),
            wanted.limit
        ))),
        None => Err(failed(format!("{} is not limited", link.name))),
    }
}
