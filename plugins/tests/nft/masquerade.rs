//! Masquerade with nftables: what the rules look like, what traffic sees, and that nothing stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;
use ipnet::IpNet;
use plugins::attach::masquerade::{self, Backend, Kept, Masquerade, Member};
use plugins::host::HostError;
use plugins::host::nft::Nft;
use plugins::owner::Owner;

use crate::Case;
use crate::scene::Scene;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("the_ruleset_reads_like_documentation", golden),
    case("a_second_container_changes_no_rule", constant_rules),
    case(
        "the_outside_sees_the_host_and_the_own_subnet_the_container",
        traffic,
    ),
    case(
        "bridged_traffic_keeps_its_source_with_bridge_netfilter_on",
        bridged,
    ),
    case(
        "after_a_flush_the_next_add_restores_rules_and_living_containers",
        flushed,
    ),
    case(
        "a_container_that_dies_during_the_restoration_does_not_come_back",
        died_meanwhile,
    ),
    case(
        "a_container_restored_during_its_del_is_taken_out_at_the_end",
        restored_during_del,
    ),
    case(
        "after_flush_table_the_next_add_restores_the_rules",
        flushed_table,
    ),
    case("simultaneous_first_adds_make_each_rule_once", simultaneous),
    case("the_last_container_leaves_nothing_behind", last_leaves),
    case(
        "simultaneous_last_dels_leave_nothing_behind",
        simultaneous_dels,
    ),
    case(
        "adds_and_dels_in_a_storm_lose_nothing_and_leave_nothing",
        storm,
    ),
    case(
        "a_changed_configuration_reaches_the_containers_already_there",
        reconfigured,
    ),
    case(
        "networks_with_the_same_addresses_do_not_disturb_each_other",
        overlapping,
    ),
    case(
        "an_address_changes_hands_and_the_late_del_of_the_former_owner_is_harmless",
        changes_hands,
    ),
    case("adding_twice_is_adding_once", twice),
    case("gc_keeps_the_valid_and_removes_the_rest", collected),
    case("check_tells_what_is_missing", checked),
    case(
        "in_the_steady_state_add_and_del_need_no_program",
        steady_state,
    ),
    case("a_missing_nft_names_the_package", no_nft),
    case("addresses_without_a_subnet_share_one_pool", host_prefixes),
    case("every_destination_can_be_exempt", all_exempt),
    case(
        "a_container_may_have_addresses_in_as_many_subnets_as_are_allowed",
        many_subnets,
    ),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["nft", "ip"],
        run,
    }
}

pub(crate) fn owner(network: &str, container: &str) -> Owner {
    Owner {
        network: network.try_into().unwrap(),
        container: container.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    }
}

fn named(network: &str) -> NetworkName {
    network.try_into().unwrap()
}

pub(crate) fn list(network: &str) -> Vec<Kept> {
    masquerade::list(&named(network)).unwrap()
}

