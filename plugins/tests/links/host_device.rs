//! host-device.

use cni_conf::error::Code;
use plugins::host::NetNs;
use plugins::host::rtnl::{Link, LinkChange, NewRoute, NewVeth, TABLE_MAIN, VethEnd};
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests, addresses, with};

/// The device, which has the hardware address that follows.
const DEVICE: &str = "dev0";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0d];

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        Needs::Nothing,
        &[
            ("host_device_comes_back_as_it_was", round_trip),
            ("host_device_is_found_by_its_hardware_address", by_mac),
            ("host_device_add_that_fails_brings_it_back", failed_add),
            ("host_device_del_is_total", del_is_total),
            (
                "host_device_comes_back_under_another_name_where_its_own_is_taken",
                name_taken,
            ),
            (
                "host_device_is_known_whatever_the_container_calls_it",
                renamed,
            ),
            ("host_device_takes_nothing_that_the_container_made", decoy),
            (
                "host_device_that_the_go_plugin_moved_comes_back",
                of_the_go_plugin,
            ),
            ("host_device_gc_brings_back_what_is_not_valid", gc),
            ("host_device_status_tells_missing_from_taken", status),
            ("host_device_that_cant_leave_is_explained", stays),
            ("host_device_brings_the_hosts_network_along", with_network),
            ("host_device_check_notices_that_it_is_gone", check),
        ],
    );
}

/// A device of the node with an address, up; the other end is in the machine outside.
fn device(node: &Node) -> Link {
    let new = NewVeth {
        host: VethEnd {
            name: DEVICE,
            mac: Some(MAC),
            mtu: Some(1400),
        },
        alias: None,
        master: None,
        up: true,
        peer: VethEnd {
            name: "peer0",
            ..VethEnd::default()
        },
        peer_netns: &node.outside.netns,
    };
    let pair = node.rtnl.create_veth(&new).unwrap();
    let outside = &node.outside.rtnl;
    outside
        .set_link(pair.peer_index, &LinkChange::up())
        .unwrap();
    for address in ["192.0.2.7/24", "2001:db8::7/64"] {
        let address = address.parse().unwrap();
        node.rtnl
            .add_address(pair.host.index, address, Default::default())
            .unwrap();
    }
    pair.host
}

fn conf(node: &Node) -> Value {
    json!({"device": DEVICE, "ipam": node.ipam(), "dataDir": node.path("state")})
}

fn assert_as_it_was(node: &Node, name: &str) {
    let link = node.rtnl.link_by_name(name).unwrap().expect(name);
    assert_eq!((link.mac, link.up, link.mtu), (Some(MAC), true, 1400));
    assert_eq!(link.alias, None);
    let addresses = node.rtnl.addresses(link.index).unwrap().into_iter();
    let mut texts: Vec<_> = addresses.map(|address| address.net.to_string()).collect();
    texts.retain(|text| !text.starts_with("fe80:"));
    texts.sort();
    assert_eq!(texts, ["192.0.2.7/24", "2001:db8::7/64"]);
    assert_eq!(records(node), 0);
}

fn records(node: &Node) -> usize {
    std::fs::read_dir(node.path("state")).map_or(0, Iterator::count)
}

fn round_trip(node: &Node) {
    device(node);
    let before = node.links();
    let pod = Pod::new("a");
    let result = node.add("host-device", &conf(node), &pod).unwrap();
    let link = pod.eth0();
    assert_eq!((link.mac, link.up), (Some(MAC), true));
    assert_eq!(
        link.alias.as_deref(),
        Some(DEVICE),
        "as the Go plugin has it"
    );
    assert!(node.rtnl.link_by_name(DEVICE).unwrap().is_none());
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24", "fd07::2/64"]);
    let [interface] = result.interfaces.as_slice() else {
        panic!("{:?}", result.interfaces)
    };
    assert_eq!(interface.mac_addr().unwrap().bytes(), MAC);
    assert_eq!((interface.name.as_str(), interface.mtu), ("eth0", 1400));
    node.check("host-device", &conf(node), &pod, &result)
        .unwrap();
    node.del("host-device", &conf(node), &pod).unwrap();
    assert_eq!((node.links(), pod.links().len()), (before, 0));
    assert_as_it_was(node, DEVICE);
    assert_eq!(node.leases(), 0);
    node.del("host-device", &conf(node), &pod).unwrap();
    assert_as_it_was(node, DEVICE);
}

