//! What has to change in a filter table, decided from a listing of it.
//!
//! Containers that no rule of their network can stand for have rules of their own, found by the owner in their comments:
//!
//! ```text
//! -A TRESTLE-FORWARD -d 10.1.0.5/32 -m comment --comment podnet/CONTAINER/eth0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
//! -A TRESTLE-FORWARD -s 10.1.0.5/32 -m comment --comment podnet/CONTAINER/eth0 -j ACCEPT
//! -A TRESTLE-ISOLATE -i vethX ! -o vethX -m comment --comment podnet/CONTAINER/eth0 -j TRESTLE-ISOLATE-TO
//! -A TRESTLE-ISOLATE-TO -o vethX -m comment --comment podnet/CONTAINER/eth0 -j DROP
//! ```

use std::collections::HashSet;
use std::net::IpAddr;

use cni_conf::names::NetworkName;
use ipnet::IpNet;

use super::super::names::network_comment;
use super::super::wanted::{Isolation, Wanted};
use super::network::{self, Branch};
use super::words::{
    Words, after, comment, is_about_everything, is_owner, jump, line, rule, sorted, target,
};
use crate::host::nft::Verdict;
use crate::netfilter::digest;
use crate::netfilter::forward_hook::guard::end;
use crate::netfilter::iptables;
use crate::owner::Owners;

/// What the names of our chains begin with.
pub(in super::super) const PREFIX: &str = "TRESTLE-";

/// The chain that leads to the networks' and has containers' rules.
pub(super) use crate::netfilter::forward_hook::names::FORWARD;

/// Packets that come from a container.
pub(super) const ISOLATE: &str = "TRESTLE-ISOLATE";

/// Such packets that leave by another link than they came in.
pub(super) const ISOLATE_TO: &str = "TRESTLE-ISOLATE-TO";

const TO_FORWARD: &str = "trestle: containers";
const TO_ISOLATE: &str = "trestle: ingressPolicy";
pub(super) const TO_ADMIN: &str = "trestle: rules of the administrator";

/// Chains that are there once.
pub(super) const SHARED: [&str; 3] = [FORWARD, ISOLATE, ISOLATE_TO];

