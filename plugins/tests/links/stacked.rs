//! What is particular to ipvlan, vlan and dummy.

use cni_conf::error::Code;
use plugins::host::rtnl::{IpvlanMode, Kind, LinkChange, NewLink};
use serde_json::json;

use super::alike::{IPVLAN, VLAN, conf};
use super::support::{Needs, Node, Pod, Tests, addresses, with};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        Needs::Kind(IPVLAN),
        &[
            (
                "ipvlan_containers_reach_each_other_and_the_outside_at_once",
                ipvlan_connects,
            ),
            ("ipvlan_takes_every_mode", ipvlan_modes),
            ("ipvlan_takes_over_what_a_plugin_before_gave", chained),
            ("ipvlan_name_that_the_host_has_too_is_no_obstacle", name),
        ],
    );
    tests.add(
        Needs::Kind(VLAN),
        &[
            ("vlan_reaches_the_outside_in_its_vlan", vlan_connects),
            ("vlan_that_is_taken_is_explained", vlan_taken),
            ("vlan_mtu_above_the_masters_is_refused", vlan_mtu),
            ("vlan_check_compares_the_number", vlan_check),
        ],
    );
    tests.add(
        Needs::Kind(Kind::Dummy),
        &[("dummy_has_its_addresses_and_routes", dummy)],
    );
}

fn ipvlan_connects(node: &Node) {
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let results = [&a, &b].map(|pod| node.add("ipvlan", &conf(node), pod).unwrap());
    let [at_a, at_b] = results.each_ref().map(addresses);
    for (from, to) in at_a.iter().zip(&at_b) {
        assert_eq!(a.ask(&b, *to), *from);
    }
    assert_eq!(a.ask(&node.outside, "10.7.0.1".parse().unwrap()), at_a[0]);
    assert_eq!(a.eth0().mac, node.uplink().mac);
    assert_eq!(results[0].interfaces.len(), 1);
}

fn ipvlan_modes(node: &Node) {
    for (text, mode) in [
        ("", IpvlanMode::L2),
        ("l2", IpvlanMode::L2),
        ("l3", IpvlanMode::L3),
        ("l3s", IpvlanMode::L3s),
    ] {
        let mut conf = with(&conf(node), json!({"mode": text}));
        conf["ipam"]["routes"] = json!([]);
        let pod = Pod::new("a");
        let result = node.add("ipvlan", &conf, &pod).unwrap();
        let found = pod.rtnl.kind_of(pod.eth0().index).unwrap();
        assert_eq!(found, Some(Kind::Ipvlan { mode }), "{text}");
        node.check("ipvlan", &conf, &pod, &result).unwrap();
        let other = with(
            &conf,
            json!({"mode": if mode == IpvlanMode::L3 { "l2" } else { "l3" }}),
        );
        let error = node.check("ipvlan", &other, &pod, &result).unwrap_err();
        assert!(error.msg.contains("mode"), "{error}");
        node.del("ipvlan", &conf, &pod).unwrap();
    }
}

/// A plugin before has leased addresses for an interface of the host, as cloud providers' do.
fn chained(node: &Node) {
    let mut previous = node
        .add(
            "macvlan",
            &with(&conf(node), json!({"mtu": 1400})),
            &Pod::new("first"),
        )
        .unwrap();
    previous.interfaces[0].name = super::support::UPLINK.into();
    previous.interfaces[0].sandbox = String::new();
    let pod = Pod::new("a");
    // ipvlan and macvlan can't share a link.
    node.rtnl
        .delete_link_by_name(super::support::UPLINK)
        .unwrap();
    let new = NewLink::new(super::support::UPLINK, Kind::Dummy);
    node.rtnl.create_link(&new).unwrap();
    let chained = json!({});
    let result = node
        .add_behind("ipvlan", &chained, &pod.attachment(), Some(&previous))
        .unwrap();
    assert_eq!(addresses(&result), addresses(&previous));
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24", "fd07::2/64"]);
    assert_eq!(result.interfaces[0].name, "eth0");
    assert!(result.ips.iter().all(|ip| ip.interface == Some(0)));
    node.check("ipvlan", &chained, &pod, &result).unwrap();
    node.status("ipvlan", &chained).unwrap();
    node.del("ipvlan", &chained, &pod).unwrap();
    assert!(pod.links().is_empty());
}