pub(crate) fn gc(network: &str, valid: &[(&str, &str)]) -> Vec<Kept> {
    let valid: Vec<AttachmentId> = valid
        .iter()
        .map(|(container, ifname)| AttachmentId {
            container: (*container).try_into().unwrap(),
            ifname: (*ifname).try_into().unwrap(),
        })
        .collect();
    masquerade::gc(&named(network), &valid).unwrap()
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// `ensure` for a container of network `network`, with nobody else alive.
pub(crate) fn add(network: &str, container: &str, addresses: &[&str]) -> Result<(), HostError> {
    add_with(network, container, addresses, &[], &Vec::new)
}

fn add_with(
    network: &str,
    container: &str,
    addresses: &[&str],
    non_masquerade: &[&str],
    living: &dyn Fn() -> Vec<Member>,
) -> Result<(), HostError> {
    let wanted = Masquerade {
        owner: &owner(network, container),
        addresses: &nets(addresses),
        non_masquerade: &nets(non_masquerade),
        backend: Backend::Nftables,
    };
    masquerade::ensure(&wanted, living, &|_| true).map(drop)
}

fn many_subnets() {
    let node = Node::new();
    node.run(|| {
        let addresses: Vec<String> = (0..masquerade::SUBNETS_MAX)
            .map(|n| format!("10.{}.{}.2/24", n / 256, n % 256))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        assert_eq!(
            masquerade::subnets(&nets(&addresses)),
            masquerade::SUBNETS_MAX
        );
        add("podnet", "a", &addresses).unwrap();
        add("podnet", "b", &["10.0.7.3/24"]).unwrap();
        assert_eq!(list("podnet").len(), masquerade::SUBNETS_MAX + 1);
        del("podnet", "a");
        assert_eq!(list("podnet").len(), 1);
        del("podnet", "b");
    });
    assert_eq!(ruleset(&node), "");
}

fn del(network: &str, container: &str) {
    masquerade::remove(&owner(network, container)).unwrap();
}

fn ruleset(node: &Node) -> String {
    node.sh("nft -s list ruleset")
}

/// The rules by chain; elements and sets left out.
fn rules(node: &Node) -> Vec<String> {
    let listing = ruleset(node);
    listing
        .lines()
        .filter(|line| line.contains("comment \"") && !line.contains("elements"))
        .filter(|line| line.contains("return") || line.contains("masquerade "))
        .map(|line| line.trim().to_owned())
        .collect()
}

fn golden() {
    let node = Node::new();
    node.run(|| {
        let exempt = ["10.0.0.0/8", "192.168.1.1/32", "10.5.0.0/16", "fd00::/8"];
        let addresses = ["10.1.0.5/24", "fd00:1::5/64"];
        add_with("podnet", "abc", &addresses, &exempt, &Vec::new).unwrap();
        add("other", "def", &["10.2.0.5/32"]).unwrap();
    });
    compare(&ruleset(&node), "masquerade.nft");
    // What is listed can be loaded again: every name is one that nft's language can spell.
    node.sh("nft list ruleset > $$.nft; nft flush ruleset; nft -f $$.nft; rm $$.nft");
    compare(&ruleset(&node), "masquerade.nft");
}

fn compare(found: &str, file: &str) {
    // How nft and the kernel say a rule is no part of the file.
    let found: String = found
        .split_inclusive('\n')
        .map(|line| match line.split_once(", rules ") {
            Some((beginning, _)) => format!("{beginning}, rules DIGEST\"\n"),
            None => line.to_owned(),
        })
        .collect();
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

fn constant_rules() {
    let node = Node::new();
    node.run(|| add("podnet", "c0", &["10.1.0.2/16", "fd00:1::2/64"]).unwrap());
    let before = rules(&node);
    node.run(|| {
        for n in 1..200_u32 {
            let (v4, v6) = (format!("10.1.1.{n}/16"), format!("fd00:1::1:{n}/64"));
            add("podnet", &format!("c{n}"), &[&v4, &v6]).unwrap();
        }
        assert_eq!(list("podnet").len(), 400);
    });
    assert_eq!(rules(&node), before);
    assert_eq!(before.len(), 6);
}

fn traffic() {
    let scene = Scene::new();
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
    scene.host.run(|| {
        let addresses = ["10.1.0.5/24", "fd00:1::5/64"];
        add_with("podnet", "abc", &addresses, &["198.51.100.0/24"], &Vec::new).unwrap();
    });
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
    scene.assert_seen(&scene.outside, "2001:db8::2", "2001:db8::1");
    scene.assert_seen(&scene.neighbour, "10.1.0.6", "10.1.0.5");
    scene.assert_seen(&scene.neighbour, "fd00:1::6", "fd00:1::5");
    scene.assert_seen(&scene.host, "10.1.0.1", "10.1.0.5");
    scene.assert_seen(&scene.outside, "198.51.100.2", "10.1.0.5");
    scene.host.run(|| del("podnet", "abc"));
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
    assert_eq!(ruleset(&scene.host), "");
}

fn bridged() {
    let scene = Scene::new();
    scene.host.sh(
        "for f in iptables ip6tables; do echo 1 > /proc/sys/net/bridge/bridge-nf-call-$f; done",
    );
    scene
        .host
        .run(|| add("podnet", "abc", &["10.1.0.5/24", "fd00:1::5/64"]).unwrap());
    scene.assert_seen(&scene.neighbour, "10.1.0.6", "10.1.0.5");
    scene.assert_seen(&scene.neighbour, "fd00:1::6", "fd00:1::5");
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
}

pub(crate) fn member(container: &str, addresses: &[&str]) -> Member {
    Member {
        owner: owner("podnet", container),
        addresses: nets(addresses),
    }
}

fn flushed() {
    let node = Node::new();
    node.run(|| {
        add("podnet", "a", &["10.1.0.2/24"]).unwrap();
        add("podnet", "b", &["10.1.0.3/24", "fd00:1::3/64"]).unwrap();
        add("other", "x", &["10.2.0.3/24"]).unwrap();
    });
    node.sh("nft flush ruleset");
    node.run(|| {
        let living = || {
            // The new container has its address already when masquerade comes.
            vec![
                member("a", &["10.1.0.2/24"]),
                member("b", &["10.1.0.3/24", "fd00:1::3/64"]),
                member("c", &["10.1.0.4/24"]),
            ]
        };
        add_with("podnet", "c", &["10.1.0.4/24"], &[], &living).unwrap();
        let owners: Vec<String> = list("podnet").into_iter().map(|kept| kept.owner).collect();
        let mut sorted = owners.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            [
                "podnet/a/eth0",
                "podnet/b/eth0",
                "podnet/b/eth0",
                "podnet/c/eth0"
            ]
        );
        for container in ["a", "b", "c"] {
            del("podnet", container);
        }
    });
    assert_eq!(ruleset(&node), "");
}

fn died_meanwhile() {
    let node = Node::new();
    node.run(|| {
        let calls = std::cell::Cell::new(0);
        let living = || {
            calls.set(calls.get() + 1);
            let mut members = vec![member("b", &["10.1.0.3/24"])];
            if calls.get() == 1 {
                members.push(member("dying", &["10.1.0.9/24", "10.3.0.9/24"]));
            }
            members
        };
        add_with("podnet", "a", &["10.1.0.2/24"], &[], &living).unwrap();
        let mut owners: Vec<String> = list("podnet").into_iter().map(|kept| kept.owner).collect();
        owners.sort();
        assert_eq!(owners, ["podnet/a/eth0", "podnet/b/eth0"]);
        del("podnet", "a");
        del("podnet", "b");
    });
    assert_eq!(ruleset(&node), "");
}

fn restored_during_del() {
    let node = Node::new();
    node.run(|| {
        let still_there = || vec![member("a", &["10.1.0.2/24"]), member("b", &["10.2.0.3/24"])];
        add("podnet", "a", &["10.1.0.2/24"]).unwrap();
        let a = masquerade::begin_removal(&owner("podnet", "a")).unwrap();
        let b = masquerade::begin_removal(&owner("podnet", "b")).unwrap();
        add_with("podnet", "c", &["10.1.0.4/24"], &[], &still_there).unwrap();
        assert_eq!(list("podnet").len(), 3);
        a.finish().unwrap();
        b.finish().unwrap();
        assert_eq!(list("podnet").len(), 1);
        del("podnet", "c");
    });
    assert_eq!(ruleset(&node), "");
}

fn flushed_table() {
    let node = Node::new();
    node.run(|| add("podnet", "a", &["10.1.0.2/24", "fd00::2/64"]).unwrap());
    let before = rules(&node);
    node.sh("nft flush table inet trestle");
    assert!(rules(&node).is_empty());
    node.run(|| add("podnet", "b", &["10.1.0.3/24"]).unwrap());
    assert_eq!(rules(&node), before);
}

/// Runs `work(n)` for each n in a process-like fashion: a thread of its own in the same namespace.
pub(crate) fn at_once(node: &Node, count: u32, work: fn(u32)) {
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

fn simultaneous() {
    for _ in 0..5 {
        let node = Node::new();
        at_once(&node, 16, |n| {
            let v4 = format!("10.{}.0.{}/24", n % 2, n + 2);
            add("podnet", &format!("c{n}"), &[&v4, &format!("fd00::{n}/64")]).unwrap();
        });
        let mut counted = BTreeMap::new();
        for rule in rules(&node) {
            *counted.entry(rule).or_insert(0) += 1;
        }
        // Three subnets of three rules each; those of the first kind are named after their subnet.
        assert_eq!(counted.values().sum::<i32>(), 9, "{counted:?}");
        assert_eq!(node.run(|| list("podnet").len()), 32);
    }
}

fn last_leaves() {
    let node = Node::new();
    node.sh("nft 'add table inet foreign; add chain inet foreign c'");
    let before = ruleset(&node);
    node.run(|| {
        add("podnet", "a", &["10.1.0.2/24", "fd00::2/64"]).unwrap();
        add("podnet", "b", &["10.1.0.3/24"]).unwrap();
        del("podnet", "a");
        assert_eq!(list("podnet").len(), 1);
        del("podnet", "b");
        del("podnet", "b");
        del("podnet", "never");
    });
    assert_eq!(ruleset(&node), before);
}

fn simultaneous_dels() {
    for _ in 0..5 {
        let node = Node::new();
        node.run(|| {
            for n in 0..16_u32 {
                add(
                    "podnet",
                    &format!("c{n}"),
                    &[&format!("10.1.0.{}/24", n + 2)],
                )
                .unwrap();
            }
        });
        at_once(&node, 32, |n| del("podnet", &format!("c{}", n % 16)));
        assert_eq!(ruleset(&node), "");
    }
}

fn storm() {
    let node = Node::new();
    at_once(&node, 12, |n| {
        let network = ["podnet", "other"][n as usize % 2];
        let container = format!("c{n}");
        for _ in 0..6 {
            let v6 = format!("fd00::{n}/64");
            add(network, &container, &[&format!("10.1.0.{}/24", n + 2), &v6]).unwrap();
            let wanted = Masquerade {
                owner: &owner(network, &container),
                addresses: &nets(&[&format!("10.1.0.{}/24", n + 2), &v6]),
                non_masquerade: &[],
                backend: Backend::Nftables,
            };
            assert_eq!(masquerade::check(&wanted).unwrap(), Vec::<String>::new());
            del(network, &container);
        }
    });
    assert_eq!(ruleset(&node), "");
}

fn reconfigured() {
    let scene = Scene::new();
    scene.host.run(|| {
        add("podnet", "abc", &["10.1.0.5/24", "fd00:1::5/64"]).unwrap();
        add("podnet", "old", &["10.9.0.5/24"]).unwrap();
    });
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
    scene.host.run(|| {
        let exempt = ["192.0.2.0/24", "2001:db8::/32"];
        add_with("podnet", "new", &["10.1.0.7/24"], &exempt, &|| {
            panic!("nothing had vanished")
        })
        .unwrap();
    });
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
    scene.assert_seen(&scene.outside, "2001:db8::2", "fd00:1::5");
    let listing = ruleset(&scene.host);
    assert_eq!(
        listing.matches("nonMasqueradeCIDRs").count(),
        3,
        "{listing}"
    );
    scene
        .host
        .run(|| add("podnet", "newer", &["10.1.0.8/24"]).unwrap());
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
}

fn overlapping() {
    let scene = Scene::new();
    scene.host.run(|| {
        add_with("kept", "a", &["10.1.0.5/24"], &["192.0.2.0/24"], &Vec::new).unwrap();
        add("podnet", "b", &["10.1.0.5/24"]).unwrap();
    });
    // Either network would masquerade it.
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
    scene.host.run(|| del("podnet", "b"));
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
    scene.host.run(|| del("kept", "a"));
    assert_eq!(ruleset(&scene.host), "");
}

fn changes_hands() {
    let node = Node::new();
    node.run(|| {
        add("podnet", "former", &["10.1.0.5/24"]).unwrap();
        add("podnet", "later", &["10.1.0.5/24"]).unwrap();
        del("podnet", "former");
        let kept = list("podnet");
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].owner, "podnet/later/eth0");
    });
}

