//! Thousands of nodes: how much is done and held for them.

use std::fs;
use std::time::Instant;

use conformance::{Case, Lab, case};
use serde_json::{Value, json};

use crate::world::{Node, World, until};

/// So many nodes are in the cluster.
const NODES: u32 = 5_000;

/// What the agent may hold at its highest, in kB.
const MEMORY: u64 = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(thousands_of_nodes_cost_one_change_each)]
}

/// A Node as large as they are: images, conditions and what field managers write down.
fn large(number: u32) -> Value {
    let images: Vec<Value> = (0..40)
        .map(|image| json!({"names": [format!("registry.example.org/some/image-{image}@sha256:{}", "0".repeat(64))], "sizeBytes": 1}))
        .collect();
    let address = format!("172.16.{}.{}", number / 250, number % 250 + 1);
    let subnet = format!("10.{}.{}.0/24", 128 + number / 256, number % 256);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("big-{number}"), "uid": format!("{number}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": "x".repeat(2000)}}]},
        "spec": {"podCIDR": subnet, "podCIDRs": [subnet]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "x"}],
            "images": images},
    })
}

#[expect(
    clippy::print_stdout,
    reason = "what was measured is for a person to read"
)]
fn thousands_of_nodes_cost_one_change_each(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    one.host.ip("addr add 172.16.255.1/16 dev eth0");
    for number in 0..NODES {
        world.api.put(large(number));
    }
    let begun = Instant::now();
    let agent = one.start(
        lab,
        &[
            "--cluster-cidrs",
            "10.128.0.0/9,10.244.0.0/16,fd00:244::/48",
            "--repair",
            "off",
        ],
    );
    let routes = || one.metric("trestle_node_routes{family=\"ipv4\"}");
    agent.until_ready();
    let took = begun.elapsed();
    assert!(
        (routes() - f64::from(NODES)).abs() < 0.5,
        "{}\n{}",
        routes(),
        one.log()
    );
    assert_eq!(
        one.host.sh("ip -o route show proto 116").lines().count(),
        5_000
    );
    // One that moves is one change; the others are not touched.
    let change = |what: &str| {
        one.metric(&format!(
            "trestle_node_route_changes_total{{change=\"{what}\"}}"
        ))
    };
    let mut moved = large(7);
    moved["status"]["addresses"][0]["address"] = json!("172.16.254.254");
    world.api.put(moved);
    until(
        "the route follows",
        || change("replaced") > 0.5,
        || one.log(),
    );
    assert_eq!(
        (change("added"), change("replaced"), change("removed")),
        (f64::from(NODES), 1.0, 0.0)
    );
    let peak = peak(&agent, &one);
    println!(
        "{NODES} nodes: ready after {} ms, at most {peak} kB of memory",
        took.as_millis()
    );
    assert!(peak < MEMORY, "{peak} kB");
}

/// The most memory that it has held, in kB.
fn peak(agent: &crate::world::Agent<'_>, _: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
