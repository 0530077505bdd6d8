//! The rules of a network with iptables: what a container costs, who they are for, and when they go.

use cni_conf::error::Code;
use serde_json::json;

use crate::open::{DOCKER, NATIVE};
use crate::programs::started;
use crate::rules::{case, host, ruleset};
use crate::scene::{
    A, B, B_NET, C, OUTSIDE, Scene, add, add_inside, check, conf, del, gc, named, talks,
};
use crate::{Case, scratch};

pub(crate) const CASES: &[Case] = &[
    case(
        "a_container_costs_neither_a_rule_nor_a_process_where_the_networks_stand",
        flat,
    ),
    case(
        "beside_kube_proxy_nothing_is_installed_until_something_drops",
        beside_kube_proxy,
    ),
    case("a_network_of_several_subnets_is_let_through", several),
    case(
        "containers_in_a_subnet_get_out_and_nobody_gets_in",
        in_subnet,
    ),
    case(
        "neighbours_on_a_bridge_with_an_uplink_are_not_let_through",
        strangers,
    ),
    case(
        "the_rules_of_the_former_release_go_with_their_containers",
        former_release,
    ),
    case(
        "rules_changed_by_hand_are_noticed_and_replaced",
        changed_by_hand,
    ),
    case(
        "without_a_record_a_container_has_rules_of_its_own",
        unrecorded,
    ),
    case(
        "a_policy_that_is_taken_back_takes_its_chains_along",
        policy_taken_back,
    ),
];

/// What kube-proxy has in the filter table, as far as it matters here.
const KUBE_PROXY: &str = "for t in iptables ip6tables; do
    $t -N KUBE-FORWARD; $t -N KUBE-SERVICES
    $t -A FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD
    $t -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
    $t -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
    $t -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
    $t -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; done";

fn flat() {
    for guard in [DOCKER, NATIVE] {
        for policy in ["open", "isolated"] {
            let node = host(guard);
            let conf = conf(json!({"ingressPolicy": policy, "ingressCIDRs": ["10.0.0.0/8"]}));
            let (first, more) = (conf.clone(), conf.clone());
            let programs = started(|| {
                node.run(move || {
                    let addresses = ["10.1.0.2/16", "fd00::2/64"];
                    add(&first, "c0", "cni0", "", &addresses).map(drop).unwrap();
                });
            });
            assert!(!programs.is_empty(), "the first one has them made");
            let rules = |node: &testbed::Node| node.sh("nft -as list ruleset | grep -c '# handle'");
            let before = rules(&node);
            let programs = started(|| {
                node.run(move || {
                    for n in 1..100 {
                        let (v4, v6) = (format!("10.1.1.{n}/16"), format!("fd00::1:{n}/64"));
                        let name = format!("c{n}");
                        add(&more, &name, "cni0", "", &[&v4, &v6]).unwrap();
                        check(&more, &name, "cni0", "", &[&v4, &v6]).unwrap();
                    }
                    (1..100).for_each(|n| del(&more, &format!("c{n}")).unwrap());
                });
            });
            assert_eq!(programs, Vec::<String>::new(), "{guard} {policy}");
            assert_eq!(rules(&node), before);
            node.run(move || {
                check(&conf, "c0", "cni0", "", &["10.1.0.2/16", "fd00::2/64"]).unwrap();
                del(&conf, "c0").unwrap();
            });
            assert!(!ruleset(&node).to_lowercase().contains("trestle"));
        }
    }
}

fn beside_kube_proxy() {
    for backend in ["", "iptables", "nftables"] {
        let scene = Scene::new();
        scene.host.sh(KUBE_PROXY);
        let before = scene.rules();
        let conf = conf(json!({"backend": backend, "dataDir": scratch::own()}));
        let programs = started(|| {
            scene.add_a_in_subnet(&conf);
            scene.check_a_in_subnet(&conf).unwrap();
        });
        assert_eq!(programs, Vec::<String>::new());
        assert_eq!(scene.rules(), before);
        if backend == "nftables" {
            continue;
        }
        scene
            .host
            .sh("iptables -P FORWARD DROP; ip6tables -A FORWARD -j REJECT");
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
        let error = scene.check_a_in_subnet(&conf).unwrap_err();
        assert_eq!(error.code, Code::CheckFailed);
        scene.add_c_in_subnet(&conf);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.c, &scene.outside, OUTSIDE, true);
        scene.check_a_in_subnet(&conf).unwrap();
        for container in ["a", "c"] {
            scene.del(&conf, container);
        }
        scene
            .host
            .sh("iptables -P FORWARD ACCEPT; ip6tables -D FORWARD -j REJECT");
        assert_eq!(scene.rules(), before);
    }
}

