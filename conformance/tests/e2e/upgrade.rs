//! A node whose containerd is replaced by a newer one while its pods run.

use conformance::{Case, Containerd, Need};

use serde_json::json;

use crate::containerd::{TCP, bridge, outside, portmap, url};
use crate::image::Http;
use crate::runtime::{Runtime, Scenario, scenario};
use crate::{MACHINE, ip};

const UPGRADE: Scenario = scenario!(pods_survive_an_upgrade_from_1_7, "portmap", "firewall");

pub(crate) fn cases() -> Vec<Case> {
    let case = UPGRADE.with(Containerd::V2);
    vec![case.needs(Need::Containerd(Containerd::V1_7))]
}

/// What one release attached in the version of the specification that it knows, the other detaches in its own.
fn pods_survive_an_upgrade_from_1_7(runtime: &Runtime) {
    let former = Runtime {
        lab: runtime.lab,
        release: Containerd::V1_7,
    };
    let more = [portmap(), json!({"type": "firewall"})];
    let mut node = former.start(&bridge(&["10.88.0.0/24", "fd00:88::/64"], &more));
    let outside = outside(&mut node);
    let old = node.run_pod_with_ports("old", &[(TCP, 18080)]);
    let server = node.run_server(&old);

    node.kill_containerd();
    node.install(runtime);
    node.start_containerd();
    assert_eq!(node.ready_addresses(&old), old.addresses);
    node.network_ready().expect("ready");
    let new = node.run_pod("new");
    node.run_server(&new);
    for (old, new) in old.addresses.iter().zip(&new.addresses) {
        let new = url(*new, 80);
        assert_eq!(
            node.wget(&server, &new)
                .expect("the new pod answers the old"),
            *old
        );
    }
    for address in MACHINE {
        outside
            .http(ip(address), 18080)
            .expect("the host port leads to the old pod");
    }
    node.stop_pod(&old);
    outside
        .http(ip(MACHINE[0]), 18080)
        .expect_err("nobody answers for a stopped pod");
    node.remove(&[old, new]);
}
