//! The rules of a network, which stand for all its containers.
//!
//! ```text
//! -A FORWARD -m comment --comment "trestle: containers" -j TRESTLE-FORWARD
//! -A TRESTLE-FORWARD -m comment --comment "trestle: ingressPolicy" -j TRESTLE-ISOLATE
//! -A TRESTLE-FORWARD -m comment --comment "network podnet" -j TRESTLE-FW-0123456789abcde
//! -A TRESTLE-FW-0123456789abcde -m comment --comment "trestle: rules of the administrator" -j CNI-ADMIN
//! -A TRESTLE-FW-0123456789abcde -d 10.244.0.0/16 -m comment --comment "translated, to 10.244.0.0/16" -m conntrack --ctstate DNAT -j ACCEPT
//! -A TRESTLE-FW-0123456789abcde -s 10.244.0.0/16 -m comment --comment "translated, from 10.244.0.0/16" -m conntrack --ctstate DNAT -j ACCEPT
//! -A TRESTLE-FW-0123456789abcde -s 10.1.0.0/24 -i cni0 -m comment --comment "cni0 10.1.0.0/24: from containers" -j ACCEPT
//! -A TRESTLE-FW-0123456789abcde -d 10.1.0.0/24 -o cni0 -m comment --comment "cni0 10.1.0.0/24: answers and published ports" -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
//! -A TRESTLE-FW-0123456789abcde -s 10.244.0.0/16 -d 10.1.0.0/24 -o cni0 -m comment --comment "cni0 10.1.0.0/24: from 10.244.0.0/16" -j ACCEPT
//! -A TRESTLE-FW-0123456789abcde -m comment --comment "digest 0123456789abcdef"
//! -A TRESTLE-ISOLATE -m comment --comment "network podnet" -j TRESTLE-IS-0123456789abcde
//! -A TRESTLE-IS-0123456789abcde -i cni0 -o cni0 -m comment --comment "cni0: containers are kept apart" -j DROP
//! -A TRESTLE-IS-0123456789abcde -i cni0 ! -o cni0 -m comment --comment "cni0: to protected containers elsewhere" -j TRESTLE-ISOLATE-TO
//! -A TRESTLE-ISOLATE-TO -m comment --comment "network podnet" -j TRESTLE-IT-0123456789abcde
//! -A TRESTLE-IT-0123456789abcde -o cni0 -m comment --comment "cni0: protected containers" -j DROP
//! ```
//!
//! What a chain knows of the network's other containers, their subnets and links, is read from its comments.

use std::collections::BTreeSet;

use cni_conf::names::NetworkName;

use super::super::wanted::{Isolation, Place, Wanted};
use super::plan::{FORWARD, ISOLATE, ISOLATE_TO, TO_ADMIN};
use super::words::{Words, rule};
use crate::netfilter::forward_hook::names;
use crate::owner::network::chain;

/// What the names of networks' chains begin with that are about packets from and to containers.
const FROM: &str = "TRESTLE-IS-";
const TO: &str = "TRESTLE-IT-";

/// What stands in a rule's comment between the place that it is about and what it does.
const ABOUT: &str = ": ";

/// A chain of the network's own and the chain that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) from: &'static str,
    pub(super) chain: String,
}

/// The chains of a network: the way through, packets from its containers, packets to them. The last two are there with
/// an `ingressPolicy` only.
pub(super) fn branches(network: &NetworkName) -> [Branch; 3] {
    let kinds = [(FORWARD, names::WAY), (ISOLATE, FROM), (ISOLATE_TO, TO)];
    kinds.map(|(from, kind)| Branch {
        from,
        chain: chain(kind, network),
    })
}

/// Whether a chain is the way through of some network.
pub(super) fn is_way(chain: &str) -> bool {
    chain.starts_with(names::WAY)
}

/// Whether a chain is one of some network.
pub(super) fn is_branch(chain: &str) -> bool {
    [names::WAY, FROM, TO]
        .iter()
        .any(|kind| chain.starts_with(kind))
}

