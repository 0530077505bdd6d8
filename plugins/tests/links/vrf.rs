//! vrf, behind macvlan.

use cni_conf::error::Code;
use cni_conf::result::CniResult;
use plugins::host::rtnl::{Kind, NewLink, TABLE_MAIN};
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests, UPLINK, addresses};

const VRF: Kind = Kind::Vrf { table: 10 };

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        Needs::Kind(VRF),
        &[
            ("vrf_keeps_addresses_and_routes", joins),
            ("vrf_goes_with_its_last_member", last_member),
            ("vrf_table_is_one_that_nobody_uses", free_table),
            ("vrf_conflicts_are_explained", conflicts),
            ("vrf_del_is_total", del_is_total),
            ("vrf_check_notices_what_is_missing", check),
        ],
    );
    tests.add(
        Needs::NoKind(VRF),
        &[("vrf_that_the_kernel_lacks_is_explained", lacking)],
    );
}

fn conf() -> Value {
    json!({"vrfname": "blue"})
}

fn attached(node: &Node, name: &str) -> (Pod, CniResult) {
    let pod = Pod::new(name);
    let conf = json!({"master": UPLINK, "ipam": node.ipam()});
    let result = node.add("macvlan", &conf, &pod).unwrap();
    (pod, result)
}

fn put(node: &Node, conf: &Value, pod: &Pod, result: &CniResult) {
    let passed = node
        .add_behind("vrf", conf, &pod.attachment(), Some(result))
        .unwrap();
    assert_eq!(passed, *result);
}

fn joins(node: &Node) {
    let (pod, result) = attached(node, "a");
    put(node, &conf(), &pod, &result);
    let domain = pod.link("blue").unwrap();
    assert!(domain.up && pod.eth0().up);
    assert_eq!(pod.eth0().master, Some(domain.index));
    let kind = pod.rtnl.kind_of(domain.index).unwrap();
    assert_eq!(kind, Some(Kind::Vrf { table: 1 }));
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24", "fd07::2/64"]);
    assert_eq!(
        pod.routes(1),
        [
            "0.0.0.0/0 via 10.7.0.1",
            "10.7.0.0/24",
            "::/0 via fd07::1",
            "fd07::/64"
        ]
    );
    assert!(pod.routes(TABLE_MAIN).is_empty());
    node.check("vrf", &conf(), &pod, &result).unwrap();
    let below = json!({"master": UPLINK, "ipam": node.ipam()});
    node.check("macvlan", &below, &pod, &result).unwrap();
    node.status("vrf", &conf()).unwrap();
    assert!(node.rtnl.link_by_name("trestle-probe").unwrap().is_none());
}

fn last_member(node: &Node) {
    let (pod, result) = attached(node, "a");
    put(node, &conf(), &pod, &result);
    let net1 = pod.attachment_as("net1", "");
    let below = json!({"master": UPLINK});
    let mut second = node.add_behind("macvlan", &below, &net1, None).unwrap();
    second.ips.clear();
    node.add_behind("vrf", &conf(), &net1, Some(&second))
        .unwrap();
    node.del_of("vrf", &conf(), &net1).unwrap();
    assert_eq!(pod.link("net1").unwrap().master, None);
    assert!(pod.link("blue").is_some(), "eth0 is in it");
    node.del("vrf", &conf(), &pod).unwrap();
    assert_eq!(pod.links(), ["eth0", "net1"]);
}

fn free_table(node: &Node) {
    let (pod, result) = attached(node, "a");
    pod.rtnl.add_rule("10.7.0.9".parse().unwrap(), 1).unwrap();
    let other = NewLink::new("red", Kind::Vrf { table: 2 });
    pod.rtnl.create_link(&other).unwrap();
    put(node, &conf(), &pod, &result);
    let domain = pod.link("blue").unwrap();
    assert_eq!(
        pod.rtnl.kind_of(domain.index).unwrap(),
        Some(Kind::Vrf { table: 3 })
    );
}

fn conflicts(node: &Node) {
    let (pod, result) = attached(node, "a");
    let attachment = pod.attachment();
    let error_of = |conf: &Value| {
        node.add_behind("vrf", conf, &attachment, Some(&result))
            .unwrap_err()
    };
    let error = error_of(&json!({"vrfname": "eth0"}));
    assert!(error.msg.contains("no routing domain"), "{error}");
    let other = NewLink::new("red", Kind::Vrf { table: 77 });
    pod.rtnl.create_link(&other).unwrap();
    let error = error_of(&json!({"vrfname": "red", "table": 78}));
    assert!(error.msg.contains("77"), "{error}");
    put(node, &json!({"vrfname": "blue", "table": 9}), &pod, &result);
    let error = error_of(&conf());
    assert_eq!(error.code, Code::Conflict);
    assert!(error.msg.contains("blue"), "{error}");
    assert_eq!(addresses(&result).len(), pod.addresses("eth0").len());
}

fn del_is_total(node: &Node) {
    let (pod, result) = attached(node, "a");
    put(node, &conf(), &pod, &result);
    node.del_without_netns("vrf", &conf(), &pod).unwrap();
    pod.rtnl.delete_link(pod.eth0().index).unwrap();
    node.del("vrf", &conf(), &pod).unwrap();
    assert!(pod.links().is_empty());
    node.del("vrf", &conf(), &pod).unwrap();
    node.gc("vrf", &conf(), &[]).unwrap();
}

fn check(node: &Node) {
    let (pod, result) = attached(node, "a");
    let failed = |conf: &Value, expected: &str| {
        let error = node.check("vrf", conf, &pod, &result).unwrap_err();
        assert_eq!(error.code, Code::CheckFailed, "{error}");
        assert!(error.msg.contains(expected), "{error}");
    };
    failed(&conf(), "missing");
    put(node, &conf(), &pod, &result);
    failed(&json!({"vrfname": "blue", "table": 9}), "table 1");
    let free = plugins::host::rtnl::LinkChange {
        master: Some(0),
        ..Default::default()
    };
    pod.rtnl.set_link(pod.eth0().index, &free).unwrap();
    failed(&conf(), "not in");
}

fn lacking(node: &Node) {
    let (pod, result) = attached(node, "a");
    let before = pod.routes(TABLE_MAIN);
    let error = node
        .add_behind("vrf", &conf(), &pod.attachment(), Some(&result))
        .unwrap_err();
    assert_eq!(error.code, Code::KernelFeature);
    assert!(error.details.contains("modprobe vrf"), "{error}");
    assert_eq!(pod.routes(TABLE_MAIN), before);
    let error = node.status("vrf", &conf()).unwrap_err();
    assert_eq!(error.code, Code::NotAvailable);
    node.del("vrf", &conf(), &pod).unwrap();
}
