//! Names and comments that the rules are found by.

use cni_conf::names::NetworkName;

use crate::owner::{Owners, fnv1a};

/// The longest network name that becomes part of a name whole.
const NETWORK_MAX: usize = 60;

/// How much of a longer one is kept.
const READABLE: usize = 40;

/// What stands for a network in the names of sets and chains. The slash of the second form is no part of a
/// network's name, so the two can't be taken for each other.
pub(super) fn label(network: &NetworkName) -> String {
    let name = network.as_str();
    if name.len() <= NETWORK_MAX {
        return name.to_owned();
    }
    // Network names are ASCII.
    format!("{}/x{:016x}", &name[..READABLE], fnv1a(name.as_bytes()))
}

/// What the rules for a network as a whole carry as their comment.
pub(super) fn network_comment(network: &NetworkName) -> String {
    format!("network {}", label(network))
}

/// Whether the owner in a comment is an attachment to `network`.
pub(super) fn belongs_to(network: &NetworkName, comment: &str) -> bool {
    Owners::all(network).has_in_iptables(comment)
}

/// Whether a comment that was found is that of `owner`, in either spelling.
pub(super) fn is(owner: &str, found: &str) -> bool {
    found == owner || found == printable(owner)
}

/// A comment without what the text of an iptables rule gives a meaning to. An interface may have such a name.
pub(super) fn printable(comment: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./#:@+~ ".contains(c);
    comment
        .chars()
        .map(|c| if harmless(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> NetworkName {
        name.try_into().unwrap()
    }

    #[test]
    fn long_networks_are_told_apart_by_a_hash() {
        assert_eq!(label(&network("podnet")), "podnet");
        let (one, other) = (network(&"n".repeat(61)), network(&"n".repeat(62)));
        assert_ne!(label(&one), label(&other));
        assert!(label(&one).len() < NETWORK_MAX);
    }

    #[test]
    fn a_network_does_not_own_what_is_anothers() {
        assert!(belongs_to(&network("net"), "net/c/eth0"));
        assert!(!belongs_to(&network("net"), "net2/c/eth0"));
    }

    #[test]
    fn nothing_of_a_name_reaches_a_rule_as_syntax() {
        assert_eq!(printable("net/abc/e\"\\$;h0"), "net/abc/e____h0");
        assert!(is("net/abc/e$0", "net/abc/e_0") && is("net/abc/e$0", "net/abc/e$0"));
        assert!(!is("net/abc/eth0", "net/abc/eth1"));
    }
}
