//! Service traffic, as stories: what the bridge has to do so that the rules of others work.
//!
//! The rules that kube-proxy would install are given to the host first, in its own words; pods come afterwards.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use conformance::{
    Call, Case, Host, Lab, Place, Plugin, Pod, Program, Protocol, Snapshot, Subject, bridge, case,
    host_local, with,
};
use serde_json::{Value, json};

use crate::common::ip;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(pods_and_host_on_one_bridge_see_each_others_addresses),
        case!(a_pod_is_seen_outside_as_its_host),
        case!(a_pod_is_seen_outside_as_its_host_over_ipv6),
        case!(pods_of_two_nodes_talk_without_nat).ours(),
        case!(prefixes_without_masquerade_keep_their_source).ours(),
        case!(a_cluster_ip_answers_on_the_same_node),
        case!(a_cluster_ip_by_nftables_answers_on_the_same_node),
        case!(several_endpoints_are_all_reached),
        case!(a_pod_reaches_itself_by_its_cluster_ip),
        case!(in_promiscuous_mode_nothing_arrives_twice),
        case!(masquerade_is_restored_after_a_flush).ours(),
        case!(two_hundred_containers_need_no_more_rules_than_one).ours(),
        case!(bridge_netfilter_can_be_left_alone).ours(),
        case!(bridge_netfilter_of_one_bridge_leaves_the_host_alone).ours(),
    ]
}

const CLUSTER_IP: &str = "10.96.0.10";

/// A network with masquerade, for both families, with a default route.
fn masqueraded() -> Value {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let network = bridge(host_local(&["10.1.0.0/24", "fd00:1::/64"]));
    with(network, json!({"ipMasq": true, "ipam": {"routes": routes}}))
}

/// A node of a cluster, cabled to a world that knows nothing of pods.
struct Node {
    host: Host,
    world: Host,
}

impl Node {
    fn new() -> Self {
        let (host, world) = (Host::new(), Host::new());
        host.cable("up0", &world, "eth0");
        for (place, end, addresses) in [
            (&host, "up0", ["192.0.2.1/24", "2001:db8::1/64"]),
            (&world, "eth0", ["192.0.2.9/24", "2001:db8::9/64"]),
        ] {
            place.ip(&format!("addr add {} dev {end}", addresses[0]));
            place.ip(&format!("addr add {} dev {end} nodad", addresses[1]));
        }
        host.ip("route add default via 192.0.2.9");
        Self { host, world }
    }

    fn attach(&self, lab: &Lab, network: &Value, name: &str) -> Pod {
        let pod = self.host.pod(name);
        lab.plugin(&self.host, "bridge")
            .add(network, &Call::of(&pod));
        pod
    }
}

fn detach(plugin: &Plugin<'_>, network: &Value, pods: &[&Pod], before: &Snapshot) {
    for pod in pods {
        plugin.del(network, &Call::of(pod));
    }
    plugin.host.assert_nothing_left(before, &[]);
}

#[track_caller]
fn sees(client: &Place, protocol: Protocol, server: (&Place, &str), expected: &str) {
    let serving = server.0.serve(protocol, ip(server.1), 8080);
    let seen = client.ask(protocol, serving.address);
    assert_eq!(
        seen.expect("an answer"),
        ip(expected),
        "{protocol:?} to {}",
        server.1
    );
}

fn pods_and_host_on_one_bridge_see_each_others_addresses(lab: &Lab) {
    let node = Node::new();
    let before = node.host.observe();
    let network = masqueraded();
    let (a, b) = (
        node.attach(lab, &network, "a"),
        node.attach(lab, &network, "b"),
    );
    for protocol in Protocol::BOTH {
        sees(&a, protocol, (&b, "10.1.0.3"), "10.1.0.2");
        sees(&a, protocol, (&b, "fd00:1::3"), "fd00:1::2");
        sees(&a, protocol, (&node.host, "10.1.0.1"), "10.1.0.2");
        sees(&node.host, protocol, (&a, "10.1.0.2"), "10.1.0.1");
    }
    detach(
        &lab.plugin(&node.host, "bridge"),
        &network,
        &[&a, &b],
        &before,
    );
}

fn a_pod_is_seen_outside_as_its_host(lab: &Lab) {
    let node = Node::new();
    let before = node.host.observe();
    let pod = node.attach(lab, &masqueraded(), "pod");
    for protocol in Protocol::BOTH {
        sees(&pod, protocol, (&node.world, "192.0.2.9"), "192.0.2.1");
    }
    assert!(pod.pings(ip("192.0.2.9")));
    detach(
        &lab.plugin(&node.host, "bridge"),
        &masqueraded(),
        &[&pod],
        &before,
    );
}

