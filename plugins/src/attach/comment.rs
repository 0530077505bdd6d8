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
