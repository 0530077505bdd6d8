//! What iptables has of ours, read from its own listings, and the commands that make and delete what is shared.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{PORTS, PREFIX, SNAT};
use crate::host::HostError;
use crate::host::iptables::words;
use crate::host::nft::Nft;
use crate::netfilter::iptables::{Version, after};

/// From how many rules on a chain is written anew instead of deleting them one by one: iptables looks for each from the
/// chain's beginning.
const REWRITE_FROM: usize = 16;

/// What is there, of one version of IP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) version: Version,
    /// The rules of [`PORTS`], if there is that chain.
    ports: Option<Vec<Line>>,
    /// The rules of [`SNAT`], if there is that chain.
    snat: Option<Vec<Line>>,
}

/// A rule as iptables lists it, without its chain.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    rule: String,
    /// What it is of ours, if it is.
    entry: Option<Entry>,
}

/// A rule of one of the two chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The owner's comment.
    pub(super) owner: String,
    /// The mapping as text, for a rule that forwards.
    pub(super) mapping: Option<String>,
    /// The chain that it leads to.
    pub(super) chain: Option<String>,
    /// The interface that localhost reaches the container by, if that is our doing.
    pub(super) localnet: Option<String>,
}

impl State {
    pub(super) fn read(nft: &mut Nft, version: Version, purpose: &str) -> Result<Self, HostError> {
        let mut lines = |chain: &str, parse: fn(&str) -> Option<Entry>| {
            let rules = version.rules(nft, chain, purpose)?;
            let line = |rule: String| Line {
                entry: parse(&rule),
                rule,
            };
            Ok::<_, HostError>(rules.map(|rules| rules.into_iter().map(line).collect()))
        };
        Ok(Self {
            version,
            ports: lines(PORTS, Entry::of_port)?,
            snat: lines(SNAT, Entry::of_masquerading)?,
        })
    }

    fn chains(&self) -> impl Iterator<Item = (&'static str, &Vec<Line>)> {
        let both = [(PORTS, &self.ports), (SNAT, &self.snat)];
        both.into_iter()
            .filter_map(|(chain, lines)| Some((chain, lines.as_ref()?)))
    }

    /// All rules of ours.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.chains()
            .flat_map(|(_, lines)| lines)
            .filter_map(|line| line.entry.as_ref())
    }

    /// The rules that forward, each with its text.
    pub(super) fn ports(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let lines = self.ports.iter().flatten();
        lines.filter_map(|line| Some((line.rule.as_str(), line.entry.as_ref()?)))
    }

    /// The texts of the rules that masquerade for an owner.
    pub(super) fn masquerading(&self, owner: &str) -> Vec<&str> {
        let lines = self.snat.iter().flatten();
        lines
            .filter(|line| {
                line.entry
                    .as_ref()
                    .is_some_and(|entry| entry.owner == owner)
            })
            .map(|line| line.rule.as_str())
            .collect()
    }

    /// Commands that make sure of the two chains and of the jumps to them.
    pub(super) fn creation(&self, nft: &mut Nft, purpose: &str) -> Result<Vec<String>, HostError> {
        let mut commands = Vec::new();
        for (chain, there) in [(PORTS, &self.ports), (SNAT, &self.snat)] {
            if there.is_none() {
                commands.push(format!(":{chain} - [0:0]"));
            }
        }
        for jump in jumps(self.version) {
            let present = jump.present(nft, self.version, purpose)?;
            if jump.is_only(&present) {
                continue;
            }
            commands.extend(
                present
                    .iter()
                    .map(|rule| format!("-D {} {rule}", jump.from)),
            );
            commands.push(format!("{} {} {}", jump.place, jump.from, jump.rule()));
        }
        Ok(commands)
    }

    /// Commands that delete the rules of the selected.
    pub(super) fn rule_removal(&self, selected: &dyn Fn(&str) -> bool) -> Vec<String> {
        let is_selected = |line: &&Line| {
            line.entry
                .as_ref()
                .is_some_and(|entry| selected(&entry.owner))
        };
        let mut commands = Vec::new();
        for (chain, lines) in self.chains() {
            let to_remove: Vec<&Line> = lines.iter().filter(is_selected).collect();
            if to_remove.len() < REWRITE_FROM {
                commands.extend(
                    to_remove
                        .iter()
                        .map(|line| format!("-D {chain} {}", line.rule)),
                );
                continue;
            }
            commands.push(format!("-F {chain}"));
            let kept = lines.iter().filter(|line| !is_selected(line));
            commands.extend(kept.map(|line| format!("-A {chain} {}", line.rule)));
        }
        commands
    }

    /// The chains of the selected.
    pub(super) fn chains_of(&self, selected: &dyn Fn(&str) -> bool) -> BTreeSet<&str> {
        self.entries()
            .filter(|entry| selected(&entry.owner))
            .filter_map(|entry| entry.chain.as_deref())
            .filter(|chain| chain.starts_with(PREFIX))
            .collect()
    }

    /// Whether only the selected have rules.
    pub(super) fn is_over(&self, selected: &dyn Fn(&str) -> bool) -> bool {
        self.entries().all(|entry| selected(&entry.owner))
    }

    /// Commands that remove what belongs to the selected, along with the shared chains and the jumps to them when
    /// nobody else has a rule.
    pub(super) fn removal(
        &self,
        nft: &mut Nft,
        selected: &dyn Fn(&str) -> bool,
        purpose: &str,
    ) -> Result<Vec<String>, HostError> {
        let mut chains = self.chains_of(selected);
        let mut commands = Vec::new();
        if self.is_over(selected) {
            for jump in jumps(self.version) {
                let present = jump.present(nft, self.version, purpose)?;
                commands.extend(
                    present
                        .iter()
                        .map(|rule| format!("-D {} {rule}", jump.from)),
                );
            }
            chains.extend(self.chains().map(|(chain, _)| chain));
        } else {
            commands.extend(self.rule_removal(selected));
        }
        // All are emptied before the first is deleted, since a chain that a rule leads to can't be.
        commands.extend(chains.iter().map(|chain| format!("-F {chain}")));
        commands.extend(chains.iter().map(|chain| format!("-X {chain}")));
        Ok(commands)
    }
}

