//! Packets that are too large for a part of their way.

use conformance::{Case, Lab, Protocol, case};
use serde_json::json;

use super::{INTERNET, Node, UPLINK, at};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_narrow_uplink_is_named_and_whether_the_pod_was_told),
        case!(a_narrow_link_beyond_the_node_is_told_by_its_router),
        case!(a_narrow_port_of_the_bridge_drops_in_silence),
        case!(a_pods_own_interface_takes_no_more_than_its_mtu),
        case!(what_fits_is_answered_and_what_has_no_size_is_refused),
    ]
}

fn a_narrow_uplink_is_named_and_whether_the_pod_was_told(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.ip("link set up0 mtu 1400");
    for (index, world) in INTERNET.into_iter().enumerate() {
        let gateway = ["10.1.0.1", "fd00:1::1"][index];
        for more in [&[][..], &["--udp"]] {
            let to = if more.is_empty() {
                world.to_owned()
            } else {
                at(ip(world), 9)
            };
            let mut all = vec![a.netns(), to, "--size".to_owned(), "1450".to_owned()];
            all.extend(more.iter().map(|it| (*it).to_owned()));
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            node.trace(&all)
                .is(
                    "not-forwarded",
                    &[
                        "1450 bytes",
                        "up0",
                        "takes 1400",
                        &format!("{gateway} told the pod so"),
                    ],
                )
                .has("there", "prerouting in cni0")
                .has("back", "too large, 1400 bytes may pass")
                .finds("mtu-mismatch");
        }
    }
    // The hole: a filter keeps the message away.
    node.sh("nft add table inet admin");
    node.sh("nft add chain inet admin out { type filter hook output priority 0 ; }");
    node.sh("nft add rule inet admin out icmp type destination-unreachable drop comment hole");
    node.sh("nft add rule inet admin out icmpv6 type packet-too-big drop comment hole");
    for world in INTERNET {
        node.trace(&[&a.netns(), world, "--size", "1450"])
            .is(
                "not-forwarded",
                &[
                    "takes 1400",
                    "inet admin out drops it, the message that tells who sent it",
                ],
            )
            .has("back", "(hole): drop");
    }
}

fn a_narrow_link_beyond_the_node_is_told_by_its_router(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    // The world is a router, and behind it is a link that takes less.
    node.world.ip("link add far type veth peer name end");
    node.world.ip("link set far mtu 1300 up");
    node.world.ip("link set end mtu 1300 up");
    node.world.set_sysctl("net/ipv4/ip_forward", "1");
    node.world.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    node.world.ip("route add 203.0.113.0/24 dev far");
    node.world.ip("route add 2001:db8:77::/64 dev far");
    for (there, router) in ["203.0.113.9", "2001:db8:77::9"].into_iter().zip(INTERNET) {
        node.trace(&[&a.netns(), there, "--size", "1400"])
            .is(
                "no-answer",
                &[
                    "left by up0",
                    &format!("{router} says that it is too large, 1300 bytes may pass"),
                ],
            )
            .has("back", &format!("prerouting in up0: {router}"));
    }
}

fn a_narrow_port_of_the_bridge_drops_in_silence(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    node.ip(&format!("link set {} mtu 1400", b.end()));
    for to in b.ips() {
        node.trace(&[&a.netns(), &to.to_string(), "--size", "1500"])
            .is(
                "not-forwarded",
                &["1500 bytes", &b.end(), "takes 1400", "tells nobody"],
            );
    }
}

fn a_pods_own_interface_takes_no_more_than_its_mtu(lab: &Lab) {
    let node = Node::new(lab, json!({"mtu": 1400}));
    let (a, b) = (node.join("a"), node.join("b"));
    for to in b.ips() {
        node.trace(&[&a.netns(), &to.to_string(), "--size", "1450"])
            .is("not-sent", &["eth0 takes 1400 bytes"]);
    }
}

fn what_fits_is_answered_and_what_has_no_size_is_refused(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for to in b.ips() {
        let _server = b.serve(Protocol::Udp, to, 8080);
        node.trace(&[&a.netns(), &to.to_string(), "--size", "1500"])
            .is("answered", &[]);
        // Without a word of the protocol, a size is that of a datagram.
        node.trace(&[&a.netns(), &at(to, 8080), "--size", "1500"])
            .is("answered", &[]);
        node.trace(&[
            &a.netns(),
            &to.to_string(),
            "--size",
            "1450",
            "--from",
            "cni0",
        ])
        .has("there", "prerouting in cni0");
    }
    for (arguments, status, words) in [
        (["10.1.0.3", "--size", "27"], 3, "no room for its headers"),
        (
            ["[fd00:1::3]:53", "--size", "64"],
            3,
            "no room for its headers",
        ),
        (["10.1.0.3", "--size", "70000"], 2, "70000"),
    ] {
        let mut all = vec!["/run/netns/a"];
        all.extend(arguments);
        let output = node.call(&all);
        assert_eq!(output.status.code(), Some(status), "{output}");
        assert!(output.stderr.contains(words), "{words}: {output}");
    }
    let output = node.call(&[
        "/run/netns/a",
        &at(ip(UPLINK[0]), 80),
        "--tcp",
        "--size",
        "900",
    ]);
    assert_eq!(output.status.code(), Some(2), "{output}");
}
