//! What iptables has of ours, read from its own listings, and the commands that make and delete what is shared.

use std::collections::BTreeSet;

use super::rules::{PORTS, PREFIX, SNAT};
use crate::attach::nat_table::Version;
use crate::host::HostError;
use crate::host::iptables::words;
use crate::host::nft::Nft;

/// What is there, of one version of IP.
pub(super) struct State {
    pub(super) version: Version,
    /// The rules of [`PORTS`], if there is that chain.
    pub(super) ports: Option<Vec<String>>,
    /// The rules of [`SNAT`], if there is that chain.
    pub(super) snat: Option<Vec<String>>,
}

impl State {
    pub(super) fn read(nft: &mut Nft, version: Version, purpose: &str) -> Result<Self, HostError> {
        Ok(Self {
            version,
            ports: version.rules(nft, PORTS, purpose)?,
            snat: version.rules(nft, SNAT, purpose)?,
        })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let all = self
            .ports
            .iter()
            .flatten()
            .chain(self.snat.iter().flatten());
        all.filter_map(|rule| Entry::parse(rule))
    }

    /// Commands that make sure of the two chains and of the jumps to them.
    pub(super) fn creation(&self, nft: &mut Nft, purpose: &str) -> Result<Vec<String>, HostError> {
        let mut commands = Vec::new();
        for (chain, there) in [(PORTS, &self.ports), (SNAT, &self.snat)] {
            if there.is_none() {
                commands.push(format!(":{chain} - [0:0]"));
            }
        }
        for (from, chain, position, rule) in jumps(self.version) {
            let present = self.version.rules(nft, from, purpose)?.unwrap_or_default();
            if !present.iter().any(|line| target(line) == Some(chain)) {
                commands.push(format!("{position} {from} {rule}-j {chain}"));
            }
        }
        Ok(commands)
    }

    /// Commands that delete the rules of the condemned.
    pub(super) fn rule_removal(&self, condemned: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut commands = Vec::new();
        for (chain, rules) in [(PORTS, &self.ports), (SNAT, &self.snat)] {
            let doomed = rules
                .iter()
                .flatten()
                .filter(|rule| Entry::parse(rule).is_some_and(|entry| condemned(&entry.owner)));
            commands.extend(doomed.map(|rule| format!("-D {chain} {rule}")));
        }
        commands
    }

    /// The chains of the condemned.
    pub(super) fn chains_of(&self, condemned: &dyn Fn(&str) -> bool) -> BTreeSet<&str> {
        self.entries()
            .filter(|entry| condemned(&entry.owner))
            .filter_map(|entry| entry.chain)
            .filter(|chain| chain.starts_with(PREFIX))
            .collect()
    }

    /// Whether only the condemned have rules.
    pub(super) fn is_over(&self, condemned: &dyn Fn(&str) -> bool) -> bool {
        self.entries().all(|entry| condemned(&entry.owner))
    }

    /// Commands that take out what belongs to the condemned, along with the shared chains and the jumps to them when
    /// nobody else has a rule.
    pub(super) fn removal(
        &self,
        nft: &mut Nft,
        condemned: &dyn Fn(&str) -> bool,
        purpose: &str,
    ) -> Result<Vec<String>, HostError> {
        let mut chains = self.chains_of(condemned);
        let mut commands = Vec::new();
        if self.is_over(condemned) {
            for (from, chain, _, _) in jumps(self.version) {
                let present = self.version.rules(nft, from, purpose)?.unwrap_or_default();
                let ours = present.iter().filter(|line| target(line) == Some(chain));
                commands.extend(ours.map(|rule| format!("-D {from} {rule}")));
            }
            let shared = [(PORTS, &self.ports), (SNAT, &self.snat)].into_iter();
            chains.extend(
                shared
                    .filter(|(_, rules)| rules.is_some())
                    .map(|(chain, _)| chain),
            );
        } else {
            commands.extend(self.rule_removal(condemned));
        }
        // All are emptied before the first is deleted, since a chain that a rule leads to can't be.
        commands.extend(chains.iter().map(|chain| format!("-F {chain}")));
        commands.extend(chains.iter().map(|chain| format!("-X {chain}")));
        Ok(commands)
    }
}

pub(super) type JumpText = (&'static str, &'static str, &'static str, &'static str);

/// From where to which chain, at which end, and on which condition.
pub(super) fn jumps(version: Version) -> [JumpText; 3] {
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
}

/// The chain that a rule leads to.
pub(super) fn target(rule: &str) -> Option<&str> {
    rule.split_whitespace()
        .skip_while(|word| *word != "-j")
        .nth(1)
}

/// A rule of one of the two chains.
pub(super) struct Entry<'a> {
    /// The owner's comment, as far as iptables takes it.
    pub(super) owner: String,
    /// The mapping as text, for a rule that forwards.
    pub(super) mapping: Option<String>,
    /// The chain that it leads to.
    pub(super) chain: Option<&'a str>,
    /// The interface that localhost reaches the container by, if that is our doing.
    pub(super) localnet: Option<String>,
}

impl<'a> Entry<'a> {
    pub(super) fn parse(rule: &'a str) -> Option<Self> {
        let words = words(rule);
        let after = |option: &str| {
            let place = words.iter().position(|word| word == option)?;
            words.get(place + 1).cloned()
        };
        let comment = after("--comment")?;
        let (owner, mapping) = match comment.split_once(' ') {
            Some((owner, mapping)) => (owner.to_owned(), Some(mapping.to_owned())),
            None => (comment, None),
        };
        Some(Self {
            owner,
            mapping,
            chain: target(rule),
            localnet: after("-o"),
        })
    }
}
