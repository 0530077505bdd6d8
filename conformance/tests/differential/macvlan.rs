//! The keys of `macvlan`, on the cable to the machine outside.

use conformance::differential::chained;
use conformance::{Protocol, with};
use serde_json::{Value, json};

use super::INDEX;
use super::scenario::{Scenario, Scene};

/// What every interface shows that has addresses of its own network outside.
pub(super) const ADDRESSED: [&str; 2] = ["mtu-in-results", INDEX];

/// The same with one of IPv6.
pub(super) const ADDRESSED_V6: &str = "ipv6-usable-at-once";

/// What those of IPv4 alone do not need.
pub(super) const NDISC: &str = "neighbour-advertisements";

/// Addresses of the network outside.
pub(super) fn outside(families: &[&str]) -> Value {
    let range = |family: &&str| match *family {
        "4" => {
            json!([{"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.50", "gateway": "198.51.100.2"}])
        }
        _ => {
            json!([{"subnet": "2001:db8:5::/64", "rangeStart": "2001:db8:5::50", "gateway": "2001:db8:5::2"}])
        }
    };
    let ranges: Vec<Value> = families.iter().map(range).collect();
    json!({"ipam": {"type": "host-local", "ranges": ranges}})
}

/// What gets through between pod and outside.
pub(super) fn reach_outside(scene: &Scene) {
    for address in ["198.51.100.2", "2001:db8:5::2"] {
        let address = address.parse().expect("an address");
        let server = scene.outside.serve(Protocol::Tcp, address, 80);
        scene
            .side
            .probe("pod to outside", &scene.pod, Protocol::Tcp, server.address);
    }
}

fn macvlan(name: &str, more: Value) -> Scenario {
    let network = with(chained("macvlan", json!({"master": "up0"})), more);
    Scenario::new(format!("macvlan::{name}"), vec![network]).meanwhile(reach_outside)
}

/// With an address of IPv4.
fn addressed(name: &str, more: Value) -> Scenario {
    macvlan(name, with(outside(&["4"]), more))
        .differs(&ADDRESSED)
        .differs(&[NDISC])
        .sees(&["pod to outside Tcp: seen as 198.51.100.50"])
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let routes = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "198.51.100.9"}]}});
    let mac = |last: &str| format!("02:00:00:00:00:{last}");
    let both = json!({"mac": mac("21"), "args": {"cni": {"mac": mac("22")}}});
    vec![
        macvlan("layer_2", json!({})).differs(&["mtu-in-results"]),
        addressed("addresses", json!({})),
        addressed("routes", routes),
        macvlan("dual_stack", outside(&["4", "6"]))
            .differs(&ADDRESSED)
            .differs(&[ADDRESSED_V6])
            .sees(&["seen as 198.51.100.50", "seen as 2001:db8:5::50"]),
        addressed("master_of_the_default_route", json!({"master": ""})).prepared(|side| {
            side.host.ip("route add default via 198.51.100.2");
        }),
        addressed("bridge_mode", json!({"mode": "bridge"})).sees(&["mode=bridge"]),
        addressed("private", json!({"mode": "private"})).sees(&["mode=private"]),
        addressed("vepa", json!({"mode": "vepa"})).sees(&["mode=vepa"]),
        macvlan("passthru", json!({"mode": "passthru"}))
            .differs(&["mtu-in-results"])
            .sees(&["mode=passthru"]),
        addressed("queue", json!({"bcqueuelen": 3000})).sees(&["bcqueuelen=3000"]),
        addressed("mtu", json!({"mtu": 1400})).sees(&["link eth0 mtu=1400"]),
        addressed("mac", json!({"mac": mac("21")})).sees(&["eth0 address=02:00:00:00:00:21"]),
        addressed("mac_of_args", both).differs(&["mac-address-of-args"]),
        addressed(
            "mac_of_the_runtime",
            json!({"mac": mac("21"), "runtimeConfig": {"mac": mac("23")}}),
        )
        .sees(&["eth0 address=02:00:00:00:00:23"]),
        addressed("mac_of_cni_args", json!({"mac": mac("21")}))
            .args("IgnoreUnknown=1;MAC=02:00:00:00:00:24")
            .sees(&["eth0 address=02:00:00:00:00:24"]),
        addressed("dns", json!({"dns": {"nameservers": ["192.0.2.53"]}}))
            .sees(&["dns.nameservers"]),
        macvlan(
            "link_in_container",
            json!({"master": "net0", "linkInContainer": true}),
        )
        .differs(&["mtu-in-results"])
        .prepared_pod(|_, pod| {
            pod.ip("link add net0 type veth peer name net1");
            pod.ip("link set net0 up");
        }),
    ]
}
