//! What has to change in a filter table, decided from a listing of it.
//!
//! ```text
//! -A FORWARD -m comment --comment "trestle: containers" -j TRESTLE-FORWARD
//! -A TRESTLE-FORWARD -m comment --comment "trestle: ingressPolicy" -j TRESTLE-ISOLATE
//! -A TRESTLE-FORWARD -m comment --comment "trestle: rules of the administrator" -j CNI-ADMIN
//! -A TRESTLE-FORWARD -d 10.1.0.5/32 -m comment --comment podnet/CONTAINER/eth0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
//! -A TRESTLE-FORWARD -s 10.1.0.5/32 -m comment --comment podnet/CONTAINER/eth0 -j ACCEPT
//! -A TRESTLE-ISOLATE -i cni0 -o cni0 -m comment --comment "network podnet" -j DROP
//! -A TRESTLE-ISOLATE -i cni0 ! -o cni0 -m comment --comment "network podnet" -j TRESTLE-ISOLATE-TO
//! -A TRESTLE-ISOLATE-TO -o cni0 -m comment --comment "network podnet" -j DROP
//! ```
//!
//! The rules with a network as their comment go when no rule of a container of that network is left.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::names::{belongs_to, network_comment, printable};
use super::super::wanted::{Isolation, Wanted};
use crate::host::iptables::words;
use cni_conf::names::NetworkName;

/// What the names of our chains begin with.
pub(in super::super) const PREFIX: &str = "TRESTLE-";

/// The chain with the containers' rules.
pub(in super::super) const FORWARD: &str = "TRESTLE-FORWARD";

/// Packets that come from a container.
const ISOLATE: &str = "TRESTLE-ISOLATE";

/// Such packets that leave by another link than they came in.
const ISOLATE_TO: &str = "TRESTLE-ISOLATE-TO";

const TO_FORWARD: &str = "trestle: containers";
const TO_ISOLATE: &str = "trestle: ingressPolicy";
const TO_ADMIN: &str = "trestle: rules of the administrator";

/// Chains that have rules of ours.
const OURS: [&str; 3] = [FORWARD, ISOLATE, ISOLATE_TO];

/// A rule: the words behind `-A CHAIN`.
type Words = Vec<String>;

/// What `iptables -S` printed.
#[derive(Debug, Default)]
pub(super) struct Listing {
    chains: Vec<String>,
    rules: Vec<(String, Words)>,
}

/// Whether the container has an address of this version of IP.
pub(super) fn concerns(v6: bool, wanted: &Wanted) -> bool {
    wanted
        .addresses
        .iter()
        .any(|address| address.is_ipv6() == v6)
}

impl Listing {
    pub(super) fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        for line in text.lines() {
            let mut words = words(line).into_iter();
            match (words.next().as_deref(), words.next()) {
                (Some("-P" | "-N"), Some(chain)) => listing.chains.push(chain),
                (Some("-A"), Some(chain)) => listing.rules.push((chain, words.collect())),
                _ => {}
            }
        }
        listing
    }

    fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain == name)
    }

    fn rules<'a>(&'a self, chain: &'a str) -> impl Iterator<Item = &'a Words> {
        self.rules
            .iter()
            .filter(move |(name, _)| name == chain)
            .map(|(_, words)| words)
    }

    fn has(&self, chain: &str, rule: &[String]) -> bool {
        self.rules(chain).any(|other| same(other, rule))
    }

    /// The rules of containers with their owners.
    pub(super) fn owned(&self) -> impl Iterator<Item = (&str, String)> {
        self.rules(FORWARD).filter_map(|rule| {
            Some((
                comment(rule).filter(|text| is_owner(text))?,
                line("-A", FORWARD, rule),
            ))
        })
    }

    /// The lines that make sure of everything `wanted`; none when it is there.
    pub(super) fn ensure(&self, v6: bool, wanted: &Wanted) -> Vec<String> {
        let mut lines = Vec::new();
        for chain in [FORWARD, &wanted.admin] {
            if !self.has_chain(chain) {
                lines.push(format!("-N {chain}"));
            }
        }
        let isolates = wanted.isolation.is_some();
        if isolates {
            lines.extend(
                [ISOLATE, ISOLATE_TO]
                    .iter()
                    .filter(|chain| !self.has_chain(chain))
                    .map(|chain| format!("-N {chain}")),
            );
        }
        let (to_forward, to_isolate) = (jump(TO_FORWARD, FORWARD), jump(TO_ISOLATE, ISOLATE));
        if !self.has("FORWARD", &to_forward) {
            lines.push(line("-I", "FORWARD", &to_forward));
        }
        let to_admin = jump(TO_ADMIN, &wanted.admin);
        let isolated = self.has(FORWARD, &to_isolate);
        if !self.has(FORWARD, &to_admin) {
            let place = if isolated { "2" } else { "1" };
            let rule: Words = [vec![place.to_owned()], to_admin].concat();
            lines.push(line("-I", FORWARD, &rule));
        }
        if isolates && !isolated {
            lines.push(line("-I", FORWARD, &to_isolate));
        }
        lines.extend(self.former_owners(v6, wanted));
        let own = container_rules(v6, wanted)
            .into_iter()
            .map(|rule| (FORWARD, rule));
        let shared = isolation_rules(wanted);
        let missing = own
            .chain(shared)
            .filter(|(chain, rule)| !self.has(chain, rule));
        lines.extend(missing.map(|(chain, rule)| line("-A", chain, &rule)));
        lines
    }

    /// Lines that take out the rules of others for the container's addresses. IPAM gave them to this one, so whoever had
    /// them before is gone. So are rules for addresses that the container no longer has.
    fn former_owners(&self, v6: bool, wanted: &Wanted) -> Vec<String> {
        let own = container_rules(v6, wanted);
        let hosts: Words = hosts(v6, wanted);
        self.rules(FORWARD)
            .filter(|rule| {
                comment(rule).is_some_and(is_owner) && !own.iter().any(|other| same(rule, other))
            })
            .filter(|rule| {
                comment(rule) == Some(printable(&wanted.comment).as_str())
                    || rule.iter().any(|word| hosts.contains(word))
            })
            .map(|rule| line("-D", FORWARD, rule))
            .collect()
    }

    /// The lines that take out what the condemned owners have, and what nobody needs any more then.
    pub(super) fn remove(
        &self,
        network: &NetworkName,
        condemned: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let doomed =
            |rule: &Words| comment(rule).is_some_and(|owner| is_owner(owner) && condemned(owner));
        let remaining = || {
            let others = self.rules(FORWARD).filter(|rule| !doomed(rule));
            others.filter_map(comment).filter(|text| is_owner(text))
        };
        let condemned_any = self
            .rules
            .iter()
            .any(|(chain, rule)| OURS.contains(&chain.as_str()) && doomed(rule));
        if remaining().next().is_none() {
            return self.dismantle();
        }
        if !condemned_any {
            return Vec::new();
        }
        let whole = network_comment(network);
        let last = !remaining().any(|owner| belongs_to(network, owner));
        let mut lines = Vec::new();
        for (chain, rule) in &self.rules {
            let shared = last && comment(rule) == Some(whole.as_str());
            if OURS.contains(&chain.as_str()) && (doomed(rule) || shared) {
                lines.push(line("-D", chain, rule));
            }
        }
        lines
    }

    /// Takes out all that is ours, and administrators' chains that are empty.
    fn dismantle(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (chain, rule) in &self.rules {
            if !OURS.contains(&chain.as_str()) && target(rule).is_some_and(|to| OURS.contains(&to))
            {
                lines.push(line("-D", chain, rule));
            }
        }
        let ours: Vec<&str> = OURS
            .into_iter()
            .filter(|chain| self.has_chain(chain))
            .collect();
        lines.extend(ours.iter().map(|chain| format!("-F {chain}")));
        lines.extend(ours.iter().map(|chain| format!("-X {chain}")));
        let admins = self
            .rules(FORWARD)
            .filter(|rule| comment(rule) == Some(TO_ADMIN))
            .filter_map(|rule| target(rule));
        for admin in admins {
            let used = self.rules.iter().any(|(chain, rule)| {
                chain == admin || (!OURS.contains(&chain.as_str()) && target(rule) == Some(admin))
            });
            if !used {
                lines.push(format!("-X {admin}"));
            }
        }
        lines
    }
}

