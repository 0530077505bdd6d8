//! Hosts whose filter rules drop what pods send on, as Docker leaves them.

use conformance::{Call, Case, Lab, Output, case, with};
use serde_json::json;

use super::{Node, assert_seen, beyond_the_uplink, pod_network, unreachable};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(dockers_forward_policy_is_warned_about),
        case!(an_ipv6_policy_is_warned_about),
        case!(rules_that_let_pods_through_are_no_reason_to_warn),
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

impl Node<'_> {
    fn docker(&self) {
        let restore = conformance::Program::new("iptables-restore").args(["--noflush"]);
        self.run(restore.stdin(DOCKER)).succeeded();
    }
}

/// ADD of a new pod, and STATUS; both must succeed.
fn add_and_status(node: &Node, pod: &str) -> [Output; 2] {
    let pod = node.pod(pod);
    let call = |verb: &str, call: &Call| node.plugin().call(verb, &node.network, call).succeeded();
    [
        call("ADD", &Call::of(&pod)),
        call("STATUS", &Call::default()),
    ]
}

fn dockers_forward_policy_is_warned_about(lab: &Lab) {
    let (node, world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
    node.docker();
    for output in add_and_status(&node, "warned") {
        let said = &output.stderr;
        let names_all = ["FORWARD", "cni0", "firewall"]
            .iter()
            .all(|word| said.contains(word));
        assert!(names_all, "{output}");
    }
    // It is true, and following the advice helps.
    let pod = node.join("pod");
    let [(outside, uplink), _] = beyond_the_uplink();
    assert!(unreachable(&pod, &world, outside));
    node.sh("iptables -I DOCKER-USER -i cni0 -j ACCEPT");
    node.sh("iptables -I DOCKER-USER -o cni0 -j ACCEPT");
    assert_seen(&pod, &world, outside, uplink);
    node.sh("iptables -D DOCKER-USER 1");
    node.sh("iptables -D DOCKER-USER 1");
    node.part_with(&[&pod]);
}

fn an_ipv6_policy_is_warned_about(lab: &Lab) {
    let (node, _world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
    node.sh("ip6tables -P FORWARD DROP");
    for output in add_and_status(&node, "pod") {
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert!(output.stderr.contains("ip6 filter FORWARD"), "{output}");
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

fn a_plain_host_is_no_reason_to_warn(lab: &Lab) {
    let (node, _world) = Node::connected(lab, with(pod_network(), json!({"ipMasq": true})));
    for output in add_and_status(&node, "pod") {
        assert_eq!(output.stderr, "", "{output}");
    }
}