fn twice() {
    let node = Node::new();
    node.run(|| add("podnet", "a", &["10.1.0.5/24", "10.1.0.5/24", "fd00::5/64"]).unwrap());
    let before = ruleset(&node);
    node.run(|| add("podnet", "a", &["10.1.0.5/24", "fd00::5/64"]).unwrap());
    assert_eq!(ruleset(&node), before);
}

fn collected() {
    let node = Node::new();
    node.run(|| {
        for (container, address) in [
            ("a", "10.1.0.2/24"),
            ("b", "10.1.0.3/24"),
            ("c", "10.2.0.2/24"),
        ] {
            add("podnet", container, &[address]).unwrap();
        }
        add("other", "a", &["10.3.0.2/24"]).unwrap();
        let removed = gc("podnet", &[("a", "eth0"), ("c", "eth1")]);
        let mut owners: Vec<_> = removed.iter().map(|kept| kept.owner.as_str()).collect();
        owners.sort_unstable();
        assert_eq!(owners, ["podnet/b/eth0", "podnet/c/eth0"]);
        assert_eq!(list("podnet").len(), 1);
        assert_eq!(list("other").len(), 1);
        assert_eq!(gc("podnet", &[]).len(), 1);
        assert_eq!(gc("podnet", &[]), []);
        del("other", "a");
    });
    assert_eq!(ruleset(&node), "");
}

