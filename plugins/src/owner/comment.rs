//! How a rule, an element or a file says whose it is.
//!
//! The spelling is `NETWORK/CONTAINERID/IFNAME` where that fits `nft` ([`COMMENT_MAX`] bytes). A longer one is cut and gets
//! `#` and 16 hexadecimal digits of a hash of the whole:
//!
//! ```text
//! podnet/0123456789…/eth0                       whole
//! podnet/0123456789…#HASH                       the network and its slash are within the first 110 bytes
//! NETWORK'S FIRST 93 BYTES#NETWORKHASH/HASH     the network is longer than that
//! ```
//!
//! Neither a network nor a container can have `/` or `#` in its name, and an interface's name is too short to look like a
//! hash, so the three can't be taken for each other. Each tells its network, and each is compared whole.
//!
//! iptables lists its rules as text, so a comment of its has nothing that means something there. Where characters had to
//! be replaced, a hash of the whole follows.
//!
//! Former versions cut the third form as the second one, within the network's name, and let two interfaces have the same
//! comment in iptables. Those spellings are still recognised, see [`Spellings`].

use cni_conf::names::NetworkName;

use super::Owner;
use super::digest::fnv1a;
use crate::host::nft::COMMENT_MAX;

/// `#` and a hash.
const HASHED: usize = 1 + 16;

/// How much of a cut spelling is readable.
const READABLE: usize = COMMENT_MAX - HASHED;

/// How much of a network's name is readable where it is cut: another hash and a slash follow.
const READABLE_NETWORK: usize = READABLE - HASHED;

/// The spellings of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spellings {
    /// What is its own and nobody else's: the first is the one for nftables and files, the second that for iptables.
    /// The third is what former versions wrote.
    pub(super) certain: [String; 3],
    /// What former versions wrote into iptables for it, and maybe for another interface of the same container.
    pub(super) ambiguous: String,
}

impl Spellings {
    pub(super) fn of(owner: &Owner) -> Self {
        let (comment, former) = (of(owner), cut(&owner.path()));
        Self {
            ambiguous: printable(&former),
            certain: [comment, for_iptables(owner), former],
        }
    }
}

/// The comment for nftables.
pub(super) fn of(owner: &Owner) -> String {
    let whole = owner.path();
    if whole.len() <= COMMENT_MAX || !is_long(&owner.network) {
        return cut(&whole);
    }
    let hash = fnv1a(whole.as_bytes());
    format!("{}{hash:016x}", hashed_beginning(&owner.network))
}

/// The comment for iptables.
pub(super) fn for_iptables(owner: &Owner) -> String {
    let comment = of(owner);
    let harmless = printable(&comment);
    if harmless == comment {
        return comment;
    }
    // Only an interface's name has such characters, and a spelling that is cut has none of it.
    format!("{harmless}#{:016x}", fnv1a(comment.as_bytes()))
}

/// Whether a spelling is of an attachment to `network`, unless a former version cut it within the network's name.
pub(super) fn is_of(network: &NetworkName, spelling: &str) -> bool {
    let rest = spelling.strip_prefix(network.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
        || is_long(network) && spelling.starts_with(&hashed_beginning(network))
}

/// The whole text if it fits, or its beginning and a hash of it.
pub(super) fn cut(whole: &str) -> String {
    if whole.len() <= COMMENT_MAX {
        return whole.to_owned();
    }
    // The parts are ASCII but for the interface's name, which is last and within the part that goes.
    let mut end = READABLE;
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}#{:016x}", &whole[..end], fnv1a(whole.as_bytes()))
}

/// Whether a cut would leave no slash behind the network.
fn is_long(network: &NetworkName) -> bool {
    network.as_str().len() >= READABLE
}

/// What a network's spellings begin with that are too long to have its name in them.
fn hashed_beginning(network: &NetworkName) -> String {
    let name = network.as_str();
    // Network names are ASCII.
    let readable = &name[..READABLE_NETWORK.min(name.len())];
    format!("{readable}#{:016x}/", fnv1a(name.as_bytes()))
}

/// A comment without what a rule's text gives a meaning to. An interface may have such a name.
pub fn printable(comment: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./#:@+~".contains(c);
    comment
        .chars()
        .map(|c| if harmless(c) { c } else { '_' })
        .collect()
}