/// What `iptables -S` printed.
#[derive(Debug, Default)]
pub(super) struct Listing {
    chains: Vec<String>,
    /// The chains whose policy is to drop.
    dropping: Vec<String>,
    rules: Vec<(String, Words)>,
    /// The same for looking up: the order of matches is iptables' own affair.
    known: HashSet<(String, Words)>,
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
        let iptables::Listing {
            chains,
            dropping,
            rules,
        } = iptables::Listing::parse(text);
        let known = rules.iter();
        Self {
            known: known
                .map(|(chain, rule)| (chain.clone(), sorted(rule)))
                .collect(),
            chains,
            dropping,
            rules,
        }
    }

    /// Whether the table drops the packets that none of its rules is about.
    pub(super) fn drops(&self) -> bool {
        let mut verdicts = |chain: &str| Ok(self.rules(chain).map(verdict).collect());
        match end(&mut verdicts, "FORWARD") {
            Ok(Some(verdict)) => verdict == Verdict::Drop,
            _ => self.dropping.iter().any(|chain| chain == "FORWARD"),
        }
    }

    /// Whether the administrator's chain has rules.
    pub(super) fn has_rules(&self, chain: &str) -> bool {
        self.rules(chain).next().is_some()
    }

    pub(super) fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain == name)
    }

    pub(super) fn rules<'a>(&'a self, chain: &'a str) -> impl Iterator<Item = &'a Words> {
        self.rules
            .iter()
            .filter(move |(name, _)| name == chain)
            .map(|(_, words)| words)
    }

    fn has(&self, chain: &str, rule: &[String]) -> bool {
        self.known.contains(&(chain.to_owned(), sorted(rule)))
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

    /// The lines that make sure of everything that the network's containers want; none when it is there. The last one
    /// says what holds for the network as a whole.
    pub(super) fn ensure(
        &self,
        v6: bool,
        network: &NetworkName,
        wanted: &[&Wanted],
    ) -> Vec<String> {
        let Some(last) = wanted.last() else {
            return Vec::new();
        };
        let isolates = wanted.iter().any(|one| one.isolation.is_some());
        let mut lines = self.shared(&last.admin, isolates);
        lines.extend(self.network(v6, network, wanted));
        for one in wanted {
            lines.extend(self.former_owners(v6, one));
            let own = container_rules(v6, one)
                .into_iter()
                .map(|rule| (FORWARD, rule))
                .chain(pair_rules(one));
            let missing = own.filter(|(chain, rule)| !self.has(chain, rule));
            lines.extend(missing.map(|(chain, rule)| line("-A", chain, &rule)));
        }
        lines
    }

    /// The chains that are there once, and what leads to them.
    fn shared(&self, admin: &str, isolates: bool) -> Vec<String> {
        let isolation: &[&str] = if isolates {
            &[ISOLATE, ISOLATE_TO]
        } else {
            &[]
        };
        let mut lines: Vec<String> = [FORWARD, admin]
            .iter()
            .chain(isolation)
            .filter(|chain| !self.has_chain(chain))
            .map(|chain| format!("-N {chain}"))
            .collect();
        for (chain, rule, needed) in [
            ("FORWARD", jump(TO_FORWARD, FORWARD), true),
            (FORWARD, jump(TO_ISOLATE, ISOLATE), isolates),
        ] {
            if needed && !self.has(chain, &rule) {
                lines.push(line("-I", chain, &rule));
            }
        }
        lines
    }

    /// The network's own chains, with what an older build had in their stead.
    fn network(&self, v6: bool, network: &NetworkName, wanted: &[&Wanted]) -> Vec<String> {
        let whole = network_comment(network);
        let mut lines: Vec<String> = [ISOLATE, ISOLATE_TO]
            .into_iter()
            .flat_map(|chain| self.rules(chain).map(move |rule| (chain, rule)))
            .filter(|(_, rule)| comment(rule) == Some(&whole) && !leads_to_branch(network, rule))
            .map(|(chain, rule)| line("-D", chain, rule))
            .collect();
        let branches = network::branches(network);
        for (branch, rules) in branches.iter().zip(self.network_rules(v6, network, wanted)) {
            lines.extend(self.branch(branch, &whole, &rules));
        }
        lines
    }

    /// What the network's chains are to say, with the places that they know already.
    fn network_rules(
        &self,
        v6: bool,
        network: &NetworkName,
        wanted: &[&Wanted],
    ) -> [Vec<Words>; 3] {
        let [way, from, to] = network::branches(network).map(|it| it.chain);
        let comments = |chain: &'_ str| -> Vec<String> {
            let comments = self.rules(chain).filter_map(comment);
            comments.map(str::to_owned).collect()
        };
        let found = [comments(&way), comments(&from), comments(&to)];
        let [way, from, to] = &found;
        network::rules(
            v6,
            wanted,
            [
                &mut way.iter().map(String::as_str),
                &mut from.iter().map(String::as_str),
                &mut to.iter().map(String::as_str),
            ],
        )
    }

    /// Lines that give a chain of the network these rules, or take it away where it is to have none.
    fn branch(&self, branch: &Branch, comment: &str, rules: &[Words]) -> Vec<String> {
        let Branch { from, chain } = branch;
        let mut lines = Vec::new();
        if rules.is_empty() {
            return self.without(branch);
        }
        if !self.has_chain(chain) {
            lines.push(format!("-N {chain}"));
        }
        let found: Vec<&Words> = self.rules(chain).filter(|rule| !is_digest(rule)).collect();
        let equal = found.len() == rules.len()
            && found
                .iter()
                .zip(rules)
                .all(|(one, other)| sorted(one) == sorted(other));
        if !equal {
            if self.has_rules(chain) {
                lines.push(format!("-F {chain}"));
            }
            lines.extend(rules.iter().map(|rule| line("-A", chain, rule)));
        }
        let leads = jump(comment, chain);
        if !self.has(from, &leads) {
            lines.push(line("-A", from, &leads));
        }
        lines
    }

    /// Lines that take a chain of the network away.
    fn without(&self, Branch { chain, .. }: &Branch) -> Vec<String> {
        if !self.has_chain(chain) {
            return Vec::new();
        }
        let leading = self
            .rules
            .iter()
            .filter(|(_, rule)| target(rule) == Some(chain));
        let mut lines: Vec<String> = leading.map(|(from, rule)| line("-D", from, rule)).collect();
        lines.extend(["-F", "-X"].map(|verb| format!("{verb} {chain}")));
        lines
    }

    /// Lines that remove the rules of others for the container's addresses. IPAM gave them to this one, so whoever had
    /// them before is gone. So are rules for addresses that the container no longer has.
    fn former_owners(&self, v6: bool, wanted: &Wanted) -> Vec<String> {
        let own = container_rules(v6, wanted);
        let own: HashSet<Words> = own.iter().map(|rule| sorted(rule)).collect();
        let hosts: HashSet<String> = hosts(v6, wanted.addresses.iter().copied())
            .into_iter()
            .collect();
        self.rules(FORWARD)
            .filter(|rule| comment(rule).is_some_and(is_owner) && !own.contains(&sorted(rule)))
            .filter(|rule| {
                comment(rule) == Some(wanted.iptables_comment.as_str())
                    || rule.iter().any(|word| hosts.contains(word))
            })
            .map(|rule| line("-D", FORWARD, rule))
            .collect()
    }

    /// The lines that remove what the selected owners have, the network's chains if it has nobody left, and what
    /// nobody needs any more then.
    pub(super) fn remove(&self, selected: &Owners, deserted: bool) -> Vec<String> {
        let network = selected.network();
        let whole = network_comment(network);
        let branches = network::branches(network);
        // The administrator's rules come before those of containers that have rules of their own.
        let all = Owners::all(network);
        let mut left = self
            .owned()
            .filter(|(owner, _)| !selected.has_in_iptables(owner));
        let deserted = deserted && !left.any(|(owner, _)| all.has_in_iptables(owner));
        let goes = |rule: &Words| {
            let owner = comment(rule)
                .is_some_and(|owner| is_owner(owner) && selected.has_in_iptables(owner));
            let of_network = comment(rule) == Some(&whole) || leads_to_branch(network, rule);
            owner || (deserted && of_network)
        };
        let mut lines: Vec<String> = self
            .rules
            .iter()
            .filter(|(chain, rule)| SHARED.contains(&chain.as_str()) && goes(rule))
            .map(|(chain, rule)| line("-D", chain, rule))
            .collect();
        let leaving: Vec<&str> = branches
            .iter()
            .map(|branch| branch.chain.as_str())
            .filter(|chain| deserted && self.has_chain(chain))
            .collect();
        for verb in ["-F", "-X"] {
            lines.extend(leaving.iter().map(|chain| format!("{verb} {chain}")));
        }
        let mut others = self.chains.iter().filter(|chain| network::is_way(chain));
        let needed = others.any(|chain| !leaving.contains(&chain.as_str()))
            || self
                .rules(FORWARD)
                .any(|rule| !goes(rule) && is_needed(rule));
        if !needed {
            lines.extend(self.dismantle(&leaving));
        }
        lines
    }

    /// Removes the shared chains, and administrators' chains that are empty and that nothing but ours and what is
    /// `leaving` leads to.
    fn dismantle(&self, leaving: &[&str]) -> Vec<String> {
        let ours = |chain: &str| SHARED.contains(&chain) || leaving.contains(&chain);
        let mut lines = Vec::new();
        for (chain, rule) in &self.rules {
            if !ours(chain) && target(rule).is_some_and(|to| SHARED.contains(&to)) {
                lines.push(line("-D", chain, rule));
            }
        }
        let there: Vec<&str> = SHARED
            .into_iter()
            .filter(|chain| self.has_chain(chain))
            .collect();
        for verb in ["-F", "-X"] {
            lines.extend(there.iter().map(|chain| format!("{verb} {chain}")));
        }
        let led = self
            .rules
            .iter()
            .filter(|(chain, rule)| ours(chain) && comment(rule) == Some(TO_ADMIN));
        let mut admins: Vec<&str> = led.filter_map(|(_, rule)| target(rule)).collect();
        admins.sort_unstable();
        admins.dedup();
        for admin in admins {
            let used = self.rules.iter().any(|(chain, rule)| {
                chain == admin || (!ours(chain) && target(rule) == Some(admin))
            });
            if !used {
                lines.push(format!("-X {admin}"));
            }
        }
        lines
    }
}

