//! The policy `open` on hosts that drop: what gets through, with every backend.

use serde_json::{Value, json};

use crate::Case;
use crate::scene::{A, B, OUTSIDE, Scene, asks, conf};

pub(crate) const CASES: &[Case] = &[
    case(
        "an_nftables_chain_with_policy_drop_lets_containers_out",
        native_policy,
    ),
    case(
        "an_nftables_chain_that_ends_in_reject_lets_containers_out",
        native_reject,
    ),
    case("a_chain_of_family_ip_guards_ipv4_alone", native_ip),
    case("dockers_forward_policy_lets_containers_out", docker),
    case("old_iptables_lets_containers_out", legacy),
    case(
        "iptables_and_nftables_that_both_drop_let_containers_out",
        both,
    ),
    case("published_ports_are_reached_under_every_policy", published),
    case("the_administrators_rules_come_first", admin),
    case("bridged_traffic_passes_with_bridge_netfilter_on", bridged),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["nft", "ip", "iptables", "ip6tables"],
        run,
    }
}

/// A host that has its own nftables rules.
pub(crate) const NATIVE: &str = "nft 'add table inet filter
    add chain inet filter forward { type filter hook forward priority 0; policy drop; }
    add rule inet filter forward ct state invalid counter drop'";

/// What Docker makes, for both versions of IP.
pub(crate) const DOCKER: &str = "for t in iptables ip6tables; do
    $t -N DOCKER-USER; $t -N DOCKER-FORWARD; $t -N DOCKER-ISOLATION-STAGE-1; $t -P FORWARD DROP
    $t -A FORWARD -j DOCKER-USER; $t -A FORWARD -j DOCKER-FORWARD
    $t -A DOCKER-USER -j RETURN; $t -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
    $t -A DOCKER-FORWARD -i docker0 -j ACCEPT
    done";

/// What must be so on a host that drops, whoever drops.
fn assert_opens(scene: &Scene, conf: &Value) {
    let before = scene.rules();
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
    scene.add_a(conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    // What the outside begins is the host's affair, and another container's is its own.
    scene.assert_talks(&scene.outside, &scene.a, A, false);
    scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, false);
    scene.check_a(conf).unwrap();
    scene.add_b(conf);
    scene.del(conf, "a");
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
    scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, true);
    scene.del(conf, "b");
    assert_eq!(scene.rules(), before);
}

fn native_policy() {
    for backend in ["", "nftables"] {
        let scene = Scene::new();
        scene.host.sh(NATIVE);
        assert_opens(&scene, &conf(json!({"backend": backend})));
    }
}

fn native_reject() {
    let scene = Scene::new();
    scene.host.sh("nft 'add table inet fw
         add chain inet fw refuse { counter log prefix \"refused\" reject; }
         add chain inet fw forward { type filter hook forward priority 0; policy accept; }
         add rule inet fw forward iifname lan0 accept
         add rule inet fw forward meta l4proto udp reject
         add rule inet fw forward jump refuse'");
    assert_opens(&scene, &conf(json!({})));
}

fn native_ip() {
    let scene = Scene::new();
    scene.host.sh(
        "nft 'add table ip router; add chain ip router forward { type filter hook forward priority 5; policy drop; }'",
    );
    scene.add_a(&conf(json!({})));
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.assert_talks(&scene.b, &scene.outside, [OUTSIDE[1]; 2], true);
    scene.assert_talks(&scene.b, &scene.outside, [OUTSIDE[0]; 2], false);
}

fn docker() {
    for backend in ["", "iptables"] {
        let scene = Scene::new();
        scene.host.sh(DOCKER);
        assert_opens(&scene, &conf(json!({"backend": backend})));
    }
}

fn legacy() {
    let scene = Scene::new();
    let here = scene.host.sh(
        "iptables-legacy -S >/dev/null 2>&1 && iptables-legacy -P FORWARD DROP && ip6tables-legacy -P FORWARD DROP \
         && echo yes || echo no",
    );
    if here.trim() != "yes" {
        eprintln!("old iptables does not work here: not tested");
        return;
    }
    let conf = conf(json!({}));
    scene.add_a(&conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, false);
    scene.check_a(&conf).unwrap();
    scene.del(&conf, "a");
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
    assert!(
        !scene
            .host
            .sh("iptables-legacy -S; ip6tables-legacy -S")
            .contains("TRESTLE")
    );
}

fn both() {
    let scene = Scene::new();
    scene.host.sh(DOCKER);
    scene.host.sh(NATIVE);
    assert_opens(&scene, &conf(json!({})));
}

fn published() {
    for (guard, backend) in [(NATIVE, ""), (DOCKER, "")] {
        let scene = Scene::new();
        scene.host.sh(guard);
        scene.host.sh(
            "nft 'add table ip pub; add chain ip pub pre { type nat hook prerouting priority dstnat; }
             add rule ip pub pre ip daddr 192.0.2.1 udp dport 8080 dnat to 10.1.0.5:7000'",
        );
        let reached = |expected| {
            asks(
                &scene.outside,
                &scene.a,
                ["192.0.2.1", A[0]],
                [8080, 7000],
                expected,
            )
        };
        assert!(!reached(false));
        scene.add_a(&conf(json!({"backend": backend})));
        assert!(reached(true));
    }
}

fn admin() {
    for (guard, block) in [
        (
            NATIVE,
            "nft 'add chain inet filter CNI-ADMIN; add rule inet filter CNI-ADMIN ip saddr 10.1.0.5 drop
             add rule inet filter CNI-ADMIN ip6 saddr fd00:1::5 drop'",
        ),
        (
            DOCKER,
            "for t in iptables ip6tables; do $t -N CNI-ADMIN; done
             iptables -A CNI-ADMIN -s 10.1.0.5 -j DROP; ip6tables -A CNI-ADMIN -s fd00:1::5 -j DROP",
        ),
    ] {
        let scene = Scene::new();
        scene.host.sh(guard);
        scene.host.sh(block);
        let before = scene.rules();
        let conf = conf(json!({}));
        scene.add_a(&conf);
        scene.add_b(&conf);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
        scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, true);
        scene.del(&conf, "a");
        scene.del(&conf, "b");
        assert_eq!(scene.rules(), before, "the administrator's rules stay");
    }
    let scene = Scene::new();
    scene.host.sh(NATIVE);
    scene
        .host
        .sh("nft 'add chain inet filter MINE; add rule inet filter MINE ip saddr 10.1.0.5 drop'");
    scene.add_a(&conf(
        json!({"backend": "nftables", "iptablesAdminChainName": "MINE"}),
    ));
    scene.assert_talks(&scene.a, &scene.outside, [OUTSIDE[0]; 2], false);
    scene.assert_talks(&scene.a, &scene.outside, [OUTSIDE[1]; 2], true);
}

fn bridged() {
    for guard in [NATIVE, DOCKER] {
        let scene = Scene::new();
        scene.host.sh(guard);
        scene.host.sh(
            "for f in iptables ip6tables; do echo 1 > /proc/sys/net/bridge/bridge-nf-call-$f; done",
        );
        scene.assert_talks(&scene.a, &scene.b, [B[0]; 2], false);
        scene.add_a(&conf(json!({})));
        scene.assert_talks(&scene.a, &scene.b, [B[0]; 2], true);
    }
}
