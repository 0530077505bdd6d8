//! The rules that exist once, as a script for `nft`.
//!
//! It is in nft's own language, since `nft` of 1.0.6 (Debian 12) dies of a map to address and port in JSON.

use super::{DIGESTS, LOCALNET, Map};
use crate::owner::fnv1a;

/// The comment of the last rule of `portmap/postrouting`, with the digest of the text below.
fn last_comment() -> String {
    let digest = fnv1a(text().as_bytes());
    format!("connections from nearby to mapped ports, rules {digest:016x}")
}

/// One transaction that makes everything that exists once, whatever was there before. Elements stay.
pub(in super::super) fn script() -> String {
    text().replace(DIGEST_PLACEHOLDER, &last_comment())
}

/// Stands for the digest in the text that it is computed from. As part of that text it has to stay as it is: with another
/// word every rule would have another digest.
const DIGEST_PLACEHOLDER: &str = "SEAL";

/// All that the rules are made from.
pub(in super::super) fn text() -> String {
    let mut script = String::from("add table inet trestle\n");
    for map in Map::ALL {
        script += &format!(
            "add map inet trestle {} {{ type {}; }}\n",
            map.name(),
            map.types()
        );
    }
    script += &format!("add set inet trestle {LOCALNET} {{ type ipv4_addr . ifname; }}\n");
    script += &format!("add set inet trestle {DIGESTS} {{ type mark; }}\n");
    // Targets before those who lead to them.
    for (chain, hook, rules) in BODY.iter().rev() {
        script +=
            &format!("add chain inet trestle {chain}{hook}\nflush chain inet trestle {chain}\n");
        for rule in *rules {
            script += &format!("add rule inet trestle {chain} {rule}\n");
        }
    }
    script
}

type ChainBody = (&'static str, &'static str, &'static [&'static str]);

/// The chains in the order of [`CHAINS`], with what makes them base chains, and their rules.
///
/// `meta l4proto { … }` has to stand in front for nft to know the size of the ports.
const BODY: [ChainBody; 6] = [
    (
        "portmap/prerouting",
        " { type nat hook prerouting priority -90; policy accept; }",
        &[
            "meta nfproto ipv4 fib daddr type local goto portmap/dnat-v4 comment \"addressed to this host\"",
            "meta nfproto ipv6 fib daddr type local goto portmap/dnat-v6 comment \"addressed to this host\"",
        ],
    ),
    (
        "portmap/output",
        " { type nat hook output priority -90; policy accept; }",
        &[
            "meta nfproto ipv4 fib daddr type local goto portmap/dnat-v4 comment \"from this host to itself\"",
            "ip6 daddr != ::1 fib daddr type local goto portmap/dnat-v6 comment \"from this host to itself\"",
        ],
    ),
    (
        "portmap/postrouting",
        " { type nat hook postrouting priority 90; policy accept; }",
        &[
            "ct status dnat meta l4proto { tcp, udp, sctp } ip daddr . meta l4proto . ct original proto-dst vmap @portmap/snat-v4 comment \"connections from nearby to mapped ports\"",
            "ct status dnat meta l4proto { tcp, udp, sctp } ip6 daddr . meta l4proto . ct original proto-dst vmap @portmap/snat-v6 comment \"SEAL\"",
        ],
    ),
    (
        "portmap/localnet",
        " { type filter hook prerouting priority -300; policy accept; }",
        &[
            "iifname != \"lo\" ip daddr 127.0.0.0/8 drop comment \"localhost is not for neighbours\"",
            "iifname != \"lo\" ip saddr 127.0.0.0/8 drop comment \"neighbours are not localhost\"",
        ],
    ),
    (
        "portmap/dnat-v4",
        "",
        &[
            "meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @portmap/host-v4 comment \"ports of one address\"",
            "meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @portmap/any-v4 comment \"ports of all addresses\"",
        ],
    ),
    (
        "portmap/dnat-v6",
        "",
        &[
            "meta l4proto { tcp, udp, sctp } dnat ip6 to ip6 daddr . meta l4proto . th dport map @portmap/host-v6 comment \"ports of one address\"",
            "meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . th dport map @portmap/any-v6 comment \"ports of all addresses\"",
        ],
    ),
];
