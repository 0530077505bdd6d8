//! The keys of `bridge`.

use conformance::differential::Side;
use conformance::{Need, Protocol, host_local, layer2, with};
use serde_json::{Value, json};

use super::scenario::{Scenario, Scene, servers, traffic};
use super::{INDEX, ON_A_BRIDGE};
use crate::common::{dual, ip, plain};

/// Addresses of IPv6 from the IPAM.
const IPV6: &str = "router-advertisements";

/// A network with addresses.
fn layer_3(name: &str, network: Value) -> Scenario {
    let differences = [ON_A_BRIDGE.as_slice(), &[INDEX]].concat();
    Scenario::new(format!("bridge::{name}"), vec![network])
        .differs(&differences)
        .meanwhile(traffic)
}

/// A network without.
fn layer_2(name: &str, more: Value) -> Scenario {
    Scenario::new(format!("bridge::{name}"), vec![with(layer2(), more)])
        .differs(&ON_A_BRIDGE)
        .differs(&["layer-2-check"])
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let groups = [
        gateways(),
        ports(),
        requests(),
        masquerade(),
        vlans(),
        versions(),
    ];
    groups.into_iter().flatten().collect()
}

fn gateways() -> Vec<Scenario> {
    let default = json!({"isDefaultGateway": true});
    let asked_twice = json!({"isDefaultGateway": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}});
    let routes = json!({"ipam": {"routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "192.0.2.0/24", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360},
        {"dst": "198.51.101.0/24", "gw": "10.1.0.9", "priority": 50},
        {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "table": 205},
        {"dst": "198.51.102.0/24", "scope": 0},
        {"dst": "2001:db8:7::/48", "gw": "fd00:1::1", "priority": 7}
    ]}});
    vec![
        layer_2("layer_2", json!({})),
        layer_3("gateway", plain()).sees(&["addr cni0 10.1.0.1/24", "host to pod"]),
        layer_3("dual_stack", dual()).differs(&[IPV6]),
        layer_3("ipv6", conformance::bridge(host_local(&["fd00:1::/64"]))).differs(&[IPV6]),
        layer_3("no_gateway", with(plain(), json!({"isGateway": false}))),
        layer_3("default_gateway", with(dual(), default))
            .differs(&[IPV6])
            .sees(&["seen as 10.1.0.2", "seen as fd00:1::2"]),
        layer_3("default_route_twice", with(plain(), asked_twice)).differs(&["default-route-once"]),
        layer_3("address_in_the_way", plain())
            .prepared(taken)
            .differs(&NEVER_ATTACHED)
            .differs(&[INDEX, "own-error-codes", "undone-at-once"]),
        layer_2("on_a_bridge_of_others", json!({}))
            .prepared(taken)
            .differs(&[
                "!ipv6-usable-at-once",
                "!no-multicast-snooping",
                "bridge-of-others",
            ]),
        layer_3("force_address", with(dual(), json!({"forceAddress": true})))
            .prepared(taken)
            .differs(&[IPV6, "!no-multicast-snooping", "neighbour-advertisements"])
            .sees(&["- addr cni0 10.9.0.1/24", "+ addr cni0 10.1.0.1/24"]),
        layer_3("routes", with(dual(), routes)).differs(&[
            IPV6,
            "route-mtu-and-advmss",
            "check-of-routes",
        ]),
        layer_3("other_name", with(plain(), json!({"bridge": "br-other"})))
            .sees(&["+ link br-other"]),
    ]
}

/// What an attachment that fails does not show.
const NEVER_ATTACHED: [&str; 7] = [
    "!alias-on-the-host-end",
    "!no-link-local-address-on-the-host-end",
    "!no-multicast-snooping",
    "!queue-length-of-the-host-end",
    "!ipv6-usable-at-once",
    "!mtu-in-results",
    "!index-beside-the-state",
];

/// A bridge of that name that has addresses of other networks already.
fn taken(side: &Side) {
    side.host.ip("link add cni0 type bridge");
    side.host.ip("link set cni0 up");
    side.host.ip("addr add 10.9.0.1/24 dev cni0");
    side.host.ip("addr add fd00:1::9/64 dev cni0 nodad");
}

