//! Comparing what iptables has with what is wanted.

use std::collections::BTreeSet;

use super::super::Wanted;
use super::super::conf::IptablesSettings;
use super::super::plan::Forward;
use super::rules::{Destinations, PORTS, Rules, are_guarded, conditions, of_version};
use super::state::{State, jumps};
use crate::host::HostError;
use crate::host::iptables::words;
use crate::host::nft::Nft;
use crate::netfilter::iptables::Version;

const CHECK: &str = "check mapped ports of iptables";

/// Gives a sentence for each difference.
///
/// # Errors
/// What the kernel or iptables says.
pub(in super::super) fn check(
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let mut differences = Vec::new();
    for version in Version::ALL {
        if !of_version(version, wanted).is_empty() {
            check_version(&mut nft, version, wanted, settings, &mut differences)?;
        }
    }
    if wanted.localhost().is_some() && !are_guarded(&Version::V4.raw_prerouting(CHECK)?) {
        differences.push("localhost is open to neighbours: rules of PREROUTING in the table raw are missing or have been changed".to_owned());
    }
    Ok(differences)
}

fn check_version(
    nft: &mut Nft,
    version: Version,
    wanted: &Wanted<'_>,
    settings: &IptablesSettings,
    differences: &mut Vec<String>,
) -> Result<(), HostError> {
    let state = State::read(nft, version, CHECK)?;
    for jump in jumps(version) {
        let present = jump.present(nft, version, CHECK)?;
        if present.is_empty() {
            differences.push(format!(
                "no rule of {} leads to the chain {}",
                jump.from, jump.to
            ));
        } else if !jump.is_only(&present) {
            differences.push(format!(
                "the rule of {} that leads to the chain {} has been changed",
                jump.from, jump.to
            ));
        }
    }
    let localnet = state
        .entries()
        .filter(|entry| entry.owner == wanted.identity.iptables_comment)
        .find_map(|entry| entry.localnet.clone());
    let rules = Rules::of(version, wanted, settings, localnet.as_deref());
    let own = version.rules(nft, &rules.chain, CHECK)?.unwrap_or_default();
    let before = differences.len();
    let destinations = Destinations::of(&own);
    let conditional = !conditions(version, settings).is_empty();
    let lines = PortLines::of(&state, &rules.chain);
    for (forward, rule) in of_version(version, wanted).into_iter().zip(&rules.ports) {
        let done = destinations.forward(&forward.to_string()) == Some(*forward);
        if !done || !lines.has(wanted, forward, rule, conditional) {
            differences.push(format!(
                "host port {forward} leads nowhere (iptables chain {})",
                rules.chain
            ));
        }
    }
    let same = |found: &[&str], expected: &[String]| {
        found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, expected)| words(found) == words(expected))
    };
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let snat = state.masquerading(&wanted.identity.iptables_comment);
    if differences.len() == before && !(same(&own, &rules.own) && same(&snat, &rules.snat)) {
        differences.push(format!(
            "rules of mapped ports have been changed or are of another version (iptables chains {} and {PORTS}-SNAT)",
            rules.chain
        ));
    }
    Ok(())
}

/// The rules that lead to an attachment's chain.
struct PortLines {
    /// Owner and mapping of each.
    known: BTreeSet<(String, String)>,
    /// The words of each.
    texts: BTreeSet<Vec<String>>,
}

impl PortLines {
    fn of(state: &State, chain: &str) -> Self {
        let (mut known, mut texts) = (BTreeSet::new(), BTreeSet::new());
        for (rule, entry) in state.ports() {
            if entry.chain.as_deref() == Some(chain) {
                known.insert((
                    entry.owner.clone(),
                    entry.mapping.clone().unwrap_or_default(),
                ));
                texts.insert(words(rule));
            }
        }
        Self { known, texts }
    }

    /// Whether there is a rule for the mapping. The text of conditions is listed in iptables' own way.
    fn has(&self, wanted: &Wanted<'_>, forward: &Forward, rule: &str, conditional: bool) -> bool {
        let entry = (
            wanted.identity.iptables_comment.clone(),
            forward.to_string(),
        );
        match conditional {
            true => self.known.contains(&entry),
            false => self.texts.contains(&words(rule)),
        }
    }
}
