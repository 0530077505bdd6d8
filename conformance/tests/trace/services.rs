//! Services, with kube-proxy's rules in both of its modes.

use conformance::{Case, Lab, Need, Protocol, ProxyMode, Service, case};
use serde_json::json;

use super::{Member, Node};

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
        let dns = Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.0.3:53"]);
        let gone = Service::new("GONE", Protocol::Dns, "10.96.0.11:53", &["10.1.0.77:53"]);
        node.kube_proxy(mode, &PODS, &[dns, gone]);
        let alive = server.serve(Protocol::Dns, server.ips()[0], 53);
        node.follow(&client, "10.96.0.10:53").is("answered", &[]);
        drop(alive);
        // The pod is there, its server is not: it says so.
        node.follow(&client, "10.96.0.10:53")
            .is("refused", &["10.1.0.3:53"]);
        // The pod is gone, and its address with it.
        node.trace(&[&client.netns(), "10.96.0.11:53", "--timeout", "5"])
            .is("no-answer", &["10.1.0.77"])
            .has("there", "destination 10.96.0.11:53 becomes 10.1.0.77:53");
    }
}

fn a_service_without_endpoints_is_rejected_by_the_rule_that_says_so(lab: &Lab) {
    let (node, client, _server) = scene(lab, ProxyMode::Iptables);
    node.bridge_netfilter(true);
    for (program, address) in [("iptables", "10.96.0.9"), ("ip6tables", "fd00:96::9")] {
        node.sh(&format!(
            "{program} -A KUBE-SERVICES -d {address} -p tcp --dport 80 -m comment --comment no-endpoints -j REJECT"
        ));
        let to = super::at(address.parse().expect("an address"), 80);
        node.follow(&client, &to)
            .is("dropped", &["filter KUBE-SERVICES", "rejects"])
            .has("there", "(no-endpoints): drop");
    }
}
