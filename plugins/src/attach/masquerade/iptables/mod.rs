//! Masquerade by iptables, for those who ask for it.
//!
//! Each attachment has a chain of its own in the table `nat`, named `TRESTLE-MASQ-` and 15 hexadecimal
//! digits of a hash of its owner, and a rule in POSTROUTING for each address that leads there and has the
//! owner as its comment. Each network has a mark, an empty chain and the rule that leads there:
//!
//! ```text
//! -A POSTROUTING -m comment --comment "network podnet" -j TRESTLE-NET-0123456789abcde
//! -A POSTROUTING -s 10.1.0.5/32 -m comment --comment podnet/CONTAINER/eth0 -j TRESTLE-MASQ-0123456789abcde
//! -A TRESTLE-MASQ-0123456789abcde -d 10.1.0.0/24 -j RETURN
//! -A TRESTLE-MASQ-0123456789abcde -d 224.0.0.0/4 -j RETURN
//! -A TRESTLE-MASQ-0123456789abcde -d 255.255.255.255/32 -j RETURN
//! -A TRESTLE-MASQ-0123456789abcde -j MASQUERADE --random-fully
//! ```
//!
//! The mark does nothing but vanish when somebody flushes POSTROUTING: an ADD that does not find it, which takes one
//! look at one chain, makes the rules of the network's other containers again. It comes with the network's first
//! container and goes with the last.
//!
//! Rules go to the end of POSTROUTING, behind those of kube-proxy, and come and go in one transaction
//! of `iptables-restore`. While one process of ours takes rules out or makes a mark, no other adds any, lest the last
//! container of a network take the mark along that the next one counts on.
//!
//! What iptables made with nftables underneath can be seen by netlink, so that looking for a chain that isn't there
//! starts no process; only where the kernel has a nat table of the old kind, which is not visible there, `iptables`
//! itself is asked. `--random-fully` needs iptables 1.6.2.

mod mark;
mod remove;

use std::cell::OnceCell;
use std::net::IpAddr;

use cni_conf::names::NetworkName;
use ipnet::IpNet;

pub(super) use self::remove::{gc, release, remove};

use self::remove::remove_locked;
use super::{Kept, Masquerade, Member};
use crate::host::HostError;
use crate::host::iptables::{command, words};
use crate::host::lock;
use crate::host::nft::Nft;
use crate::netfilter::iptables::{Version, after};
use crate::owner::{Owner, Owners};

/// What the names of our chains begin with.
const PREFIX: &str = "TRESTLE-MASQ-";

/// The chain that leads to them.
const POSTROUTING: &str = "POSTROUTING";

/// Destinations that no translation helps. The same as with nftables.
fn never(version: Version) -> &'static [&'static str] {
    match version {
        Version::V4 => &["224.0.0.0/4", "255.255.255.255/32"],
        Version::V6 => &["fe80::/10", "ff00::/8"],
    }
}

/// See [`super::ensure`].
pub(super) fn ensure(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    living: &dyn Fn() -> Vec<Member>,
) -> Result<(), HostError> {
    let plans = Version::ALL.map(|version| (version, plan(version, wanted)));
    let plans: Vec<_> = plans
        .into_iter()
        .filter(|(_, own)| !own.is_empty())
        .collect();
    if add_to_marked(nft, wanted, &plans)? {
        return Ok(());
    }
    let _lock = lock::take()?;
    let others = OnceCell::new();
    let look = || others.get_or_init(|| wanted.others(living())).as_slice();
    for (version, own) in &plans {
        version.change(&purpose(wanted), || {
            // With the rules of the others, where the network has none.
            let mut commands = match mark::is_there(nft, *version, &wanted.owner.network)? {
                true => Vec::new(),
                false => restoration(nft, *version, wanted, look())?,
            };
            commands.extend_from_slice(own);
            Ok(vec![("nat", commands)])
        })?;
    }
    let Some(others) = others.get().filter(|others| !others.is_empty()) else {
        return Ok(());
    };
    let still = living();
    others
        .iter()
        .filter(|other| !still.iter().any(|member| member.owner == other.owner))
        .try_for_each(|gone| remove_locked(nft, &gone.owner, false))
}

