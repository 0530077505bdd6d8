//! Masquerading over time: many pods, a firewall that forgets, another backend, and mistakes.

use std::net::IpAddr;
use std::thread;

use conformance::{Call, Case, Lab, Need, Program, Subject, case, with, with_prev_result};
use serde_json::{Value, json};

use super::{Member, Node, assert_seen, beyond_the_uplink, pod_network, unreachable};
use crate::common::wait_until;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(two_hundred_pods_need_no_more_rules_than_one).ours(),
        case!(a_flushed_firewall_is_restored_by_the_next_add).ours(),
        case!(flushed_iptables_are_restored_by_the_next_add).ours(),
        case!(check_notices_a_flushed_firewall).ours(),
        case!(the_iptables_backend_does_the_same),
        case!(del_finds_what_either_backend_made_by_its_owner_alone).ours(),
        case!(a_network_may_change_its_backend).ours(),
        case!(ip_masq_is_a_boolean),
        case!(without_nft_the_error_names_the_package).ours(),
        case!(gc_takes_the_masquerading_of_lost_pods_away)
            .ours()
            .needs(Need::NewCnitool),
    ]
}

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

fn masqueraded() -> Value {
    with(pod_network(), json!({"ipMasq": true}))
}

/// How many rules the kernel has to look at, in all tables.
fn rules(node: &Node) -> usize {
    let listed = node.run(Program::new("nft").args(["-j", "list", "ruleset"]));
    let listed = listed.succeeded().json();
    let objects = listed["nftables"].as_array().into_iter().flatten();
    objects.filter(|object| !object["rule"].is_null()).count()
}

fn two_hundred_pods_need_no_more_rules_than_one(lab: &Lab) {
    const PODS: usize = 200;
    let (node, world) = Node::connected(lab, masqueraded());
    let first = node.join("first");
    let with_one = rules(&node);
    assert!(with_one > 0, "there are rules");
    node.part_with(&[&first]);
    // The first ones come at the same moment, and each would make the rules.
    let join = |worker: usize| -> Vec<Member> {
        let mine = (0..PODS).filter(|index| index % 4 == worker);
        mine.map(|index| node.join(&format!("pod{index}")))
            .collect()
    };
    let pods = four_at_once(join);
    assert_eq!(pods.len(), PODS);
    assert_eq!(rules(&node), with_one, "the number of rules is constant");
    let picked = [0, PODS / 2, PODS - 1];
    for (outside, uplink) in beyond_the_uplink() {
        for pod in picked.map(|index| &pods[index]) {
            assert_seen(pod, &world, outside, uplink);
        }
        let (a, b) = (&pods[0], &pods[PODS - 1]);
        assert_seen(a, b, b.ip_like(outside), a.ip_like(outside));
    }
    let part = |worker: usize| -> Vec<()> {
        let mine = pods.iter().skip(worker).step_by(4);
        mine.map(|pod| node.plugin().del(&node.network, &Call::of(&pod.pod)))
            .collect()
    };
    four_at_once(part);
    let pods: Vec<&Member> = pods.iter().collect();
    node.assert_nothing_left(&pods);
}

fn four_at_once<T: Send>(work: impl Fn(usize) -> Vec<T> + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let done = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker"));
        done.flatten().collect()
    })
}

fn a_flushed_firewall_is_restored_by_the_next_add(lab: &Lab) {
    a_flushed_firewall_is_restored(lab, "nftables", &["nft flush ruleset"]);
}

fn flushed_iptables_are_restored_by_the_next_add(lab: &Lab) {
    let rules = ["iptables -t nat -F", "ip6tables -t nat -F"];
    let chains = ["iptables -t nat -X", "ip6tables -t nat -X"];
    for flush in [
        &["nft flush ruleset"][..],
        &rules,
        &[rules, chains].concat(),
    ] {
        a_flushed_firewall_is_restored(lab, "iptables", flush);
    }
}

/// Runs the commands that make a node forget its rules.
fn forget(node: &Node, flush: &[&str]) {
    flush.iter().for_each(|command| drop(node.sh(command)));
}

