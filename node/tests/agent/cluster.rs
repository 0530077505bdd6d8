//! Several nodes, and their pods.

use conformance::{Case, Lab, Need, Protocol, case};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::world::{Node, World, at, object};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(pods_of_three_nodes_reach_each_other_without_translation).needs(Need::Cnitool),
        case!(a_node_joins_leaves_and_changes_its_address),
        case!(pods_start_and_stop_while_the_agent_is_gone).needs(Need::Cnitool),
    ]
}

fn pods_of_three_nodes_reach_each_other_without_translation(lab: &Lab) {
    let world = World::new();
    let nodes = [1, 2, 3].map(|number| world.node(number));
    let _agents: Vec<_> = nodes.iter().map(|node| node.run(lab, &[])).collect();
    let pods: Vec<_> = nodes
        .iter()
        .map(|node| node.attach(lab, &format!("pod-{}", node.number)))
        .collect();
    for (server, addresses) in &pods {
        for address in addresses {
            let _server = server.serve(Protocol::Tcp, *address, 8080);
            for (client, own) in pods.iter().filter(|(client, _)| client.name != server.name) {
                let seen = client
                    .ask(Protocol::Tcp, at(*address, 8080))
                    .unwrap_or_else(|error| panic!("{} asks {address}: {error}", client.name));
                // As which the server sees the client: untranslated.
                assert!(own.contains(&seen), "{} is seen as {seen}", client.name);
            }
        }
    }
    // Into the world it is the node that asks.
    let outside = world
        .lan
        .serve(Protocol::Tcp, "192.168.77.254".parse().unwrap(), 8081);
    let seen = pods[0]
        .0
        .ask(Protocol::Tcp, at("192.168.77.254".parse().unwrap(), 8081))
        .unwrap();
    assert_eq!(seen.to_string(), "192.168.77.1");
    drop(outside);
    for (node, (pod, _)) in nodes.iter().zip(&pods) {
        node.cnitool(lab).del("podnet", pod);
    }
}

fn a_node_joins_leaves_and_changes_its_address(lab: &Lab) {
    let world = World::new();
    let (one, two) = (world.node(1), world.node(2));
    let _agent = one.run(lab, &[]);
    one.until_routes_to(&[2]);
    let three = world.node(3);
    one.until_routes_to(&[2, 3]);
    // Another address: the route follows, and is never missing (replaced, not removed and added).
    let mut moved = two.object();
    moved["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.168.77.22"},
        {"type": "InternalIP", "address": "fd77::2"}]);
    world.api.put(moved);
    let mut expected = Node::routes_to(&[2, 3]);
    expected[0] = "10.244.2.0/24 via 192.168.77.22".into();
    one.until_routes(&expected);
    assert!(
        (one.metric("trestle_node_route_changes_total{change=\"replaced\"}") - 1.0).abs() < 0.1
    );
    // Another subnet, as of a node that registered anew.
    let anew = object("node-3", 9, &["10.244.30.0/24"], &["192.168.77.3"]);
    world.api.put(anew);
    one.until_routes(&[
        "10.244.2.0/24 via 192.168.77.22".into(),
        "10.244.30.0/24 via 192.168.77.3".into(),
        "fd00:244:0:2::/64 via fd77::2".into(),
    ]);
    world.api.delete(&two.name);
    one.until_routes(&["10.244.30.0/24 via 192.168.77.3".into()]);
    world.api.delete(&three.name);
    one.until_routes(&[]);
}

fn pods_start_and_stop_while_the_agent_is_gone(lab: &Lab) {
    let world = World::new();
    let (one, two) = (world.node(1), world.node(2));
    let agent = one.run(lab, &[]);
    let _other = two.run(lab, &[]);
    let (far, addresses) = two.attach(lab, "far");
    let _server = far.serve(Protocol::Tcp, addresses[0], 8080);
    let status = agent.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{}", one.log());
    assert_eq!(one.routes(), Node::routes_to(&[2]));
    let (pod, own) = one.attach(lab, "near");
    let seen = pod.ask(Protocol::Tcp, at(addresses[0], 8080)).unwrap();
    assert_eq!(seen, own[0]);
    one.cnitool(lab).del("podnet", &pod);
    // What has changed meanwhile is made good at the next start: a node that is gone, too.
    world.api.delete(&two.name);
    let _agent = one.run(lab, &[]);
    one.until_routes(&[]);
}
