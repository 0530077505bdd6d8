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

use std::fs;
use std::net::IpAddr;

use cni_conf::names::NetworkName;
use ipnet::IpNet;

use super::{Kept, Masquerade, comment};
use crate::attach::owner::{Owner, fnv1a};
use crate::host::HostError;
use crate::host::iptables::{LOCK_WAIT, command, restore_command, words};
use crate::host::nft::{Family, Nft, TableRef};

/// What the names of our chains begin with.
const PREFIX: &str = "TRESTLE-MASQ-";

/// How often a removal that another process crossed is tried again.
const ATTEMPTS: u32 = 5;

/// The family of a nat table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

impl Version {
    fn of(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_v6()
    }

    fn is_v6(self) -> bool {
        self == Self::V6
    }

    fn table(self) -> TableRef<'static> {
        let family = if self.is_v6() {
            Family::IPv6
        } else {
            Family::IPv4
        };
        TableRef {
            family,
            name: "nat",
        }
    }

    /// Destinations that no translation helps. The same as with nftables.
    fn never(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["224.0.0.0/4", "255.255.255.255/32"],
            Self::V6 => &["fe80::/10", "ff00::/8"],
        }
    }

    /// Whether the kernel has a nat table of the old kind in this namespace.
    fn has_legacy_table(self) -> bool {
        let list = if self.is_v6() {
            "ip6_tables_names"
        } else {
            "ip_tables_names"
        };
        fs::read_to_string(format!("/proc/thread-self/net/{list}"))
            .is_ok_and(|tables| tables.lines().any(|table| table == "nat"))
    }

    /// The rules of POSTROUTING, and where nothing else tells which chains there are, all of the table.
    fn listing(self, purpose: &str) -> Result<String, HostError> {
        let mut args = vec![LOCK_WAIT[0], LOCK_WAIT[1], "-t", "nat", "-S"];
        if !self.has_legacy_table() {
            args.push("POSTROUTING");
        }
        command(self.is_v6()).run(purpose, args, "")
    }

    fn restore(self, purpose: &str, commands: &[String]) -> Result<(), HostError> {
        let input = format!("*nat\n{}\nCOMMIT\n", commands.join("\n"));
        let args = [LOCK_WAIT[0], LOCK_WAIT[1], "--noflush"];
        restore_command(self.is_v6())
            .run(purpose, args, &input)
            .map(drop)
    }
}

/// See [`super::ensure`].
pub(super) fn ensure(wanted: &Masquerade<'_>) -> Result<(), HostError> {
    remove(&mut Nft::open()?, wanted.owner)?;
    for version in VERSIONS {
        let commands = plan(version, wanted);
        if !commands.is_empty() {
            let purpose = format!("masquerade {} with iptables", wanted.owner.path());
            version.restore(&purpose, &commands)?;
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
        .filter(|address| version.of(address.addr()))
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
    version
        .never()
        .iter()
        .for_each(|prefix| keep((*prefix).to_owned()));
    for prefix in wanted
        .non_masquerade
        .iter()
        .filter(|prefix| version.of(prefix.addr()))
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

/// A comment without what a rule's text gives a meaning to. An interface may have such a name.
fn printable(comment: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./#:@+~".contains(c);
    comment
        .chars()
        .map(|c| if harmless(c) { c } else { '_' })
        .collect()
}

/// Takes out what `owner` has in either nat table. Starts no process when it is clear that there is nothing.
pub(super) fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), HostError> {
    let chain = chain_of(owner);
    VERSIONS
        .into_iter()
        .try_for_each(|version| remove_chain(nft, version, &chain))
}

fn remove_chain(nft: &mut Nft, version: Version, chain: &str) -> Result<(), HostError> {
    let purpose = format!("remove iptables chain {chain}");
    let mut attempt = 0;
    loop {
        attempt += 1;
        let visible = nft.chain(version.table().object(chain))?.is_some();
        if !visible && !version.has_legacy_table() {
            return Ok(());
        }
        let listing = version.listing(&purpose)?;
        let mut commands: Vec<String> = listing
            .lines()
            .filter(|line| words(line).iter().any(|word| word == chain))
            .filter_map(|line| line.strip_prefix("-A POSTROUTING "))
            .map(|rule| format!("-D POSTROUTING {rule}"))
            .collect();
        let declared = format!("-N {chain}");
        if visible || listing.lines().any(|line| line == declared) {
            commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
        }
        if commands.is_empty() {
            return Ok(());
        }
        match version.restore(&purpose, &commands) {
            // Another process may have been quicker; look again.
            Err(HostError::ProgramFailed { .. }) if attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
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
    fn parse(line: &str) -> Option<Self> {
        let words = words(line);
        let after = |option: &str| {
            let place = words.iter().position(|word| word == option)?;
            words.get(place + 1).cloned()
        };
        (words.get(1)? == "POSTROUTING").then_some(())?;
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
    for version in VERSIONS {
        let chains = nft.chains(Some(version.table()))?;
        let ours = chains.iter().any(|chain| chain.name.starts_with(PREFIX));
        if !ours && !version.has_legacy_table() {
            continue;
        }
        let listing = version.listing("list what iptables masquerades")?;
        let jumps = listing.lines().filter_map(Jump::parse);
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
    let mut differences = Vec::new();
    let chain = chain_of(wanted.owner);
    for version in VERSIONS {
        let mine: Vec<IpAddr> = wanted
            .addresses
            .iter()
            .map(IpNet::addr)
            .filter(|ip| version.of(*ip))
            .collect();
        if mine.is_empty() {
            continue;
        }
        let listing = version.listing("check what iptables masquerades")?;
        let jumps: Vec<Jump> = listing
            .lines()
            .filter_map(Jump::parse)
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
        for version in VERSIONS {
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

    #[test]
    fn nothing_of_a_name_reaches_the_rule_as_syntax() {
        assert_eq!(printable("net/abc/e\"\\$;h0"), "net/abc/e____h0");
    }
}