fn checked() {
    let node = Node::new();
    let check = || {
        let addresses = nets(&["10.1.0.5/24"]);
        masquerade::check(&Masquerade {
            owner: &owner("podnet", "a"),
            addresses: &addresses,
            non_masquerade: &[],
            backend: Backend::Nftables,
        })
        .unwrap()
    };
    node.run(move || {
        assert_eq!(check().len(), 2);
        add("podnet", "a", &["10.1.0.5/24"]).unwrap();
        assert_eq!(check(), Vec::<String>::new());
    });
    node.sh("nft flush table inet trestle");
    let differences = node.run(check);
    assert!(
        differences[0].contains("rules of network podnet"),
        "{differences:?}"
    );
    node.sh("nft flush set inet trestle masq/podnet/10.1.0.0-24");
    let differences = node.run(check);
    assert!(
        differences[1].contains("10.1.0.5 is not masqueraded"),
        "{differences:?}"
    );
}

/// Leaves the thread without nft and iptables: it gets mounts of its own, in which they are hidden.
fn hide_programs() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    for dir in ["/usr/sbin", "/usr/local/sbin"] {
        nix::mount::mount(
            Some("none"),
            dir,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    }
}

fn steady_state() {
    let node = Node::new();
    node.run(|| {
        add("podnet", "first", &["10.1.0.2/24", "fd00::2/64"]).unwrap();
        hide_programs();
        add("podnet", "a", &["10.1.0.5/24", "fd00::5/64"]).unwrap();
        del("podnet", "a");
        del("podnet", "a");
        gc("podnet", &[]);
        assert_eq!(Nft::open().unwrap().chains(None).unwrap(), []);
    });
}

