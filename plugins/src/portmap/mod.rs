//! The `portmap` plugin: ports of the host that lead to ports of the container.
//!
//! It stands behind a plugin that makes the interface and serves the capability `portMappings`: the runtime gives
//! what it wants in `runtimeConfig.portMappings`. The result passes through unchanged.
//!
//! A mapped port answers on every address of the host, or on the one that `hostIP` names: to the outside, to the
//! host itself, to 127.0.0.1, to other containers and to the container itself. A port has one owner: a second
//! container that asks for it is refused. What is made carries its owner in a comment and is found by it alone.
//!
//! With nftables (`rules`) the rules exist once per host and mappings are elements of maps; ADD and DEL start no
//! process in the steady state. With iptables (`iptables`) each container has a chain.
//!
//! An ADD that finds no rules at all, as after somebody flushed them, maps the ports of the other containers again that
//! live on this host, by what their ADD wrote down ([`crate::attach::record`]).

mod after_flush;
mod claims;
mod conf;
mod gone;
mod hairpin;
mod iptables;
mod localnet;
mod mapping;
mod nftables;
mod plan;
mod repair;
mod rules;
mod stale;

pub(crate) use self::rules::DIGESTS;

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::diagnostics::warn;
use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

use self::claims::Identity;
use self::conf::{Backend, Masquerade, Settings};
use self::mapping::{crossed, hand_over, map, map_again};
use self::plan::{Addresses, Forward};
use crate::attach::record::{Recorded, Records};
use crate::attach::undo::Undo;
use crate::attach::{chained, check, readiness};
use crate::host::iptables::restore_command;
use crate::netfilter::Kept;
use crate::netfilter::go_plugins::{self, Container};
use crate::owner::{Owner, Owners};

/// What its records are called by.
const NAME: &str = "portmap";

/// The plugin.
pub struct Portmap;

/// What a call comes to.
struct Plan {
    identity: Identity,
    settings: Settings,
    addresses: Addresses,
    forwards: Vec<Forward>,
}

impl Plan {
    fn new(
        request: &Request,
        attachment: &Attachment,
        result: &CniResult,
        records: &Records,
    ) -> Result<Self, Error> {
        let settings = Settings::read(request)?;
        let addresses = Addresses::of(result, &attachment.ifname);
        let owner = Owner::of(request, attachment);
        Ok(Self {
            identity: Identity::new(owner, records),
            forwards: plan::forwards(&settings.mappings, addresses),
            settings,
            addresses,
        })
    }

    /// What an attachment of which there is a record comes to; none where that maps nothing.
    fn recorded(recorded: &Recorded, records: &Records) -> Option<Self> {
        let previous = chained::previous(&recorded.request).ok()?;
        let plan = Self::new(&recorded.request, &recorded.attachment, previous, records).ok()?;
        (!plan.forwards.is_empty()).then_some(plan)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            identity: &self.identity,
            forwards: &self.forwards,
            addresses: self.addresses,
            masquerade: self.settings.masquerade,
        }
    }
}

/// What one attachment wants forwarded.
struct Wanted<'a> {
    /// Whose it is.
    identity: &'a Identity,
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

    /// The same for some of the mappings.
    fn with<'b>(&'b self, forwards: &'b [Forward]) -> Wanted<'b> {
        Wanted { forwards, ..*self }
    }
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    conf::Settings::read(request).map(drop)
}

/// Puts back what CHECK finds missing.
pub(crate) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    repair::repair(request, attachment)
}

