//! Masquerade: containers reach the outside under the host's address.
//!
//! A packet from a container's address gets the address of the interface it leaves by, unless it goes to
//! the container's own subnet, to multicast (or, for IPv4, broadcast; for IPv6, link-local addresses), or
//! to a prefix of `nonMasqueradeCIDRs`. Bridged packets that `br_netfilter` sends through the same rules
//! fall under the first case.
//!
//! With nftables the rules exist once per network and subnet, see `rules.rs`, and a container is one
//! element per address, so that neither a packet nor an ADD costs more when there are many. In the steady
//! state ADD and DEL talk netlink only and start no process. With iptables each container has a chain,
//! see `iptables.rs`. Whatever is made carries its owner in a comment and is found again by it alone.
//!
//! All functions work on the network namespace that the calling thread is in.

mod iptables;
mod nftables;
mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;
use ipnet::IpNet;

use crate::host::HostError;
use crate::host::nft::Nft;
pub use crate::netfilter::Kept;
use crate::netfilter::go_plugins::{self, Container, Plugin};
use crate::owner::{Owner, Owners};

/// Who carries the rules out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The table `inet trestle`.
    #[default]
    Nftables,
    /// Chains named `TRESTLE-MASQ-…` in the `nat` tables of `iptables` and `ip6tables`.
    Iptables,
}

/// What an attachment wants masqueraded.
#[derive(Debug, Clone, Copy)]
pub struct Masquerade<'a> {
    /// Whose addresses they are.
    pub owner: &'a Owner,
    /// The container's addresses with the prefix lengths IPAM gave them, which make the own subnet.
    pub addresses: &'a [IpNet],
    /// Prefixes that see the container's own address (`nonMasqueradeCIDRs`), of either family.
    pub non_masquerade: &'a [IpNet],
    /// Who carries the rules out.
    pub backend: Backend,
}

/// How many subnets a container with masquerading in nftables may have addresses in. Each is a chain that every new connection
/// of the host comes through, of which the kernel takes 1,024 in all (`MAX_HOOK_COUNT` in net/netfilter/core.c), and `nft` takes
/// longer than in proportion to their number.
pub const SUBNETS_MAX: usize = 256;

/// How many subnets these addresses are in, those with a host prefix counted as one for each family.
pub fn subnets(addresses: &[IpNet]) -> usize {
    let subnet = |address: &IpNet| match address.prefix_len() == address.max_prefix_len() {
        true => (address.addr().is_ipv6(), None),
        false => (address.addr().is_ipv6(), Some(address.trunc())),
    };
    addresses.iter().map(subnet).collect::<BTreeSet<_>>().len()
}

/// A container that lives on the network, for when the firewall has forgotten it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its attachment to this network.
    pub owner: Owner,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
}

impl Masquerade<'_> {
    /// Of containers that were said to live on the network, the others, each address once and without those that are
    /// this container's own by now.
    fn others(&self, members: Vec<Member>) -> Vec<Member> {
        let mut seen: BTreeSet<IpAddr> = self.addresses.iter().map(IpNet::addr).collect();
        let others = members.into_iter().filter(|member| {
            member.owner.network == self.owner.network && member.owner != *self.owner
        });
        others
            .map(|mut member| {
                member
                    .addresses
                    .retain(|address| seen.insert(address.addr()));
                member
            })
            .filter(|member| !member.addresses.is_empty())
            .collect()
    }
}

/// Makes sure that the container's addresses are masqueraded as `wanted` says, and that the network's
/// rules are those of its configuration, for the containers already there too.
///
/// `living` is called only when a part of the network's rules had vanished, as after `nft flush ruleset` or
/// `iptables -t nat -F` (and when there was none yet), and gives the containers that live on this network; they get
/// back what they had. It is called a second time after the rules were made: a container that is gone by then
/// is removed again, and the DEL of one that goes later finds it in [`Removal::finish`].
///
/// Before that it does what [`release`] does, with the backend's rules, and gives what was removed.
///
/// # Errors
/// [`HostError::ProgramMissing`] when `nft` (or `iptables`) is needed and not installed; otherwise
/// what the kernel or the program says. Nothing of this container has to be there then; call [`remove`].
pub fn ensure(
    wanted: &Masquerade<'_>,
    living: &dyn Fn() -> Vec<Member>,
    stands: &dyn Fn(&str) -> bool,
) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let (network, addresses) = (&wanted.owner.network, wanted.addresses);
    let mut released = nftables::release(&mut nft, network, addresses, stands)?;
    match wanted.backend {
        Backend::Nftables => nftables::ensure(&mut nft, wanted, living)?,
        Backend::Iptables => {
            released.extend(iptables::release(&mut nft, wanted, stands)?);
            iptables::ensure(&mut nft, wanted, living)?;
        }
    }
    Ok(released)
}

