//! Names and comments that the rules are found by.

use cni_conf::names::NetworkName;

pub(super) use crate::owner::network::label;

/// What the rules for a network as a whole carry as their comment.
pub(super) fn network_comment(network: &NetworkName) -> String {
    format!("network {}", label(network))
}