fn ports() -> Vec<Scenario> {
    let key = |key: &str| with(plain(), json!({key: true}));
    vec![
        layer_3("mtu", with(plain(), json!({"mtu": 1400})))
            .differs(&["mtu-of-the-bridge-stays"])
            .sees(&["link eth0 mtu=1400"]),
        layer_3("hairpin", key("hairpinMode")).sees(&["hairpin=true"]),
        layer_3("promisc", key("promiscMode"))
            .sees(&["link cni0 flags=[\"BROADCAST\",\"MULTICAST\",\"PROMISC\""]),
        layer_3("port_isolation", key("portIsolation"))
            .meanwhile(|scene| {
                traffic(scene);
                neighbour(scene);
            })
            .differs(&["isolation-beyond-the-bridge"])
            .sees(&["isolated=true", "neighbour reaches the pod: false"]),
        layer_3("neighbours", plain())
            .meanwhile(neighbour)
            .sees(&["neighbour reaches the pod: true"]),
        layer_3("macspoofchk", key("macspoofchk"))
            .meanwhile(|scene| {
                traffic(scene);
                spoof(scene);
            })
            .differs(&["locked-port"])
            .sees(&["with another MAC address, gateway answers: false"]),
        layer_3("no_macspoofchk", plain())
            .meanwhile(spoof)
            .sees(&["with another MAC address, gateway answers: true"]),
        layer_3("enabledad", with(dual(), json!({"enabledad": true})))
            .differs(&["!ipv6-usable-at-once", IPV6]),
        layer_2(
            "disable_container_interface",
            json!({"disableContainerInterface": true}),
        ),
    ]
}

/// Whether another container of the bridge gets through.
fn neighbour(scene: &Scene) {
    let _servers = servers(&scene.pod, &["10.1.0.2"]);
    let near = scene.attach("near", &[with(plain(), json!({"portIsolation": true}))]);
    let to = ([10, 1, 0, 2], 80).into();
    let isolated = scene.side.host.bridge_port(&port_of(scene));
    let isolated = isolated.is_some_and(|port| port["isolated"] == true);
    // Two isolated ports don't talk; who is not isolated is reached by everybody.
    let timed_out = isolated && near.cannot_reach(Protocol::Tcp, to);
    let reached = !timed_out && near.ask(Protocol::Tcp, to).is_ok();
    let what = format!("neighbour reaches the pod: {reached}");
    scene.side.note("traffic", what);
}

/// The host's end of the pod's pair, which is the bridge's first port.
fn port_of(scene: &Scene) -> String {
    let index = scene.pod.link("eth0").expect("eth0")["link_index"].clone();
    let links = scene.side.host.ip_json("link show");
    let mut links = links.as_array().into_iter().flatten();
    let own = links.find(|link| link["ifindex"] == index);
    own.and_then(|link| link["ifname"].as_str())
        .expect("the other end of eth0")
        .to_owned()
}

/// Whether frames with a MAC address that is not the container's get through.
fn spoof(scene: &Scene) {
    scene.pod.ip("link set eth0 address 02:00:00:00:00:99");
    let answers = scene.pod.pings(ip("10.1.0.1"));
    let what = format!("with another MAC address, gateway answers: {answers}");
    scene.side.note("traffic", what);
}

