//! tuning.

use std::fs;

use cni_conf::result::CniResult;
use plugins::host::Sysctl;
use plugins::host::rtnl::LinkChange;
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests};

pub(crate) fn add(tests: &mut Tests) {
    for (name, test) in [
        (
            "tuning_changes_the_interface_and_restores_it",
            restores as fn(&Node),
        ),
        ("tuning_sets_sysctls_inside_the_container_only", sysctls),
        ("tuning_add_that_fails_half_way_restores", failed_add),
        ("tuning_twice_in_one_list_restores_the_original", twice),
        ("tuning_restores_what_the_go_plugin_saved", go_plugins_file),
        (
            "tuning_leaves_another_interface_of_the_name_alone",
            stale_file,
        ),
        (
            "tuning_del_without_namespace_removes_the_file",
            without_netns,
        ),
        ("tuning_check_notices_a_change", check),
        ("tuning_without_a_previous_plugin_is_refused", alone),
        ("tuning_passes_the_result_through", passes_through),
    ] {
        tests.add(name, Needs::Nothing, test);
    }
}

/// A pod with an interface that ptp made.
fn attached(node: &Node) -> (Pod, CniResult) {
    let pod = Pod::new("c1");
    let result = node
        .add("ptp", &json!({"ipam": node.ipam()}), &pod, None)
        .unwrap();
    (pod, result)
}

fn conf(node: &Node, mut conf: Value) -> Value {
    conf["dataDir"] = json!(node.path("tuning"));
    conf
}

fn full(node: &Node) -> Value {
    let tuned = json!({
        "mac": "02:00:00:00:00:99", "mtu": 1280, "promisc": true, "allmulti": true, "txQLen": 77,
    });
    conf(node, tuned)
}

fn files(node: &Node) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.path("tuning")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn restores(node: &Node) {
    let (pod, previous) = attached(node);
    let before = pod.eth0();
    let result = node
        .add("tuning", &full(node), &pod, Some(&previous))
        .unwrap();
    let tuned = pod.eth0();
    assert_eq!(tuned.mac, Some([2, 0, 0, 0, 0, 0x99]));
    assert_eq!((tuned.mtu, tuned.tx_queue_len), (1280, 77));
    assert!(tuned.promisc && tuned.allmulti && tuned.up);
    assert_eq!(result.interfaces[1].mac, "02:00:00:00:00:99");
    assert_eq!(result.interfaces[1].mtu, 1280);
    assert_eq!(result.interfaces[0], previous.interfaces[0]);
    assert_eq!(files(node), ["c1_eth0.json"]);
    node.check("tuning", &full(node), &pod, &result).unwrap();

    node.del("tuning", &full(node), &pod).unwrap();
    assert_eq!(pod.eth0(), before);
    assert!(files(node).is_empty());
    node.del("tuning", &full(node), &pod).unwrap();
}

fn sysctls(node: &Node) {
    let (pod, previous) = attached(node);
    let conf = conf(
        node,
        json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.tcp_keepalive_time": "123"}}),
    );
    let outside = Sysctl::parse("net.ipv4.tcp_keepalive_time").unwrap();
    let before = outside.read().unwrap();
    let result = node.add("tuning", &conf, &pod, Some(&previous)).unwrap();
    assert_eq!(result, previous);
    let arp_filter = Sysctl::ipv4_conf("eth0", "arp_filter");
    assert_eq!(pod.netns.enter(|| arp_filter.read()).unwrap().unwrap(), "1");
    assert_eq!(pod.netns.enter(|| outside.read()).unwrap().unwrap(), "123");
    assert_eq!(outside.read().unwrap(), before);
    assert!(files(node).is_empty(), "sysctls are not saved");
    node.check("tuning", &conf, &pod, &result).unwrap();
}

fn failed_add(node: &Node) {
    let (pod, previous) = attached(node);
    let before = pod.eth0();
    let arp_filter = Sysctl::ipv4_conf("eth0", "arp_filter");
    // The MAC address is set before the kernel refuses the MTU.
    let conf = conf(
        node,
        json!({
            "mac": "02:00:00:00:00:99", "mtu": 70000,
            "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"},
        }),
    );
    let error = node
        .add("tuning", &conf, &pod, Some(&previous))
        .unwrap_err();
    assert!(error.msg.contains("mtu 70000"), "{error}");
    assert_eq!(pod.eth0(), before);
    assert_eq!(pod.netns.enter(|| arp_filter.read()).unwrap().unwrap(), "0");
    assert!(files(node).is_empty());
    let unknown = self::conf(
        node,
        json!({"mtu": 1300, "sysctl": {"net.ipv4.no_such_thing": "1"}}),
    );
    let error = node
        .add("tuning", &unknown, &pod, Some(&previous))
        .unwrap_err();
    assert!(error.msg.contains("net.ipv4.no_such_thing"), "{error}");
}

