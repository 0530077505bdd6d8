//! Port mappings by iptables, for those who ask for it.
//!
//! ```text
//! -A PREROUTING -m addrtype --dst-type LOCAL -j TRESTLE-PORTS
//! -A OUTPUT -m addrtype --dst-type LOCAL -j TRESTLE-PORTS
//! -A POSTROUTING -j TRESTLE-PORTS-SNAT
//! -A TRESTLE-PORTS -p tcp --dport 8080 CONDITIONS --comment "podnet/CONTAINER/eth0 0.0.0.0:8080/tcp" -j TRESTLE-PORT-…
//! -A TRESTLE-PORT-0123456789abcde -p tcp --dport 8080 -s 10.1.0.0/24 -j MARK --set-xmark 0x2000/0x2000
//! -A TRESTLE-PORT-0123456789abcde -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80
//! -A TRESTLE-PORTS-SNAT -d 10.1.0.5 -m mark --mark 0x2000/0x2000 --comment "podnet/CONTAINER/eth0" -j MASQUERADE
//! -A TRESTLE-PORTS-SNAT -s 127.0.0.0/8 -d 10.1.0.5 -o cni0 --comment "podnet/CONTAINER/eth0" -j MASQUERADE
//! ```
//!
//! The jumps go to the end of PREROUTING and OUTPUT, behind those of kube-proxy (CVE-2019-9946), and to the beginning
//! of POSTROUTING, since networks' rules may end that chain. What belongs to an attachment has its owner in the
//! comment, and each mapping is spelt out there: who has a port is read from one chain. As iptables knows nothing of
//! uniqueness, whoever changes something holds a lock. The interface of the last rule tells that localhost reaches
//! the container by it because of us, see [`super::localnet`]; packets that pretend to be localhost are dropped in
//! the table `raw`.

mod check;
mod remove;
mod rules;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use cni_conf::error::{Code, Error};
use cni_conf::names::NetworkName;

use self::rules::{Destinations, PORTS, Rules, conditions, guard_creation, of_version};
use self::state::{Entry, State};
use super::claims::{Outcome, Rival, Served, Whose};
use super::conf::{IptablesSettings, Protocol};
use super::plan::Forward;
use super::{Kept, Wanted, crossed, localnet, nftables};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::Nft;
use crate::netfilter::iptables::Version;
use crate::owner::Owners;

pub(super) use self::check::check;
pub(super) use self::remove::remove;

/// How often a change that another program crossed is tried again.
const ATTEMPTS: u32 = 10;

/// What became of mapping the ports of one version of IP.
enum Attempt {
    Mapped,
    Taken(Rival),
    /// Somebody changed the rules meanwhile.
    Crossed,
}

/// Makes sure that everything is forwarded as wanted.
/// `restore` is called, without the lock, where nobody has a rule: for the first mapped port and after a flush.
///
/// # Errors
/// What the kernel or iptables says; [`Code::TryAgainLater`] where others change the rules all the time.
pub(super) fn ensure(
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
    restore: &dyn Fn(),
) -> Result<Outcome, Error> {
    let purpose = "map ports with iptables";
    let mut nft = Nft::open()?;
    let mut restored = false;
    for version in Version::ALL {
        if of_version(version, wanted).is_empty() {
            continue;
        }
        let mut attempts = 0..ATTEMPTS;
        loop {
            if attempts.next().is_none() {
                return Err(crossed(wanted));
            }
            let lock = lock::take()?;
            if let Some(rival) = nftables::taken(&mut nft, wanted)? {
                return Ok(Outcome::Taken(rival));
            }
            let state = State::read(&mut nft, version, purpose)?;
            if state.is_over(&|_| false) && !restored {
                drop(lock);
                restore();
                restored = true;
                continue;
            }
            match ensure_version(&mut nft, &state, wanted, settings)? {
                Attempt::Mapped => break,
                Attempt::Taken(rival) => return Ok(Outcome::Taken(rival)),
                Attempt::Crossed => {}
            }
        }
    }
    Ok(Outcome::Mapped)
}

