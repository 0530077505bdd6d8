//! Pods with more than an address: a second network, limits of bandwidth.

use conformance::{Case, Containerd, Protocol};
use serde_json::json;

use crate::containerd::{at_once, bridge};
use crate::runtime::{Runtime, Scenario, network, scenario};

const SCENARIOS: [Scenario; 2] = [
    scenario!(pods_join_two_networks_at_once),
    scenario!(annotations_limit_bandwidth, "bandwidth"),
];

pub(crate) fn cases() -> Vec<Case> {
    let of = |release| SCENARIOS.map(|scenario| scenario.with(release));
    Containerd::ALL.into_iter().flat_map(of).collect()
}

/// containerd attaches one pod to all its networks at the same time, and here several pods. Both networks bring a
/// default route.
fn pods_join_two_networks_at_once(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/24", "fd00:88::/64"], &[]));
    let mut other = bridge(&["10.89.0.0/24"], &[]);
    other[0]["bridge"] = "cni1".into();
    let mut other = network(&other);
    other["name"] = "other".into();
    node.kill_containerd();
    node.configure(&other);
    node.start_containerd();

    let pods = at_once(4, |number| node.run_pod(&format!("pod{number}")));
    let second = |pod| {
        let addresses = node.inside(pod).addresses("eth1");
        let [address] = &addresses[..] else {
            panic!("one address on eth1: {addresses:?}")
        };
        let address = address.strip_suffix("/24").expect("a prefix of 24 bits");
        address.parse().expect("an address")
    };
    for (pod, next) in pods.iter().zip(pods.iter().cycle().skip(1)) {
        assert_eq!(pod.addresses.len(), 2, "the status has the first network's");
        let pairs = [
            (pod.addresses[0], next.addresses[0]),
            (second(pod), second(next)),
        ];
        for (from, to) in pairs {
            let server = node.inside(next).serve(Protocol::Tcp, to, 80);
            let seen = node.inside(pod).ask(Protocol::Tcp, server.address);
            assert_eq!(seen.expect("the next pod's answer"), from);
        }
    }
    at_once(4, |number| node.stop_pod(&pods[number]));
    node.remove(&pods);
}

/// As kubernetes.io/ingress-bandwidth says: containerd hands it on in bits a second, with a burst of its own.
fn annotations_limit_bandwidth(runtime: &Runtime) {
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    let node = runtime.start(&bridge(&["10.88.0.0/24"], &[bandwidth]));
    let annotations = [
        ("kubernetes.io/ingress-bandwidth", "8M"),
        ("kubernetes.io/egress-bandwidth", "16M"),
    ];
    let limited = node.run_pod_with_annotations("limited", &annotations);
    let free = node.run_pod("free");
    let mut rates: Vec<String> = node
        .machine
        .sh("tc qdisc show")
        .lines()
        .filter(|line| line.contains("tbf"))
        .filter_map(|line| {
            line.split_once(" rate ")?
                .1
                .split(' ')
                .next()
                .map(str::to_owned)
        })
        .collect();
    rates.sort();
    assert_eq!(rates, ["16Mbit", "8Mbit"], "one pod's limits");
    for (from, to) in [(&limited, &free), (&free, &limited)] {
        let server = node.inside(to).serve(Protocol::Tcp, to.addresses[0], 80);
        let seen = node.inside(from).ask(Protocol::Tcp, server.address);
        assert_eq!(seen.expect("an answer"), from.addresses[0]);
    }
    node.remove(&[limited, free]);
}