fn by_mac(node: &Node) {
    device(node);
    let conf = json!({"hwaddr": "02:00:00:00:00:0D", "dataDir": node.path("state")});
    let pod = Pod::new("a");
    let result = node.add("host-device", &conf, &pod).unwrap();
    assert!(pod.eth0().up && result.ips.is_empty());
    node.del("host-device", &conf, &pod).unwrap();
    assert_as_it_was(node, DEVICE);
    let other = with(&conf, json!({"hwaddr": "02:00:00:00:00:0e"}));
    let error = node.add("host-device", &other, &pod).unwrap_err();
    assert!(error.msg.contains("02:00:00:00:00:0e"), "{error}");
}

fn failed_add(node: &Node) {
    device(node);
    let mut unreachable = conf(node);
    unreachable["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "203.0.113.1"}]);
    let pod = Pod::new("a");
    let error = node.add("host-device", &unreachable, &pod).unwrap_err();
    assert!(error.details.contains("203.0.113.1"), "{error}");
    assert!(pod.links().is_empty() && node.leases() == 0);
    assert_as_it_was(node, DEVICE);
    // The name is taken in the container.
    let error = node
        .add("host-device", &conf(node), &node.outside)
        .unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert_as_it_was(node, DEVICE);
}

fn del_is_total(node: &Node) {
    device(node);
    let pod = Pod::new("a");
    node.add("host-device", &conf(node), &pod).unwrap();
    node.del_without_netns("host-device", &conf(node), &pod)
        .unwrap();
    assert_eq!(node.leases(), 0);
    assert_as_it_was(node, DEVICE);

    // It went with its namespace, as devices that are no hardware do.
    node.add("host-device", &conf(node), &pod).unwrap();
    let attachment = pod.attachment();
    pod.rtnl.delete_link(pod.eth0().index).unwrap();
    node.del_of("host-device", &conf(node), &attachment)
        .unwrap();
    assert_eq!((node.leases(), records(node)), (0, 0));
    node.del_without_netns("host-device", &conf(node), &pod)
        .unwrap();
}

fn name_taken(node: &Node) {
    device(node);
    let pod = Pod::new("a");
    node.add("host-device", &conf(node), &pod).unwrap();
    node.rtnl.create_ifb(DEVICE, None, true).unwrap();
    node.del("host-device", &conf(node), &pod).unwrap();
    let links = node.rtnl.links().unwrap();
    let back = links.iter().find(|link| link.mac == Some(MAC)).unwrap();
    assert!(
        back.name.starts_with("dev") && back.name != DEVICE,
        "{back:?}"
    );
    assert_eq!(back.alias.as_deref(), Some(DEVICE));
    assert!(back.up && pod.links().is_empty() && node.leases() == 0);
    assert_eq!(records(node), 0);
}

fn renamed(node: &Node) {
    device(node);
    let pod = Pod::new("a");
    node.add("host-device", &conf(node), &pod).unwrap();
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    let rename = LinkChange {
        name: Some("wan0"),
        alias: Some("up0"),
        ..LinkChange::default()
    };
    for change in [down, rename] {
        pod.rtnl.set_link(pod.eth0().index, &change).unwrap();
    }
    node.del("host-device", &conf(node), &pod).unwrap();
    assert!(pod.links().is_empty());
    assert_as_it_was(node, DEVICE);
}

fn decoy(node: &Node) {
    device(node);
    let pod = Pod::new("a");
    node.add("host-device", &conf(node), &pod).unwrap();
    pod.rtnl.delete_link(pod.eth0().index).unwrap();
    let decoy = pod.rtnl.create_ifb("eth0", None, true).unwrap();
    let alias = LinkChange {
        alias: Some("evil0"),
        ..LinkChange::default()
    };
    pod.rtnl.set_link(decoy.index, &alias).unwrap();
    let before = node.links();
    node.del("host-device", &conf(node), &pod).unwrap();
    assert_eq!(node.links(), before);
    assert_eq!((node.leases(), records(node)), (0, 0));
}

/// It has the alias, and nothing is written down.
fn of_the_go_plugin(node: &Node) {
    let device = device(node);
    let pod = Pod::new("a");
    let change = LinkChange {
        alias: Some(DEVICE),
        name: Some("eth0"),
        netns: Some(&pod.netns),
        ..LinkChange::default()
    };
    node.rtnl.set_link(device.index, &change).unwrap();
    node.del("host-device", &conf(node), &pod).unwrap();
    let back = node.rtnl.link_by_name(DEVICE).unwrap().unwrap();
    assert_eq!((back.mac, pod.links().len()), (Some(MAC), 0));
    // An interface without it was made by somebody else.
    pod.rtnl.create_ifb("eth0", None, true).unwrap();
    node.del("host-device", &conf(node), &pod).unwrap();
    assert_eq!(pod.links(), ["eth0"]);
}

fn gc(node: &Node) {
    device(node);
    let pod = Pod::new("a");
    node.add("host-device", &conf(node), &pod).unwrap();
    node.gc("host-device", &conf(node), &[&pod]).unwrap();
    assert_eq!((pod.links().len(), node.leases()), (1, 2));
    node.gc("host-device", &conf(node), &[]).unwrap();
    assert_eq!((pod.links().len(), node.leases()), (0, 0));
    assert_as_it_was(node, DEVICE);
}

fn status(node: &Node) {
    let error = node.status("host-device", &conf(node)).unwrap_err();
    assert_eq!(error.code, Code::NotAvailable);
    assert!(error.msg.contains(DEVICE), "{error}");
    device(node);
    node.status("host-device", &conf(node)).unwrap();
    let pod = Pod::new("a");
    node.add("host-device", &conf(node), &pod).unwrap();
    node.status("host-device", &conf(node)).unwrap();
    let error = node
        .add("host-device", &conf(node), &Pod::new("b"))
        .unwrap_err();
    assert!(error.details.contains("net/a/eth0 has it"), "{error}");
    assert_eq!(node.leases(), 2);
}

fn stays(node: &Node) {
    let lo = with(&conf(node), json!({"device": "lo"}));
    let error = node.add("host-device", &lo, &Pod::new("a")).unwrap_err();
    assert!(error.details.contains("lo can't leave"), "{error}");
    assert_eq!((node.leases(), records(node)), (0, 0));
}

fn with_network(node: &Node) {
    let device = device(node);
    let gateway = "192.0.2.1".parse().unwrap();
    let route = NewRoute {
        gateway: Some(gateway),
        oif: Some(device.index),
        ..NewRoute::to("198.51.100.0/24".parse().unwrap())
    };
    node.rtnl.add_route(&route).unwrap();
    let conf =
        json!({"device": DEVICE, "useInterfaceNetwork": true, "dataDir": node.path("state")});
    let pod = Pod::new("a");
    let result = node.add("host-device", &conf, &pod).unwrap();
    assert_eq!(addresses(&result).len(), 2);
    assert_eq!(pod.addresses("eth0"), ["192.0.2.7/24", "2001:db8::7/64"]);
    let routes = pod.routes(TABLE_MAIN);
    assert!(
        routes.contains(&"198.51.100.0/24 via 192.0.2.1".to_owned()),
        "{routes:?}"
    );
    node.check("host-device", &conf, &pod, &result).unwrap();
    node.del("host-device", &conf, &pod).unwrap();
    assert_as_it_was(node, DEVICE);
}

fn check(node: &Node) {
    device(node);
    let pod = Pod::new("a");
    let result = node.add("host-device", &conf(node), &pod).unwrap();
    let home = NetNs::current().unwrap();
    let away = LinkChange {
        name: Some(DEVICE),
        netns: Some(&home),
        ..LinkChange::default()
    };
    pod.rtnl.set_link(pod.eth0().index, &away).unwrap();
    let error = node
        .check("host-device", &conf(node), &pod, &result)
        .unwrap_err();
    assert_eq!(error.code, Code::CheckFailed, "{error}");
    node.del("host-device", &conf(node), &pod).unwrap();
    assert_eq!((node.leases(), records(node)), (0, 0));
    let back = node.rtnl.link_by_name(DEVICE).unwrap().unwrap();
    assert!(back.up, "what is back already gets its state again");
}
