//! Will the host's filter rules let a container's packets through? A look, never a change.
//!
//! Docker, for one, sets the policy of the chain FORWARD to DROP and lets its own bridges through alone:
//! containers of everybody else reach the host and nothing beyond. firewalld rejects what no zone lets
//! through, with the last rule of a chain whose policy is to accept. Here the rules of such chains are
//! followed for two packets of TCP, the first one of a container to the outside and the answer to it. What
//! can't be decided (a match on something unknown) counts in the rules' favour: a finding is meant to be
//! right, not complete.

pub mod chains;
pub mod guard;
mod iptables;
pub mod names;
mod nft;
mod verdict;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::chains::forward_chains;
use crate::host::HostError;
use crate::host::nft::{Chain, Family, Nft, family_name};
use crate::netfilter::iptables::Version;

/// firewalld's table.
const FIREWALLD: &str = "firewalld";

/// Which packets are meant.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    /// Where containers are.
    pub behind: Behind<'a>,
    /// A container's address, or one that a container may get.
    pub address: IpAddr,
    /// The interface of the host's default route, as far as there is one.
    pub uplink: Option<&'a str>,
}

/// What containers are behind, as seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind<'a> {
    /// This interface: a bridge, or the host's end of a pair.
    Link(&'a str),
    /// The host's end of a pair that is yet to be made.
    NewPair,
}

impl Behind<'_> {
    /// The interface's name, or one that it may get ([`crate::owner`]).
    fn name(&self) -> &str {
        match self {
            Self::Link(name) => name,
            Self::NewPair => "veth00000000",
        }
    }
}

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link(name) => name,
            Self::NewPair => "a container's veth pair",
        })
    }
}

/// A chain that drops what a container sends or gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The chain: `ip filter FORWARD`.
    pub chain: String,
    /// What containers are behind, in words.
    pub behind: String,
    /// Whether packets from the container are dropped; else the answers to them.
    pub outbound: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            chain,
            behind,
            outbound,
        } = self;
        let packets = if *outbound {
            "forwarded packets from"
        } else {
            "answers to packets from"
        };
        write!(
            f,
            "the host's filter rules drop {packets} {behind}: chain {chain} drops what no rule lets \
             through, and none is for them; add the plugin `firewall` after this one in the network \
             configuration, or allow them in that chain"
        )
    }
}

/// Whether anything on this host may drop forwarded packets that no rule is about: a few netlink round trips, which spare the
/// rest of the look on most hosts.
///
/// # Errors
/// What the kernel says.
pub fn may_drop(address: IpAddr) -> Result<bool, HostError> {
    Ok(!dropping_chains(address)?.is_empty() || legacy_filter_exists(address))
}

/// The chains that stop packets on `path`, none when all is well.
///
/// Costs a few netlink round trips when no chain of the forward hook is known to drop, which is a kernel's
/// default, and a child process for each that does.
///
/// # Errors
/// What the kernel or `nft` says. Rules that can't be read are no error but no finding either.
pub fn judge(path: &Path<'_>) -> Result<Vec<Finding>, HostError> {
    let mut findings = Vec::new();
    each_ruleset(path.address, &mut |rules, chain, name| {
        findings.extend(first_stopped(path, rules, chain, name));
    })?;
    Ok(findings)
}

/// The chains that stop what another machine begins to send to a container, by way of the uplink of `path`.
///
/// # Errors
/// As [`judge`].
pub fn judge_from(path: &Path<'_>, source: IpAddr) -> Result<Vec<String>, HostError> {
    let packet = verdict::Packet {
        iif: path.uplink,
        oif: Some(path.behind.name()),
        source,
        destination: path.address,
        state: "new",
    };
    let mut stopping = Vec::new();
    each_ruleset(path.address, &mut |rules, chain, name| {
        if rules.surely_drops(chain, &packet) {
            stopping.push(name.to_owned());
        }
    })?;
    Ok(stopping)
}

/// Reads the rules of each chain that may drop forwarded packets: rules, the chain, and its name for people.
fn each_ruleset(
    address: IpAddr,
    look: &mut dyn FnMut(&verdict::Ruleset, &str, &str),
) -> Result<(), HostError> {
    for chain in dropping_chains(address)? {
        let rules = if is_iptables(&chain) {
            iptables::read(address, iptables::Flavour::Nft)
        } else {
            nft::read(&chain)
        };
        let Ok(rules) = rules else { continue };
        let name = format!(
            "{} {} {}",
            family_name(chain.family),
            chain.table,
            chain.name
        );
        look(&rules, &chain.name, &name);
    }
    if legacy_filter_exists(address)
        && let Ok(rules) = iptables::read(address, iptables::Flavour::Legacy)
        && rules.drops("FORWARD")
    {
        let name = "filter FORWARD (iptables-legacy)";
        look(&rules, "FORWARD", name);
    }
    Ok(())
}

/// The base chains of the forward hook that drop by policy, and firewalld's, for the family of `address`.
fn dropping_chains(address: IpAddr) -> Result<Vec<Chain>, HostError> {
    let own = if address.is_ipv4() {
        Family::IPv4
    } else {
        Family::IPv6
    };
    let mut chains = forward_chains(&mut Nft::open()?)?;
    chains.retain(|chain| {
        let stops = chain
            .base
            .as_ref()
            .is_some_and(|base| base.kind == "filter" && (base.drops || is_firewalld(chain)));
        stops && (chain.family == Family::Inet || chain.family == own)
    });
    Ok(chains)
}

fn first_stopped(
    path: &Path<'_>,
    rules: &verdict::Ruleset,
    chain: &str,
    name: &str,
) -> Option<Finding> {
    [true, false]
        .into_iter()
        .find(|outbound| rules.surely_drops(chain, &packet(path, *outbound)))
        .map(|outbound| Finding {
            chain: name.to_owned(),
            behind: path.behind.to_string(),
            outbound,
        })
}

/// A packet between the container and an address of the outside that nobody has rules for (RFC 5737,
/// RFC 3849).
fn packet<'a>(path: &'a Path<'a>, outbound: bool) -> verdict::Packet<'a> {
    let outside: IpAddr = if path.address.is_ipv4() {
        Ipv4Addr::new(203, 0, 113, 77).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x77).into()
    };
    let (inner, outer) = (
        (Some(path.behind.name()), path.address),
        (path.uplink, outside),
    );
    let (from, to) = if outbound {
        (inner, outer)
    } else {
        (outer, inner)
    };
    verdict::Packet {
        iif: from.0,
        oif: to.0,
        source: from.1,
        destination: to.1,
        state: if outbound { "new" } else { "established" },
    }
}

fn is_firewalld(chain: &Chain) -> bool {
    chain.table == FIREWALLD
}

/// Whether the chain is one that `iptables` made, whose rules `nft` can't always print.
fn is_iptables(chain: &Chain) -> bool {
    chain.table == "filter" && chain.name == "FORWARD" && chain.family != Family::Inet
}

/// Whether the old iptables, which nftables does not know of, has a filter table in this namespace.
fn legacy_filter_exists(address: IpAddr) -> bool {
    let tables = Version::of(address).legacy_tables();
    tables.iter().any(|table| table == "filter")
}