fn several() {
    let scene = Scene::new();
    scene.host.sh(DOCKER);
    let before = scene.rules();
    let conf = conf(json!({}));
    scene.add_a_in_subnet(&conf);
    scene.add_c_in_subnet(&conf);
    for pod in [&scene.a, &scene.c] {
        scene.assert_talks(pod, &scene.outside, OUTSIDE, true);
    }
    // The chain knows both, so that no ADD of one takes the other's away.
    let programs = started(|| {
        scene.add_a_in_subnet(&conf);
        scene.add_c_in_subnet(&conf);
    });
    assert_eq!(programs, Vec::<String>::new());
    scene.del(&conf, "a");
    scene.assert_talks(&scene.c, &scene.outside, OUTSIDE, true);
    scene.del(&conf, "c");
    assert_eq!(scene.rules(), before);
}

fn in_subnet() {
    for backend in ["", "iptables"] {
        let scene = Scene::new();
        scene.host.sh(DOCKER);
        let before = scene.rules();
        let conf = conf(json!({"backend": backend}));
        scene.add_a_in_subnet(&conf);
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.outside, &scene.a, A, false);
        // Another network's container behind another bridge.
        scene.assert_talks(&scene.c, &scene.outside, OUTSIDE, false);
        scene.add_b_in_subnet(&conf);
        scene.del(&conf, "a");
        scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, true);
        // A second DEL knows no more than that nobody is written down any more.
        scene.del(&conf, "a");
        scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, true);
        let gone = conf.clone();
        scene.host.run(move || gc(&gone, &["b"]).unwrap());
        scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, true);
        scene.host.run(move || gc(&conf, &[]).unwrap());
        assert_eq!(scene.rules(), before);
    }
}

fn strangers() {
    let scene = Scene::new();
    scene.host.sh(DOCKER);
    // The second pod is a machine of the network that the host itself is in, too.
    scene
        .host
        .sh("ip tuntap add up1 mode tap; ip link set up1 master cni0");
    let conf = conf(json!({}));
    scene.add_a_in_subnet(&conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, false);
    scene.check_a_in_subnet(&conf).unwrap();
    scene.del(&conf, "a");
    assert!(!scene.rules().contains("TRESTLE"));
}

/// What release 0.1 made for the containers `a` and `b` of podnet and `c` of a network that kept them apart.
const FORMER: &str = "*filter
-N CNI-ADMIN
-N TRESTLE-FORWARD
-N TRESTLE-ISOLATE
-N TRESTLE-ISOLATE-TO
-A FORWARD -m comment --comment \"trestle: containers\" -j TRESTLE-FORWARD
-A TRESTLE-FORWARD -m comment --comment \"trestle: ingressPolicy\" -j TRESTLE-ISOLATE
-A TRESTLE-FORWARD -m comment --comment \"trestle: rules of the administrator\" -j CNI-ADMIN
-A TRESTLE-FORWARD -d 10.1.0.5/32 -m comment --comment podnet/a/eth0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A TRESTLE-FORWARD -s 10.1.0.5/32 -m comment --comment podnet/a/eth0 -j ACCEPT
-A TRESTLE-FORWARD -d 10.1.0.6/32 -m comment --comment podnet/b/eth0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A TRESTLE-FORWARD -s 10.1.0.6/32 -m comment --comment podnet/b/eth0 -j ACCEPT
-A TRESTLE-FORWARD -d 10.2.0.5/32 -m comment --comment apart/c/eth0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A TRESTLE-FORWARD -s 10.2.0.5/32 -m comment --comment apart/c/eth0 -j ACCEPT
-A TRESTLE-ISOLATE -i cni1 ! -o cni1 -m comment --comment \"network apart\" -j TRESTLE-ISOLATE-TO
-A TRESTLE-ISOLATE-TO -o cni1 -m comment --comment \"network apart\" -j DROP
COMMIT
";

fn former_release() {
    let load = format!("iptables-restore --noflush <<'E'\n{FORMER}E");
    let [podnet, apart] = [
        conf(json!({"dataDir": scratch::own()})),
        named(
            "apart",
            json!({"ingressPolicy": "same-bridge", "dataDir": scratch::own()}),
        ),
    ];
    let scene = Scene::new();
    scene.host.sh(DOCKER);
    let before = scene.rules();
    scene.host.sh(&load);
    let ipv4 = [OUTSIDE[0]; 2];
    scene.assert_talks(&scene.b, &scene.outside, ipv4, true);
    // One of them leaves, one is attached anew, and another one comes.
    scene.del(&podnet, "a");
    scene.assert_talks(&scene.a, &scene.outside, ipv4, false);
    scene.add_c_in_subnet(&apart);
    scene.add_a_in_subnet(&podnet);
    let rules = scene.rules();
    for gone in ["podnet/a/", "apart/c/", "\"network apart\" drop"] {
        assert!(!rules.contains(gone), "{gone}: {rules}");
    }
    scene.assert_talks(&scene.a, &scene.outside, ipv4, true);
    scene.assert_talks(&scene.b, &scene.outside, ipv4, true);
    scene.del(&podnet, "a");
    scene.del(&podnet, "b");
    scene.del(&apart, "c");
    assert_eq!(scene.rules(), before);
    // GC finds what nobody's DEL came for.
    scene.host.sh(&load);
    scene.host.run(move || {
        gc(&podnet, &[]).unwrap();
        gc(&apart, &[]).unwrap();
    });
    assert_eq!(scene.rules(), before);
}

