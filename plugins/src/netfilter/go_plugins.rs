//! What the Go plugins leave behind of a container that is ours to detach: how they name it, and taking it out.

use crate::host::HostError;
use crate::host::nft::{Batch, Nft, ObjectRef, Rule};

/// How often a removal that another process crossed is tried again.
const ATTEMPTS: u32 = 5;

/// The first hexadecimal digits of the text's SHA-512, at most 128: the Go plugin makes names of them.
pub fn hash(text: &str, digits: usize) -> String {
    let hash = hmac_sha512::Hash::hash(text.as_bytes());
    let mut hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

/// Removes the rules of a chain of nftables whose comments are some container's. Without the chain there are none.
///
/// # Errors
/// What the kernel says.
pub fn remove_rules(
    nft: &mut Nft,
    chain: ObjectRef<'_>,
    is_the_containers: impl Fn(&str) -> bool,
) -> Result<(), HostError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut batch = Batch::new();
        for rule in nft.rules(chain)? {
            if has_comment(&rule, &is_the_containers) {
                batch.delete_rule(chain, rule.handle);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        match nft.commit(batch) {
            // Another process took one of them out; look again which are left.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// Whether a rule's comment is a container's.
pub fn has_comment(rule: &Rule, is_the_containers: impl Fn(&str) -> bool) -> bool {
    rule.comment.as_deref().is_some_and(is_the_containers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_the_digits_of_sha_512() {
        // `printf test1234 | sha512sum`
        assert_eq!(hash("test1234", 12), "2bbe0c48b91a");
        assert_eq!(hash("", 128).len(), 128);
    }
}
