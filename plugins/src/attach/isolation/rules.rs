//! The rules that keep isolated containers apart, as data.
//!
//! ```text
//! table inet trestle {
//!         set isolated/podnet/IF/v4 { type ipv4_addr; elements = { 10.1.0.5 comment "podnet/CONTAINER/eth0" } }
//!         set isolated/podnet/IF/v4-frames { type ipv4_addr . ether_addr; elements = { 10.1.0.5 . 0a:58:… comment "…" } }
//!         chain isolated/podnet/IF {
//!                 type filter hook forward priority filter - 10; policy accept;
//!                 iifname != "cni0" return
//!                 oifname != "cni0" return
//!                 ct status dnat return                                      (Services and host ports)
//!                 ip daddr . ether daddr @isolated/podnet/IF/v4-frames return (bridged: br_netfilter)
//!                 ip daddr @isolated/podnet/IF/v4 drop
//!                 (the same for IPv6)
//!         }
//! }
//! ```
//!
//! `IF` is a hash of the interface's name. A frame that the bridge itself passes on, which bridge netfilter sends through
//! these rules, too, has the MAC address of the container that it is for; one that is routed had an address of the host's.

use std::net::IpAddr;

use cni_conf::addr::MacAddr;
use cni_conf::names::NetworkName;
use nftables::expr::MetaKey;
use nftables::schema::SetType;
use nftables::types::{NfChainType, NfHook};

use crate::host::nft::{Element, KeyBuilder};
use crate::netfilter::digest::Expected;
use crate::netfilter::elements::{Placed, Set};
use crate::netfilter::script::{self, Base, Expr, Rule, Script};
use crate::netfilter::table::TABLE;
use crate::owner::{digest::digest, network};

/// What the names begin with, since other parts of trestle use the table too.
const PREFIX: &str = "isolated";

/// What the names of sets with MAC addresses end in.
const FRAMES: &str = "-frames";

/// Before the chains of the host (`NF_IP_PRI_FILTER` is 0); a drop is final in any order.
const PRIORITY: i32 = -10;

/// A set of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    v6: bool,
    /// The container's MAC address is part of the key.
    frames: bool,
}

/// Those that there are.
const KINDS: [Kind; 4] = [
    Kind::new(false, false),
    Kind::new(false, true),
    Kind::new(true, false),
    Kind::new(true, true),
];

impl Kind {
    const fn new(v6: bool, frames: bool) -> Self {
        Self { v6, frames }
    }

    fn suffix(self) -> String {
        let version = if self.v6 { "v6" } else { "v4" };
        format!("{version}{}", if self.frames { FRAMES } else { "" })
    }

    fn key_type(self) -> Vec<SetType> {
        let address = script::address_type(self.v6);
        match self.frames {
            false => vec![address],
            true => vec![address, SetType::EtherAddr],
        }
    }
}

/// The isolated containers of one network behind one interface of the host: a chain and four sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// The name of the chain; those of the sets begin with it.
    pub(super) chain: String,
}

impl Group {
    /// The group of a network's containers behind an interface.
    pub(super) fn of(network: &NetworkName, interface: &str) -> Self {
        Self {
            chain: format!("{}{}", prefix(network), digest(interface)),
        }
    }

    /// The group of a network that a set belongs to.
    pub(super) fn of_set(network: &NetworkName, set: &str) -> Option<Self> {
        let (hash, suffix) = set.strip_prefix(&prefix(network))?.split_once('/')?;
        // What stands for a longer network's name goes on with an `x`.
        let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_set = KINDS.iter().any(|kind| kind.suffix() == suffix);
        (is_hash && is_set).then(|| Self {
            chain: format!("{}{hash}", prefix(network)),
        })
    }

    /// The names of its sets.
    pub(super) fn sets(&self) -> [String; 4] {
        KINDS.map(|kind| self.set(kind))
    }

    fn set(&self, kind: Kind) -> String {
        format!("{}/{}", self.chain, kind.suffix())
    }

