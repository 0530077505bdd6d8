//! The key `bridgeNetfilter`.

use conformance::{Call, Case, Lab, Need, case, layer2, with};
use serde_json::{Value, json};

use super::{BRIDGE_NF, Node, pod_network};
use crate::common::code;

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(a_gateway_switches_the_sysctls_on_by_default),
        case!(one_bridge_can_do_it_alone),
        case!(off_and_layer_2_touch_nothing),
        case!(check_notices_that_it_was_switched_off),
        case!(where_it_cannot_be_had_the_default_warns_and_a_wish_fails),
        case!(an_unknown_value_is_refused),
    ];
    let ours = |case: Case| case.ours().needs(Need::BridgeNetfilter);
    cases.into_iter().map(ours).collect()
}

/// A network with this value of the key; none leaves it away.
fn network(value: Option<&str>) -> Value {
    with(pod_network(), json!({"bridgeNetfilter": value}))
}

/// The two sysctls and the bridge's own two attributes.
fn switches(node: &Node) -> ([String; 2], [Value; 2]) {
    let data = node.link("cni0").expect("the bridge")["linkinfo"]["info_data"].clone();
    let own = ["nf_call_iptables", "nf_call_ip6tables"].map(|name| data[name].clone());
    (BRIDGE_NF.map(|name| node.sysctl(name)), own)
}

fn on() -> [String; 2] {
    ["1".to_owned(), "1".to_owned()]
}

fn off() -> [String; 2] {
    ["0".to_owned(), "0".to_owned()]
}

fn a_gateway_switches_the_sysctls_on_by_default(lab: &Lab) {
    for value in [None, Some("sysctl")] {
        let node = Node::new(lab, network(value));
        let pod = node.join("pod");
        assert_eq!(switches(&node), (on(), [json!(0), json!(0)]), "{value:?}");
        node.part_with(&[&pod]);
        // Other bridges of the host may count on it by now.
        assert_eq!(switches(&node).0, on());
    }
}

fn one_bridge_can_do_it_alone(lab: &Lab) {
    let node = Node::new(lab, network(Some("bridge")));
    let pod = node.join("pod");
    assert_eq!(switches(&node), (off(), [json!(1), json!(1)]));
    node.part_with(&[&pod]);
}

fn off_and_layer_2_touch_nothing(lab: &Lab) {
    let no_gateway = json!({"isGateway": false, "isDefaultGateway": false});
    let untouched = [
        network(Some("off")),
        with(layer2(), json!({})),
        with(pod_network(), no_gateway),
    ];
    for network in untouched {
        let node = Node::new(lab, network);
        let pod = node.join("pod");
        assert_eq!(
            switches(&node),
            (off(), [json!(0), json!(0)]),
            "{}",
            node.network
        );
        node.part_with(&[&pod]);
    }
}

fn check_notices_that_it_was_switched_off(lab: &Lab) {
    for value in [None, Some("sysctl"), Some("bridge"), Some("off")] {
        let node = Node::new(lab, network(value));
        let pod = node.join("pod");
        let check = || {
            node.plugin()
                .check(&node.network, &pod.result, &Call::of(&pod.pod))
        };
        check().succeeded();
        BRIDGE_NF.iter().for_each(|name| node.set_sysctl(name, "0"));
        node.ip("link set cni0 type bridge nf_call_iptables 0 nf_call_ip6tables 0");
        if value == Some("off") {
            check().succeeded();
        } else {
            assert_eq!(code(&check()), 103, "{value:?}");
        }
        node.part_with(&[&pod]);
    }
}

/// As in a container that may not write the sysctl.
fn where_it_cannot_be_had_the_default_warns_and_a_wish_fails(lab: &Lab) {
    let with_read_only_sysctls = |value| {
        let node = Node::new(lab, network(value));
        node.sh("mount --bind /proc/sys/net/bridge /proc/sys/net/bridge");
        node.sh("mount -o remount,ro,bind /proc/sys/net/bridge");
        node
    };
    let call = |node: &Node, verb| {
        let pod = node.pod(verb);
        node.plugin().call(verb, &node.network, &Call::of(&pod))
    };
    let node = with_read_only_sysctls(None);
    let before = node.observe();
    for verb in ["STATUS", "ADD"] {
        let output = call(&node, verb).succeeded();
        assert!(
            output.stderr.contains("bridge-nf-call-iptables"),
            "a warning: {output}"
        );
    }
    node.plugin().del(&node.network, &Call::named("ADD", None));
    node.host.assert_nothing_left(&before, &["ADD"]);

    let node = with_read_only_sysctls(Some("sysctl"));
    let before = node.observe();
    for verb in ["STATUS", "ADD"] {
        let output = call(&node, verb);
        let error = output.error();
        assert!(verb != "STATUS" || error["code"] == 50, "{output}");
        assert!(
            error["details"]
                .as_str()
                .is_some_and(|text| text.contains("modprobe br_netfilter")),
            "{output}"
        );
    }
    node.host.assert_nothing_left(&before, &["ADD"]);
}

fn an_unknown_value_is_refused(lab: &Lab) {
    for value in [json!("on"), json!(true), json!(["sysctl"])] {
        let node = Node::new(lab, with(pod_network(), json!({"bridgeNetfilter": value})));
        let pod = node.pod("pod");
        let error = node.plugin().add_error(&node.network, &Call::of(&pod));
        assert_eq!(error["code"], 7, "{error}");
        assert!(error.to_string().contains("bridgeNetfilter"), "{error}");
    }
}
