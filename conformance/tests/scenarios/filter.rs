//! Hosts whose filter rules drop what pods send on, as Docker leaves them.

use conformance::{Call, Case, Lab, Need, Output, case, host_local, with};
use serde_json::{Value, json};

use super::{Node, assert_seen, beyond_the_uplink, pod_network, unreachable};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(dockers_forward_policy_is_warned_about),
        case!(an_ipv6_policy_is_warned_about),
        case!(rules_that_let_pods_through_are_no_reason_to_warn),
        case!(a_list_with_the_firewall_plugin_is_no_reason_to_warn),
        case!(the_firewall_plugin_lets_pods_through_dockers_policy)
            .needs(Need::Plugin("firewall"))
            .needs(Need::Cnitool),
        case!(a_plain_host_is_no_reason_to_warn),
    ];
    cases.into_iter().map(Case::ours).collect()
}

/// What a Docker daemon with its default bridge leaves in the filter table.
const DOCKER: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
";

/// Networks whose pods go out with the node's address, and which interfaces of the node they are behind.
fn networks() -> [(Value, &'static str); 2] {
    let ipam = with(
        host_local(&["10.1.0.0/24", "fd00:1::/64"]),
        json!({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}),
    );
    let pairs =
        json!({"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipMasq": true, "ipam": ipam});
    let bridge = with(pod_network(), json!({"ipMasq": true}));
    [(bridge, "cni0"), (pairs, "veth")]
}

impl Node<'_> {
    fn docker(&self) {
        let restore = conformance::Program::new("iptables-restore").args(["--noflush"]);
        self.run(restore.stdin(DOCKER)).succeeded();
    }
}

/// ADD of a new pod, and STATUS; both must succeed.
fn add_and_status(node: &Node, pod: &str) -> [Output; 2] {
    let call = |verb: &str, call: &Call| node.plugin().call(verb, &node.network, call).succeeded();
    // At the first one, nothing tells whether the plugin firewall is in the list and yet to be called.
    let first = node.pod(&format!("{pod}-first"));
    let said = call("ADD", &Call::of(&first)).stderr;
    assert_eq!(said, "");
    let pod = node.pod(pod);
    [
        call("ADD", &Call::of(&pod)),
        call("STATUS", &Call::default()),
    ]
}

fn dockers_forward_policy_is_warned_about(lab: &Lab) {
    for (network, link) in networks() {
        dockers_policy_is_warned_about(lab, network, link);
    }
}

fn dockers_policy_is_warned_about(lab: &Lab, network: Value, link: &str) {
    let (node, world) = Node::connected(lab, network);
    node.docker();
    for output in add_and_status(&node, "warned") {
        let said = &output.stderr;
        let names_all = ["FORWARD", link, "firewall"]
            .iter()
            .all(|word| said.contains(word));
        assert!(names_all, "{output}");
    }
    // It is true, and following the advice helps.
    let pod = node.join("pod");
    let [(outside, uplink), _] = beyond_the_uplink();
    assert!(unreachable(&pod, &world, outside));
    node.sh(&format!("iptables -I DOCKER-USER -i {link}+ -j ACCEPT"));
    node.sh(&format!("iptables -I DOCKER-USER -o {link}+ -j ACCEPT"));
    let status = node
        .plugin()
        .call("STATUS", &node.network, &Call::default());
    assert_eq!(status.stderr, "", "{status}");
    assert_seen(&pod, &world, outside, uplink);
    node.sh("iptables -D DOCKER-USER 1");
    node.sh("iptables -D DOCKER-USER 1");
    node.part_with(&[&pod]);
}

fn an_ipv6_policy_is_warned_about(lab: &Lab) {
    for (network, _) in networks() {
        let (node, _world) = Node::connected(lab, network);
        node.sh("ip6tables -P FORWARD DROP");
        for output in add_and_status(&node, "pod") {
            assert_eq!(output.stderr.lines().count(), 1, "{output}");
            assert!(output.stderr.contains("ip6 filter FORWARD"), "{output}");
        }
    }
}

fn rules_that_let_pods_through_are_no_reason_to_warn(lab: &Lab) {
    let ways_through = [
        "-I DOCKER-USER -s 10.1.0.0/16 -j ACCEPT|-I DOCKER-USER -d 10.1.0.0/16 -j ACCEPT",
        "-I FORWARD -i cni0 -j ACCEPT|-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-P FORWARD ACCEPT",
    ];
    for way in ways_through {
        let (node, world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
        node.docker();
        way.split('|').for_each(|rule| {
            node.sh(&format!("iptables {rule}"));
        });
        for output in add_and_status(&node, "quiet") {
            assert_eq!(output.stderr, "", "{way}: {output}");
        }
        let pod = node.join("pod");
        let [(outside, uplink), _] = beyond_the_uplink();
        assert_seen(&pod, &world, outside, uplink);
        node.part_with(&[&pod]);
    }
}

/// The configuration list of the node's network, with the firewall plugin behind the one that makes interfaces.
fn list_with_firewall(node: &Node) -> String {
    let main = with(
        node.network.clone(),
        json!({"cniVersion": null, "name": null}),
    );
    let plugins = json!([main, {"type": "firewall"}]);
    json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins}).to_string()
}

fn a_list_with_the_firewall_plugin_is_no_reason_to_warn(lab: &Lab) {
    for (network, _) in networks() {
        a_list_with_firewall_is_no_reason_to_warn(lab, network);
    }
}

fn a_list_with_firewall_is_no_reason_to_warn(lab: &Lab, network: Value) {
    let (node, _world) = Node::connected(lab, network);
    // A directory of the machine that the test must not touch.
    node.sh("mkdir -p /run/etc/upper /run/etc/work");
    node.sh("mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc");
    node.docker();
    let other = list_with_firewall(&node).replace("\"net\"", "\"other\"");
    node.write("/etc/cni/net.d/10-other.conflist", other);
    let [add, status] = add_and_status(&node, "warned");
    assert!(
        add.stderr.contains("firewall"),
        "another network's list: {add}"
    );
    assert!(
        status.stderr.contains("firewall"),
        "another network's list: {status}"
    );
    node.write("/etc/cni/net.d/20-net.conflist", list_with_firewall(&node));
    for output in add_and_status(&node, "quiet") {
        assert_eq!(output.stderr, "", "{output}");
    }
}

fn the_firewall_plugin_lets_pods_through_dockers_policy(lab: &Lab) {
    let (node, world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
    node.docker();
    node.sh("ip6tables -P FORWARD DROP");
    node.configure("10-net.conflist", &list_with_firewall(&node));
    let pod = node.pod("pod");
    let cnitool = node.lab.cnitool(&node);
    cnitool.add("net", &pod);
    for (outside, uplink) in beyond_the_uplink() {
        assert_seen(&pod, &world, outside, uplink);
    }
    cnitool.check("net", &pod);
    cnitool.del("net", &pod);
    // Chains that the plugin keeps for the next container may stay; of this one nothing may be known.
    let after = node.observe();
    let known = super::firewall(&after);
    let known: Vec<_> = known
        .iter()
        .filter(|line| line.contains("10.1.0.2") || line.contains("fd00:1::2"))
        .collect();
    assert!(known.is_empty(), "{known:#?}");
}

fn a_plain_host_is_no_reason_to_warn(lab: &Lab) {
    for (network, _) in networks() {
        let (node, _world) = Node::connected(lab, network);
        for output in add_and_status(&node, "pod") {
            assert_eq!(output.stderr, "", "{output}");
        }
    }
}
