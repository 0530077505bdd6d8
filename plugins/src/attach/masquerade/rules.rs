//! The rules of masquerade in nftables, as data.
//!
//! What belongs together is a *pool*: the containers of one network that have addresses in one subnet. A
//! pool is a set of addresses and a base chain, both of the same name, in the table `inet trestle`:
//!
//! ```text
//! set masq/podnet/10.1.0.0-24 {
//!         type ipv4_addr
//!         elements = { 10.1.0.5 comment "podnet/CONTAINER/eth0" }
//! }
//! chain masq/podnet/10.1.0.0-24 {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip daddr 10.1.0.0/24 return comment "own subnet"
//!         ip daddr { 224.0.0.0/4, 255.255.255.255 } return comment "multicast and broadcast"
//!         ip daddr { 10.0.0.0/8 } return comment "nonMasqueradeCIDRs"
//!         ip saddr @masq/podnet/10.1.0.0-24 masquerade fully-random comment "containers of network podnet"
//!         continue comment "network podnet, rules 0123456789abcdef"
//! }
//! ```
//!
//! The last rule does nothing. Its comment has a digest of what the rules before it should be and of what the kernel made of
//! them, so that those of an older build and those that somebody changed by hand are noticed, whatever their comments say.
//!
//! A pool depends on no other pool and on no rule elsewhere, so it can be made, refreshed and deleted by
//! name alone, which is what makes the transaction idempotent: a rule in a chain that networks share
//! would have to be looked for first, and two processes looking at once would both add it. Two networks
//! that give out the same addresses have a pool each; such an address is masqueraded when either would.
//! `return` in a base chain means its policy, and lets later chains (kube-proxy's, Docker's) decide.
//!
//! Addresses with a host prefix (/32, /128) have no subnet to stay inside. They share a pool without the
//! first rule, named `v4` or `v6` in place of a subnet, so that their number adds no rules.
//!
//! `fully-random` because the kernel otherwise tries to keep the source port: of two containers that ask
//! one resolver from one port at the same time, one loses its packet when both entries are confirmed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_conf::names::NetworkName;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::stmt::NATFlag;
use nftables::types::{NfChainType, NfHook};

use crate::host::nft::ObjectRef;
use crate::netfilter::digest::Expected;
use crate::netfilter::elements::Set;
use crate::netfilter::script::{self, Base, Rule, Script};
use crate::netfilter::table::TABLE;
use crate::owner::{fnv1a, network};

/// What the names of masquerade begin with, since other parts of trestle use the table too.
const PREFIX: &str = "masq";

/// Where source addresses are translated (`NF_IP_PRI_NAT_SRC`).
const SRCNAT: i32 = 100;

/// The longest network name that becomes part of a name whole. The kernel allows 255 bytes in all.
const NETWORK_MAX: usize = 120;

/// The containers of one network that have addresses in one subnet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pool {
    /// The name of its set and its chain.
    pub(super) name: String,
    /// Whether the addresses are IPv6.
    pub(super) v6: bool,
    /// Traffic to here keeps its source. None for addresses with a host prefix.
    subnet: Option<IpNet>,
}

impl Pool {
    /// The pool for a container's address, given with the prefix that IPAM gave it.
    pub(super) fn of(network: &NetworkName, address: IpNet) -> Self {
        let subnet = (address.prefix_len() < address.max_prefix_len()).then(|| address.trunc());
        let v6 = matches!(address, IpNet::V6(_));
        let label = match subnet {
            // Colons and a second slash are no part of an identifier of nft's language.
            Some(subnet) => subnet.to_string().replace(':', "_").replace('/', "-"),
            None => family_label(v6).to_owned(),
        };
        Self {
            name: format!("{}{label}", network_prefix(network)),
            v6,
            subnet,
        }
    }

    /// The pool with this name, if it is one of `network`.
    pub(super) fn parse(network: &NetworkName, name: &str) -> Option<Self> {
        Self::labelled(name, name.strip_prefix(&network_prefix(network))?)
    }

    /// The pool with this name, if it is one of another network.
    pub(super) fn parse_others(network: &NetworkName, name: &str) -> Option<Self> {
        let (prefix, label) = name.rsplit_once('/')?;
        let is_pool = prefix.starts_with(PREFIX) && prefix[PREFIX.len()..].starts_with('/');
        let other = !name.starts_with(&network_prefix(network));
        (is_pool && other).then(|| Self::labelled(name, label))?
    }

