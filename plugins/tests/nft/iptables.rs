//! Masquerade by the iptables commands.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;

use ipnet::IpNet;
use plugins::attach::masquerade::{self, Backend, Masquerade, Member};

use crate::Case;
use crate::masquerade::{add, at_once, gc, list, member, owner};
use crate::scene::Scene;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("iptables_masquerades_like_nftables_does", traffic),
    case("iptables_leaves_nothing_behind", leaves_nothing),
    case("iptables_chains_are_made_once", twice),
    case("iptables_chains_are_collected_by_owner", collected),
    case("iptables_check_tells_what_is_missing", checked),
    case("foreign_nat_rules_are_left_alone", foreign),
    case("simultaneous_dels_with_iptables_succeed", simultaneous),
    case(
        "iptables_after_a_flush_the_next_add_restores_living_containers",
        flushed,
    ),
    case(
        "iptables_restores_the_version_that_was_flushed",
        one_version,
    ),
    case(
        "iptables_restores_each_network_by_its_own_add",
        each_network,
    ),
    case(
        "iptables_container_that_dies_during_the_restoration_does_not_come_back",
        died_meanwhile,
    ),
    case(
        "iptables_container_restored_during_its_del_is_taken_out_at_the_end",
        restored_during_del,
    ),
    case("iptables_storm_of_restorations_leaves_nothing", storm),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["iptables", "ip6tables", "nft", "ip"],
        run,
    }
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn with_wanted<T>(
    container: &str,
    addresses: &[&str],
    exempt: &[&str],
    work: impl FnOnce(&Masquerade<'_>) -> T,
) -> T {
    work(&Masquerade {
        owner: &owner("podnet", container),
        addresses: &nets(addresses),
        non_masquerade: &nets(exempt),
        backend: Backend::Iptables,
    })
}

fn add_old(container: &str, addresses: &[&str], exempt: &[&str]) {
    add_beside(container, addresses, exempt, &Vec::new);
}

/// ADD of a container while these others live.
fn add_beside(
    container: &str,
    addresses: &[&str],
    exempt: &[&str],
    living: &dyn Fn() -> Vec<Member>,
) {
    with_wanted(container, addresses, exempt, |wanted| {
        masquerade::ensure(wanted, living, &|_| true)
    })
    .unwrap();
}

/// The owners that have rules, in order.
fn owners() -> Vec<String> {
    let mut owners: Vec<String> = list("podnet").into_iter().map(|kept| kept.owner).collect();
    owners.sort();
    owners
}

fn del(container: &str) {
    masquerade::remove(&owner("podnet", container)).unwrap();
}

/// The rules of both nat tables.
fn rules(node: &Node) -> String {
    node.sh("iptables -t nat -S | grep -v ^-P || true; ip6tables -t nat -S | grep -v ^-P || true")
}

fn traffic() {
    let scene = Scene::new();
    scene.host.run(|| {
        add_old(
            "abc",
            &["10.1.0.5/24", "fd00:1::5/64"],
            &["198.51.100.0/24"],
        )
    });
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
    scene.assert_seen(&scene.outside, "2001:db8::2", "2001:db8::1");
    scene.assert_seen(&scene.neighbour, "10.1.0.6", "10.1.0.5");
    scene.assert_seen(&scene.neighbour, "fd00:1::6", "fd00:1::5");
    scene.assert_seen(&scene.outside, "198.51.100.2", "10.1.0.5");
    scene.host.run(|| del("abc"));
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
}

fn leaves_nothing() {
    let node = Node::new();
    node.run(|| {
        add_old("a", &["10.1.0.2/24", "fd00::2/64"], &[]);
        add_old("b", &["10.1.0.3/24"], &[]);
        assert_eq!(list("podnet").len(), 3);
        del("a");
        assert_eq!(list("podnet").len(), 1);
    });
    assert!(rules(&node).contains("podnet/b/eth0"));
    node.run(|| {
        del("b");
        del("b");
    });
    assert_eq!(rules(&node), "");
}

fn twice() {
    let node = Node::new();
    node.run(|| add_old("a", &["10.1.0.2/24"], &[]));
    let before = rules(&node);
    node.run(|| add_old("a", &["10.1.0.2/24"], &[]));
    assert_eq!(rules(&node), before);
    // The network's mark and the container.
    assert_eq!(before.matches("POSTROUTING").count(), 2, "{before}");
}

fn collected() {
    let node = Node::new();
    node.run(|| {
        add_old("a", &["10.1.0.2/24"], &[]);
        add_old("b", &["10.1.0.3/24", "fd00::3/64"], &[]);
        add("podnet", "c", &["10.1.0.4/24"]).unwrap();
        assert_eq!(list("podnet").len(), 4);
        assert_eq!(gc("other", &[]), []);
        let removed = gc("podnet", &[("a", "eth0")]);
        let mut owners: Vec<_> = removed.iter().map(|kept| kept.owner.as_str()).collect();
        owners.sort_unstable();
        assert_eq!(owners, ["podnet/b/eth0", "podnet/b/eth0", "podnet/c/eth0"]);
        assert_eq!(list("podnet").len(), 1);
        gc("podnet", &[]);
    });
    assert_eq!(rules(&node), "");
}

fn checked() {
    let node = Node::new();
    let check =
        || with_wanted("a", &["10.1.0.2/24", "fd00::2/64"], &[], masquerade::check).unwrap();
    node.run(move || {
        assert_eq!(check().len(), 2);
        add_old("a", &["10.1.0.2/24", "fd00::2/64"], &[]);
        assert_eq!(check(), Vec::<String>::new());
    });
    node.sh("ip6tables -t nat -F POSTROUTING");
    let differences = node.run(check);
    assert!(
        differences[0].contains("fd00::2 is not masqueraded"),
        "{differences:?}"
    );
}

fn foreign() {
    let node = Node::new();
    node.sh("iptables -t nat -N KUBE-POSTROUTING; iptables -t nat -A POSTROUTING -m comment --comment \"a b\" -j KUBE-POSTROUTING
        iptables -t nat -N CNI-0123456789abcdef01234567; iptables -t nat -A POSTROUTING -s 10.9.0.1 -j CNI-0123456789abcdef01234567");
    let before = rules(&node);
    node.run(|| add_old("a", &["10.1.0.2/24"], &[]));
    let listing = rules(&node);
    let last = listing.lines().rfind(|line| line.contains("POSTROUTING"));
    assert!(
        last.is_some_and(|line| line.contains("TRESTLE-MASQ-")),
        "{listing}"
    );
    node.run(|| {
        gc("podnet", &[("a", "eth0")]);
        del("a");
        gc("podnet", &[]);
    });
    assert_eq!(rules(&node), before);
}

fn simultaneous() {
    let node = Node::new();
    node.run(|| {
        (0..6).for_each(|n| add_old(&format!("c{n}"), &[&format!("10.1.0.{}/24", n + 2)], &[]))
    });
    at_once(&node, 12, |n| del(&format!("c{}", n % 6)));
    assert_eq!(rules(&node), "");
}

const FLUSHES: [&str; 3] = [
    "iptables -t nat -F; ip6tables -t nat -F",
    "for t in iptables ip6tables; do $t -t nat -F; $t -t nat -X; done",
    "nft flush ruleset",
];

fn flushed() {
    for flush in FLUSHES {
        let scene = Scene::new();
        let exempt = ["198.51.100.0/24", "fd00::/8"];
        scene.host.run(move || {
            add_old("abc", &["10.1.0.5/24", "fd00:1::5/64"], &exempt);
            add_old("gone", &["10.1.0.9/24"], &exempt);
            // An address that is another container's by now belongs to that one.
            add_old("former", &["10.1.0.7/24"], &exempt);
            del("gone");
        });
        scene.host.sh(flush);
        scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
        scene.host.run(move || {
            let living = || {
                vec![
                    member("abc", &["10.1.0.5/24", "fd00:1::5/64"]),
                    member("former", &["10.1.0.7/24"]),
                    member("new", &["10.1.0.7/24", "fd00:1::7/64"]),
                ]
            };
            add_beside("new", &["10.1.0.7/24", "fd00:1::7/64"], &exempt, &living);
            assert_eq!(
                owners(),
                [
                    "podnet/abc/eth0",
                    "podnet/abc/eth0",
                    "podnet/new/eth0",
                    "podnet/new/eth0"
                ]
            );
            let steady = || -> Vec<Member> { panic!("nothing had vanished") };
            add_beside("newer", &["10.1.0.8/24", "fd00:1::8/64"], &exempt, &steady);
        });
        scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
        scene.assert_seen(&scene.outside, "2001:db8::2", "2001:db8::1");
        scene.assert_seen(&scene.outside, "198.51.100.2", "10.1.0.5");
        scene.assert_seen(&scene.neighbour, "10.1.0.6", "10.1.0.5");
        for program in ["iptables", "ip6tables"] {
            let listing = scene.host.sh(&format!("{program} -t nat -S"));
            let unique: BTreeSet<&str> = listing.lines().collect();
            assert_eq!(unique.len(), listing.lines().count(), "{flush}: {listing}");
        }
        scene.host.run(|| {
            for container in ["abc", "former", "new", "newer"] {
                del(container);
            }
        });
        assert_eq!(rules(&scene.host), "", "{flush}");
    }
}

fn one_version() {
    let node = Node::new();
    node.run(|| add_old("a", &["10.1.0.2/24", "fd00::2/64"], &[]));
    let before = node.sh("ip6tables-save -t nat | grep ^-A");
    node.sh("ip6tables -t nat -F");
    node.run(|| {
        // It has no address of the version whose rules are gone.
        let steady = || -> Vec<Member> { panic!("nothing of IPv4 had vanished") };
        add_beside("b", &["10.1.0.3/24"], &[], &steady);
        let living = || vec![member("a", &["10.1.0.2/24", "fd00::2/64"])];
        add_beside("c", &["10.1.0.4/24", "fd00::4/64"], &[], &living);
        del("c");
    });
    assert_eq!(node.sh("ip6tables-save -t nat | grep ^-A"), before);
    assert_eq!(node.run(owners).len(), 3);
    node.run(|| {
        del("a");
        del("b");
    });
    assert_eq!(rules(&node), "");
}

fn each_network() {
    let node = Node::new();
    let other = |container: &str, address: &str, living: &dyn Fn() -> Vec<Member>| {
        let wanted = Masquerade {
            owner: &owner("other", container),
            addresses: &nets(&[address]),
            non_masquerade: &[],
            backend: Backend::Iptables,
        };
        masquerade::ensure(&wanted, living, &|_| true).unwrap();
    };
    node.run(move || {
        add_old("a", &["10.1.0.2/24"], &[]);
        other("x", "10.2.0.2/24", &Vec::new);
    });
    node.sh("iptables -t nat -F; iptables -t nat -X");
    node.run(move || {
        add_beside("b", &["10.1.0.3/24"], &[], &|| {
            vec![member("a", &["10.1.0.2/24"])]
        });
        assert_eq!(list("other"), []);
        let mut x = member("x", &["10.2.0.2/24"]);
        x.owner.network = "other".try_into().unwrap();
        other("y", "10.2.0.3/24", &|| {
            vec![x.clone(), member("a", &["10.1.0.2/24"])]
        });
        assert_eq!((owners().len(), list("other").len()), (2, 2));
        for (network, container) in [
            ("podnet", "a"),
            ("podnet", "b"),
            ("other", "x"),
            ("other", "y"),
        ] {
            masquerade::remove(&owner(network, container)).unwrap();
        }
    });
    assert_eq!(rules(&node), "");
}

fn died_meanwhile() {
    let node = Node::new();
    node.run(|| {
        let calls = std::cell::Cell::new(0);
        let living = || {
            calls.set(calls.get() + 1);
            let mut members = vec![member("b", &["10.1.0.3/24"])];
            if calls.get() == 1 {
                members.push(member("dying", &["10.1.0.9/24", "fd00::9/64"]));
            }
            members
        };
        add_beside("a", &["10.1.0.2/24", "fd00::2/64"], &[], &living);
        assert_eq!(
            owners(),
            ["podnet/a/eth0", "podnet/a/eth0", "podnet/b/eth0"]
        );
        del("a");
        del("b");
    });
    assert_eq!(rules(&node), "");
}

fn restored_during_del() {
    let node = Node::new();
    node.run(|| {
        let still_there = || vec![member("a", &["10.1.0.2/24"]), member("b", &["10.2.0.3/24"])];
        add_old("a", &["10.1.0.2/24"], &[]);
        Command::new("iptables")
            .args(["-t", "nat", "-F"])
            .status()
            .unwrap();
        let a = masquerade::begin_removal(&owner("podnet", "a")).unwrap();
        let b = masquerade::begin_removal(&owner("podnet", "b")).unwrap();
        add_beside("c", &["10.1.0.4/24"], &[], &still_there);
        assert_eq!(owners().len(), 3);
        a.finish().unwrap();
        b.finish().unwrap();
        assert_eq!(owners(), ["podnet/c/eth0"]);
        del("c");
    });
    assert_eq!(rules(&node), "");
}

/// Who lives in the storm, as long as something of it stands.
static STANDING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Containers come and go while somebody flushes the table again and again.
fn storm() {
    fn address(n: u32) -> String {
        format!("10.1.0.{n}/24")
    }
    let node = Node::new();
    at_once(&node, 7, |n| {
        if n == 0 {
            let flush = || {
                let args = ["-w", "10", "-t", "nat", "-F"];
                Command::new("iptables").args(args).status().unwrap();
            };
            (0..6).for_each(|_| flush());
            return;
        }
        let container = format!("c{n}");
        let living = || {
            let standing = STANDING.lock().unwrap().clone();
            let member = |n| member(&format!("c{n}"), &[&address(n)]);
            standing.into_iter().map(member).collect()
        };
        for _ in 0..4 {
            STANDING.lock().unwrap().insert(n);
            add_beside(&container, &[&address(n)], &[], &living);
            let removal = masquerade::begin_removal(&owner("podnet", &container)).unwrap();
            STANDING.lock().unwrap().remove(&n);
            removal.finish().unwrap();
        }
    });
    assert_eq!(rules(&node), "");
}
