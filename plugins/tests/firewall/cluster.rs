//! `ingressCIDRs`: who may open connections to containers on a host that drops.

use serde_json::json;

use crate::Case;
use crate::open::{DOCKER, NATIVE};
use crate::rules::case;
use crate::scene::{A, C, OUTSIDE, Scene, asks, conf, named, talks};
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case(
        "named_prefixes_open_connections_and_nobody_else",
        named_prefixes,
    ),
    case("containers_without_a_subnet_are_reached_too", lone),
    case("isolation_holds_beside_named_prefixes", isolation),
    case(
        "what_the_host_translates_for_another_node_passes",
        translated,
    ),
    case("a_prefix_that_is_taken_back_is_closed_again", taken_back),
    case("everybody_may_be_let_in", everybody),
];

const CLUSTER: [&str; 2] = ["192.0.2.0/24", "2001:db8::/64"];

/// Another machine before the host, in none of the prefixes.
fn stranger(scene: &Scene) -> Node {
    let node = Node::new();
    scene.host.sh(&format!(
        "ip link add up9 type veth peer name eth0 netns {}; ip link set up9 up
         ip addr add 198.51.100.1/24 dev up9; ip addr add 2001:db8:9::1/64 dev up9 nodad",
        node.netns()
    ));
    node.sh(
        "ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:9::2/64 dev eth0 nodad
         ip link set eth0 up; ip route add default via 198.51.100.1; ip route add default via 2001:db8:9::1",
    );
    node
}

fn named_prefixes() {
    for guard in [DOCKER, NATIVE] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let before = scene.rules();
        let stranger = stranger(&scene);
        let conf = conf(json!({"ingressCIDRs": CLUSTER}));
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        scene.add_a_in_subnet(&conf);
        scene.assert_talks(&scene.outside, &scene.a, A, true);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&stranger, &scene.a, A, false);
        scene.assert_talks(&scene.outside, &scene.c, C, false);
        scene.check_a_in_subnet(&conf).unwrap();
        scene.del(&conf, "a");
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        assert_eq!(scene.rules(), before);
    }
}

fn lone() {
    for guard in [DOCKER, NATIVE] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let conf = conf(json!({"ingressCIDRs": CLUSTER}));
        scene.add_a(&conf);
        scene.assert_talks(&scene.outside, &scene.a, A, true);
        scene.check_a(&conf).unwrap();
    }
}

fn isolation() {
    for guard in [DOCKER, NATIVE] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let more =
            json!({"ingressPolicy": "same-bridge", "ingressCIDRs": ["10.0.0.0/8", "fd00::/8"]});
        let (one, two) = (named("one", more.clone()), named("two", more));
        scene.add_a_in_subnet(&one);
        scene.add_c_in_subnet(&two);
        scene.assert_talks(&scene.a, &scene.c, C, false);
        scene.assert_talks(&scene.c, &scene.a, A, false);
    }
}

/// The path of a NodePort that a container of another node answers: in by one interface, translated, and out again.
fn translated() {
    for guard in [DOCKER, NATIVE] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let client = stranger(&scene);
        scene.host.sh(
            "nft 'add table ip pub; add chain ip pub pre { type nat hook prerouting priority dstnat; }
             add chain ip pub post { type nat hook postrouting priority srcnat; }
             add rule ip pub pre ip daddr 198.51.100.1 udp dport 30080 dnat to 192.0.2.2:7000
             add rule ip pub post ip daddr 192.0.2.2 udp dport 7000 masquerade'",
        );
        let reached = |expected| {
            let addresses = ["198.51.100.1", OUTSIDE[0]];
            asks(&client, &scene.outside, addresses, [30080, 7000], expected)
        };
        scene.add_a_in_subnet(&conf(json!({})));
        assert!(!reached(false));
        scene.add_a_in_subnet(&conf(json!({"ingressCIDRs": CLUSTER})));
        assert!(reached(true));
        // Not translated, it is nobody's business.
        assert!(!talks(&client, &scene.outside, OUTSIDE[0], 7000, false));
    }
}

fn taken_back() {
    for guard in [DOCKER, NATIVE] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let conf_with = conf(json!({"ingressCIDRs": CLUSTER}));
        scene.add_a_in_subnet(&conf_with);
        scene.assert_talks(&scene.outside, &scene.a, A, true);
        let without = conf(json!({}));
        assert!(scene.check_a_in_subnet(&without).is_err());
        scene.add_b_in_subnet(&without);
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    }
}

fn everybody() {
    for guard in [DOCKER, NATIVE] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let conf = conf(json!({"ingressCIDRs": ["0.0.0.0/0", "::/0"]}));
        scene.add_a_in_subnet(&conf);
        scene.assert_talks(&scene.outside, &scene.a, A, true);
        scene.check_a_in_subnet(&conf).unwrap();
    }
}
