//! What is in the tables: how it reads, that it is found again, and that nothing stays.

use std::path::Path;
use std::sync::{Arc, Barrier};

use cni_conf::error::Code;
use serde_json::{Value, json};

use crate::open::{DOCKER, NATIVE};
use crate::scene::{A, OUTSIDE, Scene, add, add_alone, check, conf, del, gc, named, status};
use crate::{Case, programs};
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("the_rulesets_read_like_documentation", golden),
    case("with_nftables_a_container_adds_no_rule", constant_rules),
    case("check_notices_a_flush_and_the_next_add_repairs_it", flushed),
    case(
        "a_guard_that_comes_later_gets_the_containers_that_are_there",
        later_guard,
    ),
    case("del_twice_and_del_of_nothing_change_nothing", nothing),
    case("gc_keeps_the_valid_and_removes_the_rest", collected),
    case(
        "an_address_changes_hands_and_the_late_del_is_harmless",
        changes_hands,
    ),
    case("networks_are_independent", independent),
    case("del_needs_no_valid_configuration", invalid),
    case(
        "simultaneous_adds_and_dels_lose_nothing_and_leave_nothing",
        storm,
    ),
    case("a_plugin_that_stands_alone_is_told_where_it_belongs", alone),
    case("firewalld_that_does_not_run_is_a_clear_error", no_firewalld),
    case("status_tells_of_a_missing_program", statuses),
    case("the_go_plugins_rules_stay_untouched", reference),
];

pub(crate) const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["nft", "ip", "iptables", "ip6tables"],
        run,
    }
}

/// A host that drops, with nothing else on it.
pub(crate) fn host(guard: &str) -> Node {
    let node = Node::new();
    node.sh("ip link add cni0 type bridge; ip link set cni0 up");
    node.sh(guard);
    node
}

pub(crate) fn ruleset(node: &Node) -> String {
    node.sh("nft -s list ruleset")
}

/// The digests are of what the kernel makes of the rules, which is its own affair and that of the programs.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("digest ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        assert!(part[..16].chars().all(|c| c.is_ascii_hexdigit()), "{part}");
        format!("{text}digest 0123456789abcdef{}", &part[16..])
    })
}

fn compare(found: &str, file: &str) {
    let found = without_digests(found);
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        found, expected,
        "differs from {file}; UPDATE_GOLDEN=1 writes it anew"
    );
}

fn golden() {
    let isolated = json!({"ingressPolicy": "isolated"});
    let add_all = move || {
        add(
            &conf(json!({})),
            "abc",
            "cni0",
            "",
            &["10.1.0.5/24", "fd00:1::5/64"],
        )
        .unwrap();
        add(
            &named("other", isolated.clone()),
            "def",
            "cni0",
            "",
            &["10.2.0.5/24"],
        )
        .unwrap();
        // An address that no subnet is known of.
        add(
            &named("lone", json!({"ingressCIDRs": ["10.0.0.0/8"]})),
            "ghi",
            "cni0",
            "",
            &["10.3.0.5"],
        )
        .unwrap();
    };
    let node = host(NATIVE);
    node.run(add_all.clone());
    compare(&ruleset(&node), "firewall.nft");
    // What is listed can be loaded again: every name is one that nft's language can spell.
    node.sh("nft list ruleset > $$.nft; nft flush ruleset; nft -f $$.nft; rm $$.nft");
    compare(&ruleset(&node), "firewall.nft");
    let node = host(DOCKER);
    node.run(add_all);
    compare(
        &node.sh("iptables -S; echo; ip6tables -S"),
        "firewall.iptables",
    );
    node.sh("iptables-save > $$.rules; iptables-restore < $$.rules; rm $$.rules");
    compare(
        &node.sh("iptables -S; echo; ip6tables -S"),
        "firewall.iptables",
    );
}

fn constant_rules() {
    let node = host(NATIVE);
    let conf = conf(json!({"ingressPolicy": "same-bridge"}));
    let rules = |node: &Node| node.sh("nft -as list ruleset | grep -c '# handle'");
    let one = conf.clone();
    node.run(move || {
        add(&one, "c0", "cni0", "", &["10.1.0.2", "fd00::2"])
            .map(drop)
            .unwrap()
    });
    let before = rules(&node);
    let many = conf.clone();
    node.run(move || {
        for n in 1..100 {
            let (v4, v6) = (format!("10.1.1.{n}"), format!("fd00::1:{n}"));
            add(&many, &format!("c{n}"), "cni0", "", &[&v4, &v6]).unwrap();
        }
    });
    assert_eq!(rules(&node), before);
}

