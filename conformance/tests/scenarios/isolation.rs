//! Isolated ports: the bridge keeps them apart, and the host does not undo it by routing.

use std::net::IpAddr;

use conformance::{Call, Case, Host, Lab, Need, Protocol, ProxyMode, Service, case, with};
use serde_json::json;

use super::{BRIDGE_NF, INTERNET, Member, Node, UPLINK, pod_network, seen};
use crate::common::{ip, mac};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(isolated_containers_do_not_reach_each_other_by_the_gateway).ours(),
        case!(isolated_containers_reach_what_the_host_translates).ours(),
        case!(isolated_containers_are_reached_from_ports_that_are_not).ours(),
        case!(isolation_is_restored_after_a_flush).ours(),
        case!(isolation_goes_with_the_last_container).ours(),
    ];
    let needy = |case: Case| case.needs(Need::BridgeNetfilter);
    cases.into_iter().map(needy).collect()
}

fn isolated(lab: &Lab, bridge_netfilter: bool) -> (Node<'_>, Host) {
    let mode = if bridge_netfilter { "sysctl" } else { "off" };
    let keys = json!({"portIsolation": true, "bridgeNetfilter": mode});
    let (node, world) = Node::connected(lab, with(pod_network(), keys));
    let value = if bridge_netfilter { "1" } else { "0" };
    BRIDGE_NF
        .iter()
        .for_each(|name| node.set_sysctl(name, value));
    (node, world)
}

/// Both send what is for the other one to a MAC address of the host's, or to the gateway by a route.
fn collude(pods: [&Member; 2], host_mac: Option<&str>) {
    for (from, to) in [(pods[0], pods[1]), (pods[1], pods[0])] {
        for address in to.ips() {
            let (family, length, gateway) = match address {
                IpAddr::V4(_) => ("-4", 32, "10.1.0.1"),
                IpAddr::V6(_) => ("-6", 128, "fd00:1::1"),
            };
            from.ip(&format!("{family} neigh flush dev eth0"));
            match host_mac {
                Some(mac) => from.ip(&format!(
                    "neigh replace {address} lladdr {mac} nud permanent dev eth0"
                )),
                None => from.ip(&format!(
                    "{family} route replace {address}/{length} via {gateway}"
                )),
            }
        }
    }
}

fn cannot_reach(from: &Member, to: &Member) {
    for address in to.ips() {
        let server = to.serve(Protocol::Udp, address, 8080);
        assert!(
            from.cannot_reach(Protocol::Udp, server.address),
            "{address}"
        );
        assert_eq!(server.served(), 0, "nothing arrives at {address}");
    }
}

fn isolated_containers_do_not_reach_each_other_by_the_gateway(lab: &Lab) {
    for bridge_netfilter in [false, true] {
        let (node, _world) = isolated(lab, bridge_netfilter);
        let (a, b) = (node.join("alice"), node.join("berta"));
        let name = node.network["bridge"].as_str().unwrap_or("cni0");
        let bridge = mac(&node, name);
        let port = a.result["interfaces"][1]["mac"]
            .as_str()
            .expect("a MAC")
            .to_owned();
        for host_mac in [None, Some(bridge.as_str()), Some(port.as_str())] {
            collude([&a, &b], host_mac);
            cannot_reach(&a, &b);
        }
        for pod in [&a, &b] {
            for gateway in ["10.1.0.1", "fd00:1::1"] {
                assert!(pod.pings(ip(gateway)), "{gateway}");
            }
            let network = node.network.clone();
            node.plugin()
                .check(&network, &pod.result, &Call::of(&pod.pod))
                .succeeded();
        }
        node.part_with(&[&a, &b]);
    }
}

