//! The `firewall` plugin: the host's filter rules let the containers' traffic through.
//!
//! It stands behind a plugin that makes an interface with addresses. Where something drops forwarded packets on
//! this host, it lets through what a container sends, the answers to it, and what is published by translating a
//! destination address (portmap, Services). Everything else is left to the host's own rules, as the Go plugin
//! does it: what the outside begins by itself is forwarded if they say so. The result passes through unchanged.
//!
//! An `accept` ends one base chain only and a `drop` in any of them is final, so a rule helps only where the drop
//! is: in iptables' FORWARD (`iptables`), or in the very nftables base chain that drops (`nftables`). Without
//! `backend` the plugin looks which of them guard this host ([`crate::netfilter::forward_hook::guard`]) and serves them all; see `select`.
//!
//! In front of our rules the administrator's come, in a chain called `CNI-ADMIN` (`iptablesAdminChainName`) beside
//! them: it is made when it is missing, and nothing in it is ever touched. It goes with the last of our rules if
//! it is empty.
//!
//! `ingressPolicy` limits traffic between containers by dropping it, which works from anywhere, so with nftables
//! that is one base chain of our own. As in the Go plugin, `same-bridge` drops packets from a container of one
//! bridge to a container of another when both networks have such a policy, and `isolated` also drops those
//! between containers of the network. The latter are frames that a bridge passes on by itself, so its ports are
//! isolated from each other too, which the Go plugin leaves to br_netfilter. Without a bridge (ptp) each
//! container has a link of its own, and the two policies are the same.
//!
//! What is made carries its owner in a comment and is found by it alone, with neither namespace nor `prevResult`.
//!
//! An ADD that finds nothing of its network, as after somebody flushed all rules or when the host's guard has appeared
//! only now, also serves the network's other containers that live, by what their ADD wrote down
//! ([`crate::attach::record`]).

mod conf;
mod firewalld;
mod iptables;
mod names;
mod nftables;
mod others;
mod ports;
mod repair;
mod select;
mod wanted;

use std::net::IpAddr;

use cni_conf::diagnostics::warn;
use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

use self::conf::{Policy, Settings};
use self::firewalld::Firewalld;
use self::iptables::Outcome;
use self::others::Others;
use self::select::Backends;
use self::wanted::Wanted;
use crate::attach::list::List;
use crate::attach::readiness;
use crate::attach::record::Records;
use crate::attach::undo::Undo;
use crate::attach::{chained, check, forwarding, veth};
use crate::host::Rtnl;
use crate::host::nft::Nft;
use crate::host::rtnl::Link;
use crate::netfilter::Kept;
use crate::netfilter::forward_hook::guard;
use crate::netfilter::go_plugins::{self, Container};
use crate::owner::{Owner, Owners};

/// What its records are called by.
const NAME: &str = "firewall";

/// The plugin.
pub struct Firewall;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    conf::Settings::read(request).map(drop)
}

/// Puts back what CHECK finds missing.
pub(crate) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    repair::repair(request, attachment)
}

impl Plugin for Firewall {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let previous = chained::previous(request)?;
        let settings = Settings::read(request)?;
        let records = Records::of(request, NAME)?;
        let mut wanted = Wanted::new(request, attachment, previous, &settings)?;
        if wanted.addresses.is_empty() {
            return Ok(previous.clone());
        }
        let mut backends = Backends::choose(&settings)?;
        let owner = Owner::of(request, attachment);
        let addresses = wanted.addresses.clone();
        let others = Others::new(request, &settings, &records, &owner, addresses);
        Undo::guard(|undo| {
            undo.push(|| self.del(request, attachment));
            if !records.write(request, attachment) {
                wanted = wanted.by_itself();
            }
            if settings.policy == Policy::Isolated {
                ports::isolate(previous)?;
            }
            ensure(&mut backends, &wanted, &others, &settings, &owner)
        })?;
        others.remove_vanished();
        backends.warn_of_the_rest();
        backends.warn_of_ingress(&settings);
        Ok(previous.clone())
    }

    /// Whatever the configuration says now: what any backend made is found by its owner.
    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let owner = Owner::of(request, attachment);
        let records = Records::to_remove(request, NAME);
        let was_recorded = records.holds(&owner);
        let recorded = records.remove(&owner);
        let deserted =
            || !records.hold_any(&owner.network) && (was_recorded || is_last_pair(&owner));
        let result = request.prev_result.as_ref();
        let addresses = result.map(wanted::addresses).unwrap_or_default();
        let own = remove_all(request, &Owners::one(&owner), &addresses, &deserted);
        let container = Container {
            owner: &owner,
            addresses: &addresses,
        };
        let left = go_plugins::remove(go_plugins::Plugin::Firewall, &container, false);
        left.iter().for_each(warn);
        let outcomes = [recorded, own];
        Error::join(outcomes.into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let expected = check::expected(request)?;
        let settings = Settings::read(request)?;
        let wanted = Wanted::new(request, attachment, expected, &settings)?;
        if wanted.addresses.is_empty() {
            return Ok(());
        }
        let backends = Backends::choose(&settings)?;
        let mut differences = Vec::new();
        if backends.uses_nftables() {
            differences.extend(nftables::check(&wanted, &backends)?);
        }
        let network = &request.network;
        for table in &backends.iptables {
            differences.extend(iptables::check(*table, network, &wanted, backends.always)?);
        }
        if backends.firewalld {
            let mut firewalld = Firewalld::find()?.ok_or_else(firewalld::missing)?;
            differences.extend(firewalld.check(&wanted.addresses, &settings.zone)?);
        }
        if settings.policy == Policy::Isolated {
            differences.extend(ports::check(expected)?);
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(check::failed(differences.join("; "))),
        }
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        let selected = Owners::all_but(&request.network, valid);
        let records = Records::to_remove(request, NAME);
        let recorded = records.collect(&request.network, valid);
        let deserted = || valid.is_empty() && !records.hold_any(&request.network);
        let rules = remove_all(request, &selected, &[], &deserted);
        Error::join([recorded, rules].into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        if let Some(list) = List::find(&request.network) {
            forwarding::warn_of_closed_cluster(&request.network, &list);
        }
        let ready = Backends::choose(&settings).and_then(|backends| {
            backends.warn_of_ingress(&settings);
            backends.ready(&settings)
        });
        readiness::judge(ready)
    }
}