/// What the network's chains are to say in one version of IP, given the comments that they have now.
pub(super) fn rules(
    v6: bool,
    wanted: &[&Wanted],
    found: [&mut dyn Iterator<Item = &str>; 3],
) -> [Vec<Words>; 3] {
    let [way, from, to] = found;
    let mut places: BTreeSet<Place> = way.filter_map(place).collect();
    let own = wanted.iter().flat_map(|one| &one.places);
    places.extend(
        own.filter(|place| place.subnet.addr().is_ipv6() == v6)
            .cloned(),
    );
    let links: BTreeSet<String> = from.chain(to).filter_map(link).collect();
    let last = wanted.last();
    [
        last.map_or_else(Vec::new, |wanted| way_rules(v6, wanted, &places)),
        isolation_rules(wanted, &links, from_rules),
        isolation_rules(wanted, &links, to_rules),
    ]
}

/// The place in a comment.
fn place(comment: &str) -> Option<Place> {
    let (place, _) = comment.split_once(ABOUT)?;
    let (link, subnet) = place.split_once(' ')?;
    Some(Place {
        link: link.to_owned(),
        subnet: subnet.parse().ok()?,
    })
}

/// The link in a comment.
fn link(comment: &str) -> Option<String> {
    let (link, _) = comment.split_once(ABOUT)?;
    Some(link.to_owned())
}

fn way_rules(v6: bool, wanted: &Wanted, places: &BTreeSet<Place>) -> Vec<Words> {
    let of_version = |prefix: &&ipnet::IpNet| prefix.addr().is_ipv6() == v6;
    let ingress: Vec<String> = wanted
        .ingress
        .iter()
        .filter(of_version)
        .map(ToString::to_string)
        .collect();
    let mut rules = vec![rule(&[], TO_ADMIN, &format!("-j {}", wanted.admin))];
    for prefix in &ingress {
        let translated = "-m conntrack --ctstate DNAT -j ACCEPT";
        for (option, word) in [("-d", "to"), ("-s", "from")] {
            let comment = format!("translated, {word} {prefix}");
            rules.push(rule(&condition(option, prefix), &comment, translated));
        }
    }
    for Place { link, subnet } in places {
        let comment = |what: &str| format!("{link} {subnet}{ABOUT}{what}");
        let subnet = &subnet.to_string();
        let own = ["-s", subnet, "-i", link];
        rules.push(rule(&own, &comment("from containers"), "-j ACCEPT"));
        rules.push(rule(
            &["-d", subnet, "-o", link],
            &comment("answers and published ports"),
            "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        ));
        for prefix in &ingress {
            let both = [&condition("-s", prefix)[..], &["-d", subnet, "-o", link]].concat();
            rules.push(rule(
                &both,
                &comment(&format!("from {prefix}")),
                "-j ACCEPT",
            ));
        }
    }
    rules
}

/// The words of a condition on an address; none where every address fits, as iptables lists it.
pub(super) fn condition<'a>(option: &'a str, prefix: &'a str) -> Vec<&'a str> {
    match prefix.ends_with("/0") {
        true => Vec::new(),
        false => vec![option, prefix],
    }
}

/// The rules of each link that the network's containers share; none without an `ingressPolicy`.
fn isolation_rules(
    wanted: &[&Wanted],
    links: &BTreeSet<String>,
    of_link: fn(&str, &Isolation) -> Vec<Words>,
) -> Vec<Words> {
    let shared = |one: &&Wanted| one.isolation.clone().filter(|it| it.shared);
    let isolations: Vec<Isolation> = wanted.iter().filter_map(shared).collect();
    let Some(policy) = isolations.last() else {
        return Vec::new();
    };
    let mut links = links.clone();
    links.extend(isolations.iter().map(|isolation| isolation.link.clone()));
    links
        .iter()
        .flat_map(|link| of_link(link, policy))
        .collect()
}

fn from_rules(link: &str, policy: &Isolation) -> Vec<Words> {
    let mut rules = Vec::new();
    if policy.within {
        let comment = format!("{link}{ABOUT}containers are kept apart");
        rules.push(rule(&["-i", link, "-o", link], &comment, "-j DROP"));
    }
    let elsewhere = format!("-j {ISOLATE_TO}");
    let comment = format!("{link}{ABOUT}to protected containers elsewhere");
    rules.push(rule(&["-i", link, "!", "-o", link], &comment, &elsewhere));
    rules
}

fn to_rules(link: &str, _: &Isolation) -> Vec<Words> {
    let comment = format!("{link}{ABOUT}protected containers");
    vec![rule(&["-o", link], &comment, "-j DROP")]
}
