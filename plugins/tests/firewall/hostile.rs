//! Rulesets that iptables can't read, and more addresses than usual.

use serde_json::json;

use crate::Case;
use crate::open::{DOCKER, NATIVE};
use crate::rules::{case, host, ruleset};
use crate::scene::{A, OUTSIDE, Scene, add, check, conf, del, gc, named};
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("a_ruleset_that_nft_saved_and_loaded_stops_nobody", reloaded),
    case(
        "a_filter_table_of_the_hosts_own_is_served_as_nftables",
        native_filter,
    ),
    case("many_addresses_come_and_go", many_addresses),
    case(
        "many_rules_of_a_container_in_iptables_come_and_go",
        many_rules,
    ),
    case(
        "names_that_differ_in_their_last_byte_are_told_apart",
        long_names,
    ),
    case(
        "interfaces_whose_names_iptables_would_write_alike_are_told_apart",
        like_names,
    ),
];

fn reloaded() {
    let reload = "nft list ruleset > $$.f; nft flush ruleset; nft -f $$.f; rm $$.f";
    for policy in ["open", "same-bridge"] {
        let scene = Scene::new();
        scene
            .host
            .sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
        let (one, two) = (
            conf(json!({"ingressPolicy": policy})),
            named("two", json!({"ingressPolicy": policy})),
        );
        scene.add_a_in_subnet(&one);
        scene.add_c_in_subnet(&two);
        scene.host.sh(reload);
        let readable = || {
            scene
                .host
                .sh("iptables -S >/dev/null 2>&1 && echo yes || echo no")
        };
        assert_eq!(readable().trim(), "no", "the point of this test");
        assert!(scene.check_a_in_subnet(&one).is_err());
        scene.del(&two, "c");
        scene.add_b_in_subnet(&one);
        for pod in [&scene.a, &scene.b] {
            scene.assert_talks(pod, &scene.outside, OUTSIDE, true);
        }
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        scene.check_a_in_subnet(&one).unwrap();
        scene.add_c_in_subnet(&two);
        scene.assert_talks(&scene.c, &scene.outside, OUTSIDE, true);
        scene.del(&one, "a");
        scene.del(&one, "b");
        scene.host.run(move || gc(&two, &[]).unwrap());
        let rules = scene.rules();
        assert!(!rules.to_lowercase().contains("trestle"), "{rules}");
        assert_eq!(readable().trim(), "yes", "{rules}");
    }
}

fn native_filter() {
    let scene = Scene::new();
    scene.host.sh("for f in ip ip6; do nft \"add table $f filter
         add set $f filter s { type ${f}v4_addr; }\" 2>/dev/null || nft \"add table $f filter; add set $f filter s { type ipv6_addr; }\"; done
         nft 'add set ip filter t { type ipv4_addr; }'
         for f in ip ip6; do nft \"add chain $f filter FORWARD { type filter hook forward priority 0; policy drop; }
         add rule $f filter FORWARD ct state { established, related } accept
         add rule $f filter FORWARD $f saddr @s accept\"; done");
    let before = scene.rules();
    for backend in ["", "iptables"] {
        let conf = conf(json!({"backend": backend}));
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
        scene.add_a_in_subnet(&conf);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        scene.check_a_in_subnet(&conf).unwrap();
        scene.add_b_in_subnet(&conf);
        scene.del(&conf, "a");
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
        scene.del(&conf, "b");
        assert_eq!(scene.rules(), before);
    }
}

fn many_addresses() {
    for guard in [NATIVE, DOCKER] {
        for (count, lone) in [
            (128, true),
            (300, true),
            (1_000, true),
            (10_000, guard == NATIVE),
            (10_000, false),
        ] {
            let node: Node = host(guard);
            let before = ruleset(&node);
            let length = if lone { "" } else { "/16" };
            node.run(move || {
                let conf = conf(json!({"ingressPolicy": "same-bridge"}));
                let addresses: Vec<String> = (0..count)
                    .map(|n| format!("10.1.{}.{}{length}", n / 250, n % 250 + 1))
                    .collect();
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                add(&conf, "many", "cni0", "", &addresses).unwrap();
                check(&conf, "many", "cni0", "", &addresses).unwrap();
                add(&conf, "heir", "cni0", "", &addresses).unwrap();
                check(&conf, "heir", "cni0", "", &addresses).unwrap();
                del(&conf, "many").unwrap();
                check(&conf, "heir", "cni0", "", &addresses).unwrap();
                del(&conf, "heir").unwrap();
            });
            assert_eq!(ruleset(&node), before, "{count}");
        }
    }
}

