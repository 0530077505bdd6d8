//! The list that containerd makes itself, from `dist/containerd/trestle.conflist.tmpl` and the subnets that the kubelet names.

use conformance::{Case, Containerd, workspace};

use crate::containerd::pods_talk_on;
use crate::eventually;
use crate::node::Node;
use crate::runtime::{Runtime, Scenario, scenario};

const SCENARIO: Scenario = scenario!(a_list_is_made_of_the_pod_subnets, "portmap", "firewall");

pub(crate) fn cases() -> Vec<Case> {
    Containerd::ALL.map(|release| SCENARIO.with(release)).into()
}

fn a_list_is_made_of_the_pod_subnets(runtime: &Runtime) {
    let template = workspace().join("dist/containerd/trestle.conflist.tmpl");
    let template = std::fs::read_to_string(template).expect("read the template");
    let mut node = Node::start_with_template(runtime, &template);
    node.network_ready().expect_err("there is no list yet");
    node.tell_pod_cidrs("10.244.3.0/24,fd00:244:3::/64");
    assert!(
        eventually(|| node.network_ready().is_ok()),
        "ready: {:?}",
        node.network_ready()
    );
    pods_talk_on(&mut node);
}
