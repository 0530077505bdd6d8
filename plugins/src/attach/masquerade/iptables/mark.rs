//! The mark of a network: an empty chain, and the rule of POSTROUTING that leads to it.

use cni_conf::names::NetworkName;

use super::{POSTROUTING, rules_to};
use crate::host::HostError;
use crate::host::nft::Nft;
use crate::netfilter::iptables::{Version, rules_in};
use crate::owner::network;

/// What the names of the networks' marks begin with.
const PREFIX: &str = "TRESTLE-NET-";

/// The chain whose rule in POSTROUTING tells that nobody has flushed it.
pub(super) fn chain_of(network: &NetworkName) -> String {
    network::chain(PREFIX, network)
}

/// Whether the rule is there that leads to the network's mark.
pub(super) fn is_there(
    nft: &mut Nft,
    version: Version,
    network: &NetworkName,
) -> Result<bool, HostError> {
    let mark = chain_of(network);
    if let Some(chain) = nft.chain(version.nat().object(&mark))? {
        // It is empty, so what counts as its use is the rule.
        return Ok(chain.uses > 0);
    }
    if !version.has_legacy_table() {
        return Ok(false);
    }
    let listing = version.listing("look for the rules of a network")?;
    Ok(!rules_to(&rules_in(&listing, POSTROUTING), &mark).is_empty())
}

/// Commands that make the mark.
pub(super) fn creation(network: &NetworkName) -> [String; 2] {
    let (mark, comment) = (chain_of(network), comment_of(network));
    [
        // A chain that exists is emptied by this.
        format!(":{mark} - [0:0]"),
        format!("-A {POSTROUTING} -m comment --comment \"{comment}\" -j {mark}"),
    ]
}

/// How much of the comment a network's name may be.
const NETWORK_MAX: usize = 100;

/// The comment of the rule that leads to a network's mark. It is for people.
fn comment_of(network: &NetworkName) -> String {
    format!("network {}", network::text(network, NETWORK_MAX))
}
