//! macvlan.

use cni_conf::error::Code;
use cni_conf::result::CniResult;
use plugins::host::Sysctl;
use plugins::host::rtnl::{AddressOptions, Kind, LinkChange, MacvlanMode, NewLink, TABLE_MAIN};
use serde_json::{Value, json};

use super::support::{Needs, Node, Pod, Tests, UPLINK, addresses, with};

const KIND: Kind = Kind::Macvlan {
    mode: MacvlanMode::Bridge,
    bc_queue_len: None,
};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        Needs::Kind(KIND),
        &[
            (
                "macvlan_containers_reach_each_other_and_the_outside_at_once",
                connects,
            ),
            ("macvlan_result_has_one_interface", result),
            (
                "macvlan_stands_on_the_interface_of_the_default_route",
                default_route,
            ),
            ("macvlan_takes_every_mode_and_queue_length", modes),
            ("macvlan_mac_address_comes_from_three_sources", mac_sources),
            ("macvlan_mtu_above_the_masters_is_refused", mtu),
            ("macvlan_name_that_the_host_has_too_is_no_obstacle", name),
            ("macvlan_stands_on_an_interface_of_the_container", inside),
            (
                "macvlan_listens_to_routers_of_the_network_outside",
                advertisements,
            ),
            ("macvlan_del_is_total", del_is_total),
            (
                "macvlan_del_touches_no_interface_of_another_kind",
                other_kind,
            ),
            ("macvlan_add_that_fails_leaves_nothing", failed_add),
            ("macvlan_check_notices_what_is_missing", check),
            ("macvlan_gc_gives_addresses_back", gc),
            ("macvlan_status_says_that_the_master_is_missing", status),
        ],
    );
}

fn conf(node: &Node) -> Value {
    json!({"master": UPLINK, "ipam": node.ipam()})
}

fn attached(node: &Node, name: &str) -> (Pod, CniResult) {
    let pod = Pod::new(name);
    let result = node.add("macvlan", &conf(node), &pod).unwrap();
    (pod, result)
}

fn connects(node: &Node) {
    let ((a, at_a), (b, at_b)) = (attached(node, "a"), attached(node, "b"));
    for (from, to) in addresses(&at_a).into_iter().zip(addresses(&at_b)) {
        assert_eq!(a.ask(&b, to), from);
        assert_eq!(node.outside.ask(&b, to).is_ipv4(), to.is_ipv4());
    }
    assert_eq!(
        a.ask(&node.outside, "10.7.0.1".parse().unwrap()),
        addresses(&at_a)[0]
    );
    node.check("macvlan", &conf(node), &a, &at_a).unwrap();
    node.status("macvlan", &conf(node)).unwrap();
}

fn result(node: &Node) {
    let (pod, result) = attached(node, "a");
    let [interface] = result.interfaces.as_slice() else {
        panic!("{:?}", result.interfaces)
    };
    assert_eq!((interface.name.as_str(), interface.mtu), ("eth0", 1500));
    assert!(!interface.sandbox.is_empty());
    assert_eq!(
        interface.mac_addr().map(|mac| mac.bytes()),
        pod.eth0().mac,
        "{interface:?}"
    );
    assert!(result.ips.iter().all(|ip| ip.interface == Some(0)));
    assert_eq!(result.routes.len(), 2);
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24", "fd07::2/64"]);
    assert_eq!(
        pod.routes(TABLE_MAIN),
        [
            "0.0.0.0/0 via 10.7.0.1",
            "10.7.0.0/24",
            "::/0 via fd07::1",
            "fd07::/64"
        ]
    );
    let lone = node
        .add("macvlan", &json!({"master": UPLINK}), &Pod::new("b"))
        .unwrap();
    assert!(lone.ips.is_empty() && lone.interfaces.len() == 1);
}

fn default_route(node: &Node) {
    let without = json!({});
    let pod = Pod::new("a");
    let error = node.add("macvlan", &without, &pod).unwrap_err();
    assert!(error.msg.contains("default route"), "{error}");
    node.add_default_route();
    node.add("macvlan", &without, &pod).unwrap();
    assert_eq!(pod.eth0().link, Some(node.uplink().index));
    assert!(pod.eth0().up, "one without addresses is up, too");
}