    /// Whether it may have that address.
    pub(super) fn may_have(&self, address: IpAddr) -> bool {
        match self.subnet {
            Some(subnet) => subnet.contains(&address),
            None => address.is_ipv6() == self.v6,
        }
    }

    fn labelled(name: &str, label: &str) -> Option<Self> {
        if label == family_label(false) || label == family_label(true) {
            let v6 = label == family_label(true);
            return Some(Self {
                name: name.to_owned(),
                v6,
                subnet: None,
            });
        }
        let (address, length) = label.rsplit_once('-')?;
        let address: IpAddr = address.replace('_', ":").parse().ok()?;
        let subnet = IpNet::new(address, length.parse().ok()?).ok()?;
        Some(Self {
            name: name.to_owned(),
            v6: address.is_ipv6(),
            subnet: Some(subnet),
        })
    }

    /// Its set.
    pub(super) fn set(&self) -> Set {
        Set::own(self.name.clone())
    }

    /// Its set or its chain.
    pub(super) fn object(&self) -> ObjectRef<'_> {
        TABLE.object(&self.name)
    }

    /// What its chain is to be. The text says in a few words what [`rules`] spells out, since every ADD asks for it.
    pub(super) fn expected(&self, network: &NetworkName, non_masquerade: &[IpNet]) -> Expected<'_> {
        let exempt = self.exempt(non_masquerade);
        let mut text = format!("{RULES_VERSION} {}", self.name);
        for prefix in &exempt {
            text.push_str(&format!(" {prefix}"));
        }
        let network = network::text(network, NETWORK_IN_COMMENT);
        Expected {
            chain: self.object(),
            text: text.into(),
            count: 2 + usize::from(self.subnet.is_some()) + usize::from(!exempt.is_empty()),
            about: Some(format!("network {network}").into()),
        }
    }

    /// The prefixes of this pool's family, neither overlapping nor adjacent, as nft wants them.
    fn exempt(&self, non_masquerade: &[IpNet]) -> Vec<IpNet> {
        let family: Vec<IpNet> = non_masquerade
            .iter()
            .filter(|prefix| matches!(prefix, IpNet::V6(_)) == self.v6)
            .map(IpNet::trunc)
            .collect();
        IpNet::aggregate(&family)
    }

    /// Destinations that no translation helps, because they never leave the link or address many.
    fn never(&self) -> (Vec<IpNet>, &'static str) {
        if self.v6 {
            let multicast = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);
            let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
            (
                vec![link_local.into(), multicast.into()],
                "link-local and multicast",
            )
        } else {
            let multicast = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
            let broadcast = Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32);
            (
                vec![multicast.into(), broadcast.into()],
                "multicast and broadcast",
            )
        }
    }
}

/// To be raised when the rules below change, so that those of an older trestle are replaced.
const RULES_VERSION: u8 = 2;

/// How much of a comment a network's name may be.
const NETWORK_IN_COMMENT: usize = 60;

/// Adds a pool to a transaction, whatever was there before. Elements that exist already stay.
pub(super) fn write(
    script: &mut Script,
    network: &NetworkName,
    pool: &Pool,
    non_masquerade: &[IpNet],
) {
    let base = Base {
        kind: NfChainType::NAT,
        hook: NfHook::Postrouting,
        priority: SRCNAT,
    };
    script
        .set(pool.object(), &[script::address_type(pool.v6)])
        .chain(pool.object(), Some(base))
        .rules(pool.object(), rules(network, pool, non_masquerade));
}

fn rules(network: &NetworkName, pool: &Pool, non_masquerade: &[IpNet]) -> Vec<Rule> {
    let keep = |destinations, comment: &str| {
        let to = script::is(script::ip(pool.v6, "daddr"), destinations);
        Rule::new([to, script::back()], comment)
    };
    let prefixes = |list: &[IpNet]| script::any_of(list.iter().copied().map(script::prefix));
    let own = pool.subnet.map(script::prefix);
    let mut rules: Vec<Rule> = own.map(|own| keep(own, "own subnet")).into_iter().collect();
    let (never, why) = pool.never();
    rules.push(keep(prefixes(&never), why));
    let exempt = pool.exempt(non_masquerade);
    if !exempt.is_empty() {
        rules.push(keep(prefixes(&exempt), "nonMasqueradeCIDRs"));
    }
    let network = network::text(network, NETWORK_IN_COMMENT);
    let member = script::is(script::ip(pool.v6, "saddr"), script::set(&pool.name));
    rules.push(Rule::new(
        [member, script::masquerade(NATFlag::FullyRandom)],
        format!("containers of network {network}"),
    ));
    rules
}

