//! VLANs: of bridges and their ports, and VLAN devices. Most need a distribution's kernel.

use plugins::host::rtnl::{BridgeChange, BridgeVlan, NewBridge, NewVlan, VlanOwner};

use super::support::{MAC_A, Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "bridge_vlans_are_added_listed_and_taken_away",
        Needs::Vlans,
        port_vlans,
    );
    tests.add("bridge_vlans_of_the_bridge_itself", Needs::Vlans, own_vlans);
    tests.add(
        "bridge_vlan_filtering_is_switched_on_later",
        Needs::Vlans,
        switched_on_later,
    );
    tests.add(
        "bridge_vlans_without_support_name_the_remedy",
        Needs::NoVlans,
        unsupported,
    );
    tests.add(
        "vlan_device_stands_on_its_parent",
        Needs::Vlans,
        vlan_device,
    );
}

fn vlan(vids: std::ops::RangeInclusive<u16>, tagged: bool) -> BridgeVlan {
    BridgeVlan {
        vids,
        pvid: !tagged,
        untagged: !tagged,
    }
}

fn filtering_bridge(sandbox: &Sandbox) -> u32 {
    let new = NewBridge {
        name: "br0",
        up: true,
        vlan_filtering: true,
        vlan_default_pvid: Some(0),
        ..NewBridge::default()
    };
    let link = sandbox.rtnl.create_bridge(&new).unwrap();
    let bridge = link.bridge.unwrap();
    assert_eq!(
        (bridge.vlan_filtering, bridge.vlan_default_pvid),
        (Some(true), Some(0))
    );
    link.index
}

fn port_vlans(sandbox: &Sandbox) {
    let bridge = filtering_bridge(sandbox);
    let index = sandbox.lone_veth("veth0", Some(bridge));
    let list = || sandbox.rtnl.bridge_vlans(index).unwrap();
    assert!(list().is_empty());
    let owner = VlanOwner::Port(index);
    let wanted = [
        vlan(5..=5, false),
        vlan(100..=110, true),
        vlan(4094..=4094, true),
    ];
    sandbox.rtnl.add_bridge_vlans(owner, &wanted).unwrap();
    assert_eq!(list(), wanted);
    sandbox.rtnl.add_bridge_vlans(owner, &wanted).unwrap();
    assert_eq!(list(), wanted);
    sandbox
        .rtnl
        .delete_bridge_vlans(owner, &[101..=109, 4094..=4094])
        .unwrap();
    assert_eq!(
        list(),
        [
            vlan(5..=5, false),
            vlan(100..=100, true),
            vlan(110..=110, true)
        ]
    );
    let error = sandbox
        .rtnl
        .add_bridge_vlans(owner, &[vlan(4095..=4095, true)])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("let through VLAN 4095 on bridge port veth0"),
        "{error}"
    );
}

fn own_vlans(sandbox: &Sandbox) {
    let bridge = filtering_bridge(sandbox);
    sandbox
        .rtnl
        .add_bridge_vlans(VlanOwner::Bridge(bridge), &[vlan(7..=9, true)])
        .unwrap();
    assert_eq!(
        sandbox.rtnl.bridge_vlans(bridge).unwrap(),
        [vlan(7..=9, true)]
    );
    sandbox
        .rtnl
        .delete_bridge_vlans(VlanOwner::Bridge(bridge), &[7..=8])
        .unwrap();
    assert_eq!(
        sandbox.rtnl.bridge_vlans(bridge).unwrap(),
        [vlan(9..=9, true)]
    );
}

fn switched_on_later(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let change = BridgeChange {
        vlan_filtering: Some(true),
        vlan_default_pvid: Some(0),
        ..BridgeChange::default()
    };
    sandbox.rtnl.set_bridge(bridge, &change).unwrap();
    let is = sandbox
        .rtnl
        .link_by_index(bridge)
        .unwrap()
        .unwrap()
        .bridge
        .unwrap();
    assert_eq!(
        (is.vlan_filtering, is.vlan_default_pvid),
        (Some(true), Some(0))
    );
    let index = sandbox.lone_veth("veth0", Some(bridge));
    assert!(sandbox.rtnl.bridge_vlans(index).unwrap().is_empty());
}

fn unsupported(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let index = sandbox.lone_veth("veth0", Some(bridge));
    let owner = VlanOwner::Port(index);
    let error = sandbox
        .rtnl
        .add_bridge_vlans(owner, &[vlan(5..=5, true)])
        .unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(error.remedy().is_some());
    let new = NewVlan {
        name: "br0.5",
        parent: bridge,
        vid: 5,
        ..NewVlan::default()
    };
    let error = sandbox.rtnl.create_vlan(&new).unwrap_err();
    assert_eq!(
        error.to_string(),
        "create VLAN device br0.5 (5 on br0): not supported by this kernel"
    );
    assert!(error.remedy().unwrap().contains("8021q"));
}

fn vlan_device(sandbox: &Sandbox) {
    let parent = sandbox.bridge("br0");
    let new = NewVlan {
        name: "br0.5",
        parent,
        vid: 5,
        mac: Some(MAC_A),
        mtu: Some(1400),
        up: true,
    };
    let link = sandbox.rtnl.create_vlan(&new).unwrap();
    assert_eq!(link.kind.as_deref(), Some("vlan"));
    assert_eq!(
        (link.link, link.vlan_id, link.mac),
        (Some(parent), Some(5), Some(MAC_A))
    );
    assert!(link.up && link.mtu == 1400);
    assert!(sandbox.rtnl.create_vlan(&new).unwrap_err().already_exists());
}
