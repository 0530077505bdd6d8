//! What a flush must not open: the services behind the host's 127.0.0.1.

use serde_json::json;

use crate::Case;
use crate::alike::{both, case};
use crate::scene::{Backend, Call, Over, Scene, ask_without_answer, serve};
use crate::scratch;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("after_a_flush_any_add_closes_localhost", by_add),
    case("after_a_flush_any_del_closes_localhost", by_del),
    case("after_a_flush_any_gc_closes_localhost", by_gc),
    case(
        "the_last_del_after_a_flush_switches_route_localnet_off",
        by_last_del,
    ),
    case(
        "a_dead_container_keeps_no_route_localnet_on_after_a_flush",
        by_dead,
    ),
    case("a_guard_that_was_taken_away_comes_back", partly),
];

const SECRET: &str = "127.0.0.1:6443";

/// A host with a service of its own behind 127.0.0.1, and pods that send there by way of the host.
fn scene() -> Scene {
    let scene = Scene::new();
    serve(&scene.host, "secret", SECRET);
    // A container may do this in its own namespace.
    for pod in [&scene.pod, &scene.neighbour] {
        pod.sh(
            "ip link set lo down; ip addr flush dev lo; ip route flush table local
            ip route add local 10.1.0.0/24 dev eth0 table local 2>/dev/null || true
            ip route add 127.0.0.0/8 via 10.1.0.1 dev eth0
            echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
            echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter",
        );
    }
    scene
}

fn reachable(scene: &Scene) -> bool {
    ask_without_answer(&scene.pod, Over::Udp, SECRET).is_some()
}

fn call(backend: Backend, container: &str, port: u16, dir: &str) -> Call {
    Call::new(backend, container, both(port, 80)).with("dataDir", json!(dir))
}

fn flushed(scene: &Scene) {
    scene.host.sh("nft flush ruleset");
    assert_eq!(scene.route_localnet(), "1");
    assert!(reachable(scene), "this is what is to be closed");
}

fn by_add(backend: Backend) {
    let scene = scene();
    let dir = scratch::own();
    scene.add(&call(backend, "living", 8080, &dir).inside(&scene.pod));
    assert!(!reachable(&scene));
    flushed(&scene);
    scene.add(&Call::new(backend, "plain", json!([])).with("dataDir", json!(dir)));
    assert!(!reachable(&scene));
}

fn by_del(backend: Backend) {
    let scene = scene();
    let dir = scratch::own();
    let living = call(backend, "living", 8080, &dir).inside(&scene.pod);
    scene.add(&living);
    let going = call(backend, "going", 8081, &dir)
        .at(&["10.1.0.6/24"])
        .inside(&scene.neighbour);
    scene.add(&going);
    flushed(&scene);
    scene.del(&going);
    assert!(!reachable(&scene));
    scene.check(&living).expect("its port is back");
    flushed(&scene);
    scene.del(&Call::new(backend, "plain", json!([])).with("dataDir", json!(dir)));
    assert!(!reachable(&scene));
    scene.del(&living);
    assert_eq!(scene.route_localnet(), "0");
    assert_eq!(scene.state(), "");
}

fn by_gc(backend: Backend) {
    let scene = scene();
    let dir = scratch::own();
    let living = call(backend, "living", 8080, &dir).inside(&scene.pod);
    scene.add(&living);
    flushed(&scene);
    scene.gc(&living.clone().on("another"), &[]);
    assert!(!reachable(&scene));
    scene.check(&living).expect("its port is back");
    flushed(&scene);
    scene.gc(&living, &[]);
    assert_eq!(scene.route_localnet(), "0");
    assert!(!reachable(&scene));
    assert_eq!(scene.state(), "");
}

fn by_last_del(backend: Backend) {
    for recorded in [true, false] {
        let scene = scene();
        let dir = match recorded {
            true => scratch::own(),
            // The previous result tells as much as a record.
            false => "/proc/nowhere".to_owned(),
        };
        let last = call(backend, "last", 8080, &dir).inside(&scene.pod);
        scene.add(&last);
        flushed(&scene);
        scene.del(&last);
        assert_eq!(scene.route_localnet(), "0");
        assert!(!reachable(&scene));
        assert_eq!(scene.state(), "");
    }
}

fn by_dead(backend: Backend) {
    let scene = scene();
    let dir = scratch::own();
    let gone = Node::new();
    scene.add(&call(backend, "dead", 8080, &dir).inside(&gone));
    drop(gone);
    flushed(&scene);
    scene.add(&Call::new(backend, "plain", json!([])).with("dataDir", json!(dir)));
    assert_eq!(scene.route_localnet(), "0");
    assert!(!reachable(&scene));
}

fn partly(backend: Backend) {
    let scene = scene();
    let dir = scratch::own();
    let living = call(backend, "living", 8080, &dir).inside(&scene.pod);
    let going = call(backend, "going", 8081, &dir)
        .at(&["10.1.0.6/24"])
        .inside(&scene.neighbour);
    scene.add(&living);
    scene.add(&going);
    scene.host.sh(match backend {
        Backend::Nftables => "nft flush chain inet trestle portmap/localnet",
        Backend::Iptables => "iptables -t raw -F",
    });
    assert!(reachable(&scene));
    assert!(scene.check(&living).is_err());
    scene.del(&going);
    assert!(!reachable(&scene));
    scene.check(&living).expect("success");
}