/// What a rule does with every packet; none if it is about some only.
fn verdict(rule: &Words) -> Option<Verdict> {
    if !is_about_everything(rule) {
        return None;
    }
    Some(match target(rule)? {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        chain if after(rule, "-g").is_some() => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    })
}

/// The rules for those of the container's addresses that no rule of the network is about.
fn container_rules(v6: bool, wanted: &Wanted) -> Vec<Words> {
    let owner = &wanted.iptables_comment;
    let ingress = wanted.ingress.iter().filter(|it| it.addr().is_ipv6() == v6);
    let ingress: Words = ingress.map(ToString::to_string).collect();
    let mut rules = Vec::new();
    for host in hosts(v6, wanted.lone()) {
        let answers = "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT";
        rules.push(rule(&["-d", &host], owner, answers));
        rules.push(rule(&["-s", &host], owner, "-j ACCEPT"));
        for prefix in &ingress {
            let both = [&network::condition("-s", prefix)[..], &["-d", &host]].concat();
            rules.push(rule(&both, owner, "-j ACCEPT"));
        }
    }
    rules
}

/// The rules for a container that has a link of its own, with an `ingressPolicy`.
fn pair_rules(wanted: &Wanted) -> Vec<(&'static str, Words)> {
    let isolation = wanted.isolation.as_ref().filter(|it| !it.shared);
    let Some(Isolation { link, within, .. }) = isolation else {
        return Vec::new();
    };
    let owner = &wanted.iptables_comment;
    let elsewhere = format!("-j {ISOLATE_TO}");
    let mut rules = vec![
        (
            ISOLATE,
            rule(&["-i", link, "!", "-o", link], owner, &elsewhere),
        ),
        (ISOLATE_TO, rule(&["-o", link], owner, "-j DROP")),
    ];
    if *within {
        rules.push((ISOLATE, rule(&["-i", link, "-o", link], owner, "-j DROP")));
    }
    rules
}

fn hosts(v6: bool, addresses: impl Iterator<Item = IpAddr>) -> Words {
    addresses
        .filter(|address| address.is_ipv6() == v6)
        .map(|address| IpNet::from(address).to_string())
        .collect()
}

fn is_digest(rule: &Words) -> bool {
    comment(rule).is_some_and(digest::is_comment)
}

fn leads_to_branch(network: &NetworkName, rule: &Words) -> bool {
    let mut branches = network::branches(network).into_iter();
    target(rule).is_some_and(|to| branches.any(|branch| branch.chain == to))
}

/// Whether a rule of the chain with containers' rules is there for a container or a network.
fn is_needed(rule: &Words) -> bool {
    let leads = target(rule).is_some_and(|to| to == ISOLATE) || comment(rule) == Some(TO_ADMIN);
    !leads
}
