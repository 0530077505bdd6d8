//! The names of the chains that the plugin `firewall` has for a network. Others know by them that it takes care of it.

use cni_conf::names::NetworkName;

use crate::owner::network;

/// The chain of iptables that leads to the networks'.
pub const FORWARD: &str = "TRESTLE-FORWARD";

/// What the names of networks' chains in iptables begin with.
pub const WAY: &str = "TRESTLE-FW-";

/// What the names of networks' chains in other tables begin with.
pub const GUARD: &str = "trestle/";

/// The network's chain in a filter table of iptables.
pub fn way(network: &NetworkName) -> String {
    network::chain(WAY, network)
}

/// The network's chain in the table of somebody else's that drops, by the network's label.
pub fn guard_chain(label: &str) -> String {
    format!("{GUARD}{label}")
}
