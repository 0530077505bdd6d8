//! Hashes that stand in names and comments. They outlive an upgrade: none of them may ever change.

use crate::host::nft::COMMENT_MAX;

/// The 64-bit FNV-1a hash (RFC 9923). Names in the kernel are made with it.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    hash_on(0xcbf2_9ce4_8422_2325, bytes)
}

/// The hash of what was hashed so far and these bytes.
pub(super) fn hash_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A digest of a text: 16 hexadecimal digits.
pub fn digest(text: &str) -> String {
    format!("{:016x}", fnv1a(text.as_bytes()))
}

/// Hashes one part after the other, each with its length: what one part loses, the next one can't make up for.
#[derive(Debug)]
pub struct Hasher(u64);

impl Default for Hasher {
    fn default() -> Self {
        Self(fnv1a(&[]))
    }
}

impl Hasher {
    /// Goes on with these bytes.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        let length = (bytes.len() as u64).to_be_bytes();
        self.0 = hash_on(hash_on(self.0, &length), bytes);
        self
    }

    /// The hash of all.
    pub fn finish(&self) -> u64 {
        self.0
    }
}

/// What stands between the words of a comment and the digest of the rules.
const RULES: &str = ", rules ";

/// The comment of a rule that tells what the rules are for and ends in their digest:
/// `containers of network podnet, rules 0123456789abcdef`. `about` is cut where the whole would not fit `nft`.
pub fn noted(about: &str, digest: u64) -> String {
    let mut end = about.len().min(COMMENT_MAX - RULES.len() - 16);
    while !about.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{RULES}{digest:016x}", &about[..end])
}

/// The digest at the end of a comment that [`noted`] made.
pub fn rules_digest(comment: &str) -> Option<&str> {
    let (_, digest) = comment.rsplit_once(RULES)?;
    let digits = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digest.len() == 16 && digits).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0xcbf29ce484222325);
        assert_eq!(fnv1a(b"foobar"), 0x85944171f73967e8);
        assert_eq!(digest("foobar"), "85944171f73967e8");
    }

    #[test]
    fn a_comment_ends_in_the_digest_however_long_the_rest_is() {
        let comment = noted("containers of network podnet", 0xab);
        assert_eq!(
            comment,
            "containers of network podnet, rules 00000000000000ab"
        );
        for about in ["", "x", &"y".repeat(300), &"ä".repeat(100)] {
            let comment = noted(about, 0xab);
            assert!(comment.len() <= COMMENT_MAX, "{comment}");
            assert_eq!(rules_digest(&comment), Some("00000000000000ab"));
        }
    }

    #[test]
    fn other_comments_have_no_digest() {
        for comment in ["", "own subnet", "x, rules ", "x, rules 0123456789abcdeg"] {
            assert_eq!(rules_digest(comment), None, "{comment}");
        }
    }
}
