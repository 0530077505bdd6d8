//! An API server that is away, slow, confused or deceived, and hosts on which others change routes.

use conformance::{Case, Lab, case};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::api::Mood;
use crate::world::{Agent, Node, World, object, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(routes_stay_while_the_api_server_is_away),
        case!(an_agent_that_starts_while_it_is_away_keeps_what_is_there),
        case!(a_listing_that_breaks_off_removes_nothing),
        case!(after_410_the_listing_is_made_anew),
        case!(a_node_that_the_api_server_does_not_know_changes_nothing),
        case!(what_nodes_stop_to_say_takes_no_route_away),
        case!(lies_get_an_event_and_no_route),
        case!(somebody_elses_routes_are_left_alone),
        case!(removed_routes_come_back),
        case!(routes_off_leaves_them_to_others),
    ]
}

fn errors(node: &Node) -> f64 {
    node.metric("trestle_node_watch_errors_total")
}

/// Three nodes, of which the first has an agent.
fn three(lab: &Lab) -> (World, Vec<Node>) {
    let world = World::new();
    let nodes = vec![world.node(1), world.node(2), world.node(3)];
    nodes[0].run(lab, &[]).end(Signal::SIGTERM);
    (world, nodes)
}

fn routes_stay_while_the_api_server_is_away(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    let agent = one.run(lab, &[]);
    for mood in [Mood::Away, Mood::Failing] {
        let before = errors(one);
        world.api.behave(mood);
        world.api.delete("node-3");
        until(
            "the agent notices",
            || errors(one) >= before + 2.0,
            || one.log(),
        );
        assert_eq!(one.routes(), Node::routes_to(&[2, 3]), "{mood:?}");
        // It works, and says so.
        assert_eq!(one.get("/readyz").0, 200);
        assert_eq!(one.get("/healthz").0, 200);
        world.api.behave(Mood::Well);
        one.until_routes_to(&[2]);
        world.api.put(nodes[2].object());
        one.until_routes_to(&[2, 3]);
    }
    assert_eq!(agent.end(Signal::SIGTERM).code(), Some(0));
}

fn an_agent_that_starts_while_it_is_away_keeps_what_is_there(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    for mood in [Mood::Away, Mood::Silent, Mood::Failing] {
        world.api.behave(mood);
        let agent = one.start(lab, &[]);
        agent.until_not_ready("has not listed the nodes yet");
        let pages = world.api.seen().pages;
        let tried = || mood == Mood::Silent || errors(one) > 1.5;
        until("it is tried again", tried, || one.log());
        assert_eq!(
            (
                world.api.seen().pages,
                one.metric("trestle_node_watching") > 0.5
            ),
            (pages, false),
            "{mood:?}"
        );
        assert!(!one.log().contains("answers again"), "{}", one.log());
        // A route that goes is not even put back, because nobody knows whether it should be there.
        assert_eq!(one.routes(), Node::routes_to(&[2, 3]), "{mood:?}");
        assert!(one.list().is_some());
        world.api.behave(Mood::Well);
        agent.until_ready();
        assert_eq!(one.routes(), Node::routes_to(&[2, 3]), "{mood:?}");
        assert_eq!(agent.end(Signal::SIGTERM).code(), Some(0));
        one.host.sh("rm /run/agent.log");
    }
}

fn a_listing_that_breaks_off_removes_nothing(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    world.api.behave(Mood::Breaking);
    let agent = one.start(lab, &[]);
    until(
        "listings are tried",
        || world.api.seen().pages > 4,
        || one.log(),
    );
    assert_eq!(one.routes(), Node::routes_to(&[2, 3]));
    world.api.behave(Mood::Well);
    agent.until_ready();
    // The same to an agent that knew all of them.
    let pages = world.api.seen().pages;
    world.api.behave(Mood::Breaking);
    world.api.compact();
    until(
        "the listing is tried again",
        || world.api.seen().pages > pages + 4,
        || one.log(),
    );
    assert_eq!(one.routes(), Node::routes_to(&[2, 3]));
    world.api.delete("node-2");
    world.api.behave(Mood::Well);
    one.until_routes_to(&[3]);
}