/// Makes the rules of the container where those of the network are there, beside others who do that. Where they are not
/// it does nothing and says so.
fn add_to_marked(
    nft: &mut Nft,
    wanted: &Masquerade<'_>,
    plans: &[(Version, Vec<String>)],
) -> Result<bool, HostError> {
    let _lock = lock::share()?;
    remove_locked(nft, wanted.owner, false)?;
    for (version, _) in plans {
        if !mark::is_there(nft, *version, &wanted.owner.network)? {
            return Ok(false);
        }
    }
    for (version, own) in plans {
        version.restore(&purpose(wanted), &[("nat", own.clone())])?;
    }
    Ok(true)
}

fn purpose(wanted: &Masquerade<'_>) -> String {
    format!("masquerade {} with iptables", wanted.owner.path())
}

/// Commands that make the network's mark, and the rules of other containers whatever is left of them.
fn restoration(
    nft: &mut Nft,
    version: Version,
    wanted: &Masquerade<'_>,
    others: &[Member],
) -> Result<Vec<String>, HostError> {
    let network = &wanted.owner.network;
    let mut commands = mark::creation(network).to_vec();
    let plans = others.iter().map(|member| {
        plan(
            version,
            &Masquerade {
                owner: &member.owner,
                addresses: &member.addresses,
                ..*wanted
            },
        )
    });
    let plans: Vec<String> = plans.flatten().collect();
    if plans.is_empty() {
        return Ok(commands);
    }
    let present = version.rules(nft, POSTROUTING, "look for rules that were left")?;
    let chains: Vec<String> = others.iter().map(|it| chain_of(&it.owner)).collect();
    let left = present.iter().flatten().filter(|rule| {
        let jump = Jump::parse(rule);
        jump.is_some_and(|jump| chains.contains(&jump.chain))
    });
    commands.extend(left.map(|rule| format!("-D {POSTROUTING} {rule}")));
    commands.extend(plans);
    Ok(commands)
}

/// The rules that lead to a chain.
fn rules_to<'a>(rules: &'a [String], chain: &str) -> Vec<&'a String> {
    rules
        .iter()
        .filter(|rule| words(rule).iter().any(|word| word == chain))
        .collect()
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
    let comment = wanted.owner.iptables_comment();
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

/// The rules of the attachment's chain as iptables lists them.
fn listed(version: Version, wanted: &Masquerade<'_>) -> Vec<String> {
    let beginning = format!("-A {} ", chain_of(wanted.owner));
    let plan = plan(version, wanted);
    let rules = plan
        .iter()
        .filter_map(|command| command.strip_prefix(&beginning));
    rules
        .map(|rule| {
            // Everything is no condition.
            let all = ["-d 0.0.0.0/0 ", "-d ::/0 "];
            let rule = all
                .iter()
                .find_map(|all| rule.strip_prefix(all))
                .unwrap_or(rule);
            rule.to_owned()
        })
        .collect()
}

fn chain_of(owner: &Owner) -> String {
    owner.chain(PREFIX)
}

/// The attachments of `network` that have something, by the comments of their rules.
pub(super) fn list(nft: &mut Nft, network: &NetworkName) -> Result<Vec<Kept>, HostError> {
    let found = rules_of(nft, network)?;
    Ok(found
        .into_iter()
        .map(|(version, rule)| rule.kept(version))
        .collect())
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
        let after = |option| after(&words, option).map(str::to_owned);
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
    let all = Owners::all(network);
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
                .filter(|jump| all.has_in_iptables(&jump.comment))
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
    let purpose = "check what iptables masquerades";
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
        let rules = version.rules(&mut nft, POSTROUTING, purpose)?;
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
        let present = version.rules(&mut nft, &chain, purpose)?;
        if present.is_some_and(|present| present != listed(version, wanted)) {
            differences.push(format!(
                "the rules of {} chain {chain} differ from the network's configuration",
                command(version.is_v6()).name
            ));
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
            include_str!("../../../../tests/golden/masquerade.iptables")
        );
    }

    #[test]
    fn chains_have_names_that_iptables_takes() {
        assert_eq!(chain_of(&owner("eth0")).len(), 28);
        assert_ne!(chain_of(&owner("eth0")), chain_of(&owner("eth1")));
    }
}