/// Without a subnet each has rules of its own in iptables, 20,000 in all.
fn many_rules() {
    let node = host(DOCKER);
    let before = ruleset(&node);
    node.run(|| {
        let conf = conf(json!({}));
        let addresses: Vec<String> = (0..10_000)
            .map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        add(&conf, "many", "cni0", "", &addresses).unwrap();
        check(&conf, "many", "cni0", "", &addresses).unwrap();
        del(&conf, "many").unwrap();
    });
    assert_eq!(ruleset(&node), before);
}

/// Two names of so many bytes that share all but the last one.
fn twins(length: usize) -> [String; 2] {
    ["a", "b"].map(|last| format!("{}{last}", "n".repeat(length - 1)))
}

fn long_names() {
    for guard in [DOCKER, NATIVE] {
        for length in [1, 99, 100, 101, 109, 110, 128, 200] {
            let node = host(guard);
            let before = ruleset(&node);
            node.run(move || {
                let [one, other] = twins(length).map(|name| named(&name, json!({})));
                // In a subnet, and with rules of their own.
                for suffix in ["/24", ""] {
                    let [a, b] = [format!("10.1.0.5{suffix}"), format!("10.2.0.5{suffix}")];
                    let stands = |conf, address: &String| {
                        check(conf, "c", "cni0", "", &[address.as_str()]).is_ok()
                    };
                    let attach = || {
                        add(&one, "c", "cni0", "", &[a.as_str()]).unwrap();
                        add(&other, "c", "cni0", "", &[b.as_str()]).unwrap();
                    };
                    attach();
                    del(&one, "c").unwrap();
                    assert!(
                        !stands(&one, &a) && stands(&other, &b),
                        "DEL, {length} {suffix}"
                    );
                    attach();
                    gc(&other, &[]).unwrap();
                    assert!(
                        stands(&one, &a) && !stands(&other, &b),
                        "GC, {length} {suffix}"
                    );
                    gc(&one, &["c"]).unwrap();
                    assert!(stands(&one, &a), "GC keeps, {length} {suffix}");
                    gc(&one, &[]).unwrap();
                }
            });
            assert_eq!(ruleset(&node), before, "{length}");
        }
    }
}

/// `$` means something in a rule's text, so iptables gets `_` in its stead. Former versions wrote no more than that.
fn like_names() {
    for guard in [DOCKER, NATIVE] {
        let node = host(guard);
        let before = ruleset(&node);
        node.run(move || {
            let conf = conf(json!({}));
            let (one, other) = ("c@e$", "c@e_");
            let attach = || {
                add(&conf, one, "cni0", "", &["10.1.0.5"]).unwrap();
                add(&conf, other, "cni0", "", &["10.1.0.6"]).unwrap();
            };
            let stand = || {
                [(one, "10.1.0.5"), (other, "10.1.0.6")]
                    .map(|(of, address)| check(&conf, of, "cni0", "", &[address]).is_ok())
            };
            attach();
            assert_eq!(stand(), [true, true]);
            del(&conf, one).unwrap();
            assert_eq!(stand(), [false, true], "DEL of one");
            attach();
            del(&conf, other).unwrap();
            assert_eq!(stand(), [true, false], "DEL of the other");
            attach();
            gc(&conf, &[other]).unwrap();
            assert_eq!(stand(), [false, true], "GC of one");
            attach();
            gc(&conf, &[one]).unwrap();
            // What a former version wrote for the one looks like this in iptables.
            assert_eq!(stand(), [true, guard == DOCKER], "GC of the other");
            gc(&conf, &[]).unwrap();
        });
        assert_eq!(ruleset(&node), before);
    }
}
