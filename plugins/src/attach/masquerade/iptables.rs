//! Masquerade by iptables, for those who ask for it.
//!
//! Each attachment has a chain of its own in the table `nat`, named `TRESTLE-MASQ-` and 15 hexadecimal
//! digits of a hash of its owner, and a rule in POSTROUTING for each address that leads there and has the
//! owner as its comment:
//!
//! ```text
//! -A POSTROUTING -s 10.1.0.5/32 -m comment --comment podnet/CONTAINER/eth0 -j TRESTLE-MASQ-0123456789abcde
//! -A TRESTLE-MASQ-0123456789abcde -d 10.1.0.0/24 -j RETURN
//! -A TRESTLE-MASQ-0123456789abcde -d 224.0.0.0/4 -j RETURN
//! -A TRESTLE-MASQ-0123456789abcde -d 255.255.255.255/32 -j RETURN
//! -A TRESTLE-MASQ-0123456789abcde -j MASQUERADE --random-fully
//! ```
//!
//! Rules go to the end of POSTROUTING, behind those of kube-proxy, and come and go in one transaction
//! of `iptables-restore`. What iptables made with nftables underneath can be seen by netlink, so that
//! looking for a chain that isn't there starts no process; only where the kernel has a nat table of the
//! old kind, which is not visible there, `iptables` itself is asked. `--random-fully` needs iptables 1.6.2.

use std::net::IpAddr;

use cni_conf::names::NetworkName;
use ipnet::IpNet;

use super::{Kept, Masquerade};
use crate::attach::comment;
use crate::attach::nat_table::{Version, printable};
use crate::attach::owner::{Owner, fnv1a};
use crate::host::HostError;
use crate::host::iptables::{command, words};
use crate::host::nft::Nft;

/// What the names of our chains begin with.
const PREFIX: &str = "TRESTLE-MASQ-";

/// The chain that leads to them.
const POSTROUTING: &str = "POSTROUTING";

/// How often a removal that another process crossed is tried again.
const ATTEMPTS: u32 = 5;

/// Destinations that no translation helps. The same as with nftables.
fn never(version: Version) -> &'static [&'static str] {
    match version {
        Version::V4 => &["224.0.0.0/4", "255.255.255.255/32"],
        Version::V6 => &["fe80::/10", "ff00::/8"],
    }
}

/// See [`super::ensure`].
pub(super) fn ensure(wanted: &Masquerade<'_>) -> Result<(), HostError> {
    remove(&mut Nft::open()?, wanted.owner)?;
    for version in Version::ALL {
        let commands = plan(version, wanted);
        if !commands.is_empty() {
            let purpose = format!("masquerade {} with iptables", wanted.owner.path());
            version.restore(&purpose, &[("nat", &commands)])?;
        }
    }
    Ok(())
}