fn no_nft() {
    let node = Node::new();
    let error = node.run(|| {
        hide_programs();
        add("podnet", "a", &["10.1.0.5/24"]).unwrap_err()
    });
    assert_eq!(
        error.to_string(),
        "install the masquerade rules of network podnet: nft not found"
    );
    assert!(error.remedy().unwrap().contains("package nftables"));
}

fn host_prefixes() {
    let node = Node::new();
    node.run(|| add("podnet", "a", &["10.1.0.5/32", "fd00::5/128"]).unwrap());
    let before = rules(&node);
    node.run(|| {
        add("podnet", "b", &["10.1.0.6/32", "fd00::6/128"]).unwrap();
        add("podnet", "c", &["10.1.0.7/32"]).unwrap();
    });
    assert_eq!(rules(&node), before);
    assert_eq!(before.len(), 4);
}

fn all_exempt() {
    let scene = Scene::new();
    scene.host.run(|| {
        let addresses = ["10.1.0.5/24", "fd00:1::5/64"];
        add_with(
            "podnet",
            "abc",
            &addresses,
            &["0.0.0.0/0", "::/0"],
            &Vec::new,
        )
        .unwrap();
    });
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
    scene.assert_seen(&scene.outside, "2001:db8::2", "fd00:1::5");
}