fn modes(node: &Node) {
    for (text, mode) in [
        ("", MacvlanMode::Bridge),
        ("bridge", MacvlanMode::Bridge),
        ("private", MacvlanMode::Private),
        ("vepa", MacvlanMode::Vepa),
        ("passthru", MacvlanMode::Passthru),
    ] {
        let conf = with(&conf(node), json!({"mode": text, "bcqueuelen": 77}));
        let pod = Pod::new("a");
        let result = node.add("macvlan", &conf, &pod).unwrap();
        let expected = Kind::Macvlan {
            mode,
            bc_queue_len: Some(77),
        };
        let found = pod.rtnl.kind_of(pod.eth0().index).unwrap();
        assert_eq!(found, Some(expected), "{text}");
        node.check("macvlan", &conf, &pod, &result).unwrap();
        node.del("macvlan", &conf, &pod).unwrap();
    }
}

fn mac_sources(node: &Node) {
    let mac = |last: u8| format!("02:00:00:00:00:{last:02x}");
    let keys = [
        json!({"mac": mac(1)}),
        json!({"mac": mac(1), "args": {"cni": {"mac": mac(2)}}}),
        json!({"mac": mac(1), "runtimeConfig": {"mac": mac(3)}}),
    ];
    for (keys, last) in keys.into_iter().zip([4, 2, 3]) {
        let pod = Pod::new("a");
        let attachment = pod.attachment_as("eth0", &format!("IgnoreUnknown=1;MAC={}", mac(4)));
        let conf = with(&conf(node), keys);
        let result = node
            .add_behind("macvlan", &conf, &attachment, None)
            .unwrap();
        assert_eq!(result.interfaces[0].mac, mac(last));
        assert_eq!(pod.eth0().mac, Some([2, 0, 0, 0, 0, last]));
        node.del("macvlan", &conf, &pod).unwrap();
    }
}

fn mtu(node: &Node) {
    let pod = Pod::new("a");
    let too_large = with(&conf(node), json!({"mtu": 1501}));
    let error = node.add("macvlan", &too_large, &pod).unwrap_err();
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(
        error.msg.contains("1501") && error.msg.contains("1500"),
        "{error}"
    );
    assert!(pod.links().is_empty() && node.leases() == 0);
    let error = node.status("macvlan", &too_large).unwrap_err();
    assert!(error.msg.contains("1501"), "{error}");
    let smaller = with(&conf(node), json!({"mtu": 1400}));
    let result = node.add("macvlan", &smaller, &pod).unwrap();
    assert_eq!((pod.eth0().mtu, result.interfaces[0].mtu), (1400, 1400));
}

fn name(node: &Node) {
    let new = NewLink {
        parent: Some(node.uplink().index),
        ..NewLink::new("eth0", KIND)
    };
    node.rtnl.create_link(&new).unwrap();
    let before = node.links();
    let (pod, _) = attached(node, "a");
    assert_eq!(pod.links(), ["eth0"]);
    assert_eq!(node.links(), before);
    let error = node.add("macvlan", &conf(node), &pod).unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.msg.contains("eth0"), "{error}");
    assert_eq!(pod.links(), ["eth0"]);
}

fn inside(node: &Node) {
    let (pod, _) = attached(node, "a");
    let conf = json!({"master": "eth0", "linkInContainer": true, "ipam": node.ipam()});
    let attachment = pod.attachment_as("net1", "");
    node.add_behind("macvlan", &conf, &attachment, None)
        .unwrap();
    let on = pod.link("net1").unwrap();
    assert_eq!(
        pod.rtnl.kind_of(on.index).unwrap().map(|kind| kind.name()),
        Some("macvlan")
    );
    node.del_of("macvlan", &conf, &attachment).unwrap();
    assert_eq!(pod.links(), ["eth0"]);
    let missing = with(&conf, json!({"master": "eth7"}));
    let error = node
        .add_behind("macvlan", &missing, &attachment, None)
        .unwrap_err();
    assert!(
        error.msg.contains("the container has no interface eth7"),
        "{error}"
    );
    node.status("macvlan", &missing).unwrap();
}

fn advertisements(node: &Node) {
    let (pod, _) = attached(node, "a");
    let read = |key| {
        let sysctl = Sysctl::ipv6_conf("eth0", key);
        pod.netns.enter(|| sysctl.read()).unwrap().unwrap()
    };
    assert_eq!(
        (read("accept_ra").as_str(), read("ndisc_notify").as_str()),
        ("1", "1")
    );
    let arp_notify = Sysctl::ipv4_conf("eth0", "arp_notify");
    assert_eq!(pod.netns.enter(|| arp_notify.read()).unwrap().unwrap(), "1");
}