fn a_pod_is_seen_outside_as_its_host_over_ipv6(lab: &Lab) {
    let node = Node::new();
    let before = node.host.observe();
    let pod = node.attach(lab, &masqueraded(), "pod");
    for protocol in Protocol::BOTH {
        sees(&pod, protocol, (&node.world, "2001:db8::9"), "2001:db8::1");
    }
    detach(
        &lab.plugin(&node.host, "bridge"),
        &masqueraded(),
        &[&pod],
        &before,
    );
}

fn pods_of_two_nodes_talk_without_nat(lab: &Lab) {
    let (one, two) = (Host::new(), Host::new());
    one.cable("up0", &two, "up0");
    let everything = json!({"nonMasqueradeCIDRs": ["10.1.0.0/16"]});
    let mut pods = Vec::new();
    for (host, own, subnet, other, other_subnet) in [
        (&one, "192.0.2.1", "10.1.1.0/24", "192.0.2.2", "10.1.2.0/24"),
        (&two, "192.0.2.2", "10.1.2.0/24", "192.0.2.1", "10.1.1.0/24"),
    ] {
        host.ip(&format!("addr add {own}/24 dev up0"));
        host.ip(&format!("route add {other_subnet} via {other}"));
        let routes = json!({"ipMasq": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}});
        let network = with(
            with(bridge(host_local(&[subnet])), routes),
            everything.clone(),
        );
        let pod = host.pod("pod");
        lab.plugin(host, "bridge").add(&network, &Call::of(&pod));
        pods.push(pod);
    }
    for protocol in Protocol::BOTH {
        sees(&pods[0], protocol, (&pods[1], "10.1.2.2"), "10.1.1.2");
        sees(&pods[1], protocol, (&pods[0], "10.1.1.2"), "10.1.2.2");
        // The other node itself is outside.
        sees(&pods[0], protocol, (&two, "192.0.2.2"), "192.0.2.1");
    }
}

fn prefixes_without_masquerade_keep_their_source(lab: &Lab) {
    let node = Node::new();
    node.world.ip("addr add 198.51.100.9/32 dev lo");
    node.host.ip("route add 198.51.100.0/24 via 192.0.2.9");
    node.world.ip("route add 10.1.0.0/24 via 192.0.2.1");
    let network = with(
        masqueraded(),
        json!({"nonMasqueradeCIDRs": ["198.51.100.0/24"]}),
    );
    let pod = node.attach(lab, &network, "pod");
    for protocol in Protocol::BOTH {
        sees(&pod, protocol, (&node.world, "198.51.100.9"), "10.1.0.2");
        sees(&pod, protocol, (&node.world, "192.0.2.9"), "192.0.2.1");
    }
}

/// Bridge netfilter as a fresh machine has it. The reference leaves it to the administrator.
fn forget_bridge_netfilter(lab: &Lab, host: &Host) {
    let value = if lab.subject == Subject::Go { "1" } else { "0" };
    host.set_sysctl("net/bridge/bridge-nf-call-iptables", value);
    host.set_sysctl("net/bridge/bridge-nf-call-ip6tables", value);
}

/// kube-proxy's rules for one Service with these endpoints, on port 80 of TCP and UDP; pods serve on 8080.
fn kube_proxy(host: &Host, endpoints: &[&str]) {
    let mut rules = String::from(
        "*nat\n:KUBE-SERVICES -\n:KUBE-POSTROUTING -\n:KUBE-MARK-MASQ -\n\
         -I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I OUTPUT 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I POSTROUTING 1 -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        rules += &format!(
            ":KUBE-SEP-{index} -\n\
             -A KUBE-SEP-{index} -s {endpoint}/32 -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{index} -p tcp -j DNAT --to-destination {endpoint}:8080\n\
             -A KUBE-SEP-{index} -p udp -j DNAT --to-destination {endpoint}:8080\n"
        );
    }
    for protocol in ["tcp", "udp"] {
        let service = format!("-d {CLUSTER_IP}/32 -p {protocol} --dport 80");
        rules += &format!(
            ":KUBE-SVC-{protocol} -\n\
             -A KUBE-SERVICES {service} -j KUBE-SVC-{protocol}\n\
             -A KUBE-SVC-{protocol} ! -s 10.1.0.0/24 {service} -j KUBE-MARK-MASQ\n"
        );
        for index in 0..endpoints.len() {
            let left = endpoints.len() - index;
            let chance = format!(
                "-m statistic --mode random --probability {}",
                1.0 / left as f64
            );
            let chance = if left > 1 { chance } else { String::new() };
            rules += &format!("-A KUBE-SVC-{protocol} {chance} -j KUBE-SEP-{index}\n");
        }
    }
    rules += "COMMIT\n";
    host.run(
        Program::new("iptables-restore")
            .args(["--noflush"])
            .stdin(rules),
    )
    .succeeded();
}

