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
//!
//! An ADD that finds no rules at all, as after somebody flushed them, maps the ports of the other containers again that
//! live on this host, by what their ADD wrote down ([`crate::attach::record`]).

mod conf;
mod hairpin;
mod iptables;
mod localnet;
mod nftables;
mod plan;
mod reference;
mod rules;
mod stale;

use std::mem;
use std::net::IpAddr;

use cni_conf::dispatch::{Plugin, warn};
use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

use self::conf::{Backend, Masquerade, Settings};
use self::plan::{Addresses, Forward};
use crate::attach::nat_table::printable;
use crate::attach::owner::Owner;
use crate::attach::record::{Recorded, Records};
use crate::attach::undo::Undo;
use crate::attach::{chained, check, comment, readiness};
use crate::host::HostError;
use crate::host::iptables::restore_command;

/// What its records are called by.
const NAME: &str = "portmap";

/// The plugin.
pub struct Portmap;

/// What a call comes to.
struct Plan {
    comment: String,
    settings: Settings,
    addresses: Addresses,
    forwards: Vec<Forward>,
}

impl Plan {
    fn new(request: &Request, attachment: &Attachment, result: &CniResult) -> Result<Self, Error> {
        let settings = Settings::read(request)?;
        let addresses = Addresses::of(result, &attachment.ifname);
        Ok(Self {
            comment: comment::of(&Owner::of(request, attachment)),
            forwards: plan::forwards(&settings.mappings, addresses),
            settings,
            addresses,
        })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            comment: self.comment.clone(),
            forwards: &self.forwards,
            addresses: self.addresses,
            masquerade: self.settings.masquerade,
        }
    }
}

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

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    conf::Settings::read(request).map(drop)
}

impl Plugin for Portmap {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let previous = chained::previous(request)?;
        let plan = Plan::new(request, attachment, previous)?;
        let records = Records::of(request, NAME)?;
        let owner = Owner::of(request, attachment);
        if plan.forwards.is_empty() {
            if !plan.settings.mappings.is_empty() {
                warn(
                    "no port is mapped: the container has no address of the family that the mappings are for",
                );
            }
            if records.exist() {
                restore(&records, &owner, &plan.settings.backend, &|other| {
                    is_forgotten(other).unwrap_or_default()
                });
            }
            return Ok(previous.clone());
        }
        let iptables = matches!(plan.settings.backend, Backend::Iptables(_));
        Undo::guard(|undo| {
            undo.push(|| remove(&Condemned::Owner(&plan.comment), iptables));
            undo.push(|| records.remove(&owner));
            records.write(request, attachment);
            let backend = &plan.settings.backend;
            ensure(&plan, &|| restore(&records, &owner, backend, &|_| true))?;
            if plan.settings.masquerade != Masquerade::Never {
                hairpin::ensure(previous)?;
            }
            Ok(())
        })?;
        Ok(previous.clone())
    }

    /// Total: what is mapped is found by its owner, whatever the configuration says and whether this plugin mapped it
    /// or the reference did. Starts a process only to remove rules of iptables, and while the reference has some.
    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let owner = Owner::of(request, attachment);
        let comment = comment::of(&owner);
        let outcomes = [
            Records::to_remove(request, NAME).remove(&owner),
            remove(&Condemned::Owner(&comment), expects_iptables(request)),
            reference::remove(
                &request.network,
                &attachment.container,
                expects_mappings(request),
            ),
        ];
        Error::join(outcomes.into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let expected = check::expected(request)?;
        let plan = Plan::new(request, attachment, expected)?;
        if plan.forwards.is_empty() {
            return Ok(());
        }
        let wanted = plan.wanted();
        let mut differences = match &plan.settings.backend {
            Backend::Nftables => nftables::check(&wanted)?,
            Backend::Iptables(_) => iptables::check(&wanted)?,
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
        let condemned = Condemned::Others {
            network: format!("{}/", request.network),
            valid: valid
                .iter()
                .map(|id| comment::of(&Owner::new(&request.network, id)))
                .collect(),
        };
        let records = Records::to_remove(request, NAME);
        let outcomes = [
            records.collect(&request.network, valid),
            remove(&condemned, true),
        ];
        Error::join(outcomes.into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let purpose = "map ports";
        match Settings::read(request)?.backend {
            Backend::Nftables => readiness::require_nft(purpose),
            Backend::Iptables(_) => readiness::require(restore_command(false), purpose),
        }
    }
}

/// Makes sure that everything is forwarded. `restore` is called where there are no rules at all.
fn ensure(plan: &Plan, restore: &dyn Fn()) -> Result<(), Error> {
    let wanted = plan.wanted();
    match &plan.settings.backend {
        Backend::Nftables => {
            nftables::ensure(&wanted, restore)?;
            if let Some(address) = wanted.localhost() {
                localnet::ensure(address, &wanted.comment)?;
            }
        }
        Backend::Iptables(settings) => iptables::ensure(&wanted, settings, restore)?,
    }
    if let Err(error) = stale::forget_former(wanted.forwards) {
        warn(format_args!("stale UDP connections may linger: {error}"));
    }
    Ok(())
}

/// Maps the ports of those other containers again, on whichever network they are, that have the same backend and that
/// `lost` says so of. What can't be restored is no reason for an ADD to fail.
fn restore(records: &Records, except: &Owner, backend: &Backend, lost: &dyn Fn(&Plan) -> bool) {
    let planned = |other: Recorded| {
        let previous = chained::previous(&other.request).ok()?;
        let plan = Plan::new(&other.request, &other.attachment, previous).ok()?;
        let same = mem::discriminant(&plan.settings.backend) == mem::discriminant(backend);
        (same && !plan.forwards.is_empty() && lost(&plan)).then_some((other, plan))
    };
    let others: Vec<_> = records
        .living(except)
        .into_iter()
        .filter_map(planned)
        .collect();
    for (other, plan) in others {
        let whose = &plan.comment;
        if let Err(error) = ensure(&plan, &|| {}) {
            warn(format_args!("restore the mapped ports of {whose}: {error}"));
        }
        // Its DEL may have looked before. One that has not yet will find what was restored.
        if !records.has(&other)
            && let Err(error) = remove(&Condemned::Owner(whose), true)
        {
            warn(format_args!(
                "take the mapped ports of {whose} out again: {error}"
            ));
        }
    }
}

/// Whether there are no rules at all that forward, as after a flush.
fn is_forgotten(plan: &Plan) -> Result<bool, HostError> {
    match plan.settings.backend {
        Backend::Nftables => nftables::is_forgotten(),
        Backend::Iptables(_) => iptables::is_forgotten(&plan.wanted()),
    }
}

/// Whose mappings are to be removed.
enum Condemned<'a> {
    /// Those with this comment.
    Owner(&'a str),
    /// Those of a network, given as the beginning of its comments, save for the valid ones.
    Others { network: String, valid: Vec<String> },
}

impl Condemned<'_> {
    fn has(&self, comment: &str) -> bool {
        match self {
            Self::Owner(owner) => *owner == comment,
            Self::Others { network, valid } => {
                comment.starts_with(network) && !valid.iter().any(|kept| kept == comment)
            }
        }
    }

    /// The same for a comment of iptables.
    fn has_printable(&self, comment: &str) -> bool {
        match self {
            Self::Owner(owner) => printable(owner) == comment,
            Self::Others { network, valid } => {
                comment.starts_with(network) && !valid.iter().any(|kept| printable(kept) == comment)
            }
        }
    }
}

