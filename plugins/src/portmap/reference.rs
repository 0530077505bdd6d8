//! What the Go plugin mapped for a container that is now ours to detach.
//!
//! With iptables it gives a container a chain `CNI-DN-…` in the table `nat` of each version of IP, and jumps there from
//! `CNI-HOSTPORT-DNAT` whose comment reads `dnat name: "NETWORK" id: "CONTAINER"`. With nftables it writes rules into
//! chains of the table `cni_hostport` of each version, with the container's ID as their comment. Only what has that
//! comment is removed; the chains that containers share stay for its own. Of a comment that it cut, because it was
//! longer than iptables takes, nobody can tell whose it is: those are left.

use cni_conf::error::Error;
use cni_conf::names::{ContainerId, NetworkName};

use crate::host::HostError;
use crate::host::iptables::words;
use crate::host::nft::{Nft, TableRef};
use crate::netfilter::go_plugins::remove_rules;
use crate::netfilter::iptables::Version;

/// The chain that leads to those of the containers.
const SHARED: &str = "CNI-HOSTPORT-DNAT";

/// What the names of the containers' chains begin with.
const PREFIX: &str = "CNI-DN-";

/// The table of nftables.
const TABLE: &str = "cni_hostport";

/// The chains of [`TABLE`] that have rules of containers. The first is there whenever the table is.
const CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// How often a removal that another process crossed is tried again.
const ATTEMPTS: u32 = 5;

/// Removes what the Go plugin mapped for a container in `network`. Carries on after an error.
///
/// Starts no process when netlink tells that iptables has nothing of any container; where that can't be seen,
/// `thorough` asks `iptables`.
pub(super) fn remove(
    network: &NetworkName,
    container: &ContainerId,
    thorough: bool,
) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    let comment = format!("dnat name: \"{network}\" id: \"{container}\"");
    let mut errors = Vec::new();
    for version in Version::ALL {
        let outcomes = [
            remove_from_chains(&mut nft, version, container.as_str()),
            remove_chains(&mut nft, version, &comment, thorough),
        ];
        errors.extend(
            outcomes
                .into_iter()
                .filter_map(Result::err)
                .map(Error::from),
        );
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// Removes rules of nftables.
fn remove_from_chains(nft: &mut Nft, version: Version, container: &str) -> Result<(), HostError> {
    let table = TableRef {
        name: TABLE,
        ..version.nat()
    };
    if nft.chain(table.object(CHAINS[0]))?.is_none() {
        return Ok(());
    }
    CHAINS.iter().try_for_each(|chain| {
        remove_rules(nft, table.object(chain), |comment| comment == container)
    })
}

/// Removes chains of iptables and the jumps to them.
fn remove_chains(
    nft: &mut Nft,
    version: Version,
    comment: &str,
    thorough: bool,
) -> Result<(), HostError> {
    let purpose = "remove the Go plugin's mapped ports from iptables";
    let mut attempt = 0;
    loop {
        attempt += 1;
        match version.has_chain(nft, SHARED)? {
            Some(true) if nft.rules(version.nat().object(SHARED))?.is_empty() => return Ok(()),
            Some(true) => {}
            None if thorough => {}
            Some(false) | None => return Ok(()),
        }
        let rules = version.rules(nft, SHARED, purpose)?.unwrap_or_default();
        let commands = removal(&rules, comment);
        if commands.is_empty() {
            return Ok(());
        }
        match version.restore(purpose, &[("nat", &commands)]) {
            // Another process may have been quicker; look again.
            Err(HostError::ProgramFailed { .. }) if attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// Commands that delete those of the `rules` of [`SHARED`] that have the comment, and the chains that they alone lead to.
fn removal(rules: &[String], comment: &str) -> Vec<String> {
    let (mut commands, mut chains, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    for rule in rules {
        let words = words(rule);
        let after = |option: &str| {
            let place = words.iter().position(|word| word == option)?;
            words.get(place + 1).cloned()
        };
        let target = after("-j").filter(|chain| chain.starts_with(PREFIX));
        if after("--comment").as_deref() == Some(comment) {
            commands.push(format!("-D {SHARED} {rule}"));
            chains.extend(target);
        } else {
            foreign.extend(target);
        }
    }
    chains.sort();
    chains.dedup();
    chains.retain(|chain| !foreign.contains(chain));
    for chain in chains {
        commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(container: &str, protocol: &str, chain: &str) -> String {
        format!(
            r#"-p {protocol} -m comment --comment "dnat name: \"net\" id: \"{container}\"" -m multiport --dports 8080 -j {chain}"#
        )
    }

    #[test]
    fn the_jumps_of_a_container_go_with_its_chain() {
        let rules = [
            jump("a", "tcp", "CNI-DN-0a"),
            jump("ab", "tcp", "CNI-DN-0b"),
            jump("a", "udp", "CNI-DN-0a"),
        ];
        assert_eq!(
            removal(&rules, r#"dnat name: "net" id: "a""#),
            [
                format!("-D {SHARED} {}", rules[0]),
                format!("-D {SHARED} {}", rules[2]),
                "-F CNI-DN-0a".to_owned(),
                "-X CNI-DN-0a".to_owned(),
            ]
        );
        assert!(removal(&rules, r#"dnat name: "net" id: "abc""#).is_empty());
    }

    #[test]
    fn a_chain_that_others_use_stays() {
        let rules = [
            jump("a", "tcp", "CNI-DN-0a"),
            jump("b", "tcp", "CNI-DN-0a"),
            jump("a", "tcp", "ACCEPT"),
        ];
        let commands = removal(&rules, r#"dnat name: "net" id: "a""#);
        assert!(commands.iter().all(|command| command.starts_with("-D ")));
    }
}