    /// The elements of a container, each with its set.
    pub(super) fn elements(
        &self,
        addresses: &[IpAddr],
        mac: MacAddr,
        comment: &str,
    ) -> Vec<Placed> {
        let of = |address: &IpAddr| {
            let v6 = address.is_ipv6();
            let set = |frames| Set::own(self.set(Kind { v6, frames }));
            let key = KeyBuilder::default().address(*address).mac(mac.bytes());
            let frame = Element {
                key: key.finish(),
                data: None,
                comment: Some(comment.to_owned()),
            };
            [
                (set(false), Element::address(*address, comment)),
                (set(true), frame),
            ]
        };
        addresses.iter().flat_map(of).collect()
    }
}

/// True for a set of bare addresses. What a container's MAC address is may have been changed by another plugin.
pub(super) fn is_of_addresses(set: &str) -> bool {
    !set.ends_with(FRAMES)
}

fn prefix(network: &NetworkName) -> String {
    format!("{PREFIX}/{}/", network::label(network))
}

/// What the chain is to be. `rules` are those of [`rules`].
pub(super) fn expected<'a>(
    group: &'a Group,
    network: &NetworkName,
    rules: &[Rule],
) -> Expected<'a> {
    let network = network::text(network, 60);
    Expected {
        chain: TABLE.object(&group.chain),
        text: script::text(rules).into(),
        count: rules.len(),
        about: Some(format!("isolated containers of network {network}").into()),
    }
}

/// The rules of the chain.
pub(super) fn rules(group: &Group, interface: &str) -> Vec<Rule> {
    // A star at the end would stand for more.
    let name = match interface.strip_suffix('*') {
        Some(rest) => format!("{rest}\\*"),
        None => interface.to_owned(),
    };
    let elsewhere = |key| {
        let other = script::is_not(script::meta(key), script::word(name.as_str()));
        let comment = format!("what is not routed back into {interface}");
        Rule::new([other, script::back()], comment)
    };
    let mut all = vec![
        elsewhere(MetaKey::Iifname),
        elsewhere(MetaKey::Oifname),
        Rule::new(
            [script::translated(), script::back()],
            "Services and host ports",
        ),
    ];
    for v6 in [false, true] {
        let member =
            |left: Expr, frames| script::is(left, script::set(&group.set(Kind { v6, frames })));
        let to = script::ip(v6, "daddr");
        let frame = script::concat([to.clone(), script::header("ether", "daddr")]);
        for expr in [
            [member(frame, true), script::back()],
            [member(to, false), script::drop()],
        ] {
            all.push(Rule::new(expr, "to isolated containers"));
        }
    }
    all
}

/// One transaction that makes chain, rules and sets, whatever is there; elements stay.
pub(super) fn script(group: &Group, rules: Vec<Rule>) -> Script {
    let mut script = Script::new();
    script.table(TABLE);
    for kind in KINDS {
        script.set(TABLE.object(&group.set(kind)), &kind.key_type());
    }
    let base = Base {
        kind: NfChainType::Filter,
        hook: NfHook::Forward,
        priority: PRIORITY,
    };
    let chain = TABLE.object(&group.chain);
    script.chain(chain, Some(base)).rules(chain, rules);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_known_by_its_network_alone() {
        let (short, long) = ("n".repeat(40), "n".repeat(200));
        for network in ["podnet", "a-b_c.d", &short, &long] {
            let network = NetworkName::try_from(network).unwrap();
            let group = Group::of(&network, "cni0");
            for set in group.sets() {
                assert_eq!(Group::of_set(&network, &set), Some(group.clone()), "{set}");
                for other in ["pod", "n", &short, &long] {
                    let other = NetworkName::try_from(other).unwrap();
                    let expected = (other == network).then(|| group.clone());
                    assert_eq!(Group::of_set(&other, &set), expected, "{set}");
                }
            }
            assert_ne!(group, Group::of(&network, "cni0.5"));
        }
    }

    #[test]
    fn the_rules_follow_the_interface() {
        let network = NetworkName::try_from("podnet").unwrap();
        let group = Group::of(&network, "cni0");
        let text = |interface| script::text(&rules(&group, interface));
        assert_ne!(text("cni0"), text("cni1"));
        assert_eq!(text("cni0"), text("cni0"));
        assert!(text("cni*").contains(r"cni\\*"));
    }
}
