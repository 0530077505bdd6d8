//! Services with kube-proxy's rules and the pods behind them on the client's own node.
//!
//! A ClusterIP is translated on the way to the server. On one bridge the answer would take the short way, port to
//! port, and come to the client from an address that it never asked, if bridge netfilter did not send it through the
//! host's rules, which translate it back.

use std::collections::BTreeSet;

use conformance::{Case, EchoServer, Lab, Need, Protocol, ProxyMode, Service, case, with};
use serde_json::json;

use super::{BRIDGE_NF, Member, Node, pod_network, seen};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(a_cluster_ip_of_a_pod_on_the_same_node_works_with_iptables_rules).ours(),
        case!(a_cluster_ip_of_a_pod_on_the_same_node_works_with_nftables_rules).ours(),
        case!(a_cluster_ip_works_with_masquerading_and_one_bridges_own_attributes).ours(),
        case!(without_bridge_netfilter_the_answer_comes_from_the_wrong_address),
        case!(every_endpoint_of_a_service_is_reached).ours(),
    ];
    let needy = |case: Case| case.needs(Need::BridgeNetfilter);
    cases.into_iter().map(needy).collect()
}

const PODS: [&str; 2] = ["10.1.0.0/16", "fd00:1::/48"];

/// Services of the second pod of a network: web and DNS, each by IPv4 and IPv6.
fn services() -> [Service; 4] {
    [
        Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.0.3:8080"]),
        Service::new(
            "WEB6",
            Protocol::Tcp,
            "[fd00:96::1]:80",
            &["[fd00:1::3]:8080"],
        ),
        Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.0.3:53"]),
        Service::new(
            "DNS6",
            Protocol::Dns,
            "[fd00:96::10]:53",
            &["[fd00:1::3]:53"],
        ),
    ]
}

fn serve(pod: &Member, services: &[Service]) -> Vec<EchoServer> {
    let endpoint = |service: &Service| {
        let endpoint = service.endpoints[0];
        pod.serve(service.protocol, endpoint.ip(), endpoint.port())
    };
    services.iter().map(endpoint).collect()
}

fn a_cluster_ip_of_a_pod_on_the_same_node_works_with_iptables_rules(lab: &Lab) {
    a_cluster_ip_works(lab, ProxyMode::Iptables, json!({}));
}

fn a_cluster_ip_of_a_pod_on_the_same_node_works_with_nftables_rules(lab: &Lab) {
    a_cluster_ip_works(lab, ProxyMode::Nftables, json!({}));
}

fn a_cluster_ip_works_with_masquerading_and_one_bridges_own_attributes(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        a_cluster_ip_works(
            lab,
            mode,
            json!({"ipMasq": true, "bridgeNetfilter": "bridge"}),
        );
    }
}

fn a_cluster_ip_works(lab: &Lab, mode: ProxyMode, more: serde_json::Value) {
    let (node, _world) = Node::connected(lab, with(pod_network(), more));
    assert_eq!(BRIDGE_NF.map(|name| node.sysctl(name)), ["0", "0"]);
    let services = services();
    node.kube_proxy(mode, &PODS, &services);
    let (client, server) = (node.join("client"), node.join("server"));
    let _servers = serve(&server, &services);
    for service in &services {
        let (protocol, address) = (service.protocol, service.address);
        // The server sees the pod itself: nothing but the destination is translated.
        assert_eq!(
            seen(&client, protocol, address),
            client.ip_like(address.ip()),
            "{mode:?} {}",
            service.name
        );
        // The host's own processes, the kubelet's probes for one, come from outside the cluster's prefix.
        let gateway = if address.is_ipv4() {
            "10.1.0.1"
        } else {
            "fd00:1::1"
        };
        assert_eq!(
            seen(&node, protocol, address),
            ip(gateway),
            "{}",
            service.name
        );
    }
    node.part_with(&[&client, &server]);
}

fn without_bridge_netfilter_the_answer_comes_from_the_wrong_address(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let network = with(pod_network(), json!({"bridgeNetfilter": "off"}));
        let (node, _world) = Node::connected(lab, network);
        BRIDGE_NF.iter().for_each(|name| node.set_sysctl(name, "0"));
        let services = services();
        node.kube_proxy(mode, &PODS, &services);
        let (client, server) = (node.join("client"), node.join("server"));
        let _servers = serve(&server, &services);
        for service in &services {
            let answer = client.ask(service.protocol, service.address);
            let error = answer
                .expect_err("nobody translated the answer")
                .to_string();
            if service.protocol == Protocol::Dns {
                let endpoint = service.endpoints[0];
                assert!(
                    error.ends_with(&format!("was answered by {endpoint}")),
                    "{error}"
                );
            }
        }
        assert_eq!(
            BRIDGE_NF.map(|name| node.sysctl(name)),
            ["0", "0"],
            "off touches nothing"
        );
        node.part_with(&[&client, &server]);
    }
}

fn every_endpoint_of_a_service_is_reached(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let (node, _world) = Node::connected(lab, pod_network());
        let endpoints = ["10.1.0.3:8080", "10.1.0.4:8080", "10.1.0.5:8080"];
        let services = [
            Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &endpoints),
            Service::new("UDP", Protocol::Udp, "10.96.0.2:80", &endpoints),
        ];
        node.kube_proxy(mode, &PODS, &services);
        let client = node.join("client");
        let pods = ["dora", "erik", "fred"].map(|name| node.join(name));
        for service in &services {
            let servers = [0, 1, 2].map(|index| {
                let endpoint = service.endpoints[index];
                pods[index].serve(service.protocol, endpoint.ip(), endpoint.port())
            });
            // Three endpoints are missed together once in 10^17 times of a hundred.
            for _ in 0..100 {
                let from = seen(&client, service.protocol, service.address);
                assert_eq!(from, ip("10.1.0.2"));
            }
            let served = servers.iter().map(EchoServer::served);
            let served: Vec<_> = served.collect();
            assert!(
                !served.contains(&0),
                "{mode:?} {}: {served:?}",
                service.name
            );
            assert_eq!(
                served.iter().sum::<usize>(),
                100,
                "each request arrived once"
            );
        }
        let addresses: BTreeSet<_> = pods.iter().flat_map(Member::ips).collect();
        assert_eq!(addresses.len(), 6);
        node.part_with(&[&client, &pods[0], &pods[1], &pods[2]]);
    }
}
