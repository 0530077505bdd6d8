//! sbr, behind macvlan on two cables.

use cni_conf::error::Code;
use cni_conf::result::CniResult;
use plugins::host::rtnl::{Kind, LinkChange, MacvlanMode, NewVeth, TABLE_MAIN, VethEnd};
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests, UPLINK, addresses, with};

const MACVLAN: Kind = Kind::Macvlan {
    mode: MacvlanMode::Bridge,
    bc_queue_len: None,
};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        Needs::Kind(MACVLAN),
        &[
            (
                "sbr_answers_leave_by_the_interface_they_came_for",
                two_networks,
            ),
            ("sbr_gives_each_address_a_table", tables),
            ("sbr_del_is_total", del_is_total),
            ("sbr_table_of_somebody_else_gets_rules_alone", table),
            ("sbr_takes_gateways_of_its_own", gateways),
            ("sbr_leaves_subnets_with_source_hints", hints),
            ("sbr_check_notices_what_is_missing", check),
            ("sbr_add_that_fails_puts_routes_back", failed_add),
            ("sbr_needs_a_plugin_before_it", alone),
        ],
    );
}

fn first(node: &Node) -> Value {
    json!({"master": UPLINK, "ipam": node.ipam()})
}

fn attached(node: &Node, name: &str) -> (Pod, CniResult) {
    let pod = Pod::new(name);
    let result = node.add("macvlan", &first(node), &pod).unwrap();
    (pod, result)
}

fn rules(pod: &Pod) -> Vec<String> {
    let rules = pod.rtnl.rules().unwrap().into_iter();
    rules
        .filter_map(|rule| Some(format!("{} lookup {}", rule.from?.addr(), rule.table)))
        .collect()
}

/// The machine outside knows 192.0.2.0/24 by the second cable alone, and has an address that both networks lead to.
fn two_networks(node: &Node) {
    let end = |name| VethEnd {
        name,
        ..VethEnd::default()
    };
    let new = NewVeth {
        host: end("up1"),
        alias: None,
        master: None,
        up: true,
        peer: end("eth1"),
        peer_netns: &node.outside.netns,
    };
    let pair = node.rtnl.create_veth(&new).unwrap();
    let outside = &node.outside.rtnl;
    outside
        .set_link(pair.peer_index, &LinkChange::up())
        .unwrap();
    let address = "192.0.2.1/24".parse().unwrap();
    outside
        .add_address(pair.peer_index, address, Default::default())
        .unwrap();
    let far = "203.0.113.9/32".parse().unwrap();
    outside
        .add_address(pair.peer_index, far, Default::default())
        .unwrap();

    let (pod, _) = attached(node, "a");
    let second = json!({"master": "up1", "ipam": {"type": "host-local", "dataDir": node.path("second"),
        "ranges": [[{"subnet": "192.0.2.0/24"}]]}});
    let net1 = pod.attachment_as("net1", "");
    let result = node.add_behind("macvlan", &second, &net1, None).unwrap();
    let own = addresses(&result)[0];
    node.add_behind("sbr", &json!({}), &net1, Some(&result))
        .unwrap();
    // From the second network's address the far one is reached by its gateway, as the table of that address says.
    let seen = pod.netns.enter(|| {
        let listener = node
            .outside
            .netns
            .enter(|| std::net::TcpListener::bind("203.0.113.9:8080"))
            .unwrap()
            .unwrap();
        let socket = std::net::UdpSocket::bind((own, 0)).unwrap();
        socket.connect("203.0.113.9:9").unwrap();
        let local = socket.local_addr().unwrap().ip();
        drop(listener);
        local
    });
    assert_eq!(seen.unwrap(), own);
    let main = pod.routes(TABLE_MAIN);
    assert!(
        main.contains(&"0.0.0.0/0 via 10.7.0.1".to_owned()),
        "{main:?}"
    );
    assert!(
        !main.iter().any(|route| route.starts_with("192.0.2")),
        "{main:?}"
    );
    assert_eq!(pod.routes(100), ["0.0.0.0/0 via 192.0.2.1", "192.0.2.0/24"]);
    node.check("macvlan", &first(node), &pod, &node_result(&pod, node))
        .unwrap();
}

/// What the first attachment looks like to CHECK.
fn node_result(pod: &Pod, _: &Node) -> CniResult {
    let mac = cni_conf::addr::MacAddr::new(pod.eth0().mac.unwrap());
    let json = json!({"interfaces": [{"name": "eth0", "mac": mac.to_string(), "sandbox": "/x"}],
        "ips": [{"interface": 0, "address": "10.7.0.2/24"}], "routes": [{"dst": "0.0.0.0/0"}]});
    CniResult::from_json(&json, cni_conf::version::SpecVersion::LATEST).unwrap()
}

fn tables(node: &Node) {
    let (pod, result) = attached(node, "a");
    let passed = node
        .add_behind("sbr", &json!({}), &pod.attachment(), Some(&result))
        .unwrap();
    assert_eq!(passed, result);
    assert_eq!(rules(&pod), ["10.7.0.2 lookup 100", "fd07::2 lookup 101"]);
    assert_eq!(pod.routes(100), ["0.0.0.0/0 via 10.7.0.1", "10.7.0.0/24"]);
    assert_eq!(pod.routes(101), ["::/0 via fd07::1", "fd07::/64"]);
    assert!(pod.routes(TABLE_MAIN).is_empty());
    node.check("sbr", &json!({}), &pod, &result).unwrap();
    node.check("macvlan", &first(node), &pod, &result).unwrap();
    // A second attachment takes tables that are free.
    let net1 = pod.attachment_as("net1", "");
    let result = node
        .add_behind("macvlan", &first(node), &net1, None)
        .unwrap();
    node.add_behind("sbr", &json!({}), &net1, Some(&result))
        .unwrap();
    assert!(rules(&pod).contains(&"10.7.0.3 lookup 102".to_owned()));
    node.del_of("sbr", &json!({}), &net1).unwrap();
    assert_eq!(rules(&pod).len(), 2, "those of the other interface stay");
}