fn changed_by_hand() {
    let conf = conf(json!({"ingressPolicy": "isolated"}));
    for (guard, list, verdicts) in [
        (DOCKER, "iptables", ["DROP", "ACCEPT"]),
        (NATIVE, "nft", ["drop", "accept"]),
    ] {
        let chains: &[&str] = match list {
            "iptables" => &["TRESTLE-FW-", "TRESTLE-IS-", "TRESTLE-IT-"],
            _ => &["inet filter trestle/podnet", "inet trestle firewall/podnet"],
        };
        for (n, chain) in chains.iter().enumerate() {
            let scene = Scene::new();
            scene.host.sh(guard);
            scene.add_a_in_subnet(&conf);
            scene.add_b_in_subnet(&conf);
            let before = scene.rules();
            scene.check_a_in_subnet(&conf).unwrap();
            let [drop, accept] = verdicts;
            // The verdict of its last rule with one, with the comment as it was.
            scene.host.sh(&match list {
                "iptables" => format!(
                    "c=$(iptables -S | sed -n 's/^-N \\({chain}.*\\)/\\1/p')
                     iptables -S $c | grep -n . | grep -e '-j DROP' -e '-j ACCEPT' | tail -1 > $$.rule
                     n=$(($(cut -d: -f1 < $$.rule) - 1))
                     r=$(sed 's/^[0-9]*:-A [^ ]*//' < $$.rule | sed 's/{drop}$/X/; s/{accept}$/{drop}/; s/X$/{accept}/')
                     rm $$.rule; eval iptables -R $c $n \"$r\""
                ),
                _ => format!(
                    "nft -a list chain {chain} | grep -e ' {drop} ' -e ' {accept} ' | tail -1 > $$.rule
                     h=$(sed 's/.*# handle //' < $$.rule)
                     r=$(sed 's/ # handle.*//; s/ {drop} / X /; s/ {accept} / {drop} /; s/ X / {accept} /' < $$.rule)
                     rm $$.rule; nft \"replace rule {chain} handle $h $r\""
                ),
            });
            assert_ne!(scene.rules(), before, "{chain} was changed");
            let error = scene.check_a_in_subnet(&conf).unwrap_err();
            assert_eq!(error.code, Code::CheckFailed, "{n} {chain}");
            scene.add_b_in_subnet(&conf);
            assert_eq!(scene.rules(), before, "{chain}");
            scene.check_a_in_subnet(&conf).unwrap();
        }
    }
}

fn unrecorded() {
    let scene = Scene::new();
    scene.host.sh(DOCKER);
    let before = scene.rules();
    let dir = scratch::own();
    let conf = conf(json!({"dataDir": dir}));
    // A file where the directory would be.
    std::fs::write(&dir, "").unwrap();
    scene.add_a_in_subnet(&conf);
    std::fs::remove_file(&dir).unwrap();
    scene.add_b_in_subnet(&conf);
    // The other one is the last that is written down.
    scene.del(&conf, "b");
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.del(&conf, "a");
    assert_eq!(scene.rules(), before);
}

fn policy_taken_back() {
    let scene = Scene::new();
    scene.host.sh(DOCKER);
    let dir = scratch::own();
    let apart = json!({"ingressPolicy": "same-bridge", "dataDir": dir});
    let (one, two) = (conf(apart.clone()), named("two", apart));
    scene.add_a_in_subnet(&one);
    scene.add_c_in_subnet(&two);
    scene.assert_talks(&scene.a, &scene.c, C, false);
    let open = conf(json!({"ingressCIDRs": ["10.0.0.0/8", "fd00::/8"], "dataDir": dir}));
    scene.add_b_in_subnet(&open);
    let rules = scene.rules();
    assert_eq!(rules.matches("chain TRESTLE-IS-").count(), 2, "{rules}");
    scene.assert_talks(&scene.c, &scene.b, B, true);
    let inside = scratch::netns(&scene.b);
    scene.host.run(move || {
        add_inside(&open, "b", Some(inside), ["cni0", "vethb"], &B_NET)
            .map(drop)
            .unwrap();
    });
    assert!(talks(&scene.c, &scene.b, B[0], 7000, true));
}