fn a_flushed_firewall_is_restored(lab: &Lab, backend: &str, flush: &[&str]) {
    let network = with(masqueraded(), json!({"ipMasqBackend": backend}));
    let (node, world) = Node::connected(lab, network);
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    let before = node.observe();
    // Killed with its node's runtime, so nobody has called DEL.
    let dave = node.join("dave");
    let veth = dave.result["interfaces"][1]["name"].clone();
    dave.pod.vanish();
    wait_until("the veth goes with its namespace", || {
        node.link(veth.as_str().expect("a name")).is_none()
    });
    forget(&node, flush);
    for (outside, _) in beyond_the_uplink() {
        assert!(unreachable(&alice, &world, outside), "{flush:?}: {outside}");
    }
    let carol = node.join("carol");
    for (outside, uplink) in beyond_the_uplink() {
        for pod in [&alice, &bob, &carol] {
            assert_seen(pod, &world, outside, uplink);
        }
        // Neighbours see each other as before.
        assert_seen(&alice, &bob, bob.ip_like(outside), alice.ip_like(outside));
    }
    let now = node.observe();
    let dave = now.mentioning("/dave/");
    assert!(dave.is_empty(), "{flush:?}: {dave:#?}");
    node.plugin().del(&node.network, &Call::of(&carol.pod));
    node.plugin().del(&node.network, &Call::named("dave", None));
    let after = node.observe();
    assert_eq!(
        super::firewall(&after),
        super::firewall(&before),
        "{flush:?}"
    );
    // A flush before a DEL is no reason to fail.
    forget(&node, flush);
    node.part_with(&[&alice, &bob, &carol]);
}

fn check_notices_a_flushed_firewall(lab: &Lab) {
    let (node, _world) = Node::connected(lab, masqueraded());
    let pod = node.join("pod");
    let check = || {
        node.plugin()
            .check(&node.network, &pod.result, &Call::of(&pod.pod))
    };
    check().succeeded();
    node.sh("nft flush ruleset");
    let error = check().error();
    assert_eq!(error["code"], 103, "{error}");
    node.part_with(&[&pod]);
}

fn the_iptables_backend_does_the_same(lab: &Lab) {
    let network = with(masqueraded(), json!({"ipMasqBackend": "iptables"}));
    let (node, world) = Node::connected(lab, network);
    let (a, b) = (node.join("alice"), node.join("bob"));
    let saved = node.sh("iptables-save -t nat");
    assert!(saved.contains("MASQUERADE"), "{saved}");
    for (outside, uplink) in beyond_the_uplink() {
        assert_seen(&a, &world, outside, uplink);
        assert_seen(&b, &world, outside, uplink);
        assert_seen(&a, &b, b.ip_like(outside), a.ip_like(outside));
    }
    let check = |pod: &Member| {
        node.plugin()
            .check(&node.network, &pod.result, &Call::of(&pod.pod))
    };
    check(&a).succeeded();
    if lab.subject == Subject::Trestle {
        node.sh("iptables -t nat -F POSTROUTING");
        check(&a).error();
    }
    node.part_with(&[&a, &b]);
}

fn del_finds_what_either_backend_made_by_its_owner_alone(lab: &Lab) {
    for backend in BACKENDS {
        let network = with(masqueraded(), json!({"ipMasqBackend": backend}));
        let (node, _world) = Node::connected(lab, network);
        let pods = ["alice", "bob", "carol"].map(|name| node.join(name));
        // The configuration has changed since, and neither namespace nor result are known.
        let changes = [
            json!({"ipMasq": false}),
            json!({"ipMasqBackend": BACKENDS[0]}),
            json!({"ipMasqBackend": BACKENDS[1]}),
        ];
        for (pod, change) in pods.iter().zip(changes) {
            let network = with(node.network.clone(), change);
            node.plugin().del(&network, &Call::named(&pod.name, None));
        }
        node.assert_nothing_left(&pods.each_ref());
    }
}

