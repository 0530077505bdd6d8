//! One node: what is installed, written and served.

use std::fs;

use conformance::{Case, Host, Lab, Program, case};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{Node, World, object, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(plugins_are_installed_and_kept_as_they_are_when_current),
        case!(the_list_is_written_from_a_template_and_only_when_it_changes),
        case!(a_template_that_is_broken_leaves_the_list),
        case!(health_and_metrics_are_served),
        case!(the_taint_and_the_condition_go_when_the_node_is_ready),
        case!(others_changes_of_taints_are_kept),
        case!(another_root_is_the_hosts),
        case!(help_says_what_the_page_says),
    ]
}

fn inode(node: &Node, path: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    node.host
        .enter(|| fs::metadata(path))
        .ok()
        .map(|it| it.ino())
}

fn plugins_are_installed_and_kept_as_they_are_when_current(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    let agent = one.run(lab, &[]);
    let plugins = one.host.list("/run/cni-bin");
    assert!(
        ["bridge", "host-local", "portmap", "trestle"]
            .iter()
            .all(|it| plugins.contains(&(*it).to_owned()))
    );
    let before = inode(&one, "/run/cni-bin/bridge");
    agent.end(Signal::SIGTERM);
    // The same again: not a file is touched.
    let agent = one.run(lab, &[]);
    assert_eq!(inode(&one, "/run/cni-bin/bridge"), before);
    agent.end(Signal::SIGTERM);
    // One that somebody replaced comes back.
    one.host.sh("rm /run/cni-bin/bridge");
    one.host.write("/run/cni-bin/bridge", "another");
    let _agent = one.run(lab, &[]);
    assert_eq!(
        inode(&one, "/run/cni-bin/bridge"),
        inode(&one, "/run/cni-bin/trestle")
    );
}

fn the_list_is_written_from_a_template_and_only_when_it_changes(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    one.host.ip("link set eth0 mtu 1450");
    let agent = one.run(lab, &[]);
    let list = one.list().unwrap();
    let bridge = &list["plugins"][0];
    assert_eq!(bridge["mtu"], 1450);
    assert_eq!(
        bridge["ipam"]["ranges"],
        json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:0:1::/64"}]])
    );
    assert_eq!(
        list["plugins"][2]["ingressCIDRs"],
        json!([
            "10.244.0.0/16",
            "fd00:244::/48",
            "192.168.77.0/24",
            "fd77::/64"
        ])
    );
    let path = format!("{}/10-trestle.conflist", Host::NET_D);
    let before = inode(&one, &path);
    // Other nodes, and a start anew, are no reason.
    world.node(2);
    one.until_routes_to(&[2]);
    agent.end(Signal::SIGKILL);
    let agent = one.run(lab, &[]);
    assert_eq!(inode(&one, &path), before);
    // Another template is.
    agent.end(Signal::SIGTERM);
    one.host.write(
        "/run/template",
        r#"{"cniVersion": "1.1.0", "name": "mine", "plugins": [{"type": "ptp",
        "ipam": {"type": "host-local", "ranges": "{{podRanges}}"}}]}"#,
    );
    let _agent = one.run(lab, &["--template", "/run/template"]);
    assert_eq!(one.list().unwrap()["name"], "mine");
    assert_eq!(one.host.list(Host::NET_D), ["10-trestle.conflist"]);
    // A node that says nothing of its subnets any more keeps its list.
    world.api.put(object("node-1", 1, &[], &["192.168.77.1"]));
    until(
        "the list stays",
        || one.get("/readyz").1.contains("no podCIDR"),
        || one.log(),
    );
    assert_eq!(one.list().unwrap()["name"], "mine");
}

fn a_template_that_is_broken_leaves_the_list(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    one.run(lab, &[]).end(Signal::SIGTERM);
    let before = one.list();
    for (template, said) in [
        ("{\"name\":", "read the template"),
        (
            "{\"name\": \"x\", \"cniVersion\": \"1.0.0\", \"plugins\": []}",
            "no list",
        ),
        ("[\"{{somethingElse}}\"]", "{{somethingElse}}"),
    ] {
        one.host.write("/run/template", template);
        let agent = one.start(lab, &["--template", "/run/template"]);
        agent.until_not_ready(said);
        assert_eq!(one.list(), before);
    }
}