/// Whether no other container of the network has a pair on this host. Asked where ADD wrote nothing down, as far as is
/// known: then what others wrote down may be elsewhere, too.
fn is_last_pair(owner: &Owner) -> bool {
    let own = owner.alias();
    let theirs = |link: &Link| {
        let alias = link.alias.as_deref();
        alias.is_some_and(|alias| Owner::alias_is_of(&owner.network, alias) && alias != own)
    };
    let links = Rtnl::new().and_then(|host| host.links_of_kind(veth::KIND));
    links.is_ok_and(|links| !links.iter().any(theirs))
}

fn ensure(
    backends: &mut Backends,
    wanted: &Wanted,
    others: &Others<'_>,
    settings: &Settings,
    owner: &Owner,
) -> Result<(), Error> {
    for table in backends.iptables.clone() {
        let (network, always) = (&owner.network, backends.always);
        let outcome = iptables::ensure(table, network, wanted, &|| others.look_up(), always)?;
        if outcome == Outcome::Unreadable {
            backends.unreadable.push(table);
        }
    }
    if backends.uses_nftables() {
        nftables::ensure(wanted, backends, &|| others.look_up())?;
    }
    // Behind nftables, because the owners of firewalld's sources are in our own set: what is not there is not found.
    if backends.firewalld {
        let mut firewalld = Firewalld::find()?.ok_or_else(firewalld::missing)?;
        firewalld.ensure(&wanted.addresses, &settings.zone)?;
        firewalld.restore(&settings.zone, || nftables::members(&wanted.network))?;
    }
    Ok(())
}

/// Removes what these owners have, whichever backend made it. `addresses`
/// are known to be theirs, as long as nobody else has them now; `deserted` says whether nobody of the network is left.
/// Carries on after an error.
fn remove_all(
    request: &Request,
    selected: &Owners,
    addresses: &[IpAddr],
    deserted: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    match nftables::remove(selected) {
        Ok(removed) => errors.extend(leave_firewalld(request, removed, addresses).err()),
        Err(error) => errors.push(error.into()),
    }
    match Nft::open().and_then(|mut nft| guard::iptables_with_our_chain(&mut nft)) {
        Ok(tables) => errors.extend(
            tables
                .into_iter()
                .filter_map(|table| iptables::remove(table, selected, deserted).err())
                .map(Error::from),
        ),
        Err(error) => errors.push(error.into()),
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// Takes addresses out of firewalld's zone: those that were in our own set, where the owners are, and those of
/// `prevResult` that are nobody's there, since somebody may have flushed it.
fn leave_firewalld(
    request: &Request,
    mut leaving: Vec<IpAddr>,
    known: &[IpAddr],
) -> Result<(), Error> {
    let Some(zone) = conf::zone(request) else {
        return Ok(());
    };
    if leaving.is_empty() && known.is_empty() {
        return Ok(());
    }
    let found = match Firewalld::find() {
        // Nobody who can't be asked has them, unless firewalld's own rules say otherwise.
        Err(_) if !guard::has_firewalld(&mut Nft::open()?)? => None,
        found => found?,
    };
    let Some(mut firewalld) = found else {
        return Ok(());
    };
    let members = nftables::members(&names::label(&request.network))?;
    leaving.extend(known.iter().filter(|address| !members.contains(address)));
    leaving.sort_unstable();
    leaving.dedup();
    firewalld.remove(&leaving, &zone)
}

/// What is kept for the attachments to `network`.
///
/// # Errors
/// What the kernel or iptables says.
pub fn list(network: &cni_conf::names::NetworkName) -> Result<Vec<Kept>, Error> {
    let (label, all) = (names::label(network), Owners::all(network));
    let mut kept = nftables::list(&label)?;
    for table in guard::iptables_with_our_chain(&mut Nft::open()?)? {
        let rules = iptables::list(table)?;
        kept.extend(
            rules
                .into_iter()
                .filter(|rule| all.has_in_iptables(&rule.owner)),
        );
    }
    Ok(kept)
}

/// Says on stderr that ADD succeeded but something on this host still drops the container's packets.
fn warn_of_guard(guard: &str, backend: &str) {
    warn(format_args!(
        "{guard} drops forwarded packets and the chosen backend can't change that: leave out \"backend\", \
         or set it to \"{backend}\""
    ));
}