fn a_network_may_change_its_backend(lab: &Lab) {
    for [old, new] in [["nftables", "iptables"], ["iptables", "nftables"]] {
        let network = with(masqueraded(), json!({"ipMasqBackend": old}));
        let (mut node, world) = Node::connected(lab, network);
        let alice = node.join("alice");
        node.network["ipMasqBackend"] = json!(new);
        let bob = node.join("bob");
        for (outside, uplink) in beyond_the_uplink() {
            assert_seen(&alice, &world, outside, uplink);
            assert_seen(&bob, &world, outside, uplink);
        }
        node.part_with(&[&alice, &bob]);
    }
}

fn ip_masq_is_a_boolean(lab: &Lab) {
    for value in [json!("yes"), json!(1), json!(["true"]), json!({})] {
        let node = Node::new(lab, with(pod_network(), json!({"ipMasq": value})));
        let pod = node.pod("pod");
        let before = node.observe();
        let error = node.plugin().add_error(&node.network, &Call::of(&pod));
        if lab.subject == Subject::Trestle {
            assert_eq!(error["code"], 7, "{error}");
            let said = error.to_string();
            assert!(said.contains("ipMasq"), "{error}");
        }
        node.host.assert_nothing_left(&before, &["pod"]);
    }
}

fn without_nft_the_error_names_the_package(lab: &Lab) {
    let (node, world) = Node::connected(lab, masqueraded());
    let pod = node.pod("pod");
    let before = node.observe();
    let programs = node.enter(|| {
        ["/usr/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"]
            .iter()
            .filter(|path| std::path::Path::new(path).exists())
            .copied()
            .collect::<Vec<_>>()
    });
    for program in &programs {
        node.sh(&format!("mount --bind /dev/null {program}"));
    }
    let error = node.plugin().add_error(&node.network, &Call::of(&pod));
    assert_eq!(error["code"], 105, "{error}");
    let said = error.to_string();
    assert!(
        said.contains("nft") && said.contains("nftables"),
        "the package: {error}"
    );
    let newest = with(node.network.clone(), json!({"cniVersion": "1.1.0"}));
    let status = node.plugin().call("STATUS", &newest, &Call::default());
    assert_eq!(status.error()["code"], 50, "{status}");
    for program in &programs {
        node.sh(&format!("umount {program}"));
    }
    node.host.assert_nothing_left(&before, &["pod"]);
    // With it, the same ADD works.
    let result = node.plugin().add(&node.network, &Call::of(&pod));
    let (outside, uplink): (IpAddr, IpAddr) = beyond_the_uplink()[0];
    assert_seen(&pod, &world, outside, uplink);
    // DEL needs no program.
    for program in &programs {
        node.sh(&format!("mount --bind /dev/null {program}"));
    }
    // Nor does the next ADD, which finds the rules there.
    let status = node.plugin().call("STATUS", &newest, &Call::default());
    assert!(status.succeeded().stderr.contains("nft"), "a warning");
    let network = with_prev_result(&node.network, &result);
    node.plugin().del(&network, &Call::of(&pod));
    for program in &programs {
        node.sh(&format!("umount {program}"));
    }
    node.host.assert_nothing_left(&before, &["pod"]);
}

fn gc_takes_the_masquerading_of_lost_pods_away(lab: &Lab) {
    for backend in BACKENDS {
        let network = with(masqueraded(), json!({"ipMasqBackend": backend}));
        let (node, world) = Node::connected(lab, network);
        let (kept, lost) = (node.join("kept"), node.join("lost"));
        let valid = json!([{"containerID": "kept", "ifname": "eth0"}]);
        let network = with(
            node.network.clone(),
            json!({"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}),
        );
        node.plugin()
            .call("GC", &network, &Call::default())
            .succeeded();
        let now = node.observe();
        assert!(
            now.mentioning("lost").is_empty(),
            "{:?}",
            now.mentioning("lost")
        );
        for (outside, uplink) in beyond_the_uplink() {
            assert_seen(&kept, &world, outside, uplink);
        }
        node.part_with(&[&kept, &lost]);
    }
}
