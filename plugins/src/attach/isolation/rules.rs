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
use serde_json::{Value, json};

use crate::host::nft::{Element, KeyBuilder};
use crate::netfilter::table::TABLE;
use crate::owner::digest::{digest, rules_comment};
use crate::owner::network;

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

    fn key_type(self) -> Value {
        let address = if self.v6 { "ipv6_addr" } else { "ipv4_addr" };
        match self.frames {
            false => json!(address),
            true => json!([address, "ether_addr"]),
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
    ) -> Vec<(String, Element)> {
        let of = |address: &IpAddr| {
            let kind = |frames| {
                self.set(Kind {
                    v6: address.is_ipv6(),
                    frames,
                })
            };
            let key = KeyBuilder::default().address(*address).mac(mac.bytes());
            let frame = Element {
                key: key.finish(),
                data: None,
                comment: Some(comment.to_owned()),
            };
            [
                (kind(false), Element::address(*address, comment)),
                (kind(true), frame),
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

/// How many rules the chain has.
pub(super) const RULES: usize = 7;

/// The comment of the last rule, with a digest of all.
pub(super) fn comment(group: &Group, network: &NetworkName, interface: &str) -> String {
    let text = Value::from(expressions(group, interface)).to_string();
    let about = format!(
        "isolated containers of network {}",
        network::text(network, 60)
    );
    rules_comment(&about, &text)
}

fn expressions(group: &Group, interface: &str) -> Vec<Value> {
    // A star at the end would stand for more.
    let name = match interface.strip_suffix('*') {
        Some(rest) => format!("{rest}\\*"),
        None => interface.to_owned(),
    };
    let elsewhere = |key: &str| {
        let meta = json!({"meta": {"key": key}});
        json!([{"match": {"op": "!=", "left": meta, "right": name}}, {"return": null}])
    };
    let translated = json!([
        {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}},
        {"return": null}
    ]);
    let field = |protocol: &str| json!({"payload": {"protocol": protocol, "field": "daddr"}});
    let mut all = vec![elsewhere("iifname"), elsewhere("oifname"), translated];
    for v6 in [false, true] {
        let address = field(if v6 { "ip6" } else { "ip" });
        let frame = json!({"concat": [address, field("ether")]});
        for (left, frames, verdict) in [(frame, true, "return"), (address, false, "drop")] {
            let set = format!("@{}", group.set(Kind { v6, frames }));
            all.push(json!([
                {"match": {"op": "==", "left": left, "right": set}},
                {verdict: null}
            ]));
        }
    }
    all
}

/// One transaction of `nft` that makes chain, rules and sets, whatever is there; elements stay.
pub(super) fn script(group: &Group, network: &NetworkName, interface: &str) -> String {
    let (family, table) = ("inet", TABLE.name);
    let mut commands = vec![json!({"add": {"table": {"family": family, "name": table}}})];
    for kind in KINDS {
        let set = json!({
            "family": family, "table": table, "name": group.set(kind), "type": kind.key_type(),
        });
        commands.push(json!({"add": {"set": set}}));
    }
    let chain = json!({"family": family, "table": table, "name": group.chain});
    let mut base = chain.clone();
    base["type"] = json!("filter");
    base["hook"] = json!("forward");
    base["prio"] = json!(PRIORITY);
    base["policy"] = json!("accept");
    commands.extend([
        json!({"add": {"chain": base}}),
        json!({"flush": {"chain": chain}}),
    ]);
    let expressions = expressions(group, interface);
    let last = expressions.len() - 1;
    for (place, expr) in expressions.into_iter().enumerate() {
        let mut rule =
            json!({"family": family, "table": table, "chain": group.chain, "expr": expr});
        rule["comment"] = match place {
            0 | 1 => json!(format!("what is not routed back into {interface}")),
            2 => json!("Services and host ports"),
            place if place == last => json!(comment(group, network, interface)),
            _ => json!("to isolated containers"),
        };
        commands.push(json!({"add": {"rule": rule}}));
    }
    json!({"nftables": commands}).to_string()
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
    fn the_digest_follows_the_interface() {
        let network = NetworkName::try_from("podnet").unwrap();
        let group = Group::of(&network, "cni0");
        let of = |interface| comment(&group, &network, interface);
        assert_ne!(of("cni0"), of("cni1"));
        assert_eq!(of("cni0"), of("cni0"));
        assert_eq!(expressions(&group, "cni0").len(), RULES);
        assert!(script(&group, &network, "cni*").contains(r"cni\\*"));
    }
}
