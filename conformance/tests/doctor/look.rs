//! The log of calls, metrics and the map.

use conformance::{Call, Case, Lab, case, host_local};
use serde_json::{Value, json};

use super::{Node, bridge, list, with};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(calls_are_written_down_where_the_list_says),
        case!(a_log_that_can_not_be_written_is_no_failure),
        case!(metrics_tell_of_attachments_pools_rules_and_errors),
        case!(the_map_shows_uplinks_bridges_containers_and_ports),
        case!(the_map_is_a_picture_too),
    ]
}

fn lines(node: &Node<'_>, path: &str) -> Vec<Value> {
    let text = node.read(path).unwrap_or_default();
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

fn calls_are_written_down_where_the_list_says(lab: &Lab) {
    let logged = with(bridge(), json!({"logFile": "/run/calls.log"}));
    let node = Node::new(lab, &list(json!([logged])));
    let traced = node.cnitool().env(
        "TRACEPARENT",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let pod = node.pod("one");
    traced.add("net", &pod);
    node.cnitool().del("net", &pod);
    let calls = lines(&node, "/run/calls.log");
    let verbs: Vec<_> = calls.iter().filter_map(|it| it["verb"].as_str()).collect();
    assert_eq!(verbs, ["ADD", "DEL"], "{calls:#?}");
    let add = &calls[0];
    assert_eq!(
        (
            &add["plugin"],
            &add["network"],
            &add["ifname"],
            &add["outcome"],
            &add["traceId"]
        ),
        (
            &json!("bridge"),
            &json!("net"),
            &json!("eth0"),
            &json!("ok"),
            &json!("4bf92f3577b34da6a3ce929d0e0e4736")
        )
    );
    assert!(add["ms"].is_u64() && add["error"].is_null(), "{add:#}");
    // A failure, which doctor shows.
    let full = with(
        logged_pool("10.1.0.0/30"),
        json!({"logFile": "/run/calls.log", "logLevel": "error"}),
    );
    node.configure("10-net.conflist", &list(json!([full])).to_string());
    let _first = node.join("two");
    assert!(
        !node
            .cnitool()
            .call("add", "net", &node.pod("three").netns())
            .ok()
    );
    let calls = lines(&node, "/run/calls.log");
    assert_eq!(
        calls.len(),
        3,
        "what went well is not written down: {calls:#?}"
    );
    assert_eq!(
        (&calls[2]["outcome"], &calls[2]["code"]),
        (&json!("error"), &json!(101))
    );
    let report = node.findings();
    assert_eq!(report["lastFailure"]["verb"], "ADD", "{report:#}");
    let said = node.trestle("doctor", &[]).text();
    assert!(
        said.contains("last  20") && said.contains("ADD of bridge"),
        "{said}"
    );
}

fn logged_pool(subnet: &str) -> Value {
    with(
        bridge(),
        json!({"bridge": "cni1", "ipam": host_local(&[subnet])}),
    )
}

fn a_log_that_can_not_be_written_is_no_failure(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.sh("mkfifo /run/fifo");
    node.sh("ln -s /run/elsewhere /run/link");
    for (index, file) in [
        "/run/missing/log",
        "/run/fifo",
        "/run/link",
        "/proc/version",
        "relative",
    ]
    .iter()
    .enumerate()
    {
        let network = with(
            bridge(),
            json!({"name": "net", "cniVersion": "1.0.0", "logFile": file, "logLevel": "nonsense"}),
        );
        let pod = node.pod(&format!("pod{index}"));
        lab.plugin(&node, "bridge").add(&network, &Call::of(&pod));
        lab.plugin(&node, "bridge").del(&network, &Call::of(&pod));
    }
    assert!(
        node.read("/run/elsewhere").is_none(),
        "links are not followed"
    );
}

fn metrics_tell_of_attachments_pools_rules_and_errors(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _members = [node.join("one"), node.join("two")];
    let said = node.trestle("metrics", &[]).succeeded().text();
    for line in [
        "trestle_attachments{network=\"net\"} 2",
        "trestle_attachments_gone{network=\"net\"} 0",
        "trestle_pool_addresses_free{network=\"net\",ranges=\"10.1.0.1-10.1.0.254\"} 251",
        "trestle_rules{network=\"net\",part=\"masquerade\"} 2",
        "trestle_findings{severity=\"fail\"} 0",
        "trestle_log_errors 0",
        "# TYPE trestle_attachments gauge",
    ] {
        assert!(said.lines().any(|it| it == line), "{line}: {said}");
    }
    // What every line of the format looks like.
    for line in said.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        assert!(
            name.starts_with("trestle_") && value.parse::<f64>().is_ok(),
            "{line}"
        );
    }
}

fn mapped<'l>(lab: &'l Lab) -> (Node<'l>, super::Member) {
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let node = Node::new(lab, &list(json!([bridge(), portmap]))).with_ports(8080);
    let one = node.join("one");
    node.ip("route add 10.1.1.0/24 via 198.51.100.3");
    (node, one)
}

fn the_map_shows_uplinks_bridges_containers_and_ports(lab: &Lab) {
    let (node, one) = mapped(lab);
    let said = node.trestle("map", &[]).succeeded().text();
    for words in [
        "├─ uplink up0  198.51.100.2/24",
        "default via 198.51.100.1",
        "├─ network net  bridge cni0  10.1.0.1/24  mtu 1500  pool 1 of 253  masqueraded",
        "│  ├─ warn masquerade-between-nodes: ",
        "eth0  10.1.0.2",
        &one.end(),
        "8080",
        "└─ containers of other nodes",
        "   └─ 10.1.1.0/24 via 198.51.100.3 dev up0",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

fn the_map_is_a_picture_too(lab: &Lab) {
    let (node, one) = mapped(lab);
    node.trestle("map", &["--svg", "/run/node.svg"]).succeeded();
    let svg = node.read("/run/node.svg").expect("a picture");
    for words in [
        "<svg xmlns",
        "up0",
        "bridge cni0",
        "10.1.0.2",
        &one.end(),
        "masquerade-between-nodes",
        "10.1.1.0/24 via",
    ] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
}