fn after_410_the_listing_is_made_anew(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    let _agent = one.run(lab, &[]);
    let before = world.api.seen();
    // What happens meanwhile is in no watch any more.
    world.api.behave(Mood::Away);
    world.api.delete("node-2");
    world.api.compact();
    world.api.behave(Mood::Well);
    one.until_routes_to(&[3]);
    let seen = world.api.seen();
    assert!(
        seen.gone > before.gone && seen.lists > before.lists,
        "{seen:?}"
    );
    // A watch that only ends goes on where it was, without a listing.
    world.api.behave(Mood::Well);
    world.api.put(nodes[1].object());
    one.until_routes_to(&[2, 3]);
    assert_eq!(world.api.seen().lists, seen.lists);
}

fn a_node_that_the_api_server_does_not_know_changes_nothing(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    world.api.delete("node-1");
    world.api.delete("node-2");
    let agent = one.start(lab, &[]);
    agent.until_not_ready("lists no node node-1");
    assert_eq!(one.routes(), Node::routes_to(&[2, 3]));
    assert!(one.list().is_some());
    world.api.put(one.object());
    agent.until_ready();
    one.until_routes_to(&[3]);
}

fn what_nodes_stop_to_say_takes_no_route_away(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    let mut silent = nodes[1].object();
    silent["spec"] = json!({});
    world.api.put(silent);
    let mut homeless = nodes[2].object();
    homeless["status"]["addresses"] = json!([]);
    world.api.put(homeless);
    // To an agent that has seen them speak as to one that has not.
    let agent = one.run(lab, &[]);
    assert_eq!(one.routes(), Node::routes_to(&[2, 3]));
    world.api.put(nodes[1].object());
    let mut silent = nodes[1].object();
    silent["spec"]["podCIDRs"] = json!([]);
    silent["spec"]["podCIDR"] = json!("");
    world.api.put(silent);
    let waiting = || one.metric("trestle_node_nodes_without_subnet") > 0.5;
    until("the agent knows", waiting, || one.log());
    assert_eq!(one.routes(), Node::routes_to(&[2, 3]));
    // Another one is given the subnet: then it is that one's.
    let heir = object("heir", 9, &["10.244.2.0/24"], &["192.168.77.99"]);
    world.api.put(heir);
    let expected = "10.244.2.0/24 via 192.168.77.99".to_owned();
    until(
        "the heir has it",
        || one.routes().contains(&expected),
        || format!("{:?}", one.routes()),
    );
    drop(agent);
}

fn lies_get_an_event_and_no_route(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    for (number, subnet, address) in [
        (20, "0.0.0.0/0", "192.168.77.20"),
        (21, "192.168.77.0/24", "192.168.77.21"),
        (22, "192.168.77.3/32", "192.168.77.22"),
        // What node 2 has, and a part of what node 3 has.
        (23, "10.244.2.0/24", "192.168.77.23"),
        (24, "10.244.3.128/25", "192.168.77.24"),
        (25, "10.244.1.0/24", "192.168.77.25"),
        (26, "203.0.113.0/24", "192.168.77.26"),
        (27, "not a subnet", "192.168.77.27"),
        (28, "10.244.28.0/24", "192.168.77.1"),
        (29, "10.244.29.0/24", "10.244.1.9"),
        (30, "10.244.30.0/24", "172.16.0.1"),
        (31, "::/0", "fd77::31"),
        (32, "fd77::/64", "fd77::32"),
    ] {
        world.api.put(object(
            &format!("liar-{number}"),
            number,
            &[subnet],
            &[address],
        ));
    }
    world.api.put(object("mute", 40, &["10.244.40.0/24"], &[]));
    let _agent = one.run(lab, &[]);
    one.until_routes_to(&[2, 3]);
    let told = |reason: &str| {
        world
            .api
            .seen()
            .events
            .iter()
            .any(|it| it["reason"] == reason)
    };
    for reason in [
        "NextHopNotOnLink",
        "NodeWithoutInternalIP",
        "PodSubnetTaken",
        "PodSubnetRefused",
    ] {
        until(
            reason,
            || told(reason),
            || format!("{:?}\n{}", world.api.seen().events, one.log()),
        );
    }
    for event in world.api.seen().events {
        assert_eq!(event["regarding"]["name"], "node-1");
        assert_eq!(event["regarding"]["uid"], "uid-of-node-1");
        assert_eq!(event["type"], "Warning");
        let note = event["note"].as_str().unwrap();
        assert!(note.contains(" of node "), "{note}");
        if event["reason"] == "NextHopNotOnLink" {
            assert!(
                note.contains("172.16.0.1") && note.contains("routes off"),
                "{note}"
            );
        }
    }
    let refused = |reason: &str| {
        one.metric(&format!(
            "trestle_node_routes_refused{{reason=\"{reason}\"}}"
        ))
    };
    let counts = [
        "invalid_subnet",
        "host_network",
        "subnet_taken",
        "invalid_next_hop",
        "not_on_link",
        "no_internal_ip",
    ];
    let counts = counts.map(|reason| format!("{reason} {}", refused(reason)));
    // Those that are outside of the cluster's prefixes are refused for that already.
    assert_eq!(
        counts,
        [
            "invalid_subnet 7",
            "host_network 0",
            "subnet_taken 3",
            "invalid_next_hop 2",
            "not_on_link 1",
            "no_internal_ip 1"
        ]
    );
    // Nor would any of them get further where the cluster's prefixes are not told.
    drop(_agent);
    one.host.write(
        "/run/template",
        r#"{"cniVersion": "1.0.0", "name": "podnet", "plugins": [{"type": "bridge"}]}"#,
    );
    let _agent = one.run(
        lab,
        &[
            "--cluster-cidrs",
            "0.0.0.0/0,::/0",
            "--template",
            "/run/template",
        ],
    );
    let mut routes = Node::routes_to(&[2, 3]);
    routes.push("203.0.113.0/24 via 192.168.77.26".into());
    routes.sort();
    one.until_routes(&routes);
}

