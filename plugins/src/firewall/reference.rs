//! What the Go plugin let through for a container that is now ours to detach.
//!
//! It writes two rules for each address into the chain `CNI-FORWARD` of the filter table of iptables, and nothing into
//! them says whose they are. So they are found by the addresses of `prevResult`, as the Go plugin itself does it. The
//! chain and the one of the administrator, which containers share, stay for its own.

use std::net::IpAddr;

use cni_conf::request::Request;
use ipnet::IpNet;

use super::wanted::addresses;
use crate::host::HostError;
use crate::host::iptables::{LOCK_WAIT, command, words};
use crate::host::nft::{Nft, TableRef};
use crate::netfilter::iptables::Version;

/// The chain with the containers' rules.
const CHAIN: &str = "CNI-FORWARD";

/// How often a removal that another process crossed is tried again.
const ATTEMPTS: u32 = 5;

const PURPOSE: &str = "remove the Go plugin's firewall rules";

/// Removes the rules for the addresses in `prevResult`. Starts no process when there is no such chain.
pub(super) fn remove(request: &Request) -> Result<(), HostError> {
    let addresses = request.prev_result.as_ref().map(addresses);
    let addresses = addresses.unwrap_or_default();
    let mut nft = Nft::open()?;
    for version in Version::ALL {
        let own: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| version.is_of(*address))
            .collect();
        let filter = TableRef {
            name: "filter",
            ..version.nat()
        };
        // The filter table of the old kind can't be seen, and whoever moved to nftables has left it behind.
        if !own.is_empty() && nft.chain(filter.object(CHAIN))?.is_some() {
            remove_from(version, &own)?;
        }
    }
    Ok(())
}

fn remove_from(version: Version, own: &[IpAddr]) -> Result<(), HostError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let [wait, seconds] = LOCK_WAIT;
        let listing = [wait, seconds, "-t", "filter", "-S", CHAIN];
        let listing = command(version.is_v6()).run(PURPOSE, listing, "")?;
        let commands = removal(&listing, own);
        match version.restore(PURPOSE, &[("filter", &commands)]) {
            // Another process may have been quicker; look again.
            Err(HostError::ProgramFailed { .. }) if attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// Commands that delete those of the rules that the Go plugin makes for the addresses.
fn removal(listing: &str, own: &[IpAddr]) -> Vec<String> {
    let rules_of = |address: &IpAddr| {
        let address = IpNet::from(*address);
        [
            format!("-d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            format!("-s {address} -j ACCEPT"),
        ]
    };
    let rules: Vec<String> = own.iter().flat_map(rules_of).collect();
    let prefix = format!("-A {CHAIN} ");
    listing
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .filter(|rule| rules.contains(&words(rule).join(" ")))
        .map(|rule| format!("-D {CHAIN} {rule}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rules_for_the_containers_own_addresses_go() {
        let listing = "-N CNI-FORWARD\n\
            -A CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" -j CNI-ADMIN\n\
            -A CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
            -A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT\n\
            -A CNI-FORWARD -s 10.1.0.2/32 -p tcp -j ACCEPT\n\
            -A CNI-FORWARD -s 10.1.0.20/32 -j ACCEPT\n";
        let own = ["10.1.0.2".parse().unwrap()];
        assert_eq!(
            removal(listing, &own),
            [
                "-D CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                "-D CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT"
            ]
        );
        assert!(removal("-N CNI-FORWARD\n", &own).is_empty());
    }
}