fn cluster_ip() -> SocketAddr {
    SocketAddr::new(ip(CLUSTER_IP), 80)
}

/// A pod asks a Service whose endpoint is its neighbour; the answer has to come from the Service's address.
fn neighbour_answers_for_the_service(lab: &Lab, rules: impl Fn(&Host)) {
    let node = Node::new();
    forget_bridge_netfilter(lab, &node.host);
    rules(&node.host);
    let before = node.host.observe();
    let network = masqueraded();
    let (a, b) = (
        node.attach(lab, &network, "a"),
        node.attach(lab, &network, "b"),
    );
    for protocol in Protocol::BOTH {
        let _server = b.serve(protocol, ip("10.1.0.3"), 8080);
        for _ in 0..5 {
            let seen = a
                .ask(protocol, cluster_ip())
                .expect("the Service answers a pod");
            assert_eq!(seen, ip("10.1.0.2"), "and sees its address");
        }
        node.host
            .ask(protocol, cluster_ip())
            .expect("the Service answers the node");
    }
    detach(
        &lab.plugin(&node.host, "bridge"),
        &network,
        &[&a, &b],
        &before,
    );
}

fn a_cluster_ip_answers_on_the_same_node(lab: &Lab) {
    neighbour_answers_for_the_service(lab, |host| kube_proxy(host, &["10.1.0.3"]));
}

fn a_cluster_ip_by_nftables_answers_on_the_same_node(lab: &Lab) {
    let rules = format!(
        "table ip kube-proxy {{\n\
           chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}\n\
           chain endpoint {{\n\
             ip saddr 10.1.0.3 jump mark-for-masquerade\n\
             meta l4proto tcp dnat to 10.1.0.3:8080\n\
             meta l4proto udp dnat to 10.1.0.3:8080\n\
           }}\n\
           chain service {{\n\
             ip saddr != 10.1.0.0/24 jump mark-for-masquerade\n\
             numgen random mod 1 vmap {{ 0 : goto endpoint }}\n\
           }}\n\
           map service-ips {{\n\
             type ipv4_addr . inet_proto . inet_service : verdict\n\
             elements = {{ {CLUSTER_IP} . tcp . 80 : goto service, {CLUSTER_IP} . udp . 80 : goto service }}\n\
           }}\n\
           chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}\n\
           chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
           chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
           chain nat-postrouting {{\n\
             type nat hook postrouting priority srcnat\n\
             meta mark & 0x4000 == 0 return\n\
             meta mark set meta mark xor 0x4000\n\
             masquerade fully-random\n\
           }}\n\
         }}\n"
    );
    neighbour_answers_for_the_service(lab, |host| {
        host.run(Program::new("nft").args(["-f", "-"]).stdin(rules.clone()))
            .succeeded();
    });
}

fn several_endpoints_are_all_reached(lab: &Lab) {
    let node = Node::new();
    forget_bridge_netfilter(lab, &node.host);
    kube_proxy(&node.host, &["10.1.0.3", "10.1.0.4", "10.1.0.5"]);
    let network = masqueraded();
    let client = node.attach(lab, &network, "client");
    let pods = ["x", "y", "z"].map(|name| node.attach(lab, &network, name));
    let addresses = ["10.1.0.3", "10.1.0.4", "10.1.0.5"];
    let counting: Vec<_> = pods
        .iter()
        .zip(addresses)
        .map(|(pod, own)| listen(pod, own))
        .collect();
    for _ in 0..60 {
        client.enter(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            socket.send_to(b"hello", cluster_ip()).expect("send");
        });
    }
    for (socket, address) in counting.iter().zip(addresses) {
        assert!(
            received(socket) > 0,
            "{address} was chosen at least once of 60 times"
        );
    }
}

/// A UDP socket of a pod on port 8080.
fn listen(pod: &Pod, own: &str) -> UdpSocket {
    let socket = pod
        .enter(|| UdpSocket::bind((ip(own), 8080)))
        .expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a time limit");
    socket
}

