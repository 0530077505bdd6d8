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

mod nftables;
mod owner;
mod rules;

use ipnet::IpNet;

use crate::host::HostError;
pub use owner::Owner;

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
    pub owner: Owner<'a>,
    /// The container's addresses with the prefix lengths IPAM gave them, which make the own subnet.
    pub addresses: &'a [IpNet],
    /// Prefixes that see the container's own address (`nonMasqueradeCIDRs`), of either family.
    pub non_masquerade: &'a [IpNet],
    /// Who carries the rules out.
    pub backend: Backend,
}

/// A container that lives on the network, for when the firewall has forgotten it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The container's ID.
    pub container: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// Something that masquerade keeps for an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose it is, as [`Owner::comment`] spells it.
    pub owner: String,
    /// What it is, in words: `nft element 10.1.0.5 in inet trestle masq/podnet/10.1.0.0-24`.
    pub what: String,
}

/// Makes sure that the container's addresses are masqueraded as `wanted` says, and that the network's
/// rules are those of its configuration, for the containers already there too.
///
/// `living` is called only when a part of the network's rules had vanished, as after `nft flush ruleset`
/// (and when there was none yet), and gives the containers that live on this network; they get back what
/// they had. It is called a second time after the rules were made: a container that is gone by then is
/// taken out again. So a DEL has to call [`remove`] after that by which `living` knows the container is
/// gone, or it may come back.
///
/// # Errors
/// [`HostError::ProgramMissing`] when `nft` (or `iptables`) is needed and not installed; otherwise
/// what the kernel or the program says. Nothing of this container has to be there then; call [`remove`].
pub fn ensure(wanted: &Masquerade<'_>, living: &dyn Fn() -> Vec<Member>) -> Result<(), HostError> {
    match wanted.backend {
        Backend::Nftables => nftables::ensure(wanted, living),
        Backend::Iptables => Ok(()),
    }
}

/// Takes out everything that `owner` has, whichever backend made it, and the network's rules along with
/// the last container. What is not there is no error.
///
/// # Errors
/// What the kernel or the program says.
pub fn remove(owner: Owner<'_>) -> Result<(), HostError> {
    nftables::remove(owner.network, &|comment| comment == owner.comment())?;
    Ok(())
}

/// What masquerade keeps for the attachments of `network`.
///
/// # Errors
/// What the kernel says.
pub fn list(network: &str) -> Result<Vec<Kept>, HostError> {
    nftables::list(network)
}

/// Takes out what belongs to `network` but to none of the `valid` attachments (container ID and interface
/// name), and gives what was taken out.
///
/// # Errors
/// What the kernel or the program says.
pub fn gc(network: &str, valid: &[(&str, &str)]) -> Result<Vec<Kept>, HostError> {
    let valid: Vec<String> = valid
        .iter()
        .map(|&(container, ifname)| {
            Owner {
                network,
                container,
                ifname,
            }
            .comment()
        })
        .collect();
    nftables::remove(network, &|comment| {
        !valid.iter().any(|owner| owner == comment)
    })
}

/// Compares what is there with what `wanted` says, and gives a sentence for each difference.
///
/// # Errors
/// What the kernel or the program says.
pub fn check(wanted: &Masquerade<'_>) -> Result<Vec<String>, HostError> {
    match wanted.backend {
        Backend::Nftables => nftables::check(wanted),
        Backend::Iptables => Ok(Vec::new()),
    }
}