fn flushed() {
    for (guard, flushes) in [
        (
            NATIVE,
            &[
                "nft flush chain inet filter forward",
                "nft flush table inet filter",
                "nft delete table inet trestle",
            ][..],
        ),
        (
            DOCKER,
            &[
                "iptables -F; ip6tables -F",
                "iptables -F FORWARD",
                "iptables -F TRESTLE-FORWARD",
            ],
        ),
    ] {
        for flush in flushes {
            let scene = Scene::new();
            scene.host.sh(guard);
            let conf = conf(json!({}));
            scene.add_a(&conf);
            scene.check_a(&conf).unwrap();
            scene.host.sh(flush);
            let error = scene.check_a(&conf).expect_err(flush);
            assert_eq!(error.code, Code::CheckFailed);
            scene.add_b(&conf);
            scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, true);
            scene.add_a(&conf);
            scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
            scene.check_a(&conf).unwrap();
            scene.del(&conf, "a");
            scene.del(&conf, "b");
            assert!(
                !scene.rules().to_lowercase().contains("trestle"),
                "{flush}: {}",
                scene.rules()
            );
        }
    }
}

fn later_guard() {
    let scene = Scene::new();
    let conf = conf(json!({}));
    scene.add_a(&conf);
    scene.host.sh(NATIVE);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, false);
    assert!(
        scene
            .check_a(&conf)
            .unwrap_err()
            .msg
            .contains("inet filter forward")
    );
    scene.add_b(&conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
    scene.check_a(&conf).unwrap();
    // Loaded anew by itself, as `nft -f` of a file with `delete table` does it.
    scene.host.sh("nft delete table inet filter");
    scene.host.sh(NATIVE);
    scene.add_b(&conf);
    scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
}

fn nothing() {
    for guard in [NATIVE, DOCKER, "true"] {
        let node = host(guard);
        let before = ruleset(&node);
        node.run(|| {
            for backend in ["", "iptables", "nftables"] {
                del(&conf(json!({"backend": backend})), "never").unwrap();
                gc(&conf(json!({"backend": backend})), &[]).unwrap();
            }
        });
        assert_eq!(ruleset(&node), before);
        node.run(|| {
            add(&conf(json!({})), "a", "cni0", "", &A).unwrap();
            add(&conf(json!({})), "a", "cni0", "", &A).unwrap();
            del(&conf(json!({})), "a").unwrap();
            del(&conf(json!({})), "a").unwrap();
        });
        assert_eq!(ruleset(&node), before);
    }
}

fn collected() {
    for guard in [NATIVE, DOCKER] {
        let node = host(guard);
        let before = ruleset(&node);
        node.run(|| {
            let (one, other) = (
                conf(json!({"ingressPolicy": "same-bridge"})),
                named("podnet2", json!({})),
            );
            for (container, address) in [("a", "10.1.0.2"), ("b", "10.1.0.3"), ("c", "10.1.0.4")] {
                add(&one, container, "cni0", "", &[address]).unwrap();
            }
            add(&other, "a", "cni0", "", &["10.2.0.2"]).unwrap();
            gc(&one, &["a", "c"]).unwrap();
            for (container, address, there) in [
                ("a", "10.1.0.2", true),
                ("b", "10.1.0.3", false),
                ("c", "10.1.0.4", true),
            ] {
                assert_eq!(
                    check(&one, container, "cni0", "", &[address]).is_ok(),
                    there,
                    "{container}"
                );
            }
            gc(&one, &[]).unwrap();
            check(&other, "a", "cni0", "", &["10.2.0.2"]).unwrap();
            gc(&other, &[]).unwrap();
        });
        assert_eq!(ruleset(&node), before);
    }
}

fn changes_hands() {
    for guard in [NATIVE, DOCKER] {
        let node = host(guard);
        node.run(|| {
            let conf = conf(json!({"ingressPolicy": "same-bridge"}));
            add(&conf, "former", "cni0", "", &A).unwrap();
            add(&conf, "later", "cni0", "", &A).unwrap();
            del(&conf, "former").unwrap();
            check(&conf, "later", "cni0", "", &A).unwrap();
            del(&conf, "later").unwrap();
        });
    }
}

fn independent() {
    for guard in [NATIVE, DOCKER] {
        let scene = Scene::new();
        scene.host.sh(guard);
        let (one, two) = (
            named("one", json!({})),
            named("two", json!({"ingressPolicy": "same-bridge"})),
        );
        scene.add_a(&one);
        scene.add_b(&two);
        scene.del(&two, "a");
        scene.del(&two, "b");
        scene.assert_talks(&scene.a, &scene.outside, OUTSIDE, true);
        scene.assert_talks(&scene.b, &scene.outside, OUTSIDE, false);
    }
}