fn del_is_total(node: &Node) {
    let (pod, _) = attached(node, "a");
    let before = node.links();
    assert_eq!(node.leases(), 2);
    node.del("macvlan", &conf(node), &pod).unwrap();
    assert!(pod.links().is_empty() && node.leases() == 0);
    node.del("macvlan", &conf(node), &pod).unwrap();

    let (pod, _) = attached(node, "b");
    node.del_without_netns("macvlan", &conf(node), &pod)
        .unwrap();
    assert_eq!(node.leases(), 0);

    let (pod, _) = attached(node, "c");
    node.rtnl.delete_link_by_name(UPLINK).unwrap();
    assert!(pod.links().is_empty(), "it went with the one below");
    node.del("macvlan", &conf(node), &pod).unwrap();
    assert_eq!(node.leases(), 0);
    assert_eq!(before, [UPLINK]);
}

fn other_kind(node: &Node) {
    let outside = &node.outside;
    node.del("macvlan", &json!({}), outside).unwrap();
    assert_eq!(outside.links(), ["eth0"], "it is the end of a cable");
}

fn failed_add(node: &Node) {
    let pod = Pod::new("a");
    let full = json!({"type": "host-local", "dataDir": node.path("networks"),
        "ranges": [[{"subnet": "10.7.0.0/30"}]]});
    let full = with(&conf(node), json!({"ipam": full}));
    let first = Pod::new("first");
    node.add("macvlan", &full, &first).unwrap();
    assert_eq!(
        node.add("macvlan", &full, &pod).unwrap_err().code,
        Code::NoAddress
    );
    assert!(pod.links().is_empty() && node.leases() == 1);

    let mut unreachable = conf(node);
    unreachable["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}]);
    let error = node.add("macvlan", &unreachable, &pod).unwrap_err();
    assert!(error.details.contains("192.0.2.1"), "{error}");
    assert!(pod.links().is_empty() && node.leases() == 1);

    let missing = with(&conf(node), json!({"master": "eth7"}));
    let error = node.add("macvlan", &missing, &pod).unwrap_err();
    assert!(
        error.msg.contains("the host has no interface eth7"),
        "{error}"
    );
    assert_eq!(node.leases(), 1);
}

fn check(node: &Node) {
    let (pod, result) = attached(node, "a");
    let conf = conf(node);
    let failed = |expected: &str, conf: &Value| {
        let error = node.check("macvlan", conf, &pod, &result).unwrap_err();
        assert_eq!(error.code, Code::CheckFailed, "{error}");
        assert!(error.msg.contains(expected), "{error}");
    };
    failed("mode", &with(&conf, json!({"mode": "private"})));
    failed("eth7", &with(&conf, json!({"master": "eth7"})));
    let link = pod.eth0();
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    pod.rtnl.set_link(link.index, &down).unwrap();
    failed("down", &conf);
    pod.rtnl.set_link(link.index, &LinkChange::up()).unwrap();
    let address = result.ips[0].address;
    pod.rtnl.delete_address(link.index, address).unwrap();
    failed(&address.to_string(), &conf);
    let options = AddressOptions::default();
    pod.rtnl.add_address(link.index, address, options).unwrap();
    failed("route", &conf);
    pod.rtnl.delete_link(link.index).unwrap();
    failed("missing", &conf);
}

fn gc(node: &Node) {
    let ((a, result), (b, _)) = (attached(node, "a"), attached(node, "b"));
    node.gc("macvlan", &conf(node), &[&a]).unwrap();
    assert_eq!(node.leases(), 2);
    node.check("macvlan", &conf(node), &a, &result).unwrap();
    assert_eq!(b.links(), ["eth0"], "it goes with the container");
    node.gc("macvlan", &conf(node), &[]).unwrap();
    assert_eq!(node.leases(), 0);
}

fn status(node: &Node) {
    let conf = conf(node);
    node.status("macvlan", &conf).unwrap();
    let error = node
        .status("macvlan", &with(&conf, json!({"master": "bond7"})))
        .unwrap_err();
    assert_eq!(error.code, Code::NotAvailable);
    assert!(
        error.msg.contains("bond7") && error.details.contains("bond"),
        "{error}"
    );
    assert_eq!(node.links(), [UPLINK], "asking makes nothing");
}