fn del_is_total(node: &Node) {
    let (pod, result) = attached(node, "a");
    let attachment = pod.attachment();
    node.add_behind("sbr", &json!({}), &attachment, Some(&result))
        .unwrap();
    node.del_without_netns("sbr", &json!({}), &pod).unwrap();
    node.del("sbr", &json!({}), &pod).unwrap();
    assert!(rules(&pod).is_empty());
    node.del("sbr", &json!({}), &pod).unwrap();

    let (pod, result) = attached(node, "b");
    let attachment = pod.attachment();
    node.add_behind("sbr", &json!({}), &attachment, Some(&result))
        .unwrap();
    pod.rtnl.delete_link(pod.eth0().index).unwrap();
    node.del("sbr", &json!({}), &pod).unwrap();
    assert_eq!(rules(&pod).len(), 2, "nobody says whose they are");
    node.del_behind("sbr", &json!({}), &attachment, Some(&result))
        .unwrap();
    assert!(rules(&pod).is_empty());
    node.gc("sbr", &json!({}), &[]).unwrap();
    node.status("sbr", &json!({})).unwrap();
}

fn table(node: &Node) {
    let (pod, result) = attached(node, "a");
    let before = pod.routes(TABLE_MAIN);
    let conf = json!({"table": 5000});
    let attachment = pod.attachment();
    node.add_behind("sbr", &conf, &attachment, Some(&result))
        .unwrap();
    assert_eq!(rules(&pod), ["10.7.0.2 lookup 5000", "fd07::2 lookup 5000"]);
    assert_eq!(pod.routes(TABLE_MAIN), before);
    node.check("sbr", &conf, &pod, &result).unwrap();
    pod.rtnl
        .add_rule("10.7.0.2".parse().unwrap(), 6000)
        .unwrap();
    node.del("sbr", &conf, &pod).unwrap();
    assert_eq!(rules(&pod), ["10.7.0.2 lookup 6000"], "of another table");
}

fn gateways(node: &Node) {
    let (pod, result) = attached(node, "a");
    let conf = json!({"gateways": ["10.7.0.99", "fd07::99"]});
    node.add_behind("sbr", &conf, &pod.attachment(), Some(&result))
        .unwrap();
    assert_eq!(pod.routes(100), ["0.0.0.0/0 via 10.7.0.99", "10.7.0.0/24"]);
    assert_eq!(pod.routes(101), ["::/0 via fd07::99", "fd07::/64"]);
}

fn hints(node: &Node) {
    let (pod, result) = attached(node, "a");
    let conf = json!({"addSourceHints": true});
    node.add_behind("sbr", &conf, &pod.attachment(), Some(&result))
        .unwrap();
    assert_eq!(pod.routes(TABLE_MAIN), ["10.7.0.0/24", "fd07::/64"]);
    assert_eq!(pod.routes(100), ["0.0.0.0/0 via 10.7.0.1", "10.7.0.0/24"]);
    let outside = "10.7.0.1".parse().unwrap();
    assert_eq!(pod.ask(&node.outside, outside), addresses(&result)[0]);
}

fn check(node: &Node) {
    let (pod, result) = attached(node, "a");
    let conf = json!({});
    let failed = |expected: &str| {
        let error = node.check("sbr", &conf, &pod, &result).unwrap_err();
        assert_eq!(error.code, Code::CheckFailed, "{error}");
        assert!(error.msg.contains(expected), "{error}");
    };
    failed("rule");
    let attachment = pod.attachment();
    node.add_behind("sbr", &conf, &attachment, Some(&result))
        .unwrap();
    node.check("sbr", &conf, &pod, &result).unwrap();
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    pod.rtnl.set_link(pod.eth0().index, &down).unwrap();
    failed("table 100");
    pod.rtnl.delete_link(pod.eth0().index).unwrap();
    failed("missing");
}

fn failed_add(node: &Node) {
    let (pod, result) = attached(node, "a");
    let before = pod.routes(TABLE_MAIN);
    let conf = json!({"gateways": ["192.0.2.1"]});
    let error = node
        .add_behind("sbr", &conf, &pod.attachment(), Some(&result))
        .unwrap_err();
    assert!(error.details.contains("192.0.2.1"), "{error}");
    assert_eq!(pod.routes(TABLE_MAIN), before);
    assert!(rules(&pod).is_empty() && pod.routes(100).is_empty());
}

fn alone(node: &Node) {
    let pod = Pod::new("a");
    let error = node.add("sbr", &json!({}), &pod).unwrap_err();
    assert_eq!(error.code, Code::InvalidConfig);
    let (pod, result) = attached(node, "b");
    let other = pod.attachment_as("net1", "");
    let error = node
        .add_behind("sbr", &json!({}), &other, Some(&result))
        .unwrap_err();
    assert!(error.msg.contains("net1"), "{error}");
    let lone = with(&first(node), json!({"ipam": {}}));
    let layer_2 = Pod::new("c");
    let result = node.add("macvlan", &lone, &layer_2).unwrap();
    let error = node
        .add_behind("sbr", &json!({}), &layer_2.attachment(), Some(&result))
        .unwrap_err();
    assert!(error.details.contains("ipam"), "{error}");
}
