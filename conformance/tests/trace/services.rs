//! Services, with kube-proxy's rules in both of its modes.

use conformance::{Case, Lab, Need, Protocol, ProxyMode, Service, case};
use serde_json::json;

use super::{Member, Node, at};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(a_cluster_ip_is_translated_there_and_back),
        case!(without_bridge_netfilter_the_answer_stays_untranslated),
        case!(a_pod_reaches_itself_through_a_cluster_ip_with_hairpin_only),
        case!(dns_through_a_service_whose_endpoint_is_dead),
        case!(a_service_without_endpoints_is_rejected_by_the_rule_that_says_so),
    ];
    let needy = |case: Case| case.needs(Need::BridgeNetfilter);
    cases.into_iter().map(needy).collect()
}

const PODS: [&str; 2] = ["10.1.0.0/16", "fd00:1::/48"];
const MODES: [ProxyMode; 2] = [ProxyMode::Iptables, ProxyMode::Nftables];
const WEB: [(&str, &str, &str); 2] = [
    ("10.96.0.1:80", "10.1.0.3:8080", "WEB"),
    ("[fd00:96::1]:80", "[fd00:1::3]:8080", "WEB6"),
];

fn web() -> Vec<Service> {
    let service =
        |(address, endpoint, name)| Service::new(name, Protocol::Tcp, address, &[endpoint]);
    WEB.into_iter().map(service).collect()
}

/// Two pods, the second of which serves, behind kube-proxy's rules.
fn scene<'l>(lab: &'l Lab, mode: ProxyMode) -> (Node<'l>, Member, Member) {
    let node = Node::new(lab, json!({}));
    let (client, server) = (node.join("client"), node.join("server"));
    node.kube_proxy(mode, &PODS, &web());
    (node, client, server)
}

fn a_cluster_ip_is_translated_there_and_back(lab: &Lab) {
    for mode in MODES {
        let (node, client, server) = scene(lab, mode);
        node.bridge_netfilter(true);
        for (ip, (address, endpoint, name)) in server.ips().into_iter().zip(WEB) {
            let _server = server.serve(Protocol::Tcp, ip, 8080);
            node.follow(&client, address)
                .is("answered", &[])
                .has(
                    "there",
                    &format!("destination {address} becomes {endpoint}"),
                )
                .has("there", name)
                .has("there", &format!("leaves by {}", server.end()))
                .has("back", &format!("source {endpoint} becomes {address}"));
        }
    }
}

fn without_bridge_netfilter_the_answer_stays_untranslated(lab: &Lab) {
    for mode in MODES {
        let (node, client, server) = scene(lab, mode);
        for (ip, (address, endpoint, _)) in server.ips().into_iter().zip(WEB) {
            let _server = server.serve(Protocol::Tcp, ip, 8080);
            node.follow(&client, address)
                .is("answer-untranslated", &["port to port", endpoint, address])
                .has(
                    "there",
                    &format!("destination {address} becomes {endpoint}"),
                )
                .has("back", &format!("bridge forward in {}", server.end()))
                .lacks(&format!("source {endpoint} becomes"));
        }
    }
}

fn a_pod_reaches_itself_through_a_cluster_ip_with_hairpin_only(lab: &Lab) {
    for mode in MODES {
        let (node, _, server) = scene(lab, mode);
        node.bridge_netfilter(true);
        for (ip, (address, ..)) in server.ips().into_iter().zip(WEB) {
            let _server = server.serve(Protocol::Tcp, ip, 8080);
            node.sh(&format!("bridge link set dev {} hairpin off", server.end()));
            node.follow(&server, address)
                .is("not-forwarded", &["hairpin is off", &server.end()])
                .finds("hairpin-off");
            node.sh(&format!("bridge link set dev {} hairpin on", server.end()));
            node.follow(&server, address)
                .is("answered", &[])
                .has("there", &format!("host end {}", server.end()))
                .has("there", "becomes");
        }
    }
}

fn dns_through_a_service_whose_endpoint_is_dead(lab: &Lab) {
    for mode in MODES {
        let node = Node::new(lab, json!({}));
        let (client, server) = (node.join("client"), node.join("server"));
        node.bridge_netfilter(true);
        let of = |name, address, pod| Service::new(name, Protocol::Dns, address, &[pod]);
        let all = [
            of("DNS", "10.96.0.10:53", "10.1.0.3:53"),
            of("GONE", "10.96.0.11:53", "10.1.0.77:53"),
            of("DNS6", "[fd00:96::10]:53", "[fd00:1::3]:53"),
            of("GONE6", "[fd00:96::11]:53", "[fd00:1::77]:53"),
        ];
        node.kube_proxy(mode, &PODS, &all);
        for (pair, ip) in all.chunks(2).zip(server.ips()) {
            let [dns, gone] = pair else { continue };
            let to = dns.address.to_string();
            let alive = server.serve(Protocol::Dns, ip, 53);
            node.follow(&client, &to).is("answered", &[]);
            drop(alive);
            // The pod is there, its server is not: it says so.
            node.follow(&client, &to).is("refused", &[&at(ip, 53)]);
            // The pod is gone, and its address with it.
            let (to, pod) = (gone.address.to_string(), gone.endpoints[0]);
            node.trace(&[&client.netns(), &to, "--timeout", "5"])
                .is("no-answer", &[&pod.ip().to_string()])
                .has("there", &format!("destination {to} becomes {pod}"));
        }
    }
}

fn a_service_without_endpoints_is_rejected_by_the_rule_that_says_so(lab: &Lab) {
    for (mode, place) in [
        (ProxyMode::Iptables, "filter KUBE-SERVICES"),
        (ProxyMode::Nftables, "kube-proxy reject-chain"),
    ] {
        let (node, client, _server) = scene(lab, mode);
        node.bridge_netfilter(true);
        let none = |name, address| Service::new(name, Protocol::Tcp, address, &[]);
        let empty = [
            none("NONE", "10.96.0.9:80"),
            none("NONE6", "[fd00:96::9]:80"),
        ];
        node.run(conformance::Program::new("nft").args(["flush", "ruleset"]))
            .succeeded();
        node.kube_proxy(mode, &PODS, &empty);
        for it in &empty {
            node.follow(&client, &it.address.to_string())
                .is("dropped", &[place, "rejects"])
                .has("there", "forward in cni0");
        }
    }
}
