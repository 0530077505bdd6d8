//! Bridges, their ports and their MTU.

use conformance::{Case, Lab, Need, case};
use serde_json::json;

use super::{Node, bridge, list, with};
use crate::common::wait_until;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_foreign_address_of_the_bridge_is_found),
        case!(ports_that_pass_nothing_on_are_found),
        case!(a_bridge_that_is_down_is_found),
        case!(a_port_that_left_its_vlan_is_found).needs(Need::VlanFiltering),
        case!(a_bridge_that_is_nearly_full_is_told),
        case!(different_mtus_within_a_bridge_are_told),
        case!(an_uplink_that_is_narrower_is_told),
        case!(network_manager_that_manages_ours_is_told),
        case!(networkd_that_manages_ours_is_told),
        case!(router_advertisements_that_are_heeded_are_found),
    ]
}

fn a_foreign_address_of_the_bridge_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.ip("link add cni0 type bridge");
    node.ip("addr add 172.30.0.1/24 dev cni0");
    let found = node.finds(
        "bridge-address-foreign",
        "fail",
        &["172.30.0.1/24", "10.1.0.0/24"],
    );
    let pod = node.pod("one");
    assert!(
        !node.cnitool().call("add", "net", &pod.netns()).ok(),
        "ADD fails, as was said"
    );
    node.sh(found["remedy"]["command"].as_str().expect("a command"));
    node.cnitool().add("net", &pod);
    node.assert_healthy("after the remedy");
}

fn ports_that_pass_nothing_on_are_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let (one, two) = (node.join("one"), node.join("two"));
    for (break_it, mend_it, says) in [
        (
            format!("ip link set {} down", one.end()),
            format!("ip link set {} up", one.end()),
            "is down",
        ),
        (
            format!("ip link set {} nomaster", one.end()),
            format!("ip link set {} master cni0", one.end()),
            "is no port of cni0",
        ),
        (
            format!("bridge link set dev {} state 0", one.end()),
            format!("bridge link set dev {} state 3", one.end()),
            "is disabled as a port",
        ),
    ] {
        wait_until("all is well", || node.ids().is_empty());
        node.sh(&break_it);
        node.finds(
            "port-down",
            "fail",
            &["1 container of net", &one.end(), says],
        );
        node.sh(&mend_it);
        if says.contains("no port") {
            node.sh(&format!("bridge link set dev {} hairpin on", one.end()));
        }
    }
    // The kernel tells of a carrier in its own time.
    wait_until("the port forwards again", || node.ids().is_empty());
    two.pod.ip("link set eth0 down");
    wait_until("the carrier is gone", || node.ids().contains("port-down"));
    node.finds("port-down", "fail", &[&two.end(), "has no carrier"]);
}

fn a_bridge_that_is_down_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.ip("link set cni0 down");
    let found = node.finds("port-down", "fail", &["cni0 is down"]);
    assert_eq!(found["remedy"]["command"], "ip link set cni0 up");
}

fn a_port_that_left_its_vlan_is_found(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([{"type": "bridge", "bridge": "br0", "vlan": 100}])),
    );
    let one = node.join("one");
    node.assert_healthy("in its VLAN");
    node.sh(&format!("bridge vlan del dev {} vid 100", one.end()));
    node.finds("vlan-missing", "fail", &[&one.end(), "VLAN 100"]);
}

fn a_bridge_that_is_nearly_full_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    let mut batch = String::new();
    for index in 0..930 {
        batch += &format!("link add p{index} type ifb\nlink set p{index} master cni0\n");
    }
    let program = conformance::Program::new("ip")
        .args(["-batch", "-"])
        .stdin(batch);
    node.run(program).succeeded();
    node.finds("bridge-nearly-full", "warn", &["931 ports of 1024"]);
}

fn different_mtus_within_a_bridge_are_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.configure(
        "10-net.conflist",
        &list(json!([with(bridge(), json!({"mtu": 1400}))])).to_string(),
    );
    let two = node.join("two");
    node.finds("mtu-mismatch", "warn", &[&two.end(), "1400", "1500"]);
}

fn an_uplink_that_is_narrower_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.ip("link set up0 mtu 1450");
    node.finds(
        "mtu-mismatch",
        "warn",
        &["up0", "1450", "\\\"mtu\\\": 1450"],
    );
}

fn index(node: &Node<'_>, name: &str) -> u64 {
    node.link(name).expect("a link")["ifindex"]
        .as_u64()
        .expect("an index")
}

fn network_manager_that_manages_ours_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    let path = format!("/run/NetworkManager/devices/{}", index(&node, "cni0"));
    node.write(&path, "[device]\nmanaged=false\n");
    node.assert_not_found("managed-by-others");
    node.write(&path, "[device]\nmanaged=true\n");
    node.finds(
        "managed-by-others",
        "warn",
        &["NetworkManager", "cni0", "unmanaged-devices"],
    );
}

fn networkd_that_manages_ours_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let one = node.join("one");
    let path = format!("/run/systemd/netif/links/{}", index(&node, &one.end()));
    node.write(&path, "ADMIN_STATE=unmanaged\nOPER_STATE=routable\n");
    node.assert_not_found("managed-by-others");
    node.write(&path, "ADMIN_STATE=configured\nOPER_STATE=routable\n");
    node.finds(
        "managed-by-others",
        "warn",
        &["systemd-networkd", &one.end(), "Unmanaged=yes"],
    );
}

fn router_advertisements_that_are_heeded_are_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.set_sysctl("net/ipv6/conf/cni0/accept_ra", "2");
    node.finds(
        "managed-by-others",
        "fail",
        &["net.ipv6.conf.cni0.accept_ra is 2"],
    );
}