/// The rules for the container's addresses.
fn container_rules(v6: bool, wanted: &Wanted) -> Vec<Words> {
    let owner = printable(&wanted.comment);
    let mut rules = Vec::new();
    for host in hosts(v6, wanted) {
        let answers = "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT";
        rules.push(rule(&["-d", &host], &owner, answers));
        rules.push(rule(&["-s", &host], &owner, "-j ACCEPT"));
    }
    rules
}

fn isolation_rules(wanted: &Wanted) -> Vec<(&'static str, Words)> {
    let Some(Isolation {
        link,
        shared,
        within,
    }) = &wanted.isolation
    else {
        return Vec::new();
    };
    let owner = printable(if *shared {
        &wanted.network_comment
    } else {
        &wanted.comment
    });
    let mut rules = vec![
        (
            ISOLATE,
            rule(
                &["-i", link, "!", "-o", link],
                &owner,
                &format!("-j {ISOLATE_TO}"),
            ),
        ),
        (ISOLATE_TO, rule(&["-o", link], &owner, "-j DROP")),
    ];
    if *within {
        rules.push((ISOLATE, rule(&["-i", link, "-o", link], &owner, "-j DROP")));
    }
    rules
}

fn hosts(v6: bool, wanted: &Wanted) -> Words {
    let of_version = |address: &&IpAddr| address.is_ipv6() == v6;
    let addresses = wanted.addresses.iter().filter(of_version);
    addresses
        .map(|address| IpNet::from(*address).to_string())
        .collect()
}

fn jump(comment: &str, chain: &str) -> Words {
    rule(&[], comment, &format!("-j {chain}"))
}

fn rule(first: &[&str], comment: &str, rest: &str) -> Words {
    let mut words: Words = first.iter().map(|word| (*word).to_owned()).collect();
    words.extend(["-m", "comment", "--comment", comment].map(str::to_owned));
    words.extend(rest.split(' ').map(str::to_owned));
    words
}

/// Whether two rules have the same words. The order of matches is iptables' own affair.
fn same(one: &[String], other: &[String]) -> bool {
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort();
        words
    };
    one.len() == other.len() && sorted(one) == sorted(other)
}

fn comment(rule: &Words) -> Option<&str> {
    after(rule, "--comment")
}

fn target(rule: &Words) -> Option<&str> {
    after(rule, "-j").or_else(|| after(rule, "-g"))
}

fn after<'a>(rule: &'a Words, option: &str) -> Option<&'a str> {
    let place = rule.iter().position(|word| word == option)?;
    rule.get(place + 1).map(String::as_str)
}

/// Whether a comment is that of an owner: `network/containerID/ifname`, which has no blanks.
fn is_owner(comment: &str) -> bool {
    comment.contains('/') && !comment.contains(' ')
}

/// A line for `iptables-restore`.
fn line(verb: &str, chain: &str, rule: &[String]) -> String {
    let quoted = rule.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./#:@+~!,".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    });
    let mut words = vec![verb.to_owned(), chain.to_owned()];
    words.extend(quoted);
    words.join(" ")
}