fn health_and_metrics_are_served(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    let _others = [2, 3].map(|number| world.node(number));
    world
        .api
        .put(object("far", 9, &["10.244.9.0/24"], &["172.16.0.9"]));
    world.api.put(object("new", 9, &[], &[]));
    let _agent = one.run(lab, &[]);
    assert_eq!(one.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(one.get("/nothing").0, 404);
    let (code, text) = one.get("/metrics");
    assert_eq!(code, 200);
    for line in [
        "trestle_node_nodes 5",
        "trestle_node_nodes_without_subnet 1",
        "trestle_node_routes{family=\"ipv4\"} 2",
        "trestle_node_routes{family=\"ipv6\"} 2",
        "trestle_node_routes_refused{reason=\"not_on_link\"} 1",
        "trestle_node_watching 1",
        "trestle_node_list_writes_total 1",
        "trestle_node_installs_total{outcome=\"ok\"} 1",
        // What the plugins' own command says.
        "trestle_attachments{network=\"podnet\"} 0",
        "trestle_pool_addresses{network=\"podnet\",ranges=\"10.244.1.1-10.244.1.254\"} 253",
    ] {
        assert!(
            text.lines().any(|it| it == line),
            "{line} is not in\n{text}"
        );
    }
    // In each family of metrics the type is told once.
    let types: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let mut once = types.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), types.len());
}

fn the_taint_and_the_condition_go_when_the_node_is_ready(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    let mut tainted = one.object();
    let other = json!({"key": "other", "effect": "NoSchedule"});
    tainted["spec"]["taints"] =
        json!([{"key": "example.org/agent-not-ready", "effect": "NoExecute"}, other]);
    tainted["status"]["conditions"] = json!([{"type": "Ready", "status": "True"},
        {"type": "NetworkUnavailable", "status": "True"}]);
    // Nothing of that happens unasked.
    world.api.put(tainted.clone());
    one.run(lab, &[]).end(Signal::SIGTERM);
    assert_eq!(world.api.seen().patches, []);
    let more = [
        "--remove-taints",
        "example.org/agent-not-ready",
        "--set-network-available",
        "on",
    ];
    // Nor before the node is ready.
    tainted["spec"]["podCIDRs"] = json!([]);
    tainted["spec"]["podCIDR"] = Value::Null;
    world.api.put(tainted.clone());
    let agent = one.start(lab, &more);
    agent.until_not_ready("no podCIDR");
    assert_eq!(world.api.seen().patches, []);
    tainted["spec"]["podCIDRs"] = json!(["10.244.1.0/24"]);
    world.api.put(tainted);
    let is_so = || {
        let node = world.api.node(&one.name).unwrap();
        let available = json!({"type": "NetworkUnavailable", "status": "False"});
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let told = conditions
            .iter()
            .any(|it| it["type"] == available["type"] && it["status"] == available["status"]);
        told && conditions[0]["type"] == "Ready" && node["spec"]["taints"] == json!([other])
    };
    until("the node is said to be ready", is_so, || {
        format!("{:?}\n{}", world.api.node(&one.name), one.log())
    });
}

fn others_changes_of_taints_are_kept(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    let mut tainted = one.object();
    tainted["spec"]["taints"] = json!([taint("mine")]);
    world.api.put(tainted.clone());
    let _agent = one.run(lab, &["--remove-taints", "mine"]);
    let taints = || world.api.node(&one.name).unwrap()["spec"]["taints"].clone();
    until("the taint goes", || taints() == json!([]), || one.log());
    // Every patch says which version it is a change of.
    for (_, patch) in world.api.seen().patches {
        assert!(patch["metadata"]["resourceVersion"].is_string(), "{patch}");
    }
    // It comes back with another one, and goes alone.
    tainted["spec"]["taints"] = json!([taint("others"), taint("mine")]);
    world.api.put(tainted);
    until(
        "the taint goes again",
        || taints() == json!([taint("others")]),
        || one.log(),
    );
}

fn another_root_is_the_hosts(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    one.host.sh("mkdir -p /run/root");
    one.host.sh("mount --rbind / /run/root");
    let _agent = one.run(lab, &["--host-root", "/run/root"]);
    // Seen from both sides.
    assert!(one.host.list("/run/cni-bin").contains(&"bridge".to_owned()));
    assert!(one.list().is_some());
    let gc_ran = || one.metric("trestle_node_gc_total{outcome=\"ok\"}") > 0.5;
    until("gc ran in the host's root", gc_ran, || one.log());
    assert!(
        one.get("/metrics")
            .1
            .contains("trestle_attachments{network=\"podnet\"} 0"),
        "{}",
        one.log()
    );
}

fn help_says_what_the_page_says(_: &Lab) {
    let help = Program::new(crate::world::binary())
        .args(["--help"])
        .run()
        .succeeded()
        .text();
    let page = fs::read_to_string(conformance::workspace().join("docs/node-agent.md")).unwrap();
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--") && !matches!(*word, "--help" | "--version"))
        .map(|word| word.trim_end_matches([',', '.', ';', ':']))
        .collect();
    assert!(flags.len() > 10, "{help}");
    for flag in flags {
        assert!(
            page.contains(&format!("`{flag}`")),
            "{flag} is not on the page"
        );
    }
}
