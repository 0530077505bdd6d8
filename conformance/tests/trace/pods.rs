//! Between pods of one bridge.

use conformance::{Case, Lab, Need, Protocol, case};
use serde_json::json;

use super::{Node, at};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_pod_reaches_another_and_every_port_on_the_way_is_told),
        case!(a_port_that_nobody_listens_on_is_refused),
        case!(a_datagram_that_nobody_answers_is_delivered_and_a_question_is_not_answered),
        case!(an_echo_request_is_answered_by_a_pod_and_by_the_gateway),
        case!(an_address_that_nobody_has_is_not_sent_to),
        case!(a_server_that_drops_does_not_answer),
        case!(with_bridge_netfilter_the_rules_of_ip_are_passed_too).needs(Need::BridgeNetfilter),
        case!(isolated_ports_pass_nothing_on),
    ]
}

fn a_pod_reaches_another_and_every_port_on_the_way_is_told(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for ip in b.ips() {
        let server = b.serve(Protocol::Tcp, ip, 8080);
        node.follow(&a, &at(ip, 8080))
            .is("answered", &[])
            .has("there", "sends by eth0")
            .has(
                "there",
                &format!("host end {}, port of cni0 (forwarding", a.end()),
            )
            .has(
                "there",
                &format!("bridge forward in {} out {}", a.end(), b.end()),
            )
            .has("there", &format!("leaves by {}", b.end()))
            .has(
                "back",
                &format!("bridge forward in {} out {}", b.end(), a.end()),
            )
            .has("back", &format!("leaves by {}", a.end()));
        drop(server);
    }
}

fn a_port_that_nobody_listens_on_is_refused(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for ip in b.ips() {
        node.follow(&a, &at(ip, 81)).is("refused", &[&at(ip, 81)]);
        node.trace(&[&a.netns(), &at(ip, 81), "--udp"])
            .is("refused", &[]);
    }
}

fn a_datagram_that_nobody_answers_is_delivered_and_a_question_is_not_answered(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for ip in b.ips() {
        let server = b.serve(Protocol::Udp, ip, 8080);
        node.trace(&[&a.netns(), &at(ip, 8080), "--udp"])
            .is("answered", &[]);
        drop(server);
        // Servers that listen and say nothing.
        let _mute = b
            .enter(|| std::net::UdpSocket::bind((ip, 8081)))
            .expect("listen");
        let _dns = b
            .enter(|| std::net::UdpSocket::bind((ip, 53)))
            .expect("listen");
        node.trace(&[&a.netns(), &at(ip, 8081), "--udp"])
            .is("delivered", &[&b.end()]);
        node.follow(&a, &at(ip, 53)).is("no-answer", &[&b.end()]);
    }
}

fn an_echo_request_is_answered_by_a_pod_and_by_the_gateway(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for ip in b.ips() {
        let trace = node.follow(&a, &ip.to_string());
        trace
            .is("answered", &[])
            .has("back", &format!("leaves by {}", a.end()));
    }
    for gateway in ["10.1.0.1", "fd00:1::1"] {
        node.follow(&a, gateway)
            .is("answered", &[])
            .has("there", "comes to a program of this host itself");
    }
}

fn an_address_that_nobody_has_is_not_sent_to(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    // Three attempts of ARP take three seconds.
    node.trace(&[&a.netns(), "10.1.0.99:80", "--timeout", "8"])
        .is("not-sent", &["hardware address"]);
}

fn a_server_that_drops_does_not_answer(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    b.sh("nft add table inet t");
    b.sh("nft add chain inet t in { type filter hook input priority 0 ; }");
    b.sh("nft add rule inet t in meta l4proto tcp drop");
    for ip in b.ips() {
        node.follow(&a, &at(ip, 8080)).is("no-answer", &[&b.end()]);
    }
}

fn with_bridge_netfilter_the_rules_of_ip_are_passed_too(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for ip in b.ips() {
        let _server = b.serve(Protocol::Tcp, ip, 8080);
        node.bridge_netfilter(false);
        let trace = node.follow(&a, &at(ip, 8080));
        trace.is("answered", &[]).lacks("forward in cni0 out cni0");
        node.bridge_netfilter(true);
        node.follow(&a, &at(ip, 8080))
            .is("answered", &[])
            .has("there", "forward in cni0 out cni0")
            .has("there", &format!("leaves by {}", b.end()));
    }
}

fn isolated_ports_pass_nothing_on(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    // Neighbours know each other before.
    for ip in b.ips() {
        assert!(a.pings(ip), "{ip}");
    }
    for end in [a.end(), b.end()] {
        node.sh(&format!("bridge link set dev {end} isolated on"));
    }
    for ip in b.ips() {
        node.follow(&a, &at(ip, 80))
            .is("not-forwarded", &["isolated"]);
    }
}