/// The same for one version of IP, of which `state` tells what is there.
fn ensure_version(
    nft: &mut Nft,
    state: &State,
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
) -> Result<Attempt, Error> {
    let (version, purpose) = (state.version, "map ports with iptables");
    let served = match served(nft, state, wanted)? {
        Served::These(served) => served,
        Served::Taken(rival) => return Ok(Attempt::Taken(rival)),
    };
    let wanted = &wanted.with(&served);
    let localhost = wanted.localhost().filter(|_| version == Version::V4);
    let localnet = match localhost {
        Some(address) => localnet::to_open(nft, address, &|interface| {
            state
                .entries()
                .any(|entry| entry.localnet.as_deref() == Some(interface))
        })?,
        None => None,
    };
    let own = Owners::one(&wanted.identity.owner);
    let rules = Rules::of(version, wanted, settings, localnet.as_deref());
    let mut nat = state.rule_removal(&|found| own.has_in_iptables(found));
    if !served.is_empty() {
        nat.extend(state.creation(nft, purpose)?);
        nat.push(format!(":{} - [0:0]", rules.chain));
        nat.extend(rules.commands());
    }
    let raw = match localhost {
        Some(_) => guard_creation(purpose)?,
        None => Vec::new(),
    };
    // The guards come last: where the others are refused, nothing is left to remove.
    match version.restore(purpose, &[("nat", nat), ("raw", raw)]) {
        Err(HostError::ProgramFailed { .. }) if State::read(nft, version, purpose)? != *state => {
            return Ok(Attempt::Crossed);
        }
        outcome => outcome?,
    }
    if let Some(interface) = localnet {
        localnet::route_localnet(&interface).ensure("1")?;
    }
    if conditions(version, settings).is_empty() {
        return Ok(Attempt::Mapped);
    }
    look_for(nft, version, wanted, conditions(version, settings))
}

/// Looks for the rules that were made: conditions are in the language of iptables, which may understand them in its own way.
fn look_for(
    nft: &mut Nft,
    version: Version,
    wanted: &Wanted<'_>,
    conditions: &[String],
) -> Result<Attempt, Error> {
    let state = State::read(
        nft,
        version,
        "look for the rules of mapped ports in iptables",
    )?;
    let owner = &wanted.identity.iptables_comment;
    let entries = state.entries().filter(|entry| entry.owner == *owner);
    let made: BTreeSet<String> = entries.filter_map(|entry| entry.mapping.clone()).collect();
    let mut forwards = of_version(version, wanted).into_iter();
    match forwards.find(|forward| !made.contains(&forward.to_string())) {
        None => Ok(Attempt::Mapped),
        Some(_) if state.is_over(&|_| false) => Ok(Attempt::Crossed),
        Some(forward) => Err(Error::new(
            Code::UnsupportedField,
            format!(
                "map host port {forward}: iptables made no rule of the conditions {conditions:?}, though it says so"
            ),
        )
        .with_details("see \"conditionsV4\" and \"conditionsV6\": they may contain matches only")),
    }
}