impl Plugin for Portmap {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let previous = chained::previous(request)?;
        let records = Records::of(request, NAME)?;
        let plan = Plan::new(request, attachment, previous, &records)?;
        let owner = &plan.identity.owner;
        if plan.forwards.is_empty() {
            if !plan.settings.mappings.is_empty() {
                warn(
                    "no port is mapped: the container has no address of the family that the mappings are for",
                );
            }
            after_flush::recover(&records, Some(owner), &plan.settings.backend, &Vec::new);
            return Ok(previous.clone());
        }
        let iptables = matches!(plan.settings.backend, Backend::Iptables(_));
        Undo::guard(|undo| {
            undo.push(|| remove(&Selected::one(owner), iptables, &|| {}));
            undo.push(|| records.remove(owner));
            records.write(request, attachment);
            let backend = &plan.settings.backend;
            let restore = || after_flush::restore(&records, Some(owner), backend);
            map(&plan, &records, attachment, &restore)?;
            if plan.settings.masquerade != Masquerade::Never {
                hairpin::ensure(owner, previous)?;
            }
            Ok(())
        })?;
        Ok(previous.clone())
    }

    /// Total: what is mapped is found by its owner, whatever the configuration says and whether this plugin mapped it
    /// or the Go plugin did. Starts a process only to remove rules of iptables, and while the Go plugin has some.
    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let owner = Owner::of(request, attachment);
        let records = Records::to_remove(request, NAME);
        let recorded = records.find(&owner);
        let removed = records.remove(&owner);
        let hand_over = || hand_over(&records, &BTreeSet::from([&attachment.container]));
        let own = Selected::one(&owner);
        let outcomes = [removed, remove(&own, expects_iptables(request), &hand_over)];
        let mut errors: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
        let container = Container {
            owner: &owner,
            addresses: &[],
        };
        let left = go_plugins::remove(
            go_plugins::Plugin::Portmap,
            &container,
            expects_mappings(request),
        );
        errors.extend(left.into_iter().map(Error::from));
        let left = || after_flush::localhost_of(request, attachment, recorded.as_ref(), &records);
        after_flush::recover(&records, None, &backend_of(request), &left);
        Error::join(errors).map_or(Ok(()), Err)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let expected = check::expected(request)?;
        let records = Records::of(request, NAME)?;
        let plan = Plan::new(request, attachment, expected, &records)?;
        if plan.forwards.is_empty() {
            return Ok(());
        }
        let wanted = plan.wanted();
        let own = match &plan.settings.backend {
            Backend::Nftables => nftables::own_part(&wanted)?,
            Backend::Iptables(_) => iptables::own_part(&wanted)?,
        };
        if own.is_empty() {
            return Ok(());
        }
        let wanted = wanted.with(&own);
        let mut differences = match &plan.settings.backend {
            Backend::Nftables => nftables::check(&wanted)?,
            Backend::Iptables(settings) => iptables::check(&wanted, settings)?,
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
        let records = Records::to_remove(request, NAME);
        let all = records.all();
        let collected = records.collect(&request.network, valid);
        let containers = all
            .iter()
            .filter(|recorded| !records.has(recorded))
            .map(|recorded| &recorded.attachment.container)
            .collect();
        let left = all
            .iter()
            .filter_map(|recorded| Plan::recorded(recorded, &records)?.wanted().localhost())
            .collect();
        let selected = Selected::Owners(Owners::all_but(&request.network, valid));
        let outcomes = [
            collected,
            remove(&selected, true, &|| hand_over(&records, &containers)),
        ];
        after_flush::recover_all(&records, left);
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

/// Whose mappings are to be removed.
enum Selected {
    /// Those of attachments.
    Owners(Owners),
    /// Those that have this comment.
    Comment(String),
}

impl Selected {
    fn one(owner: &Owner) -> Self {
        Self::Owners(Owners::one(owner))
    }

    /// The attachment, if this is about one.
    fn as_one(&self) -> Option<&Owner> {
        match self {
            Self::Owners(owners) => owners.as_one(),
            Self::Comment(_) => None,
        }
    }

    /// Whether what has this comment in nftables is to be removed.
    fn has(&self, found: &str) -> bool {
        match self {
            Self::Owners(owners) => owners.has(found),
            Self::Comment(comment) => comment == found,
        }
    }

    /// The same for iptables.
    fn has_in_iptables(&self, found: &str) -> bool {
        match self {
            Self::Owners(owners) => owners.has_in_iptables(found),
            Self::Comment(comment) => comment == found,
        }
    }
}

/// The backend that the configuration of a DEL, however broken, speaks of.
fn backend_of(request: &Request) -> Backend {
    Settings::read(request).map_or(Backend::Nftables, |settings| settings.backend)
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

/// Removes everything of the selected, whichever backend made it. Carries on after an error. `hand_over` is called
/// while the rules are still there that exist once.
fn remove(selected: &Selected, thorough: bool, hand_over: &dyn Fn()) -> Result<(), Error> {
    let mut errors = Vec::new();
    let to_remove = |comment: &str| selected.has(comment);
    let removed = nftables::remove(&to_remove).unwrap_or_else(|error| {
        errors.push(Error::from(error));
        nftables::Removed::default()
    });
    // The setting before the rules that guard it.
    let closed = localnet::remove(&to_remove, &nftables::guard);
    errors.extend(closed.err().map(Error::from));
    let mut forwards = removed.forwards.clone();
    match iptables::remove(selected, thorough) {
        Ok(more) => forwards.extend(more),
        Err(error) => errors.push(error.into()),
    }
    hand_over();
    errors.extend(nftables::dismantle(&removed).err().map(Error::from));
    if let Err(error) = stale::forget(&forwards) {
        warn(format_args!("stale UDP connections may linger: {error}"));
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// What is kept for the attachments to `network`.
///
/// # Errors
/// What the kernel says.
pub fn list(network: &cni_conf::names::NetworkName) -> Result<Vec<Kept>, Error> {
    let mut kept = nftables::list(network)?;
    kept.extend(iptables::list(network)?);
    Ok(kept)
}