/// Whether the configuration of a DEL, however broken, speaks of ports that iptables mapped.
fn expects_iptables(request: &Request) -> bool {
    Settings::read(request).is_ok_and(|settings| {
        !settings.mappings.is_empty() && matches!(settings.backend, Backend::Iptables(_))
    })
}

/// Whether the configuration of a DEL, however broken, speaks of ports that were mapped.
fn expects_mappings(request: &Request) -> bool {
    Settings::read(request).is_ok_and(|settings| !settings.mappings.is_empty())
}

/// Takes out everything of the condemned, whichever backend made it. Carries on after an error.
fn remove(condemned: &Condemned<'_>, thorough: bool) -> Result<(), Error> {
    let mut errors = Vec::new();
    let doomed = |comment: &str| condemned.has(comment);
    let removed = nftables::remove(&doomed).unwrap_or_else(|error| {
        errors.push(Error::from(error));
        nftables::Removed::default()
    });
    // The setting before the rules that guard it.
    errors.extend(localnet::remove(&doomed).err().map(Error::from));
    errors.extend(nftables::dismantle(&removed).err().map(Error::from));
    let mut forwards = removed.forwards;
    match iptables::remove(condemned, thorough) {
        Ok(more) => forwards.extend(more),
        Err(error) => errors.push(error.into()),
    }
    if let Err(error) = stale::forget(&forwards) {
        warn(format_args!("stale UDP connections may linger: {error}"));
    }
    Error::join(errors).map_or(Ok(()), Err)
}

fn conflict(port: &str, owner: &str, theirs: &str) -> Error {
    let as_what = match port == theirs {
        true => String::new(),
        false => format!(" as {theirs}"),
    };
    Error::new(
        Code::Conflict,
        format!("map host port {port}: {owner} has it already{as_what}"),
    )
    .with_details(
        "the owner reads network/containerID/interface: choose another host port, or delete that container; if it is \
         gone, GC or a DEL for it gives the port free",
    )
}

/// What is kept for the attachments to `network`.
///
/// # Errors
/// What the kernel says.
pub fn list(network: &cni_conf::names::NetworkName) -> Result<Vec<Kept>, Error> {
    let mut kept = nftables::list(network.as_str())?;
    kept.extend(iptables::list(network.as_str())?);
    Ok(kept)
}
