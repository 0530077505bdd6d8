//! Host ports of several containers, put to both makers: whose a port is when two ask for it, when its owner dies, and
//! after a flush.

use conformance::differential::{Side, chained, compare};
use conformance::{Call, Case, Lab, Need, Pod, Protocol, bridge, host_local, with};
use serde_json::{Value, json};

use super::scenario::outside;
use crate::common::ip;

/// What the tests here expect.
pub(super) const DIFFERENCES: [&str; 4] = [
    "wildcard-and-one-address",
    "two-networks-one-port",
    "dead-owners-lose-their-ports",
    "localhost-after-a-flush",
];

/// What results show.
const RESULTS: &str = "mtu-in-results";

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

type Test = fn(&Lab, &'static str);

pub(super) fn cases() -> Vec<Case> {
    let tests: [(&str, Test); 4] = [
        ("wildcard_and_one_address", wildcard_and_one_address),
        ("two_networks_one_port", two_networks_one_port),
        ("dead_owner", dead_owner),
        ("localhost_after_a_flush", localhost_after_a_flush),
    ];
    let case = |(name, test): (&str, Test), backend| {
        let name = format!("differential::portmap::{name}_{backend}");
        Case::new(name, move |lab| test(lab, backend)).needs(Need::GoPlugins)
    };
    let of_each = |test| BACKENDS.map(|backend| case(test, backend));
    tests.into_iter().flat_map(of_each).collect()
}

/// A network called `net` with its bridge `cni0`, and these mappings.
fn mapped(backend: &str, mappings: Value) -> Vec<Value> {
    let network = with(
        bridge(host_local(&["10.1.0.0/24"])),
        json!({"isDefaultGateway": true}),
    );
    let runtime = json!({"backend": backend, "runtimeConfig": {"portMappings": mappings}});
    vec![network, chained("portmap", runtime)]
}

/// Port 8080 of all addresses.
fn port() -> Value {
    json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])
}

fn wildcard_and_one_address(lab: &Lab, backend: &str) {
    let one_address = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "198.51.100.1"}]);
    compare(lab, &[RESULTS, "wildcard-and-one-address"], &[], |side| {
        let _outside = outside(side);
        for (container, mappings) in [("first", port()), ("second", one_address.clone())] {
            let pod = side.pod(container);
            side.step(format!("add {container}"));
            side.add(&mapped(backend, mappings), &Call::of(&pod));
        }
    });
}

/// The same container on two networks, each of which was handed its ports.
fn two_networks_one_port(lab: &Lab, backend: &str) {
    let other = mapped(backend, port())
        .into_iter()
        .map(|plugin| with(plugin, json!({"name": "other"})));
    let mut other: Vec<Value> = other.collect();
    let addresses = json!({"bridge": "cni1", "isDefaultGateway": false, "isGateway": true});
    let addresses = with(addresses, json!({"ipam": host_local(&["10.2.0.0/24"])}));
    other[0] = with(other[0].clone(), addresses);
    // With iptables both makers serve the second network once the first is detached.
    let differences: &[&str] = match backend {
        "nftables" => &[RESULTS, "two-networks-one-port"],
        _ => &[RESULTS],
    };
    let seen = ["by the first network Tcp: seen as 10.1.0.1"];
    compare(lab, differences, &seen, |side| {
        let pod = side.pod("pod");
        let net = mapped(backend, port());
        let (call, second) = (Call::of(&pod), Call::of(&pod).ifname("eth1"));
        side.step("add");
        let result = side.add(&net, &call).expect("ADD to the first network");
        side.add(&other, &second)
            .expect("ADD to the second network");
        let _servers = ["10.1.0.2", "10.2.0.2"].map(|own| pod.serve(Protocol::Tcp, ip(own), 80));
        let ask = |what: &str| {
            let to = ([127, 0, 0, 1], 8080).into();
            side.probe(what, &side.host, Protocol::Tcp, to);
        };
        ask("by the first network");
        side.step("del");
        side.del(&net, &result, &call);
        ask("by the second network");
    });
}

fn dead_owner(lab: &Lab, backend: &str) {
    let differences = [RESULTS, "dead-owners-lose-their-ports"];
    compare(lab, &differences, &[], |side| {
        let outside = outside(side);
        let dead = side.host.pod("dead");
        let network = mapped(backend, port());
        side.step("add");
        side.add(&network, &Call::of(&dead)).expect("ADD");
        dead.vanish();
        let heir = attach(side, "heir", &network);
        let _server = heir.serve(Protocol::Tcp, ip("10.1.0.3"), 80);
        let to = ([198, 51, 100, 1], 8080).into();
        side.probe("port of the dead", &outside, Protocol::Tcp, to);
    });
}

/// The one who had a port is dead, its rules are flushed, and another container comes that has none.
fn localhost_after_a_flush(lab: &Lab, backend: &str) {
    let differences = [RESULTS, "localhost-after-a-flush"];
    compare(lab, &differences, &[], |side| {
        let dead = side.host.pod("dead");
        side.step("add");
        side.add(&mapped(backend, port()), &Call::of(&dead))
            .expect("ADD");
        note_localnet(side, "before the flush");
        dead.vanish();
        side.host.sh("nft flush ruleset");
        attach(side, "next", &mapped(backend, json!([])));
        note_localnet(side, "after the flush");
    });
}

fn attach(side: &Side, name: &str, network: &[Value]) -> std::rc::Rc<Pod> {
    let pod = side.pod(name);
    side.add(network, &Call::of(&pod)).expect("ADD");
    pod
}

fn note_localnet(side: &Side, when: &str) {
    let value = side.host.sysctl("net/ipv4/conf/cni0/route_localnet");
    side.note("host", format!("route_localnet {when}: {value}"));
}