fn family_label(v6: bool) -> &'static str {
    if v6 { "v6" } else { "v4" }
}

/// What the names of a network's pools begin with. The slash at its end can't be part of a network's
/// name, so no network's prefix is the beginning of another's. A network whose name is too long is
/// named by its beginning and a hash, between further slashes.
fn network_prefix(network: &NetworkName) -> String {
    // The characters of a network's name are all good in an identifier of nft's language, and what
    // stands in front makes sure of the first one.
    let network = network.as_str();
    if network.len() <= NETWORK_MAX {
        return format!("{PREFIX}/{network}/");
    }
    let readable: String = network
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(NETWORK_MAX / 2)
        .collect();
    format!("{PREFIX}/{readable}/x{:016x}/", fnv1a(network.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> NetworkName {
        text.try_into().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn pools_are_named_after_network_and_subnet() {
        let name = |address| Pool::of(&named("podnet"), net(address)).name;
        assert_eq!(name("10.1.0.5/24"), "masq/podnet/10.1.0.0-24");
        assert_eq!(name("fd00:1::5/64"), "masq/podnet/fd00_1__-64");
        assert_eq!(name("10.1.0.5/32"), "masq/podnet/v4");
        assert_eq!(name("fd00:1::5/128"), "masq/podnet/v6");
    }

    #[test]
    fn a_pool_is_recognised_by_its_name_and_only_by_its_own_network() {
        for address in [
            "10.1.0.5/24",
            "fd00:1::5/64",
            "10.1.0.5/32",
            "::/1",
            "0.0.0.0/0",
        ] {
            for network in ["podnet", "a-b_c.d", &"long".repeat(60)] {
                let pool = Pool::of(&named(network), net(address));
                assert_eq!(Pool::parse(&named(network), &pool.name), Some(pool.clone()));
                assert_eq!(Pool::parse(&named("pod"), &pool.name), None);
            }
        }
        assert_eq!(Pool::parse(&named("podnet"), "masq/podnet/nonsense"), None);
        let (own, other) = (named("podnet"), named(&"long".repeat(60)));
        let address = net("10.1.0.5/24");
        for (one, another) in [(&own, &other), (&other, &own)] {
            let pool = Pool::of(one, address);
            assert_eq!(Pool::parse_others(another, &pool.name), Some(pool.clone()));
            assert_eq!(Pool::parse_others(one, &pool.name), None);
            assert!(pool.may_have(net("10.1.0.9/32").addr()));
            assert!(!pool.may_have(net("10.2.0.9/32").addr()));
        }
        assert_eq!(Pool::parse_others(&own, "portmap/other/v4"), None);
        assert_eq!(Pool::parse_others(&own, "masquerade/other/v4"), None);
        assert_eq!(Pool::parse(&named("podnet"), "portmap/podnet/v4"), None);
    }

    #[test]
    fn a_long_network_name_is_hashed_and_the_name_stays_within_bounds() {
        let (one, other) = ("n".repeat(200), "n".repeat(201));
        let name = |network: &str| Pool::of(&named(network), net("fd00:1:2:3:4:5:6:0/112")).name;
        assert_ne!(name(&one), name(&other));
        assert!(name(&one).len() < 200);
    }

    #[test]
    fn what_is_expected_follows_the_prefixes_of_the_own_family_however_they_are_written() {
        let network = named("podnet");
        let pool = Pool::of(&network, net("10.1.0.5/24"));
        let text = |prefixes: &[&str]| {
            let prefixes: Vec<_> = prefixes.iter().map(|text| net(text)).collect();
            let rules = rules(&network, &pool, &prefixes).len();
            let expected = pool.expected(&network, &prefixes);
            assert_eq!(expected.count, rules);
            expected.text.into_owned()
        };
        assert_ne!(text(&[]), text(&["10.0.0.0/8"]));
        assert_eq!(text(&[]), text(&["fd00::/8"]));
        assert_eq!(text(&["10.0.0.0/8"]), text(&["10.0.0.1/8", "10.2.0.0/16"]));
        assert_eq!(text(&["10.0.0.0/9", "10.128.0.0/9"]), text(&["10.0.0.0/8"]));
    }
}