fn name(node: &Node) {
    let new = NewLink {
        parent: Some(node.uplink().index),
        ..NewLink::new("eth0", IPVLAN)
    };
    node.rtnl.create_link(&new).unwrap();
    let before = node.links();
    let pod = Pod::new("a");
    node.add("ipvlan", &conf(node), &pod).unwrap();
    assert_eq!((pod.links(), node.links()), (vec!["eth0".into()], before));
}

fn vlan_connects(node: &Node) {
    let outside = &node.outside;
    let new = NewLink {
        parent: Some(outside.eth0().index),
        up: true,
        ..NewLink::new("eth0.5", VLAN)
    };
    outside.rtnl.create_link(&new).unwrap();
    let tagged = outside.link("eth0.5").unwrap();
    let address = "10.8.0.1/24".parse().unwrap();
    outside
        .rtnl
        .add_address(tagged.index, address, Default::default())
        .unwrap();
    let mut conf = conf(node);
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.8.0.0/24"}]]);
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
    let pod = Pod::new("a");
    let result = node.add("vlan", &conf, &pod).unwrap();
    assert_eq!(pod.eth0().vlan_id, Some(5));
    let gateway = "10.8.0.1".parse().unwrap();
    assert_eq!(pod.ask(outside, gateway), addresses(&result)[0]);
}

fn vlan_taken(node: &Node) {
    let first = Pod::new("first");
    node.add("vlan", &conf(node), &first).unwrap();
    let pod = Pod::new("a");
    let error = node.add("vlan", &conf(node), &pod).unwrap_err();
    assert!(error.details.contains("5 of up0"), "{error}");
    assert_eq!((pod.links().len(), node.leases()), (0, 2));
    let zero = with(&conf(node), json!({"vlanId": 0}));
    node.add("vlan", &zero, &pod).unwrap();
    assert_eq!(pod.eth0().vlan_id, Some(0));
}

fn vlan_mtu(node: &Node) {
    let pod = Pod::new("a");
    let conf = with(&conf(node), json!({"mtu": 1501}));
    let error = node.add("vlan", &conf, &pod).unwrap_err();
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(pod.links().is_empty() && node.leases() == 0);
    node.add("vlan", &with(&conf, json!({"mtu": 1300})), &pod)
        .unwrap();
    assert_eq!(pod.eth0().mtu, 1300);
    let change = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    node.rtnl.set_link(node.uplink().index, &change).unwrap();
    node.del("vlan", &conf, &pod).unwrap();
    assert!(pod.links().is_empty() && node.leases() == 0);
}

fn vlan_check(node: &Node) {
    let pod = Pod::new("a");
    let result = node.add("vlan", &conf(node), &pod).unwrap();
    let other = with(&conf(node), json!({"vlanId": 6}));
    let error = node.check("vlan", &other, &pod, &result).unwrap_err();
    assert!(error.msg.contains("VLAN"), "{error}");
    let missing = with(&conf(node), json!({"master": "eth7"}));
    let error = node.check("vlan", &missing, &pod, &result).unwrap_err();
    assert!(error.msg.contains("eth7"), "{error}");
}

fn dummy(node: &Node) {
    let pod = Pod::new("a");
    let result = node.add("dummy", &conf(node), &pod).unwrap();
    let link = pod.eth0();
    assert!(link.up && link.kind.as_deref() == Some("dummy"));
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24", "fd07::2/64"]);
    assert_eq!(result.interfaces[0].mtu, 1500);
    let error = node.add("dummy", &json!({}), &Pod::new("b")).unwrap_err();
    assert!(error.msg.contains("ipam.type"), "{error}");
}