fn somebody_elses_routes_are_left_alone(lab: &Lab) {
    let (world, nodes) = three(lab);
    let one = &nodes[0];
    one.host.ip("route del 10.244.2.0/24");
    one.host
        .ip("route add 10.244.2.0/24 via 192.168.77.200 proto bird");
    one.host.ip("route add 10.99.0.0/16 via 192.168.77.2");
    one.host
        .ip("route add 10.98.0.0/16 via 192.168.77.2 proto static");
    // And of the agent's number, one that no node stands for, in each family.
    one.host
        .ip("route add 10.97.0.0/16 via 192.168.77.2 proto 116");
    one.host
        .ip("-6 route add fd00:97::/64 via fd77::2 proto 116");
    let _agent = one.run(lab, &[]);
    let mut expected = Node::routes_to(&[2, 3]);
    expected.retain(|it| !it.starts_with("10.244.2.0"));
    one.until_routes(&expected);
    let all = one.host.sh("ip route");
    for route in [
        "10.244.2.0/24 via 192.168.77.200",
        "10.99.0.0/16 via",
        "10.98.0.0/16 via",
    ] {
        assert!(all.contains(route), "{all}");
    }
    let told = || {
        world
            .api
            .seen()
            .events
            .iter()
            .any(|it| it["reason"] == "RouteExists")
    };
    until("the operator is told", told, || one.log());
    // Once it is gone the agent's own takes its place.
    one.host.ip("route del 10.244.2.0/24 via 192.168.77.200");
    one.until_routes_to(&[2, 3]);
}

fn removed_routes_come_back(lab: &Lab) {
    let (_world, nodes) = three(lab);
    let one = &nodes[0];
    let _agent: Agent<'_> = one.run(lab, &[]);
    one.host.ip("route flush proto 116");
    one.host.ip("-6 route flush proto 116");
    one.until_routes_to(&[2, 3]);
    // The kernel takes those of a link that goes down, and of IPv4 it does not even tell.
    one.host.ip("link set eth0 down");
    until(
        "routes go",
        || one.routes().is_empty(),
        || format!("{:?}", one.routes()),
    );
    one.host.ip("link set eth0 up");
    one.host.ip("addr replace fd77::1/64 dev eth0 nodad");
    one.until_routes_to(&[2, 3]);
    // A router that somebody changed.
    one.host
        .ip("route replace 10.244.2.0/24 via 192.168.77.3 proto 116");
    one.until_routes_to(&[2, 3]);
}

fn routes_off_leaves_them_to_others(lab: &Lab) {
    let (_world, nodes) = three(lab);
    let one = &nodes[0];
    one.host
        .ip("route add 10.99.0.0/16 via 192.168.77.2 proto static");
    let _agent = one.run(lab, &["--routes", "off"]);
    one.until_routes(&[]);
    assert!(one.host.sh("ip route").contains("10.99.0.0/16"));
    assert!(one.list().is_some());
}
