//! What comes back after somebody flushed the rules, with both backends.

use std::process::Command;

use serde_json::json;

use crate::Case;
use crate::alike::{at_once, both, case};
use crate::scene::{Backend, Call, Over, Scene, ask, ask_without_answer, serve, state_of};
use crate::scratch;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case(
        "after_a_flush_the_next_add_restores_living_containers",
        restored,
    ),
    case(
        "a_container_without_mapped_ports_restores_those_of_others",
        restored_by_any,
    ),
    case("a_port_that_was_forgotten_is_still_its_owners", still_taken),
    case("what_is_written_down_goes_with_the_container", records),
    case("a_storm_with_flushes_leaves_nothing", flushed_storm),
];

/// What makes the host forget all rules.
fn flushes(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Nftables => &["nft flush ruleset", "nft delete table inet trestle"],
        Backend::Iptables => &[
            "nft flush ruleset",
            "iptables -t nat -F; ip6tables -t nat -F; iptables -t raw -F",
            "for t in iptables ip6tables; do $t -t nat -F; $t -t nat -X; done",
        ],
    }
}

fn restored(backend: Backend) {
    for flush in flushes(backend) {
        let scene = Scene::new();
        let dir = scratch::own();
        let call = |container: &str, port| {
            Call::new(backend, container, both(port, 80)).with("dataDir", json!(dir))
        };
        serve(&scene.pod, "pod", "10.1.0.5:80");
        serve(&scene.pod, "pod", "[fd00:1::5]:80");
        serve(&scene.neighbour, "neighbour", "10.1.0.6:80");
        let living = call("living", 8080).on("other").inside(&scene.pod);
        let removed = call("removed", 8081).inside(&scene.pod);
        let dead = call("dead", 8082).inside(&Node::new());
        for call in [&living, &removed, &dead] {
            scene.add(call);
        }
        scene.del(&removed);
        scene.host.sh(flush);
        let lost = ask_without_answer(&scene.outside, Over::Tcp, "192.0.2.1:8080");
        assert_eq!(lost, None, "{flush}");

        let new = call("new", 8083)
            .at(&["10.1.0.6/24", "fd00:1::6/64"])
            .inside(&scene.neighbour);
        scene.add(&new);
        for over in [Over::Tcp, Over::Udp] {
            for (node, to, answer) in [
                (&scene.outside, "192.0.2.1:8080", "pod 192.0.2.2"),
                (&scene.outside, "[2001:db8::1]:8080", "pod 2001:db8::2"),
                (&scene.host, "127.0.0.1:8080", "pod 10.1.0.1"),
                (&scene.pod, "192.0.2.1:8080", "pod 10.1.0.1"),
                (&scene.outside, "192.0.2.1:8083", "neighbour 192.0.2.2"),
            ] {
                let said = ask(node, over, to);
                assert_eq!(said.as_deref(), Some(answer), "{flush}: {over:?} {to}");
            }
        }
        let state = scene.state();
        for gone in ["removed", "dead"] {
            assert!(!state.contains(gone), "{flush}: {state}");
        }
        for call in [&living, &dead, &new] {
            scene.del(call);
        }
        assert_eq!(scene.route_localnet(), "0");
        // Chains that lost their rules and their owner's DEL are all that may be left of those that are gone.
        let state = scene.state();
        let left = state
            .lines()
            .filter(|line| !line.contains("-N TRESTLE-PORT-"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new(), "{flush}");
        assert_eq!(scratch::files(&dir), Vec::<String>::new());
    }
}

fn restored_by_any(backend: Backend) {
    for flush in flushes(backend) {
        let scene = Scene::new();
        let dir = scratch::own();
        serve(&scene.pod, "pod", "10.1.0.5:80");
        let call = |container: &str, mappings| {
            Call::new(backend, container, mappings).with("dataDir", json!(dir))
        };
        let mapped = call("mapped", both(8080, 80)).inside(&scene.pod);
        scene.add(&mapped);
        let before = scene.state();
        let plain = call("plain", json!([]))
            .at(&["10.1.0.6/24"])
            .inside(&scene.neighbour);
        scene.host.sh(flush);
        scene.add(&plain);
        assert_eq!(scene.state(), before, "{flush}");
        assert!(ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").is_some());
        let steady = plain.clone();
        scene.host.run(move || {
            crate::nftables::hide_programs();
            steady.add().expect("nothing to do");
        });
    }
}

fn still_taken(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    let call =
        |container: &str| Call::new(backend, container, both(8080, 80)).with("dataDir", json!(dir));
    let owner = call("owner").inside(&scene.pod);
    scene.add(&owner);
    scene.host.sh("nft flush ruleset");
    let other = call("other").at(&["10.1.0.6/24"]).inside(&scene.neighbour);
    let error = scene.try_add(&other).expect_err("a refusal");
    assert!(
        error.msg.contains("podnet/owner/eth0 has it already"),
        "{error}"
    );
    assert_eq!(scratch::files(&dir), ["portmap:podnet:owner:eth0"]);
    assert!(ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").is_some());
    scene.del(&owner);
    assert_eq!(scene.state(), "");
}

fn records(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let call = |container: &str, port| {
        let call = Call::new(backend, container, both(port, 80)).inside(&scene.pod);
        call.with("dataDir", json!(dir))
    };
    let other = call("a", 8080).on("other");
    for call in [&call("a", 8081), &call("b", 8082), &other] {
        scene.add(call);
    }
    let first = call("a", 8081);
    scene.host.run(move || first.gc(&["b"])).expect("success");
    assert_eq!(
        scratch::files(&dir),
        ["portmap:other:a:eth0", "portmap:podnet:b:eth0"]
    );
    // A file is no condition for a port: what can't be written down is mapped all the same.
    let unwritable = call("c", 8083).with("dataDir", json!("/proc/nowhere"));
    scene.add(&unwritable);
    assert!(scene.state().contains("podnet/c/eth0"));
    let error = scene.try_add(&call("d", 8084).with("dataDir", json!("here")));
    let error = error.expect_err("a refusal");
    assert!(
        error.msg.contains("dataDir") && error.msg.contains("here"),
        "{error}"
    );
    for call in [&call("b", 8082), &unwritable, &other] {
        scene.del(call);
    }
    assert_eq!(scratch::files(&dir), Vec::<String>::new());
    assert_eq!(scene.state(), "");
}

/// Containers come and go while somebody flushes the rules again and again, so that each is restored by others at any
/// moment of its life.
fn flushed_storm(backend: Backend) {
    let node = Node::new();
    let dir = scratch::own();
    // A namespace that is always there: what tells that a container is gone is its DEL.
    let netns = scratch::netns(&node);
    let (shared, flush) = (dir.clone(), "nft flush ruleset");
    let dir: &'static str = dir.leak();
    let netns: &'static str = netns.display().to_string().leak();
    at_once(&node, 7, move |n| {
        if n == 0 {
            for _ in 0..8 {
                let flushed = Command::new("sh").args(["-c", flush]).status();
                assert!(flushed.expect("success").success());
            }
            return;
        }
        let mut call = Call::new(backend, &format!("c{n}"), both(8000 + n, 80))
            .with("dataDir", json!(dir))
            .at(&["10.1.0.5/24"]);
        call.netns = Some(netns.into());
        for _ in 0..6 {
            // It may fail when its rules go in the middle each time, and must leave nothing then either.
            if let Err(error) = call.add() {
                assert_eq!(error.code.number(), 11, "{error}");
            }
            call.del().expect("success");
        }
    });
    assert_eq!(state_of(&node), "");
    assert_eq!(scratch::files(&shared), Vec::<String>::new());
}
