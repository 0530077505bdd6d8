//! What Service traffic needs of the host beyond the bridge itself: bridge netfilter, and filter rules that let
//! forwarded packets through.
//!
//! A Service address is translated by rules of the IP layer. Packets between two containers of one bridge don't get
//! there unless bridge netfilter is on, and then an answer would come back from an address that nobody asked.

use cni_conf::error::Error;
use cni_conf::request::Request;

use super::conf::Settings;
use crate::attach::forwarding;
use crate::netfilter::forward_hook::Behind;

/// STATUS: what can be said before there is a container.
pub(super) fn status(request: &Request, settings: &Settings) -> Result<(), Error> {
    settings.netfilter.status()?;
    settings
        .masquerade
        .as_ref()
        .map_or(Ok(()), |masquerade| masquerade.status())?;
    if !settings.gateway {
        return Ok(());
    }
    forwarding::warn_beforehand(request, Behind::Link(settings.bridge.as_str()))
}