/// How many datagrams have come.
fn received(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 64];
    std::iter::from_fn(|| socket.recv_from(&mut buffer).ok()).count()
}

fn a_pod_reaches_itself_by_its_cluster_ip(lab: &Lab) {
    for hairpin in [true, false] {
        let node = Node::new();
        forget_bridge_netfilter(lab, &node.host);
        kube_proxy(&node.host, &["10.1.0.2"]);
        let pod = node.attach(
            lab,
            &with(masqueraded(), json!({"hairpinMode": hairpin})),
            "pod",
        );
        for protocol in Protocol::BOTH {
            let _server = pod.serve(protocol, ip("10.1.0.2"), 8080);
            if hairpin {
                pod.ask(protocol, cluster_ip())
                    .expect("the pod answers itself");
            } else {
                assert!(
                    pod.cannot_reach(protocol, cluster_ip()),
                    "it takes hairpinMode"
                );
            }
        }
    }
}

fn in_promiscuous_mode_nothing_arrives_twice(lab: &Lab) {
    let node = Node::new();
    let network = with(masqueraded(), json!({"promiscMode": true}));
    let (a, b) = (
        node.attach(lab, &network, "a"),
        node.attach(lab, &network, "b"),
    );
    let inbox = listen(&b, "10.1.0.3");
    for sender in [&*a, &*node.host] {
        sender.enter(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            for _ in 0..10 {
                socket
                    .send_to(b"once", (IpAddr::from([10, 1, 0, 3]), 8080))
                    .expect("send");
            }
        });
    }
    assert_eq!(received(&inbox), 20);
}

fn masquerade_is_restored_after_a_flush(lab: &Lab) {
    let node = Node::new();
    let before = node.host.observe();
    let network = masqueraded();
    let first = node.attach(lab, &network, "first");
    node.host.sh("nft flush ruleset");
    let second = node.attach(lab, &network, "second");
    for pod in [&first, &second] {
        sees(pod, Protocol::Tcp, (&node.world, "192.0.2.9"), "192.0.2.1");
        sees(
            pod,
            Protocol::Udp,
            (&node.world, "2001:db8::9"),
            "2001:db8::1",
        );
    }
    // And DEL has nothing to complain about when there is nothing to remove.
    node.host.sh("nft flush ruleset");
    detach(
        &lab.plugin(&node.host, "bridge"),
        &network,
        &[&first, &second],
        &before,
    );
}

fn two_hundred_containers_need_no_more_rules_than_one(lab: &Lab) {
    let node = Node::new();
    let before = node.host.observe();
    let network = masqueraded();
    let rules = |host: &Host| {
        host.observe()
            .lines()
            .filter(|line| line.starts_with("nft rule"))
            .count()
    };
    let first = node.attach(lab, &network, "first");
    let with_one = rules(&node.host);
    let pods: Vec<_> = (0..199)
        .map(|index| node.attach(lab, &network, &format!("p{index}")))
        .collect();
    assert_eq!(rules(&node.host), with_one);
    let last = pods.last().expect("pods");
    sees(last, Protocol::Tcp, (&node.world, "192.0.2.9"), "192.0.2.1");
    let all: Vec<_> = pods.iter().chain([&first]).collect();
    detach(&lab.plugin(&node.host, "bridge"), &network, &all, &before);
}

fn bridge_netfilter_can_be_left_alone(lab: &Lab) {
    let node = Node::new();
    forget_bridge_netfilter(lab, &node.host);
    node.attach(
        lab,
        &with(masqueraded(), json!({"bridgeNetfilter": "off"})),
        "pod",
    );
    assert_eq!(node.host.sysctl("net/bridge/bridge-nf-call-iptables"), "0");
    let link = node.host.link("cni0").expect("the bridge");
    assert_eq!(link["linkinfo"]["info_data"]["nf_call_iptables"], 0);
}

fn bridge_netfilter_of_one_bridge_leaves_the_host_alone(lab: &Lab) {
    let node = Node::new();
    forget_bridge_netfilter(lab, &node.host);
    kube_proxy(&node.host, &["10.1.0.3"]);
    let network = with(masqueraded(), json!({"bridgeNetfilter": "bridge"}));
    let (a, b) = (
        node.attach(lab, &network, "a"),
        node.attach(lab, &network, "b"),
    );
    assert_eq!(node.host.sysctl("net/bridge/bridge-nf-call-iptables"), "0");
    let _server = b.serve(Protocol::Udp, ip("10.1.0.3"), 8080);
    a.ask(Protocol::Udp, cluster_ip())
        .expect("the Service answers");
}