/// The rules of chains of the attachments: one is listed by itself, several are found in one listing of the table.
pub(super) fn rules_of(
    nft: &mut Nft,
    version: Version,
    chains: &BTreeSet<&str>,
    purpose: &str,
) -> Result<BTreeMap<String, Vec<String>>, HostError> {
    let mut found = BTreeMap::new();
    match chains.len() {
        0 => {}
        1 => {
            for chain in chains {
                let rules = version.rules(nft, chain, purpose)?.unwrap_or_default();
                found.insert((*chain).to_owned(), rules);
            }
        }
        _ => {
            for line in version.listing(purpose)?.lines() {
                let rule = line
                    .strip_prefix("-A ")
                    .and_then(|rest| rest.split_once(' '));
                if let Some((chain, rule)) = rule.filter(|(chain, _)| chains.contains(chain)) {
                    let rules: &mut Vec<String> = found.entry(chain.to_owned()).or_default();
                    rules.push(rule.to_owned());
                }
            }
        }
    }
    Ok(found)
}

/// A rule of a built-in chain that leads to one of ours.
pub(super) struct Jump {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// At which end: `-A` or `-I`.
    place: &'static str,
    /// On which condition.
    matches: &'static str,
}

impl Jump {
    fn rule(&self) -> String {
        format!("{}-j {}", self.matches, self.to)
    }

    /// The rules that lead from the one to the other.
    pub(super) fn present(
        &self,
        nft: &mut Nft,
        version: Version,
        purpose: &str,
    ) -> Result<Vec<String>, HostError> {
        let mut rules = version.rules(nft, self.from, purpose)?.unwrap_or_default();
        rules.retain(|rule| target(&words(rule)).as_deref() == Some(self.to));
        Ok(rules)
    }

    /// Whether the rules are this one and nothing else.
    pub(super) fn is_only(&self, present: &[String]) -> bool {
        matches!(present, [rule] if words(rule) == words(&self.rule()))
    }
}

/// From where to which chain, at which end, and on which condition, as iptables lists it.
pub(super) fn jumps(version: Version) -> [Jump; 3] {
    let to_this_host = "-m addrtype --dst-type LOCAL ";
    let from_this_host = match version {
        Version::V4 => to_this_host,
        // No packet from ::1 can leave the host.
        Version::V6 => "! -d ::1/128 -m addrtype --dst-type LOCAL ",
    };
    [
        ("PREROUTING", PORTS, "-A", to_this_host),
        ("OUTPUT", PORTS, "-A", from_this_host),
        ("POSTROUTING", SNAT, "-I", ""),
    ]
    .map(|(from, to, place, matches)| Jump {
        from,
        to,
        place,
        matches,
    })
}

/// The chain that a rule leads to.
fn target(words: &[String]) -> Option<String> {
    after(words, "-j").map(str::to_owned)
}

/// The comments of a rule, last one first: conditions may bring their own, and ours stands behind them.
fn comments(words: &[String]) -> impl Iterator<Item = &str> {
    let pairs = words.windows(2).rev();
    pairs.filter_map(|pair| (pair[0] == "--comment").then_some(pair[1].as_str()))
}

impl Entry {
    /// Reads a rule of [`PORTS`]: its comment is `OWNER MAPPING`.
    fn of_port(rule: &str) -> Option<Self> {
        let words = words(rule);
        let chain = target(&words)?;
        let (owner, mapping) =
            comments(&words).find_map(|comment| comment.split_once(' ').filter(is_ours))?;
        Some(Self {
            owner: owner.to_owned(),
            mapping: Some(mapping.to_owned()),
            chain: Some(chain),
            localnet: None,
        })
    }

    /// Reads a rule of [`SNAT`]: its comment is `OWNER`.
    fn of_masquerading(rule: &str) -> Option<Self> {
        let words = words(rule);
        let owner = comments(&words).next()?.to_owned();
        Some(Self {
            owner,
            mapping: None,
            chain: target(&words),
            localnet: after(&words, "-o").map(str::to_owned),
        })
    }
}

/// Whether a comment in two parts is an owner's with its mapping: `a/b/c 0.0.0.0:8080/tcp`.
fn is_ours((owner, mapping): &(&str, &str)) -> bool {
    let port = mapping.rsplit_once('/').map(|(address, _)| address);
    owner.contains('/')
        && port.is_some_and(|address| address.parse::<std::net::SocketAddr>().is_ok())
}