/// Whether no rule leads to the chain of all mapped ports, of a version of IP that this is about. Where that can't be
/// seen without asking `iptables`, it counts as no.
pub(super) fn is_forgotten(wanted: &Wanted<'_>) -> Result<bool, HostError> {
    let mut nft = Nft::open()?;
    for version in Version::ALL {
        if !of_version(version, wanted).is_empty() && has_no_ports(&mut nft, version)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same where it is about either version.
pub(super) fn are_forgotten() -> Result<bool, HostError> {
    let mut nft = Nft::open()?;
    for version in Version::ALL {
        if has_no_ports(&mut nft, version)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_no_ports(nft: &mut Nft, version: Version) -> Result<bool, HostError> {
    if version.has_legacy_table() {
        return Ok(false);
    }
    let chain = nft.chain(version.nat().object(PORTS))?;
    // Rules in it count as uses too, and it has none after a flush.
    Ok(chain.is_none_or(|chain| chain.uses == 0))
}

/// Of the mappings of this version.
fn served(nft: &mut Nft, state: &State, wanted: &Wanted<'_>) -> Result<Served, HostError> {
    let mut by_port: BTreeMap<(Protocol, u16), Vec<(Forward, &Entry)>> = BTreeMap::new();
    for (_, entry) in state.ports() {
        let mapping = entry.mapping.as_deref().and_then(|mapping| {
            let of_its_family = wanted
                .forwards
                .iter()
                .find(|it| state.version.is_of(it.to.ip()))?;
            Forward::parse(mapping, of_its_family.to)
        });
        if let Some(other) = mapping
            && wanted.identity.whose(&entry.owner) != Whose::Own
        {
            let port = (other.protocol, other.host_port);
            by_port.entry(port).or_default().push((other, entry));
        }
    }
    let (mut served, mut chains) = (Vec::new(), Chains::default());
    for forward in of_version(state.version, wanted) {
        let others = by_port.get(&(forward.protocol, forward.host_port));
        let mut waits = false;
        for (other, entry) in others.into_iter().flatten() {
            if !forward.overlaps(other) {
                continue;
            }
            let sibling = wanted.identity.whose(&entry.owner) == Whose::Sibling;
            if sibling && other.host != forward.host {
                continue;
            }
            let to = chains.destination(nft, state.version, entry)?;
            if sibling && to.is_none_or(|to| to.to.port() == forward.to.port()) {
                waits = true;
                continue;
            }
            return Ok(Served::Taken(Rival {
                wanted: *forward,
                comment: entry.owner.clone(),
                mapping: entry.mapping.clone().unwrap_or_default(),
                to: to.map(|to| to.to.ip()),
            }));
        }
        if !waits {
            served.push(*forward);
        }
    }
    Ok(Served::These(served))
}

/// The chains of attachments, listed once each.
#[derive(Default)]
struct Chains(BTreeMap<String, Destinations>);

impl Chains {
    fn destination(
        &mut self,
        nft: &mut Nft,
        version: Version,
        entry: &Entry,
    ) -> Result<Option<Forward>, HostError> {
        let (Some(chain), Some(mapping)) = (&entry.chain, &entry.mapping) else {
            return Ok(None);
        };
        if !self.0.contains_key(chain) {
            let rules = version.rules(nft, chain, "see who has a mapped port in iptables")?;
            let destinations = Destinations::of(&rules.unwrap_or_default());
            self.0.insert(chain.clone(), destinations);
        }
        Ok(self.0.get(chain).and_then(|it| it.forward(mapping)))
    }
}

/// What is wanted and other attachments of the container don't serve.
pub(super) fn own_part(wanted: &Wanted<'_>) -> Result<Vec<Forward>, HostError> {
    let mut nft = Nft::open()?;
    let mut own = Vec::new();
    for version in Version::ALL {
        let forwards = of_version(version, wanted);
        if forwards.is_empty() {
            continue;
        }
        let state = State::read(&mut nft, version, "check mapped ports of iptables")?;
        // Where somebody else has a port, CHECK has that to tell.
        match served(&mut nft, &state, wanted)? {
            Served::These(served) => own.extend(served),
            // CHECK has that to tell.
            Served::Taken(_) => own.extend(forwards.into_iter().copied()),
        }
    }
    Ok(own)
}

/// Everything that is kept for attachments to `network`.
pub(super) fn list(network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let owners = Owners::all(network);
    let mut kept = Vec::new();
    for version in Version::ALL {
        let state = State::read(&mut nft, version, "list mapped ports of iptables")?;
        for entry in state
            .entries()
            .filter(|entry| owners.has_in_iptables(&entry.owner))
        {
            kept.extend(entry.mapping.as_ref().map(|mapping| Kept {
                owner: entry.owner.clone(),
                what: format!(
                    "{mapping} (iptables chain {})",
                    entry.chain.as_deref().unwrap_or(PORTS)
                ),
            }));
        }
    }
    Ok(kept)
}
