//! What a kubelet learns of the network from containerd 2, which asks the plugins with STATUS. Without it the network
//! counts as ready when there is a list that can be parsed, which is all that containerd 1 looks at.

use conformance::{Case, Containerd};
use serde_json::json;

use crate::containerd::bridge;
use crate::eventually;
use crate::runtime::{Runtime, Scenario, network, scenario};

const SCENARIOS: [Scenario; 3] = [
    scenario!(a_full_pool_leaves_a_node_ready_unless_told_otherwise),
    scenario!(addresses_that_nobody_gives_back_leave_a_node_ready),
    scenario!(
        a_mistake_in_the_list_is_told_before_the_first_pod,
        "portmap",
        "firewall",
        "tuning"
    ),
];

pub(crate) fn cases() -> Vec<Case> {
    // The Go plugin's STATUS has no opinion on either.
    SCENARIOS
        .map(|scenario| scenario.with(Containerd::V2).ours())
        .into()
}

/// A kubelet starts no container again on a node that is not ready. Pods can be stopped while STATUS fails, and the node is
/// ready again by that.
fn a_full_pool_leaves_a_node_ready_unless_told_otherwise(runtime: &Runtime) {
    let mut chain = bridge(&["10.88.0.0/30"], &[]);
    let node = runtime.start(&chain);
    node.network_ready().expect("ready with a free address");
    let pod = node.run_pod("only");
    node.network_ready().expect("ready without a free address");
    chain[0]["ipam"]["statusWhenFull"] = json!("notReady");
    // containerd watches the directory.
    node.configure(&network(&chain));
    assert!(eventually(|| node.network_ready().is_err()), "not ready");
    let reason = node
        .network_ready()
        .expect_err("not ready without a free address");
    for part in [
        "network net",
        "1 of 1",
        "10.88.0.1-10.88.0.2",
        "widen the range",
    ] {
        assert!(reason.contains(part), "{part:?} in {reason}");
    }
    let refused = node.try_run_pod("another");
    let refused = refused.expect_err("there is one address only");
    assert!(refused.contains("1 of 1"), "the same reason: {refused}");

    node.stop_pod(&pod);
    node.network_ready().expect("ready with the address back");
    node.remove(&[pod]);
}

/// If STATUS took them for used, no pod would be sent there, and no ADD would take them back.
fn addresses_that_nobody_gives_back_leave_a_node_ready(runtime: &Runtime) {
    let mut chain = bridge(&["10.88.0.0/30"], &[]);
    chain[0]["ipam"]["statusWhenFull"] = json!("notReady");
    let node = runtime.start(&chain);
    let lost = node.run_pod("lost");
    node.network_ready().expect_err("not ready while it runs");
    node.forget_everything();
    let ready = || node.network_ready().is_ok();
    // The kernel takes the lost pod's interfaces away in its own time.
    assert!(eventually(ready), "ready: {:?}", node.network_ready());
    let new = node.run_pod("new");
    assert_eq!(new.addresses, lost.addresses);
    node.remove(&[new]);
}

fn a_mistake_in_the_list_is_told_before_the_first_pod(runtime: &Runtime) {
    let chain = |backend: &str| {
        let more = [
            json!({"type": "portmap", "capabilities": {"portMappings": true}}),
            json!({"type": "firewall", "backend": backend}),
            json!({"type": "tuning"}),
        ];
        bridge(&["10.88.0.0/24", "fd00:88::/64"], &more)
    };
    let node = runtime.start(&chain("pf"));
    let reason = node.network_ready().expect_err("there is no such backend");
    for part in ["plugin firewall of network net", "\"backend\"", "it is pf"] {
        assert!(reason.contains(part), "{part} in {reason}");
    }
    // containerd watches the directory.
    node.configure(&network(&chain("")));
    assert!(
        eventually(|| node.network_ready().is_ok()),
        "ready: {:?}",
        node.network_ready()
    );
    let pod = node.run_pod("a");
    node.remove(&[pod]);
}