/// Removes what other networks' sets hold for addresses that an attachment to `network` has now, and gives it. A network
/// that was renamed leaves that behind: the runtime calls DEL with the list as it is now. Left as it is, the element of a
/// container that is gone would masquerade the one that has its address, whatever its own network says.
///
/// What belongs to somebody who `stands` according to its comment stays: networks on bridges of their own may give out the
/// same addresses. It takes one listing of sets.
///
/// # Errors
/// What the kernel says.
pub fn release(
    network: &NetworkName,
    addresses: &[IpNet],
    stands: &dyn Fn(&str) -> bool,
) -> Result<Vec<Kept>, HostError> {
    nftables::release(&mut Nft::open()?, network, addresses, stands)
}

/// A removal that has begun. See [`begin_removal`].
#[must_use = "chains, and elements that a concurrent ADD restored, stay behind without finish()"]
pub struct Removal {
    owner: Owner,
    nft: Nft,
    removed: nftables::Removed,
}

/// Removes everything that `owner` has, whichever backend made it, and the network's rules along with
/// the last container. What is not there is no error, and neither netns nor prevResult is needed.
///
/// A DEL begins with this and ends with [`Removal::finish`]. The kernel frees what a transaction deleted
/// after an RCU grace period (some 10 ms), and makes whoever closes a netfilter socket meanwhile wait
/// (`nft_rcv_nl_event` in net/netfilter/nf_tables_api.c). Begun first, that time passes while the kernel
/// unregisters the interface, which takes as long.
///
/// # Errors
/// What the kernel or the program says.
pub fn begin_removal(owner: &Owner) -> Result<Removal, HostError> {
    let mut nft = Nft::open()?;
    let removed = nftables::remove(&mut nft, &Owners::one(owner))?;
    Ok(Removal {
        owner: owner.clone(),
        nft,
        removed,
    })
}

impl Removal {
    /// Removes the chains of iptables, which there is no reason to begin with, and what a concurrent [`ensure`] put
    /// back because the container seemed to be alive. To be called when by all that `living` looks at it no
    /// longer is.
    ///
    /// # Errors
    /// As [`begin_removal`].
    pub fn finish(mut self) -> Result<(), HostError> {
        let elements = self.remove_late_additions();
        // Both may have something: the backend was changed, and either takes in the containers that it finds alive.
        elements.and(iptables::remove(&mut self.nft, &self.owner))
    }

    fn remove_late_additions(&mut self) -> Result<(), HostError> {
        if self.removed.is_empty() || nftables::is_back(&mut self.nft, &self.removed)? {
            nftables::remove(&mut self.nft, &Owners::one(&self.owner))?;
        }
        Ok(())
    }
}

/// [`begin_removal`] and [`Removal::finish`] in one, for when the container is gone already.
///
/// # Errors
/// As [`begin_removal`].
pub fn remove(owner: &Owner) -> Result<(), HostError> {
    begin_removal(owner)?.finish()
}

/// Removes what the Go plugin made for `owner`, for a container that is not known to have been attached by us.
///
/// # Errors
/// The first thing that went wrong.
pub fn remove_of_the_go_plugin(owner: &Owner) -> Result<(), HostError> {
    let container = Container {
        owner,
        addresses: &[],
    };
    let errors = go_plugins::remove(Plugin::Masquerade, &container, true);
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// What masquerade keeps for the attachments of `network`.
///
/// # Errors
/// What the kernel says.
pub fn list(network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let mut kept = nftables::list(network)?;
    kept.extend(iptables::list(&mut Nft::open()?, network)?);
    Ok(kept)
}

/// Removes what belongs to `network` but to none of the `valid` attachments, and gives what was removed.
///
/// # Errors
/// What the kernel or the program says.
pub fn gc(network: &NetworkName, valid: &[AttachmentId]) -> Result<Vec<Kept>, HostError> {
    let mut nft = Nft::open()?;
    let removed = nftables::remove(&mut nft, &Owners::all_but(network, valid))?;
    let removed = removed.iter();
    let mut removed: Vec<Kept> = removed
        .map(|(pool, element)| nftables::kept(pool, element))
        .collect();
    removed.extend(iptables::gc(&mut nft, network, valid)?);
    Ok(removed)
}

/// Compares what is there with what `wanted` says, and gives a sentence for each difference. None where the Go plugin
/// attached the container and masquerades it.
///
/// # Errors
/// What the kernel or the program says.
pub fn check(wanted: &Masquerade<'_>) -> Result<Vec<String>, HostError> {
    let differences = match wanted.backend {
        Backend::Nftables => nftables::check(wanted)?,
        Backend::Iptables => iptables::check(wanted)?,
    };
    if differences.is_empty() {
        return Ok(differences);
    }
    let addresses: Vec<IpAddr> = wanted.addresses.iter().map(IpNet::addr).collect();
    let by_the_go_plugin = go_plugins::masquerades(&Container {
        owner: wanted.owner,
        addresses: &addresses,
    })?;
    Ok(match by_the_go_plugin {
        true => Vec::new(),
        false => differences,
    })
}
