//! How a network as a whole is written in names of sets and chains, and in comments.
//!
//! Its name stands there whole where it fits, otherwise its beginning and a hash of the whole with a slash in between,
//! which is no part of a network's name: the two can't be taken for each other.

use cni_conf::names::NetworkName;

use super::digest::fnv1a;

/// A slash, an `x` and a hash.
const HASHED: usize = 2 + 16;

/// The longest name that [`label`] leaves whole.
const LABEL_MAX: usize = 60;

/// How much of a longer one it keeps. Two bytes more would fit; it can't change any more.
const LABEL_READABLE: usize = 40;

/// What stands for a network in names: at most 60 bytes.
pub fn label(network: &NetworkName) -> String {
    shortened(network, LABEL_MAX, LABEL_READABLE)
}

/// What stands for a network in a comment that people read: at most `max` bytes.
pub fn text(network: &NetworkName, max: usize) -> String {
    shortened(network, max, max.saturating_sub(HASHED))
}

/// The name of a network's chain in iptables: `prefix`, of at most 13 characters, and 15 hexadecimal digits of a hash.
pub fn chain(prefix: &str, network: &NetworkName) -> String {
    format!("{prefix}{:015x}", fnv1a(network.as_str().as_bytes()) >> 4)
}

fn shortened(network: &NetworkName, whole: usize, readable: usize) -> String {
    let name = network.as_str();
    if name.len() <= whole {
        return name.to_owned();
    }
    // Network names are ASCII.
    format!("{}/x{:016x}", &name[..readable], fnv1a(name.as_bytes()))
}
