//! The judgement on the host's filter rules, checked against what they do to real packets.

use plugins::netfilter::forward_hook::{Behind, Path, judge};

use crate::Case;
use crate::scene::Scene;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("no_filter_rules_no_finding", &["nft"], none),
    case(
        "docker_like_iptables_rules_are_found",
        &["iptables", "ip6tables"],
        docker,
    ),
    case(
        "an_nft_chain_that_drops_is_found_unless_it_lets_the_bridge_through",
        &["nft"],
        native,
    ),
    case(
        "the_judgement_agrees_with_what_happens_to_packets",
        &["nft", "ip"],
        agrees,
    ),
    case(
        "no_guard_is_overlooked_beside_thousands_of_chains",
        &["nft", "iptables", "ip6tables"],
        beside_many,
    ),
    case(
        "old_iptables_is_not_overlooked",
        &["iptables-legacy"],
        legacy,
    ),
];

const fn case(name: &'static str, needs: &'static [&'static str], run: fn()) -> Case {
    Case { name, needs, run }
}

fn findings(address: &str) -> Vec<String> {
    let path = Path {
        behind: Behind::Link("br0"),
        address: address.parse().unwrap(),
        uplink: Some("up0"),
    };
    judge(&path)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Tables of kube-proxy's with more chains than are listed together, and the guard that there is besides.
fn beside_many() {
    let many = "kube() { { echo \"add table $1 $2\"; for n in $(seq 600); do echo \"add chain $1 $2 KUBE-SVC-$n\"; done
        echo \"add chain $1 $2 filter-forward { type filter hook forward priority -110; policy accept; }\"; } | nft -f -; }
        kube ip nat; kube ip6 nat; kube ip kube-proxy";
    let drops = "type filter hook forward priority 0; policy drop;";
    for (guard, chain) in [
        ("", ""),
        ("iptables -P FORWARD DROP", "ip filter FORWARD"),
        ("iptables -t mangle -P FORWARD DROP", "ip mangle FORWARD"),
        // A table of nobody that is known.
        (
            &format!(
                "nft 'add table ip own; add chain ip own admin; add chain ip own f {{ {drops} }}; add rule ip own f jump admin'"
            ),
            "ip own f",
        ),
        // Nothing in it tells of the chain.
        (
            &format!("nft 'add table ip own; add chain ip own f {{ {drops} }}'"),
            "ip own f",
        ),
        // As many as the others have, so that these have to be gone through.
        (
            &format!("kube ip own; nft 'add chain ip own f {{ {drops} }}'"),
            "ip own f",
        ),
        (
            &format!("nft 'add table inet own; add chain inet own f {{ {drops} }}'"),
            "inet own f",
        ),
        // In a table of iptables' that others write to.
        (
            &format!(
                "iptables -P FORWARD ACCEPT; nft 'add chain ip filter f {{ {drops} }}; add rule ip filter f ct state established accept'"
            ),
            "ip filter f",
        ),
    ] {
        let node = Node::new();
        node.sh(&format!("{many}; {guard}"));
        let found = node.run(|| findings("10.1.0.5"));
        assert_eq!(
            found.len(),
            usize::from(!chain.is_empty()),
            "{guard}: {found:?}"
        );
        assert!(found.iter().all(|found| found.contains(chain)), "{found:?}");
    }
}

fn none() {
    let node = Node::new();
    assert_eq!(node.run(|| findings("10.1.0.5")), Vec::<String>::new());
    node.sh("nft 'add table inet t; add chain inet t f { type filter hook forward priority 0; policy accept; };
        add chain inet t i { type filter hook input priority 0; policy drop; }'");
    assert_eq!(node.run(|| findings("10.1.0.5")), Vec::<String>::new());
}

fn docker() {
    let node = Node::new();
    node.sh(
        "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
        iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    );
    let found = node.run(|| findings("10.1.0.5"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("chain ip filter FORWARD drops"),
        "{found:?}"
    );
    assert!(
        found[0].contains("drop forwarded packets from br0"),
        "{found:?}"
    );
    assert!(found[0].contains("plugin `firewall`"), "{found:?}");
    assert_eq!(node.run(|| findings("fd00::5")), Vec::<String>::new());
    node.sh("ip6tables -P FORWARD DROP");
    assert_eq!(node.run(|| findings("fd00::5")).len(), 1);
    node.sh("iptables -I FORWARD -i br0 -j ACCEPT");
    let found = node.run(|| findings("10.1.0.5"));
    assert!(
        found[0].contains("drop answers to packets from br0"),
        "{found:?}"
    );
    node.sh("iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    assert_eq!(node.run(|| findings("10.1.0.5")), Vec::<String>::new());
}

fn native() {
    let node = Node::new();
    node.sh("nft 'add table inet fw; add chain inet fw onward { type filter hook forward priority 0; policy drop; };
        add chain inet fw sub; add rule inet fw onward ct state vmap { established : accept, related : accept, invalid : drop };
        add rule inet fw onward iifname \"docker0\" accept; add rule inet fw onward jump sub'");
    let found = node.run(|| findings("10.1.0.5"));
    assert!(
        found[0].contains("from br0: chain inet fw onward"),
        "{found:?}"
    );
    assert_eq!(node.run(|| findings("fd00::5")).len(), 1);
    for (rule, v4, v6) in [
        ("iifname \"br*\" accept", 0, 0),
        ("ip saddr 10.1.0.0/16 accept", 0, 1),
        ("ip6 saddr { fd00::/64, fe80::/10 } accept", 1, 0),
        ("oifname \"up0\" accept", 0, 0),
        ("ip saddr 10.2.0.0/16 accept", 1, 1),
        ("meta nfproto ipv4 accept", 0, 1),
        ("meta l4proto tcp accept", 0, 0),
        ("meta l4proto { icmp, ipv6-icmp } accept", 1, 1),
        ("ct status dnat accept", 1, 1),
        ("iifname != \"eth5\" counter accept", 0, 0),
        ("iifname \"br0\" drop", 1, 1),
    ] {
        node.sh(&format!(
            "nft flush chain inet fw sub; nft 'add rule inet fw sub {rule}'"
        ));
        assert_eq!(node.run(|| findings("10.1.0.5")).len(), v4, "{rule}");
        assert_eq!(node.run(|| findings("fd00::5")).len(), v6, "{rule}");
    }
}

fn agrees() {
    let scene = Scene::new();
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
    scene.host.sh("nft 'add table inet fw; add chain inet fw onward { type filter hook forward priority 0; policy drop; }'");
    assert_eq!(scene.host.run(|| findings("10.1.0.5")).len(), 1);
    scene.assert_blocked("192.0.2.2");
    scene.host.sh("nft 'add rule inet fw onward iifname \"br0\" accept; add rule inet fw onward ct state established accept'");
    assert_eq!(
        scene.host.run(|| findings("10.1.0.5")),
        Vec::<String>::new()
    );
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
}

fn legacy() {
    let node = Node::new();
    node.sh("iptables-legacy -P FORWARD DROP");
    let found = node.run(|| findings("10.1.0.5"));
    assert!(found[0].contains("iptables-legacy"), "{found:?}");
    node.sh("iptables-legacy -P FORWARD ACCEPT");
    assert_eq!(node.run(|| findings("10.1.0.5")), Vec::<String>::new());
}
