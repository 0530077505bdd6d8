//! What comes back after somebody flushed the rules, or when a guard appears that was not there before.

use plugins::host::NetNs;
use serde_json::{Value, json};

use crate::Case;
use crate::open::{DOCKER, NATIVE};
use crate::rules::{case, host, ruleset};
use crate::scene::{A, B, C, OUTSIDE, Scene, add, add_inside, check, conf, del, named};
use crate::scratch;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case(
        "after_a_flush_the_next_add_restores_living_containers",
        restored,
    ),
    case(
        "a_guard_of_iptables_that_comes_later_lets_living_containers_out",
        later_docker,
    ),
    case(
        "a_flush_takes_no_isolation_away_for_good",
        isolation_restored,
    ),
    case(
        "a_flush_that_keeps_chains_takes_no_rule_of_a_living_container_away_for_good",
        emptied,
    ),
    case("a_storm_with_flushes_leaves_nothing", flushed_storm),
];

fn restored() {
    for (guard, flush) in [
        (NATIVE, "nft flush ruleset"),
        (NATIVE, "nft flush ruleset; nft add table inet foreign"),
        (DOCKER, "nft flush ruleset"),
        (DOCKER, "for t in iptables ip6tables; do $t -F; $t -X; done"),
        // Its own chains go, ours are left empty.
        (
            DOCKER,
            "for t in iptables ip6tables; do $t -F; for c in USER FORWARD ISOLATION-STAGE-1; do $t -X DOCKER-$c; done; done",
        ),
    ] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let dir = scratch::own();
        let conf = conf(json!({"dataDir": dir}));
        scene.add_a(&conf);
        scene.add_b(&conf);
        let (dead, of_dead) = (Node::new(), conf.clone());
        let netns = scratch::netns(&dead);
        scene.host.run(move || {
            add_inside(&of_dead, "dead", Some(netns), ["cni0", ""], &["10.1.0.9"]).unwrap();
        });
        drop(dead);
        scene.del(&conf, "b");
        // The host's own rules are loaded again, and know nobody.
        scene.host.sh(flush);
        scene.host.sh(guard);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
        assert!(scene.check_a(&conf).is_err());
        scene.add_c(&conf);
        scene.assert_talks(&scene.c, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, false);
        scene.check_a(&conf).unwrap();
        let rules = scene.rules();
        for gone in ["podnet/b/", "podnet/dead/"] {
            assert!(!rules.contains(gone), "{guard} {flush}: {rules}");
        }
        for container in ["a", "c", "dead"] {
            scene.del(&conf, container);
        }
        assert!(!scene.rules().contains("podnet"), "{}", scene.rules());
        assert_eq!(scratch::files(&dir), Vec::<String>::new());
    }
}

fn later_docker() {
    let scene = Scene::new();
    let conf = conf(json!({"dataDir": scratch::own()}));
    scene.add_a(&conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.host.sh(DOCKER);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
    scene.add_c(&conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.del(&conf, "a");
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
    scene.assert_talks(&scene.c, &scene.outside, OUTSIDE, true);
}

fn isolation_restored() {
    for backend in ["nftables", "iptables"] {
        let scene = Scene::new();
        let dir = scratch::own();
        let more = json!({"backend": backend, "ingressPolicy": "same-bridge", "dataDir": dir});
        let (one, two) = (conf(more.clone()), named("two", more));
        scene.add_a(&one);
        scene.add_c(&two);
        scene.assert_talks(&scene.a, &scene.c, C, false);
        scene.host.sh("nft flush ruleset");
        scene.assert_talks(&scene.a, &scene.c, C, true);
        scene.add_b(&one);
        scene.host.run(move || {
            add(&two, "new", "cni1", "", &["10.2.0.9", "fd00:2::9"]).unwrap();
        });
        scene.assert_talks(&scene.a, &scene.c, C, false);
    }
}

/// `iptables -F` empties chains and keeps them, all of them or one: containers with links of their own, whose rules are
/// nobody else's, get them back with the network's next one, also when another network has filled the shared chains again.
fn emptied() {
    for chain in [
        "",
        "TRESTLE-FORWARD",
        "TRESTLE-ISOLATE",
        "TRESTLE-ISOLATE-TO",
    ] {
        let node = host(DOCKER);
        let dir = scratch::own();
        let more = json!({"backend": "iptables", "ingressPolicy": "same-bridge", "dataDir": dir});
        let (conf, two) = (conf(more.clone()), named("two", more));
        let [a, b, c] = [Node::new(), Node::new(), Node::new()];
        let check = || {
            let conf = conf.clone();
            node.run(move || check(&conf, "a", "", "vetha", &A))
        };
        attach(&node, &conf, ["a", "vetha"], &a, A);
        check().unwrap();
        node.sh(&format!(
            "for t in iptables ip6tables; do $t -F {chain}; done"
        ));
        check().unwrap_err();
        attach(&node, &two, ["c", "vethc"], &c, C);
        attach(&node, &conf, ["b", "vethb"], &b, B);
        check().unwrap();
        for (conf, name) in [(&conf, "a"), (&conf, "b"), (&two, "c")] {
            let conf = conf.clone();
            node.run(move || del(&conf, name).unwrap());
        }
        let rules = ruleset(&node);
        assert!(!rules.contains("TRESTLE"), "{chain}: {rules}");
    }
}

/// ADD of a container with a link of its own.
fn attach(
    node: &Node,
    conf: &Value,
    [name, link]: [&'static str; 2],
    pod: &Node,
    addresses: [&'static str; 2],
) {
    let (conf, netns) = (conf.clone(), scratch::netns(pod));
    node.run(move || {
        add_inside(&conf, name, Some(netns), ["", link], &addresses).unwrap();
    });
}

/// Containers come and go while somebody loads the host's rules anew again and again, so that each is restored by others
/// at any moment of its life.
fn flushed_storm() {
    for (guard, backend) in [(NATIVE, "nftables"), (DOCKER, "iptables")] {
        let node = host(guard);
        let before = ruleset(&node);
        let dir = scratch::own();
        let conf = conf(json!({"dataDir": dir, "backend": backend}));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..6).for_each(|_| drop(node.sh(&format!("nft flush ruleset; {guard}"))))
            });
            for n in 1..6 {
                let (conf, own, node) = (conf.clone(), Node::new(), &node);
                scope.spawn(move || {
                    let netns = scratch::netns(&own);
                    for _ in 0..6 {
                        let (conf, netns) = (conf.clone(), netns.clone());
                        let enter = NetNs::open(scratch::netns(node)).unwrap();
                        enter
                            .enter(|| {
                                let (name, address) = (format!("c{n}"), format!("10.1.0.{n}"));
                                let links = ["cni0", ""];
                                // It may fail when its rules go in the middle.
                                let _ = add_inside(&conf, &name, Some(netns), links, &[&address]);
                                del(&conf, &name).unwrap();
                            })
                            .unwrap();
                    }
                });
            }
        });
        assert!(!ruleset(&node).contains("podnet"), "{}", ruleset(&node));
        node.sh(&format!("nft flush ruleset; {guard}"));
        assert_eq!(ruleset(&node), before);
        assert_eq!(scratch::files(&dir), Vec::<String>::new());
    }
}