fn requests() -> Vec<Scenario> {
    let dns = json!({"dns": {"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["ndots:2"]}});
    let runtime = json!({"runtimeConfig": {"mac": "02:00:00:00:00:07"}});
    let dots = json!({"runtimeConfig": {"mac": "0200.0000.0007"}});
    let args = json!({"args": {"cni": {"mac": "02:00:00:00:00:08"}}});
    let all = with(runtime.clone(), args.clone());
    let ips = json!({"runtimeConfig": {"ips": ["10.1.0.2"]}});
    const OF_A_POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod;MAC=02:00:00:00:00:09;IP=10.1.0.2";
    vec![
        layer_3("mac", with(plain(), runtime)).sees(&["eth0 address=02:00:00:00:00:07"]),
        layer_3("mac_with_dots", with(plain(), dots)).sees(&["eth0 address=02:00:00:00:00:07"]),
        layer_3("mac_of_args", with(plain(), args)).sees(&["eth0 address=02:00:00:00:00:08"]),
        layer_3("mac_of_cni_args", plain())
            .args(OF_A_POD)
            .sees(&["eth0 address=02:00:00:00:00:09"]),
        layer_3("mac_of_everybody", with(plain(), all))
            .args(OF_A_POD)
            .sees(&["eth0 address=02:00:00:00:00:07"]),
        layer_3("requested_address", with(plain(), ips)),
        layer_3("dns", with(plain(), dns)).sees(&["dns.domain=a.test"]),
    ]
}

fn masquerade() -> Vec<Scenario> {
    let masq = |more| {
        let key = json!({"isDefaultGateway": true, "ipMasq": true});
        with(with(dual(), key), more)
    };
    let masquerading = |name, more| {
        layer_3(name, masq(more))
            .differs(&[IPV6, "own-rules"])
            .sees(&[
                "pod to outside Udp: seen as 198.51.100.1",
                "pod to outside Udp: seen as 2001:db8:5::",
            ])
    };
    vec![
        masquerading("ip_masq", json!({})),
        masquerading("ip_masq_nftables", json!({"ipMasqBackend": "nftables"}))
            .differs(&["del-with-nftables"]),
        masquerading("ip_masq_iptables", json!({"ipMasqBackend": "iptables"})),
    ]
}

fn vlans() -> Vec<Scenario> {
    const AT_THE_GATEWAY: &[&str] = &["no-advertisements-at-a-vlan-gateway"];
    let tagged = with(plain(), json!({"vlan": 100}));
    let trunk = json!({"vlanTrunk": [{"id": 5}, {"minID": 10, "maxID": 12}]});
    let default_vlan =
        |network: &Value, keep: bool| with(network.clone(), json!({"preserveDefaultVlan": keep}));
    let filtering = |scenario: Scenario| scenario.needs(Need::VlanFiltering);
    vec![
        filtering(layer_3("vlan", tagged.clone()))
            .differs(AT_THE_GATEWAY)
            .sees(&["addr cni0.100 10.1.0.1/24"]),
        filtering(layer_3("vlan_with_default", default_vlan(&tagged, true)))
            .differs(AT_THE_GATEWAY),
        filtering(layer_3(
            "vlan_without_default",
            default_vlan(&tagged, false),
        ))
        .differs(AT_THE_GATEWAY),
        filtering(layer_2("vlan_trunk", trunk.clone())).sees(&["\"vlan\":10"]),
        filtering(layer_2(
            "vlan_trunk_with_default",
            default_vlan(&trunk, true),
        )),
        filtering(layer_2(
            "vlan_trunk_without_default",
            default_vlan(&trunk, false),
        ))
        .differs(&["default-vlan-of-a-trunk"]),
        layer_3("vlan_on_a_kernel_without", tagged)
            .needs(Need::NoVlanFiltering)
            .differs(&NEVER_ATTACHED)
            .differs(&["own-error-codes", "del-of-nothing"]),
        layer_2("vlan_trunk_on_a_kernel_without", trunk)
            .needs(Need::NoVlanFiltering)
            .differs(&["own-error-codes", "!layer-2-check"])
            .differs(&NEVER_ATTACHED),
    ]
}

fn versions() -> Vec<Scenario> {
    let of = |network, version: &str| with(network, json!({"cniVersion": version}));
    let old = |version: &str| {
        let name = format!("version_{}", version.replace('.', "_"));
        layer_3(&name, of(plain(), version)).differs(&["!mtu-in-results"])
    };
    vec![
        old("0.2.0"),
        old("0.3.1"),
        old("0.4.0"),
        layer_3("version_1_0_0", of(dual(), "1.0.0")).differs(&["!mtu-in-results", IPV6]),
    ]
}
