//! What the Go plugin masqueraded for a container that is now ours to check and to detach.
//!
//! With iptables it gives a container a chain `CNI-` and a hash of network and container ID, and jumps there from
//! POSTROUTING by the container's address. With nftables it writes a rule into a chain that all containers share, whose
//! comment begins with a hash of the network and one of the attachment. Both are found by the owner alone; what
//! containers share stays for its own.

use ipnet::IpNet;

use super::iptables;
use crate::host::HostError;
use crate::host::nft::{Family, Nft, ObjectRef, TableRef};
use crate::netfilter::go_plugins::{has_comment, hash, remove_rules};
use crate::netfilter::iptables::Version;
use crate::owner::Owner;

/// The chain of nftables that has rules of containers.
const CHAIN: ObjectRef<'static> = ObjectRef {
    table: TableRef {
        family: Family::Inet,
        name: "cni_plugins_masquerade",
    },
    name: "masq_checks",
};

/// The chain of iptables. It is the same for all interfaces of a container.
fn chain_of(owner: &Owner) -> String {
    let both = format!("{}{}", owner.network, owner.container);
    format!("CNI-{}", hash(&both, 24))
}

/// What the comment of a rule of nftables begins with.
fn beginning_of_comment(owner: &Owner) -> String {
    let attachment = format!("{}:{}", owner.ifname, owner.container);
    let network = hash(owner.network.as_str(), 16);
    format!("{network}-{},", hash(&attachment, 16))
}

/// Removes what the Go plugin made for `owner`. Starts no process when it is clear that there is nothing.
pub(super) fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), HostError> {
    let chain = chain_of(owner);
    for version in Version::ALL {
        iptables::remove_chain(nft, version, &chain, None)?;
    }
    if nft.chain(CHAIN)?.is_none() {
        return Ok(());
    }
    let beginning = beginning_of_comment(owner);
    remove_rules(nft, CHAIN, |comment| comment.starts_with(&beginning))
}

/// Whether the Go plugin masquerades the addresses of `owner`: it has its rule in nftables, or its chain wherever it has
/// addresses.
pub(super) fn masquerades(
    nft: &mut Nft,
    owner: &Owner,
    addresses: &[IpNet],
) -> Result<bool, HostError> {
    let beginning = beginning_of_comment(owner);
    let rules = nft.rules(CHAIN)?;
    let is_its = |comment: &str| comment.starts_with(&beginning);
    if rules.iter().any(|rule| has_comment(rule, is_its)) {
        return Ok(true);
    }
    let chain = chain_of(owner);
    for version in Version::ALL {
        let concerned = addresses
            .iter()
            .any(|address| version.is_of(address.addr()));
        let purpose = "check what the Go plugin masquerades";
        if concerned && version.rules(nft, &chain, purpose)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_the_go_plugins() {
        let owner = Owner {
            network: "net".try_into().unwrap(),
            container: "pod".try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        };
        // `printf netpod | sha512sum`, `printf net | sha512sum` and `printf eth0:pod | sha512sum`
        assert_eq!(chain_of(&owner), "CNI-6230a40fd8ffb95b5b30f6b5");
        assert_eq!(
            beginning_of_comment(&owner),
            "a4861f4ae9f7d238-a3b640692a85f94b,"
        );
    }
}
