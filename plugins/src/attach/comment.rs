//! How a rule, an element or a chain says whose it is.

use super::owner::{Owner, fnv1a};
use crate::host::nft::COMMENT_MAX;

/// The comment that marks what belongs to an attachment: `network/containerID/ifname`.
///
/// nft takes no comment longer than [`COMMENT_MAX`] bytes. A longer one keeps its beginning and gets `#`
/// and 16 hexadecimal digits in place of the rest, a hash of all of it. None of the three parts can hold
/// a `#` or a `/`, so the two forms can't be taken for each other.
pub fn of(owner: &Owner) -> String {
    let whole = owner.path();
    if whole.len() <= COMMENT_MAX {
        return whole;
    }
    // The parts are ASCII but for the interface's name, which is last and within the part that goes.
    let mut end = COMMENT_MAX - 17;
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}#{:016x}", &whole[..end], fnv1a(whole.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, container: &str, ifname: &str) -> Owner {
        Owner {
            network: network.try_into().unwrap(),
            container: container.try_into().unwrap(),
            ifname: ifname.try_into().unwrap(),
        }
    }

    #[test]
    fn a_common_owner_is_spelt_out() {
        let id = "a".repeat(64);
        assert_eq!(
            of(&owner("podnet", &id, "eth0")),
            format!("podnet/{id}/eth0")
        );
    }

    #[test]
    fn long_owners_are_cut_and_stay_distinct() {
        let (network, container) = ("n".repeat(100), "c".repeat(100));
        let comment = |ifname| of(&owner(&network, &container, ifname));
        assert_eq!(comment("eth0").len(), COMMENT_MAX);
        assert_ne!(comment("eth0"), comment("eth1"));
        assert!(comment("eth0").starts_with(&format!("{network}/ccc")));
    }
}
