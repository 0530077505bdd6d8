//! `ingressPolicy`: which containers reach each other, with every backend.

use serde_json::{Value, json};

use crate::Case;
use crate::open::{DOCKER, NATIVE};
use crate::scene::{A, B, C, OUTSIDE, Scene, conf, del, named};

pub(crate) const CASES: &[Case] = &[
    case("open_containers_of_two_bridges_talk", open),
    case("same_bridge_parts_bridges_and_nothing_else", same_bridge),
    case("same_bridge_lets_other_networks_in", unprotected),
    case("isolated_parts_containers_of_one_bridge_too", isolated),
    case(
        "isolated_also_parts_what_is_routed_back_to_the_bridge",
        routed_back,
    ),
    case(
        "without_a_bridge_every_container_stands_alone",
        point_to_point,
    ),
    case("a_policy_and_a_guard_work_together", guarded),
    case("a_policy_needs_the_hosts_interface", no_interface),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["nft", "ip", "iptables", "ip6tables"],
        run,
    }
}

const BACKENDS: [&str; 3] = ["", "nftables", "iptables"];

fn confs(backend: &str, policy: &str) -> [Value; 2] {
    let more = json!({"backend": backend, "ingressPolicy": policy});
    [named("one", more.clone()), named("two", more)]
}

/// Pods `a` and `b` on network one, pod `c` on network two.
fn attached(scene: &Scene, [one, two]: &[Value; 2]) {
    scene.add_a(one);
    scene.add_b(one);
    scene.add_c(two);
}

fn detached(scene: &Scene, [one, two]: &[Value; 2]) {
    for (conf, container) in [(one, "a"), (one, "b"), (two, "c")] {
        scene.del(conf, container);
    }
}

fn open() {
    for backend in BACKENDS {
        let scene = Scene::new();
        attached(&scene, &confs(backend, "open"));
        scene.assert_talks(&scene.a, &scene.c, C, true);
        scene.assert_talks(&scene.outside, &scene.c, C, true);
        scene.assert_talks(&scene.a, &scene.b, B, true);
    }
}

fn same_bridge() {
    for backend in BACKENDS {
        let scene = Scene::new();
        let before = scene.rules();
        let confs = confs(backend, "same-bridge");
        attached(&scene, &confs);
        scene.check_a(&confs[0]).unwrap();
        scene.assert_talks(&scene.a, &scene.c, C, false);
        scene.assert_talks(&scene.c, &scene.a, A, false);
        scene.assert_talks(&scene.a, &scene.b, B, true);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.outside, &scene.a, A, true);
        // The container that leaves takes its own protection along and nobody else's.
        scene.del(&confs[1], "c");
        scene.assert_talks(&scene.a, &scene.c, C, true);
        scene.add_c(&confs[1]);
        scene.del(&confs[0], "a");
        scene.assert_talks(&scene.b, &scene.c, C, false);
        detached(&scene, &confs);
        scene.assert_talks(&scene.a, &scene.c, C, true);
        if backend != "iptables" {
            assert_eq!(scene.rules(), before);
        } else {
            assert!(!scene.rules().contains("TRESTLE"), "{}", scene.rules());
        }
    }
}

fn unprotected() {
    for backend in BACKENDS {
        let scene = Scene::new();
        let [one, _] = confs(backend, "same-bridge");
        let [_, two] = confs(backend, "open");
        attached(&scene, &[one, two]);
        scene.assert_talks(&scene.c, &scene.a, A, true);
        scene.assert_talks(&scene.a, &scene.c, C, true);
    }
}

fn isolated() {
    for backend in BACKENDS {
        let scene = Scene::new();
        let confs = confs(backend, "isolated");
        scene.assert_talks(&scene.a, &scene.b, B, true);
        attached(&scene, &confs);
        scene.check_a(&confs[0]).unwrap();
        scene.assert_talks(&scene.a, &scene.b, B, false);
        scene.assert_talks(&scene.b, &scene.a, A, false);
        scene.assert_talks(&scene.a, &scene.c, C, false);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.outside, &scene.a, A, true);
        scene.host.sh("bridge link set dev vetha isolated off");
        assert!(
            scene
                .check_a(&confs[0])
                .unwrap_err()
                .msg
                .contains("vetha is not isolated")
        );
    }
}

fn routed_back() {
    for backend in BACKENDS {
        let scene = Scene::new();
        let confs = confs(backend, "isolated");
        scene
            .a
            .sh("ip route add 10.1.0.6/32 via 10.1.0.1; ip route add fd00:1::6/128 via fd00:1::1");
        scene
            .b
            .sh("ip route add 10.1.0.5/32 via 10.1.0.1; ip route add fd00:1::5/128 via fd00:1::1");
        scene.assert_talks(&scene.a, &scene.b, B, true);
        attached(&scene, &confs);
        scene.assert_talks(&scene.a, &scene.b, B, false);
    }
}

fn point_to_point() {
    for backend in BACKENDS {
        let scene = Scene::new();
        scene.host.sh(
            "ip link set vetha nomaster; ip link set vethb nomaster
             for l in vetha vethb; do ip addr add 10.1.0.1/32 dev $l; ip addr add fd00:1::1/128 dev $l nodad; done
             ip link del cni0
             ip route add 10.1.0.5 dev vetha; ip route add 10.1.0.6 dev vethb
             ip route add fd00:1::5 dev vetha; ip route add fd00:1::6 dev vethb",
        );
        for node in [&scene.a, &scene.b] {
            node.sh("ip route del 10.1.0.0/24; ip -6 route del fd00:1::/64
                 ip route replace 10.1.0.1 dev eth0; ip route replace default via 10.1.0.1
                ip -6 route replace fd00:1::1 dev eth0; ip -6 route replace default via fd00:1::1");
        }
        scene.assert_talks(&scene.a, &scene.b, B, true);
        let [one, _] = confs(backend, "same-bridge");
        let before = scene.rules();
        let adding = one.clone();
        scene.host.run(move || {
            crate::scene::add(&adding, "a", "", "vetha", &A).unwrap();
            crate::scene::add(&adding, "b", "", "vethb", &B).unwrap();
        });
        scene.assert_talks(&scene.a, &scene.b, B, false);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.host.run(move || {
            del(&one, "a").unwrap();
            del(&one, "b").unwrap();
        });
        scene.assert_talks(&scene.a, &scene.b, B, true);
        if backend != "iptables" {
            assert_eq!(scene.rules(), before);
        }
    }
}

fn guarded() {
    for guard in [NATIVE, DOCKER] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let before = scene.rules();
        let confs = confs("", "same-bridge");
        attached(&scene, &confs);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.a, &scene.c, C, false);
        scene.assert_talks(&scene.a, &scene.b, B, true);
        detached(&scene, &confs);
        assert_eq!(scene.rules(), before);
    }
}

fn no_interface() {
    let scene = Scene::new();
    let before = scene.rules();
    let error = scene.host.run(|| {
        let conf = conf(json!({"ingressPolicy": "isolated"}));
        crate::scene::add(&conf, "a", "", "", &A).unwrap_err()
    });
    assert!(
        error.msg.contains("ingressPolicy") && error.details.contains("bridge"),
        "{error}"
    );
    assert_eq!(scene.rules(), before);
}
