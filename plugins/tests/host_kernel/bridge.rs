//! Bridges and their ports.

use plugins::host::rtnl::{BridgeChange, LinkChange, NewBridge, PortChange};

use super::support::{MAC_A, Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "bridge_is_created_with_everything_set",
        Needs::Root,
        created,
    );
    tests.add(
        "bridge_keeps_its_mac_when_ports_come_and_go",
        Needs::Root,
        keeps_mac,
    );
    tests.add("bridge_that_exists_is_told_as_such", Needs::Root, exists);
    tests.add("bridge_lists_its_ports", Needs::Root, ports);
    tests.add(
        "bridge_port_settings_are_changed_and_read_back",
        Needs::Root,
        port_settings,
    );
    tests.add(
        "bridge_netfilter_calls_are_set_or_refused_with_a_remedy",
        Needs::Root,
        netfilter,
    );
    tests.add(
        "bridge_without_vlan_filtering_names_the_remedy",
        Needs::NoVlans,
        no_vlan_filtering,
    );
}

fn created(sandbox: &Sandbox) {
    let new = NewBridge {
        name: "br0",
        mac: Some(MAC_A),
        mtu: Some(1400),
        up: true,
        ..NewBridge::default()
    };
    let answered = sandbox.rtnl.create_bridge(&new).unwrap();
    let link = sandbox.rtnl.link_by_name("br0").unwrap().unwrap();
    for link in [&answered, &link] {
        assert_eq!(link.kind.as_deref(), Some("bridge"));
        assert_eq!((link.mac, link.mtu, link.up), (Some(MAC_A), 1400, true));
        assert!(!link.bridge.unwrap().stp);
    }
    assert_eq!(answered.index, link.index);
    let down = NewBridge {
        name: "br1",
        ..NewBridge::default()
    };
    assert!(!sandbox.rtnl.create_bridge(&down).unwrap().up);
}

fn keeps_mac(sandbox: &Sandbox) {
    let new = NewBridge {
        name: "br0",
        mac: Some(MAC_A),
        up: true,
        ..NewBridge::default()
    };
    let bridge = sandbox.rtnl.create_bridge(&new).unwrap().index;
    let index = sandbox.lone_veth("veth0", Some(bridge));
    let mac = |name| sandbox.rtnl.link_by_name(name).unwrap().unwrap().mac;
    assert_eq!(mac("br0"), Some(MAC_A));
    sandbox.rtnl.delete_link(index).unwrap();
    assert_eq!(mac("br0"), Some(MAC_A));
    // The kernel's own record that someone has set it, which udev goes by: NET_ADDR_SET.
    let path = "/sys/class/net/br0/addr_assign_type";
    if let Ok(text) = std::fs::read_to_string(path) {
        assert_eq!(text.trim(), "3");
    }
}

fn exists(sandbox: &Sandbox) {
    sandbox.bridge("br0");
    let again = NewBridge {
        name: "br0",
        ..NewBridge::default()
    };
    let error = sandbox.rtnl.create_bridge(&again).unwrap_err();
    assert!(error.already_exists(), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("create bridge br0: File exists"),
        "{error}"
    );

    let long = NewBridge {
        name: "a-name-that-is-too-long",
        ..NewBridge::default()
    };
    let error = sandbox.rtnl.create_bridge(&long).unwrap_err();
    assert!(!error.already_exists());
    assert!(
        error.to_string().contains("a-name-that-is-too-long"),
        "{error}"
    );
}

fn ports(sandbox: &Sandbox) {
    let (a, b) = (sandbox.bridge("br0"), sandbox.bridge("br1"));
    sandbox.lone_veth("veth0", Some(a));
    sandbox.lone_veth("veth1", Some(a));
    let other = sandbox.lone_veth("veth2", Some(b));
    sandbox.lone_veth("veth3", None);
    let names = |bridge| -> Vec<String> {
        let links = sandbox.rtnl.bridge_ports(bridge).unwrap();
        links.into_iter().map(|link| link.name).collect()
    };
    assert_eq!(names(a), ["veth0", "veth1"]);
    assert_eq!(names(b), ["veth2"]);
    let release = LinkChange {
        master: Some(0),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(other, &release).unwrap();
    assert!(names(b).is_empty());
    let join = LinkChange {
        master: Some(a),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(other, &join).unwrap();
    assert_eq!(names(a).len(), 3);
}

fn port_settings(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let index = sandbox.lone_veth("veth0", Some(bridge));
    let port = || {
        sandbox
            .rtnl
            .link_by_index(index)
            .unwrap()
            .unwrap()
            .port
            .unwrap()
    };
    assert!(!port().hairpin && !port().isolated && port().learning && port().unicast_flood);
    let change = PortChange {
        hairpin: Some(true),
        isolated: Some(true),
        ..PortChange::default()
    };
    sandbox.rtnl.set_bridge_port(index, &change).unwrap();
    assert!(port().hairpin && port().isolated && port().learning);
    let change = PortChange {
        hairpin: Some(false),
        learning: Some(false),
        ..PortChange::default()
    };
    sandbox.rtnl.set_bridge_port(index, &change).unwrap();
    assert!(!port().hairpin && port().isolated && !port().learning);
}

fn netfilter(sandbox: &Sandbox) {
    let index = sandbox.bridge("br0");
    let change = BridgeChange {
        nf_call_iptables: Some(true),
        nf_call_ip6tables: Some(true),
        ..BridgeChange::default()
    };
    match sandbox.rtnl.set_bridge(index, &change) {
        Ok(()) => {
            let bridge = sandbox
                .rtnl
                .link_by_index(index)
                .unwrap()
                .unwrap()
                .bridge
                .unwrap();
            assert_eq!(
                (bridge.nf_call_iptables, bridge.nf_call_ip6tables),
                (Some(true), Some(true))
            );
            let new = NewBridge {
                name: "br1",
                nf_call_iptables: true,
                ..NewBridge::default()
            };
            let bridge = sandbox.rtnl.create_bridge(&new).unwrap().bridge.unwrap();
            assert_eq!(
                (bridge.nf_call_iptables, bridge.nf_call_ip6tables),
                (Some(true), Some(false))
            );
        }
        Err(error) => {
            assert!(error.is_unsupported(), "{error}");
            assert!(error.remedy().unwrap().contains("br_netfilter"));
        }
    }
}

fn no_vlan_filtering(sandbox: &Sandbox) {
    let new = NewBridge {
        name: "br0",
        vlan_filtering: true,
        ..NewBridge::default()
    };
    let error = sandbox.rtnl.create_bridge(&new).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert_eq!(
        error.to_string(),
        "create bridge br0: not supported by this kernel"
    );
    assert!(
        error
            .remedy()
            .unwrap()
            .contains("CONFIG_BRIDGE_VLAN_FILTERING")
    );
    assert_eq!(
        sandbox.rtnl.link_by_name("br0").unwrap(),
        None,
        "nothing is left behind"
    );
}