fn twice(node: &Node) {
    let (pod, previous) = attached(node);
    let before = pod.eth0();
    let first = conf(node, json!({"mtu": 1400}));
    let second = conf(node, json!({"mtu": 1300, "promisc": true}));
    let result = node.add("tuning", &first, &pod, Some(&previous)).unwrap();
    node.add("tuning", &second, &pod, Some(&result)).unwrap();
    assert_eq!(pod.eth0().mtu, 1300);
    node.del("tuning", &second, &pod).unwrap();
    node.del("tuning", &first, &pod).unwrap();
    assert_eq!(pod.eth0(), before);
}

fn go_plugins_file(node: &Node) {
    let (pod, _) = attached(node);
    fs::create_dir(node.path("tuning")).unwrap();
    let text = "{\n \"mac\": \"02:00:00:00:00:77\",\n \"promisc\": true,\n \"mtu\": 1454,\n \"txQLen\": 5\n}";
    fs::write(node.path("tuning/c1_eth0.json"), text).unwrap();
    node.del("tuning", &full(node), &pod).unwrap();
    let link = pod.eth0();
    assert_eq!((link.mac, link.mtu), (Some([2, 0, 0, 0, 0, 0x77]), 1454));
    assert!(link.promisc && link.tx_queue_len == 5);
    assert!(files(node).is_empty());
}

/// A DEL was missed, and the container was started again under its old ID.
fn stale_file(node: &Node) {
    let (pod, previous) = attached(node);
    node.add("tuning", &full(node), &pod, Some(&previous))
        .unwrap();
    node.del("ptp", &json!({"ipam": node.ipam()}), &pod)
        .unwrap();
    let (again, previous) = attached(node);
    let fresh = again.eth0();
    node.del("tuning", &full(node), &again).unwrap();
    assert_eq!(again.eth0(), fresh);

    node.add("tuning", &full(node), &again, Some(&previous))
        .unwrap();
    node.del("tuning", &full(node), &again).unwrap();
    assert_eq!(again.eth0(), fresh);
}

fn without_netns(node: &Node) {
    let (pod, previous) = attached(node);
    node.add("tuning", &full(node), &pod, Some(&previous))
        .unwrap();
    node.del_without_netns("tuning", &full(node), &pod).unwrap();
    assert!(files(node).is_empty());
}

fn check(node: &Node) {
    let (pod, previous) = attached(node);
    let result = node
        .add("tuning", &full(node), &pod, Some(&previous))
        .unwrap();
    let change = LinkChange {
        mtu: Some(1350),
        promisc: Some(false),
        ..LinkChange::default()
    };
    pod.rtnl.set_link(pod.eth0().index, &change).unwrap();
    let error = node
        .check("tuning", &full(node), &pod, &result)
        .unwrap_err();
    assert!(error.msg.contains("mtu is 1350, not 1280"), "{error}");
    assert!(error.msg.contains("promisc is false, not true"), "{error}");
    let sysctl = conf(
        node,
        json!({"sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}),
    );
    let error = node.check("tuning", &sysctl, &pod, &result).unwrap_err();
    assert!(
        error.msg.contains("net.ipv4.conf.eth0.arp_filter"),
        "{error}"
    );
}

fn alone(node: &Node) {
    let (pod, _) = attached(node);
    let error = node.add("tuning", &full(node), &pod, None).unwrap_err();
    assert!(
        error.msg.contains("prevResult") && !error.details.is_empty(),
        "{error}"
    );
    assert_eq!(pod.eth0().mtu, 1500);
}

fn passes_through(node: &Node) {
    let (pod, previous) = attached(node);
    let result = node
        .add("tuning", &conf(node, json!({})), &pod, Some(&previous))
        .unwrap();
    assert_eq!(result, previous);
    node.status("tuning", &conf(node, json!({}))).unwrap();
    node.gc("tuning", &conf(node, json!({})), &[]).unwrap();
}
