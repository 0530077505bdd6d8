//! The `portmap` plugin: ports of the host that lead to ports of the container.
//!
//! It stands behind a plugin that makes the interface and serves the capability `portMappings`: the runtime gives
//! what it wants in `runtimeConfig.portMappings`. The result passes through unchanged.
//!
//! A mapped port answers on every address of the host, or on the one that `hostIP` names: to the outside, to the
//! host itself, to 127.0.0.1, to other containers and to the container itself. A port has one owner: a second
//! container that asks for it is refused. What is made carries its owner in a comment and is found by it alone.
//!
//! With nftables ([`rules`]) the rules exist once per host and mappings are elements of maps; ADD and DEL start no
//! process in the steady state. With iptables ([`iptables`]) each container has a chain.

mod conf;
mod localnet;
mod nftables;
mod plan;
mod rules;
mod stale;

use std::net::IpAddr;

use cni_conf::dispatch::{Plugin, warn};
use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

use self::conf::{Backend, Masquerade, Settings};
use self::plan::{Addresses, Forward};
use crate::attach::owner::Owner;
use crate::attach::undo::Undo;
use crate::attach::{chained, check, comment};
use crate::host::nft::ruleset;

/// The plugin.
pub struct Portmap;

/// What one attachment wants forwarded.
struct Wanted<'a> {
    /// Whose it is, as [`comment::of`] spells it.
    comment: String,
    forwards: &'a [Forward],
    addresses: Addresses,
    masquerade: Masquerade,
}

impl Wanted<'_> {
    /// The container's address, if 127.0.0.1 is to reach it.
    fn localhost(&self) -> Option<std::net::Ipv4Addr> {
        let wanted = self.masquerade != Masquerade::Never
            && self.forwards.iter().any(Forward::answers_localhost);
        self.addresses
            .v4
            .filter(|_| wanted)
            .and_then(|address| match address.addr() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
    }
}

/// Something that is kept for an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose it is: `network/containerID/ifname`.
    pub owner: String,
    /// What it is, in words: `0.0.0.0:8080/tcp -> 10.1.0.5:80`.
    pub what: String,
}

impl Plugin for Portmap {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let previous = chained::previous(request)?;
        let settings = Settings::read(request)?;
        if settings.mappings.is_empty() {
            return Ok(previous.clone());
        }
        let addresses = Addresses::of(previous, &attachment.ifname);
        let forwards = plan::forwards(&settings.mappings, addresses);
        if forwards.is_empty() {
            warn(
                "no port is mapped: the container has no address of the family that the mappings are for",
            );
            return Ok(previous.clone());
        }
        let owner = Owner::of(request, attachment);
        let wanted = Wanted {
            comment: comment::of(&owner),
            forwards: &forwards,
            addresses,
            masquerade: settings.masquerade,
        };
        Undo::guard(|undo| {
            undo.push(|| remove(&|found| found == wanted.comment));
            ensure(&settings.backend, &wanted)
        })?;
        Ok(previous.clone())
    }

    /// Total, and without a child process: what is mapped is found by its owner, whatever the configuration says.
    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let comment = comment::of(&Owner::of(request, attachment));
        remove(&|found| found == comment)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let expected = check::expected(request)?;
        let settings = Settings::read(request)?;
        let addresses = Addresses::of(expected, &attachment.ifname);
        let forwards = plan::forwards(&settings.mappings, addresses);
        if forwards.is_empty() {
            return Ok(());
        }
        let wanted = Wanted {
            comment: comment::of(&Owner::of(request, attachment)),
            forwards: &forwards,
            addresses,
            masquerade: settings.masquerade,
        };
        let mut differences = match &settings.backend {
            Backend::Nftables => nftables::check(&wanted)?,
            Backend::Iptables(_) => Vec::new(),
        };
        if let Some(address) = wanted.localhost()
            && !localnet::is_open(address)?
        {
            differences.push(format!(
                "127.0.0.1 does not reach {address}: route_localnet is off"
            ));
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(check::failed(differences.join("; "))),
        }
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        let network = format!("{}/", request.network);
        let keep: Vec<String> = valid
            .iter()
            .map(|id| comment::of(&Owner::new(&request.network, id)))
            .collect();
        remove(&|found| found.starts_with(&network) && !keep.iter().any(|kept| kept == found))
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let program = match Settings::read(request)?.backend {
            Backend::Nftables => ruleset::NFT,
            Backend::Iptables(_) => ruleset::NFT,
        };
        program.find("map ports").map(drop).map_err(|error| {
            let error = Error::from(error);
            Error {
                code: Code::NotAvailable,
                ..error
            }
        })
    }
}

fn ensure(backend: &Backend, wanted: &Wanted<'_>) -> Result<(), Error> {
    match backend {
        Backend::Nftables => {
            nftables::ensure(wanted)?;
            if let Some(address) = wanted.localhost() {
                localnet::ensure(address, &wanted.comment)?;
            }
        }
        Backend::Iptables(_) => {}
    }
    if let Err(error) = stale::forget_former(wanted.forwards) {
        warn(format_args!("stale UDP connections may linger: {error}"));
    }
    Ok(())
}

/// Takes out everything whose owner `condemned` says so of. Carries on after an error.
fn remove(condemned: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let mut errors = Vec::new();
    let removed = nftables::remove(condemned).unwrap_or_else(|error| {
        errors.push(Error::from(error));
        nftables::Removed::default()
    });
    // The setting before the rules that guard it.
    errors.extend(localnet::remove(condemned).err().map(Error::from));
    errors.extend(nftables::dismantle(&removed).err().map(Error::from));
    if let Err(error) = stale::forget(&removed.forwards) {
        warn(format_args!("stale UDP connections may linger: {error}"));
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// What is kept for the attachments to `network`.
///
/// # Errors
/// What the kernel says.
pub fn list(network: &cni_conf::names::NetworkName) -> Result<Vec<Kept>, Error> {
    Ok(nftables::list(network.as_str())?)
}