/// The chain and the rules of an attachment, as input of `iptables-restore`. Nothing when it has no
/// address of this version.
fn plan(version: Version, wanted: &Masquerade<'_>) -> Vec<String> {
    let mine: Vec<&IpNet> = wanted
        .addresses
        .iter()
        .filter(|address| version.is_of(address.addr()))
        .collect();
    if mine.is_empty() {
        return Vec::new();
    }
    let chain = chain_of(wanted.owner);
    let mut commands = vec![format!(":{chain} - [0:0]")];
    let mut keep = |prefix: String| {
        let command = format!("-A {chain} -d {prefix} -j RETURN");
        if !commands.contains(&command) {
            commands.push(command);
        }
    };
    for address in &mine {
        // A host prefix is the container itself. What comes back to it through a Service must not seem
        // to come from itself.
        if address.prefix_len() < address.max_prefix_len() {
            keep(address.trunc().to_string());
        }
    }
    never(version)
        .iter()
        .for_each(|prefix| keep((*prefix).to_owned()));
    for prefix in wanted
        .non_masquerade
        .iter()
        .filter(|prefix| version.is_of(prefix.addr()))
    {
        keep(prefix.trunc().to_string());
    }
    commands.push(format!("-A {chain} -j MASQUERADE --random-fully"));
    let comment = printable(&comment::of(wanted.owner));
    for address in mine {
        let address = address.addr();
        let command =
            format!("-A POSTROUTING -s {address} -m comment --comment \"{comment}\" -j {chain}");
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

fn chain_of(owner: &Owner) -> String {
    // 13 and 15 are the 28 characters that a chain's name may have (XT_EXTENSION_MAXNAMELEN).
    format!("{PREFIX}{:015x}", fnv1a(owner.path().as_bytes()) >> 4)
}

/// Takes out what `owner` has in either nat table. Starts no process when it is clear that there is nothing.
pub(super) fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), HostError> {
    let chain = chain_of(owner);
    Version::ALL
        .into_iter()
        .try_for_each(|version| remove_chain(nft, version, &chain))
}

/// Takes out a chain and the jumps to it, if there is one.
pub(super) fn remove_chain(nft: &mut Nft, version: Version, chain: &str) -> Result<(), HostError> {
    for _ in 1..ATTEMPTS {
        match try_to_remove_chain(nft, version, chain) {
            // Another process may have been quicker, while this one looked or after it; look again.
            Err(HostError::ProgramFailed { .. }) => {}
            outcome => return outcome,
        }
    }
    try_to_remove_chain(nft, version, chain)
}

fn try_to_remove_chain(nft: &mut Nft, version: Version, chain: &str) -> Result<(), HostError> {
    let purpose = format!("remove iptables chain {chain}");
    if version.has_chain(nft, chain)? == Some(false) {
        return Ok(());
    }
    let jumps = version
        .rules(nft, POSTROUTING, &purpose)?
        .unwrap_or_default();
    let mut commands: Vec<String> = jumps
        .iter()
        .filter(|rule| words(rule).iter().any(|word| word == chain))
        .map(|rule| format!("-D {POSTROUTING} {rule}"))
        .collect();
    if version.rules(nft, chain, &purpose)?.is_some() {
        commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
    }
    if commands.is_empty() {
        return Ok(());
    }
    version.restore(&purpose, &[("nat", &commands)])
}

/// The attachments of `network` that have something, by the comments of their rules.
pub(super) fn list(nft: &mut Nft, network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let found = rules_of(nft, network)?;
    Ok(found
        .into_iter()
        .map(|(version, rule)| rule.kept(version))
        .collect())
}

/// Takes out the chains of `network` whose owner's comment is none of `valid`.
pub(super) fn gc(
    nft: &mut Nft,
    network: &NetworkName,
    valid: &[String],
) -> Result<Vec<Kept>, HostError> {
    let valid: Vec<String> = valid.iter().map(|comment| printable(comment)).collect();
    let mut removed = Vec::new();
    for (version, rule) in rules_of(nft, network)? {
        if !valid.contains(&rule.comment) {
            remove_chain(nft, version, &rule.chain)?;
            removed.push(rule.kept(version));
        }
    }
    Ok(removed)
}

/// A rule of POSTROUTING that leads to a chain of ours.
struct Jump {
    chain: String,
    comment: String,
    source: String,
}

impl Jump {
    fn parse(rule: &str) -> Option<Self> {
        let words = words(rule);
        let after = |option: &str| {
            let place = words.iter().position(|word| word == option)?;
            words.get(place + 1).cloned()
        };
        Some(Self {
            chain: after("-j").filter(|chain| chain.starts_with(PREFIX))?,
            comment: after("--comment")?,
            source: after("-s").unwrap_or_default(),
        })
    }

    fn kept(&self, version: Version) -> Kept {
        let program = command(version.is_v6()).name;
        Kept {
            owner: self.comment.clone(),
            what: format!("{program} chain {} for {} in nat", self.chain, self.source),
        }
    }
}

fn rules_of(nft: &mut Nft, network: &NetworkName) -> Result<Vec<(Version, Jump)>, HostError> {
    // A comment that was cut may end within a very long network's name.
    let beginning: String = format!("{network}/").chars().take(100).collect();
    let mut found = Vec::new();
    for version in Version::ALL {
        let chains = nft.chains(Some(version.nat()))?;
        let ours = chains.iter().any(|chain| chain.name.starts_with(PREFIX));
        if !ours && !version.has_legacy_table() {
            continue;
        }
        let rules = version.rules(nft, POSTROUTING, "list what iptables masquerades")?;
        let jumps = rules.iter().flatten().filter_map(|rule| Jump::parse(rule));
        found.extend(
            jumps
                .filter(|jump| jump.comment.starts_with(&beginning))
                .map(|jump| (version, jump)),
        );
    }
    Ok(found)
}

/// See [`super::check`].
pub(super) fn check(wanted: &Masquerade<'_>) -> Result<Vec<String>, HostError> {
    let mut nft = Nft::open()?;
    let mut differences = Vec::new();
    let chain = chain_of(wanted.owner);
    for version in Version::ALL {
        let mine: Vec<IpAddr> = wanted
            .addresses
            .iter()
            .map(IpNet::addr)
            .filter(|ip| version.is_of(*ip))
            .collect();
        if mine.is_empty() {
            continue;
        }
        let rules = version.rules(&mut nft, POSTROUTING, "check what iptables masquerades")?;
        let jumps: Vec<Jump> = rules
            .iter()
            .flatten()
            .filter_map(|rule| Jump::parse(rule))
            .filter(|jump| jump.chain == chain)
            .collect();
        for address in mine {
            let host = IpNet::from(address).to_string();
            if !jumps.iter().any(|jump| jump.source == host) {
                differences.push(format!(
                    "{address} is not masqueraded (iptables chain {chain})"
                ));
            }
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::masquerade::Backend;

    fn owner(ifname: &str) -> Owner {
        Owner {
            network: "podnet".try_into().unwrap(),
            container: "abc".try_into().unwrap(),
            ifname: ifname.try_into().unwrap(),
        }
    }

    #[test]
    fn the_rules_are_those_of_the_golden_file() {
        let addresses = ["10.1.0.5/24", "fd00:1::5/64"].map(|text| text.parse().unwrap());
        let exempt = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        let wanted = Masquerade {
            owner: &owner("eth0"),
            addresses: &addresses,
            non_masquerade: &exempt,
            backend: Backend::Iptables,
        };
        let mut text = String::new();
        for version in Version::ALL {
            text.push_str(&format!(
                "# {}\n{}\n",
                command(version.is_v6()).name,
                plan(version, &wanted).join("\n")
            ));
        }
        assert_eq!(
            text,
            include_str!("../../../tests/golden/masquerade.iptables")
        );
    }

    #[test]
    fn chains_have_names_that_iptables_takes() {
        assert_eq!(chain_of(&owner("eth0")).len(), 28);
        assert_ne!(chain_of(&owner("eth0")), chain_of(&owner("eth1")));
    }
}
