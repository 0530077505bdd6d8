//! The keys of `bandwidth`, behind a bridge.

use conformance::differential::chained;
use conformance::{Program, with};
use serde_json::{Value, json};

use super::scenario::{Scenario, Scene, traffic};
use super::{INDEX, ON_A_BRIDGE};
use crate::common::plain;

fn bandwidth(name: &str, more: Value) -> Scenario {
    let bridge = with(plain(), json!({"isDefaultGateway": true}));
    Scenario::new(
        format!("bandwidth::{name}"),
        vec![bridge, chained("bandwidth", more)],
    )
    .differs(&ON_A_BRIDGE)
    .differs(&[INDEX])
    .meanwhile(traffic)
}

/// Limits of either direction, or of both.
fn limited(name: &str, more: Value) -> Scenario {
    // A queueing discipline wants a queue, so the Go plugin gives the interface one.
    bandwidth(name, more).differs(&["!queue-length-of-the-host-end"])
}

pub(super) fn scenarios() -> Vec<Scenario> {
    const IFB: &[&str] = &["ifb-says-whose-it-is"];
    // The Go plugin knows nothing of subnets and limits all traffic.
    const BY_SUBNET: &[&str] = &["ifb-says-whose-it-is", "limits-by-subnet"];
    const INGRESS: [&str; 2] = ["<veth> tbf rate=1000000", "<veth> tbf burst=100000"];
    const EGRESS: [&str; 3] = [
        "bwp6230a40fd8ff tbf rate=2000000",
        "bwp6230a40fd8ff tbf burst=200000",
        "Egress Redirect to device bwp6230a40fd8ff",
    ];
    let ingress = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000});
    let egress = json!({"egressRate": 16_000_000, "egressBurst": 1_600_000});
    let both = with(ingress.clone(), egress.clone());
    let of_the_runtime = |limits: Value| json!({"runtimeConfig": {"bandwidth": limits}});
    let unshaped = with(
        both.clone(),
        json!({"unshapedSubnets": ["10.1.0.0/24", "fd00:1::/64"]}),
    );
    let shaped = with(both.clone(), json!({"shapedSubnets": ["198.51.100.0/24"]}));
    vec![
        limited("ingress", ingress.clone()).sees(&INGRESS),
        limited("egress", egress).differs(IFB).sees(&EGRESS),
        limited("both", both.clone())
            .differs(IFB)
            .sees(&INGRESS)
            .sees(&EGRESS),
        limited("unshaped_subnets", unshaped.clone()).differs(BY_SUBNET),
        limited("shaped_subnets", shaped.clone()).differs(BY_SUBNET),
        limited("runtime", of_the_runtime(both.clone()))
            .differs(IFB)
            .sees(&INGRESS)
            .sees(&EGRESS),
        limited("runtime_unshaped_subnets", of_the_runtime(unshaped)).differs(BY_SUBNET),
        limited("runtime_shaped_subnets", of_the_runtime(shaped)).differs(BY_SUBNET),
        limited(
            "runtime_beside_own",
            with(ingress, of_the_runtime(both.clone())),
        )
        .sees(&INGRESS),
        // A pod may not lift what the administrator wrote, not even where that is no limit.
        bandwidth(
            "runtime_beside_own_zero",
            with(json!({"ingressRate": 0}), of_the_runtime(both)),
        ),
        bandwidth("nothing", json!({})),
        limited(
            "burst_of_less_than_a_packet",
            json!({"ingressRate": 8_000_000, "ingressBurst": 1_000}),
        )
        .differs(&["bucket-of-a-packet"])
        .meanwhile(large_packets),
    ]
}

/// Whether a packet of 1,000 bytes gets to the container.
fn large_packets(scene: &Scene) {
    let words = ["-n", "-q", "-c", "1", "-W", "2", "-s", "972", "10.1.0.2"];
    let answered = scene.side.host.run(Program::new("ping").args(words)).ok();
    let what = format!("the pod answers 1,000 bytes: {answered}");
    scene.side.note("traffic", what);
}