fn invalid() {
    for guard in [NATIVE, DOCKER] {
        let node = host(guard);
        let before = ruleset(&node);
        node.run(|| {
            add(&conf(json!({})), "a", "cni0", "", &A).unwrap();
            let broken =
                json!({"backend": "nonsense", "ingressPolicy": 5, "firewalldZone": "$(x)"});
            del(&conf(broken), "a").unwrap();
        });
        assert_eq!(ruleset(&node), before);
    }
}

/// Runs `work(n)` for each n in threads of their own in the same namespace.
fn at_once(node: &Node, count: u32, work: fn(u32)) {
    node.run(move || {
        let start = Arc::new(Barrier::new(count as usize));
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let start = Arc::clone(&start);
                std::thread::spawn(move || {
                    start.wait();
                    work(n);
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no thread panics");
        }
    });
}

fn storm() {
    for guard in [NATIVE, DOCKER] {
        let node = host(guard);
        let before = ruleset(&node);
        at_once(&node, 8, |n| {
            let policy = ["open", "same-bridge"][n as usize % 2];
            let conf: Value = named(
                ["one", "two"][n as usize % 2],
                json!({"ingressPolicy": policy}),
            );
            let (container, address) = (format!("c{n}"), format!("10.1.0.{}", n + 2));
            for _ in 0..3 {
                add(&conf, &container, "cni0", "", &[&address]).unwrap();
                check(&conf, &container, "cni0", "", &[&address]).unwrap();
                del(&conf, &container).unwrap();
            }
        });
        assert_eq!(ruleset(&node), before);
    }
}

fn alone() {
    let error = Node::new().run(|| add_alone(&conf(json!({}))));
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(
        error.msg.contains("prevResult") && error.details.contains("firewall"),
        "{error}"
    );
}

fn no_firewalld() {
    if std::path::Path::new("/run/dbus/system_bus_socket").exists() {
        eprintln!("there is a system bus here: not tested");
        return;
    }
    let node = host("true");
    let before = ruleset(&node);
    let error =
        node.run(|| add(&conf(json!({"backend": "firewalld"})), "a", "cni0", "", &A).unwrap_err());
    assert!(
        error.msg.contains("firewalld") && error.details.contains("systemctl start firewalld"),
        "{error}"
    );
    assert_eq!(ruleset(&node), before);
    node.run(|| del(&conf(json!({"backend": "firewalld"})), "a").unwrap());
}

fn statuses() {
    let node = host("true");
    node.run(|| {
        for backend in ["", "nftables", "iptables"] {
            status(&conf(json!({"backend": backend}))).unwrap();
        }
        let error = status(&conf(json!({"backend": "firewalld"}))).unwrap_err();
        assert_eq!(error.code, Code::NotAvailable);
        hide_programs();
        // Without a guard there is nothing to install.
        status(&conf(json!({}))).unwrap();
        for (backend, package) in [("nftables", "nftables"), ("iptables", "iptables")] {
            let error = status(&conf(json!({"backend": backend}))).unwrap_err();
            assert_eq!(error.code, Code::NotAvailable);
            assert!(error.details.contains(package), "{error}");
        }
    });
    let guarded = host(NATIVE);
    guarded.run(|| {
        hide_programs();
        let error = status(&conf(json!({}))).unwrap_err();
        assert_eq!(error.code, Code::NotAvailable);
        assert!(error.details.contains("nftables"), "{error}");
    });
}

/// The programs are looked for in fixed places too, so they have to be hidden: a mount namespace.
fn hide_programs() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    for dir in [
        Path::new("/usr/sbin"),
        Path::new("/usr/local/sbin"),
        &programs::dir(),
    ] {
        let empty = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), dir, Some("tmpfs"), empty, None::<&str>).unwrap();
    }
}

fn reference() {
    // What the Go plugin makes for a container of its own, and leaves behind.
    let rules = "for t in iptables ip6tables; do $t -N CNI-FORWARD; $t -N CNI-ADMIN
        $t -A FORWARD -m comment --comment 'CNI firewall plugin rules' -j CNI-FORWARD
        $t -A CNI-FORWARD -m comment --comment 'CNI firewall plugin admin overrides' -j CNI-ADMIN; done
        iptables -A CNI-FORWARD -s 10.9.0.5/32 -j ACCEPT";
    let node = host(rules);
    let before = ruleset(&node);
    node.run(|| {
        add(&conf(json!({})), "a", "cni0", "", &A).unwrap();
        del(&conf(json!({})), "a").unwrap();
    });
    assert_eq!(ruleset(&node), before);
}
