//! Who owns an element, a chain or a rule: the attachment, spelt so that a person can read it.

use std::fmt;

use crate::host::nft::COMMENT_MAX;

/// One attachment of one network: what CNI calls network name, container ID and interface name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The network's name.
    pub network: &'a str,
    /// The container's ID.
    pub container: &'a str,
    /// The interface's name in the container.
    pub ifname: &'a str,
}

impl Owner<'_> {
    /// The comment that marks what belongs to this attachment: `network/containerID/ifname`.
    ///
    /// nft takes no comment longer than [`COMMENT_MAX`] bytes. A longer one keeps its beginning and gets
    /// `#` and 16 hexadecimal digits in place of the rest, a hash of all of it. None of the three parts
    /// may hold a `#` or a `/` by the CNI specification, so the two forms can't be taken for each other.
    pub fn comment(self) -> String {
        let whole = self.to_string();
        if whole.len() <= COMMENT_MAX {
            return whole;
        }
        let mut end = COMMENT_MAX - 17;
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        format!(
            "{}#{:016x}",
            &whole[..end],
            fingerprint(0, whole.as_bytes())
        )
    }
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.ifname)
    }
}

/// FNV-1a, 64 bits, over `seed` and `bytes`. It is written out here because names and comments made from
/// it must be found again by later versions of this program; the standard library promises no such thing.
pub(super) fn fingerprint(seed: u8, bytes: &[u8]) -> u64 {
    std::iter::once(&seed)
        .chain(bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_owner_is_spelt_out() {
        let owner = Owner {
            network: "podnet",
            container: &"a".repeat(64),
            ifname: "eth0",
        };
        assert_eq!(owner.comment(), format!("podnet/{}/eth0", "a".repeat(64)));
    }

    #[test]
    fn long_owners_are_cut_and_stay_distinct() {
        let (network, container) = ("n".repeat(100), "c".repeat(100));
        let comment = |ifname| {
            Owner {
                network: &network,
                container: &container,
                ifname,
            }
            .comment()
        };
        assert_eq!(comment("eth0").len(), COMMENT_MAX);
        assert_ne!(comment("eth0"), comment("eth1"));
        assert!(comment("eth0").starts_with(&format!("{network}/ccc")));
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(fingerprint(0, b""), 0xaf63_bd4c_8601_b7df);
    }
}