/// The answer of a server on the same bridge has to go through the host, so the client is seen as the host. With bridge
/// netfilter the kernel bridges what it has translated to somebody on the same bridge, so isolation holds there.
fn isolated_containers_reach_what_the_host_translates(lab: &Lab) {
    for (bridge_netfilter, to_pod) in [(false, true), (false, false), (true, false)] {
        for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
            let (node, world) = isolated(lab, bridge_netfilter);
            let place = if to_pod {
                ["10.1.0.3", "fd00:1::3"]
            } else {
                INTERNET
            };
            let endpoints = [format!("{}:8080", place[0]), format!("[{}]:8080", place[1])];
            let services = [
                Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &[&endpoints[0]]),
                Service::new("WEB6", Protocol::Tcp, "[fd00:96::1]:80", &[&endpoints[1]]),
            ];
            node.kube_proxy(mode, &["192.0.2.0/24", "2001:db8:ffff::/48"], &services);
            let (client, server) = (node.join("client"), node.join("server"));
            let seen_as = if to_pod {
                ["10.1.0.1", "fd00:1::1"]
            } else {
                UPLINK
            };
            for (service, host) in services.iter().zip(seen_as) {
                let (protocol, at) = (service.protocol, service.endpoints[0]);
                let _server = if to_pod {
                    server.serve(protocol, at.ip(), at.port())
                } else {
                    world.serve(protocol, at.ip(), at.port())
                };
                assert_eq!(
                    seen(&client, protocol, service.address),
                    ip(host),
                    "{mode:?}, bridge netfilter {bridge_netfilter}, {at}"
                );
            }
            node.part_with(&[&client, &server]);
        }
    }
}

/// A LAN on the same bridge.
fn isolated_containers_are_reached_from_ports_that_are_not(lab: &Lab) {
    for bridge_netfilter in [false, true] {
        let (node, _world) = isolated(lab, bridge_netfilter);
        let pod = node.join("pod");
        let lan = Host::new();
        node.cable("lan0", &lan, "eth0");
        let name = node.network["bridge"].as_str().unwrap_or("cni0");
        node.ip(&format!("link set lan0 master {name}"));
        lan.ip("addr add 10.1.0.200/24 dev eth0");
        lan.ip("addr add fd00:1::200/64 dev eth0 nodad");
        for address in pod.ips() {
            assert!(lan.pings(address), "{address}, {bridge_netfilter}");
            let server = pod.serve(Protocol::Tcp, address, 8080);
            assert_eq!(
                lan.ask(Protocol::Tcp, server.address).expect("an answer"),
                if address.is_ipv4() {
                    ip("10.1.0.200")
                } else {
                    ip("fd00:1::200")
                }
            );
        }
        node.ip("link del lan0");
        node.part_with(&[&pod]);
    }
}

fn isolation_is_restored_after_a_flush(lab: &Lab) {
    let (node, _world) = isolated(lab, false);
    let (a, b) = (node.join("alice"), node.join("berta"));
    collude([&a, &b], None);
    node.sh("nft flush ruleset");
    assert!(
        a.pings(b.ips().into_iter().next().expect("an address")),
        "the rules are gone"
    );
    let network = node.network.clone();
    let check = node.plugin().check(&network, &a.result, &Call::of(&a.pod));
    assert!(
        check.error()["msg"]
            .as_str()
            .is_some_and(|it| it.contains("apart"))
    );
    let c = node.join("carla");
    cannot_reach(&a, &b);
    // Rules that somebody changed are made anew, too.
    let chains = node.sh("nft list chains inet");
    let chain = chains
        .lines()
        .find_map(|line| line.trim().strip_prefix("chain isolated/"))
        .and_then(|line| line.strip_suffix(" {"))
        .expect("a chain");
    node.sh(&format!("nft flush chain inet trestle isolated/{chain}"));
    assert!(a.pings(b.ips().into_iter().next().expect("an address")));
    let d = node.join("dora");
    cannot_reach(&a, &b);
    node.part_with(&[&a, &b, &c, &d]);
}

fn isolation_goes_with_the_last_container(lab: &Lab) {
    let (node, _world) = isolated(lab, false);
    let (a, b) = (node.join("alice"), node.join("berta"));
    let listed = || node.sh("nft list ruleset");
    assert!(
        listed().contains("net/alice/eth0") && listed().contains("net/berta/eth0"),
        "{}",
        listed()
    );
    // The configuration has changed since, and knows nothing of it.
    let changed = with(node.network.clone(), json!({"portIsolation": false}));
    node.plugin().del(&changed, &Call::of(&a.pod));
    assert!(
        !listed().contains("net/alice/eth0") && listed().contains("isolated/"),
        "{}",
        listed()
    );
    let valid = with(changed, json!({"cni.dev/valid-attachments": []}));
    node.plugin()
        .call("GC", &valid, &Call::of(&b.pod))
        .succeeded();
    assert!(!listed().contains("isolated"), "{}", listed());
    node.part_with(&[&a, &b]);
}
