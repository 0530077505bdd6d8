//! What the plugins that make one interface have in common: macvlan, ipvlan, vlan, dummy and tap.

use cni_conf::error::Code;
use plugins::host::rtnl::{IpvlanMode, Kind};
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Row, Tests, UPLINK, with};

pub(crate) const IPVLAN: Kind = Kind::Ipvlan {
    mode: IpvlanMode::L2,
};
pub(crate) const VLAN: Kind = Kind::Vlan { vid: 5 };

pub(crate) fn add(tests: &mut Tests) {
    let rows: [Row; 3] = [
        ("tap_del_is_total", |node| del_is_total(node, "tap")),
        ("tap_add_that_fails_leaves_nothing", |node| {
            failed_add(node, "tap");
        }),
        ("tap_check_and_gc", |node| check_and_gc(node, "tap")),
    ];
    tests.add(Needs::Tap, &rows);
    let rows: [Row; 3] = [
        ("ipvlan_del_is_total", |node| del_is_total(node, "ipvlan")),
        ("ipvlan_add_that_fails_leaves_nothing", |node| {
            failed_add(node, "ipvlan");
        }),
        ("ipvlan_check_and_gc", |node| check_and_gc(node, "ipvlan")),
    ];
    tests.add(Needs::Kind(IPVLAN), &rows);
    let rows: [Row; 3] = [
        ("vlan_del_is_total", |node| del_is_total(node, "vlan")),
        ("vlan_add_that_fails_leaves_nothing", |node| {
            failed_add(node, "vlan");
        }),
        ("vlan_check_and_gc", |node| check_and_gc(node, "vlan")),
    ];
    tests.add(Needs::Kind(VLAN), &rows);
    let rows: [Row; 3] = [
        ("dummy_del_is_total", |node| del_is_total(node, "dummy")),
        ("dummy_add_that_fails_leaves_nothing", |node| {
            failed_add(node, "dummy");
        }),
        ("dummy_check_and_gc", |node| check_and_gc(node, "dummy")),
    ];
    tests.add(Needs::Kind(Kind::Dummy), &rows);
    for (kind, row) in [
        (
            IPVLAN,
            (
                "ipvlan_that_the_kernel_lacks_is_explained",
                (|node| lacking(node, "ipvlan")) as fn(&Node),
            ),
        ),
        (
            VLAN,
            ("vlan_that_the_kernel_lacks_is_explained", |node| {
                lacking(node, "vlan")
            }),
        ),
        (
            Kind::Dummy,
            ("dummy_that_the_kernel_lacks_is_explained", |node| {
                lacking(node, "dummy")
            }),
        ),
    ] {
        tests.add(Needs::NoKind(kind), &[row]);
    }
}

pub(crate) fn conf(node: &Node) -> Value {
    json!({"master": UPLINK, "vlanId": 5, "ipam": node.ipam()})
}

fn del_is_total(node: &Node, plugin: &str) {
    let conf = conf(node);
    let pod = Pod::new("a");
    let result = node.add(plugin, &conf, &pod).unwrap();
    assert_eq!(result.interfaces.len(), 1);
    assert_eq!(
        result.interfaces[0].mac_addr().map(|mac| mac.bytes()),
        pod.eth0().mac
    );
    assert_eq!(node.leases(), 2);
    node.del(plugin, &conf, &pod).unwrap();
    assert!(pod.links().is_empty() && node.leases() == 0);
    node.del(plugin, &conf, &pod).unwrap();

    node.add(plugin, &conf, &pod).unwrap();
    node.del_without_netns(plugin, &conf, &pod).unwrap();
    assert_eq!(node.leases(), 0);
    node.del(plugin, &conf, &pod).unwrap();
    assert!(pod.links().is_empty());

    node.add(plugin, &conf, &pod).unwrap();
    node.rtnl.delete_link_by_name(UPLINK).unwrap();
    node.del(plugin, &conf, &pod).unwrap();
    assert!(pod.links().is_empty() && node.leases() == 0);
    // The cable's other end is somebody else's interface.
    let other = with(&conf, json!({"ipam": {}}));
    node.outside.rtnl.create_ifb("eth0", None, false).unwrap();
    node.del(plugin, &other, &node.outside).unwrap();
    assert_eq!(node.outside.links(), ["eth0"]);
}

fn failed_add(node: &Node, plugin: &str) {
    let mut unreachable = conf(node);
    unreachable["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}]);
    let pod = Pod::new("a");
    let error = node.add(plugin, &unreachable, &pod).unwrap_err();
    assert!(error.details.contains("192.0.2.1"), "{error}");
    assert!(pod.links().is_empty() && node.leases() == 0);
    node.add(plugin, &conf(node), &pod).unwrap();
    let error = node.add(plugin, &conf(node), &pod).unwrap_err();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert_eq!((pod.links().len(), node.leases()), (1, 2));
}

fn check_and_gc(node: &Node, plugin: &str) {
    let conf = conf(node);
    let pod = Pod::new("a");
    let result = node.add(plugin, &conf, &pod).unwrap();
    node.check(plugin, &conf, &pod, &result).unwrap();
    node.status(plugin, &conf).unwrap();
    node.gc(plugin, &conf, &[&pod]).unwrap();
    assert_eq!(node.leases(), 2);
    let address = result.ips[0].address;
    pod.rtnl.delete_address(pod.eth0().index, address).unwrap();
    let error = node.check(plugin, &conf, &pod, &result).unwrap_err();
    assert_eq!(error.code, Code::CheckFailed);
    assert!(error.msg.contains(&address.to_string()), "{error}");
    pod.rtnl.delete_link(pod.eth0().index).unwrap();
    pod.rtnl.create_ifb("eth0", None, true).unwrap();
    assert!(node.check(plugin, &conf, &pod, &result).is_err());
    node.gc(plugin, &conf, &[]).unwrap();
    assert_eq!(node.leases(), 0);
}

/// ADD and STATUS say what the kernel lacks and how to get it.
fn lacking(node: &Node, plugin: &str) {
    let pod = Pod::new("a");
    let error = node.add(plugin, &conf(node), &pod).unwrap_err();
    assert_eq!(error.code, Code::KernelFeature, "{error}");
    assert!(error.details.contains("modprobe"), "{error}");
    assert!(pod.links().is_empty() && node.leases() == 0);
    let error = node.status(plugin, &conf(node)).unwrap_err();
    assert_eq!(error.code, Code::NotAvailable, "{error}");
    assert!(error.details.contains("modprobe"), "{error}");
    node.del(plugin, &conf(node), &pod).unwrap();
}
