//! From outside, and traffic that others send.

use std::time::Duration;

use conformance::{Case, Lab, Protocol, ProxyMode, Service, case};
use serde_json::json;

use super::{INTERNET, Node, UPLINK, at, bridge};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_host_port_is_entered_by_the_interface_as_from_outside),
        case!(a_node_port_is_entered_from_outside_in_both_modes),
        case!(datagrams_and_echo_requests_come_in_too_and_a_program_of_the_host_is_met),
        case!(where_nothing_can_come_in_it_is_said),
        case!(a_host_port_is_followed_from_outside_with_real_traffic),
        case!(real_traffic_of_a_pod_is_followed),
        case!(without_traffic_nothing_is_sent),
    ]
}

/// A node with a pod that has a host port, which serves.
fn node(lab: &Lab) -> Node<'_> {
    Node::of(
        lab,
        json!([bridge(), {"type": "portmap", "capabilities": {"portMappings": true}}]),
    )
}

fn join(node: &Node<'_>) -> super::Member {
    let ports =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let pod = node.pod("web");
    let tool = node.cnitool().env("CAP_ARGS", &ports.to_string());
    let result = tool.add("net", &pod);
    super::Member { pod, result }
}

fn a_host_port_is_entered_by_the_interface_as_from_outside(lab: &Lab) {
    let node = node(lab);
    let web = join(&node);
    for ((own, world), pod) in UPLINK.into_iter().zip(INTERNET).zip(web.ips()) {
        let to = at(ip(own), 8080);
        node.trace(&[&web.netns(), &to, "--from", "up0"])
            .is("refused", &[&to]);
        let server = web.serve(Protocol::Tcp, pod, 80);
        let trace = node.trace(&[&web.netns(), &to, "--from", "up0"]);
        trace
            .is("answered", &[&to])
            .has("there", "comes in by up0, as from outside")
            .has(
                "there",
                &format!(
                    "prerouting in up0: {}",
                    at(ip(world), 0).trim_end_matches('0')
                ),
            )
            .has(
                "there",
                &format!("destination {to} becomes {}", at(pod, 80)),
            )
            .has("there", &format!("leaves by {}", web.end()))
            .has("back", &format!("source {} becomes {to}", at(pod, 80)))
            .has("back", "leaves by up0");
        drop(server);
        // What the node's own filter says of strangers, but not of itself.
        node.sh("nft add table inet admin");
        node.sh("nft add chain inet admin in { type filter hook prerouting priority -150 ; }");
        node.sh("nft add rule inet admin in iifname up0 tcp dport 8080 drop comment strangers");
        node.trace(&[&web.netns(), &to, "--from", "up0"])
            .is("dropped", &["inet admin in"])
            .has("there", "(strangers): drop");
        node.sh("nft delete table inet admin");
    }
}

fn a_node_port_is_entered_from_outside_in_both_modes(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let node = Node::new(lab, json!({}));
        let web = node.join("web");
        for (own, pod) in UPLINK.into_iter().zip(web.ips()) {
            let _server = web.serve(Protocol::Tcp, pod, 8080);
            let service =
                Service::new("WEB", Protocol::Tcp, &at(ip(own), 30080), &[&at(pod, 8080)]);
            // A node's address and port lead there as a Service's do, and strangers are masqueraded.
            node.kube_proxy(mode, &["10.1.0.0/16", "fd00:1::/48"], &[service]);
            let to = at(ip(own), 30080);
            node.trace(&[&web.netns(), &to, "--from", "up0"])
                .is("answered", &[&to])
                .has("there", "prerouting in up0")
                .has(
                    "there",
                    &format!("destination {to} becomes {}", at(pod, 8080)),
                )
                .has("there", "source ")
                .has("back", &format!("source {} becomes {to}", at(pod, 8080)))
                .has("back", "leaves by up0");
        }
    }
}

fn datagrams_and_echo_requests_come_in_too_and_a_program_of_the_host_is_met(lab: &Lab) {
    let node = node(lab);
    let web = join(&node);
    for own in UPLINK {
        node.trace(&[&web.netns(), own, "--from", "up0"])
            .is("answered", &[])
            .has("there", "comes to a program of this host itself")
            .has("back", "leaves by up0");
        // What nobody translates is the host's.
        node.trace(&[&web.netns(), &at(ip(own), 9), "--from", "up0"])
            .is("refused", &[])
            .has("there", "comes to a program of this host itself");
        node.trace(&[&web.netns(), &at(ip(own), 9), "--from", "up0", "--udp"])
            .is("refused", &[]);
    }
    // By the bridge itself, as from one of its pods.
    for pod in web.ips() {
        let _server = web.serve(Protocol::Tcp, pod, 80);
        node.trace(&[
            &web.netns(),
            &at(ip(UPLINK[usize::from(pod.is_ipv6())]), 8080),
            "--from",
            "cni0",
        ])
        .has("there", "prerouting in cni0");
    }
}

fn where_nothing_can_come_in_it_is_said(lab: &Lab) {
    let node = node(lab);
    let web = join(&node);
    node.ip("link add idle type veth peer name idle1");
    let end = web.end();
    for (name, words) in [
        ("nothing", "no interface called nothing"),
        ("lo", "this host's own"),
        ("idle", "it is down"),
        (&*end, "it is a port of cni0: name that"),
    ] {
        let output = node.call(&[&web.netns(), "198.51.100.2:8080", "--from", name]);
        assert_eq!(output.status.code(), Some(3), "{output}");
        assert!(output.stderr.contains(words), "{words}: {output}");
        assert!(
            name == "nothing" || output.stderr.contains("--live"),
            "{output}"
        );
    }
}

fn a_host_port_is_followed_from_outside_with_real_traffic(lab: &Lab) {
    let node = node(lab);
    let web = join(&node);
    for (own, pod) in UPLINK.into_iter().zip(web.ips()) {
        let _server = web.serve(Protocol::Tcp, pod, 80);
        let to = at(ip(own), 8080);
        let trace = meanwhile(
            &node,
            &[&web.netns(), &to, "--from", "up0", "--live"],
            || {
                let _ = node
                    .world
                    .ask(Protocol::Tcp, to.parse().expect("an address"));
            },
        );
        trace
            .is("answered", &[])
            .has("there", "prerouting in up0")
            .has(
                "there",
                &format!("destination {to} becomes {}", at(pod, 80)),
            )
            .has("there", &format!("leaves by {}", web.end()));
    }
}

fn real_traffic_of_a_pod_is_followed(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    for address in b.ips() {
        let _server = b.serve(Protocol::Tcp, address, 8080);
        let to = at(address, 8080);
        let trace = meanwhile(&node, &[&a.netns(), &to, "--live"], || {
            let _ = a.ask(Protocol::Tcp, to.parse().expect("an address"));
        });
        trace.is("answered", &[]).has(
            "there",
            &format!("bridge forward in {} out {}", a.end(), b.end()),
        );
    }
}

fn without_traffic_nothing_is_sent(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    node.trace(&[&a.netns(), &at(b.ips()[0], 80), "--live", "--timeout", "1"])
        .is("not-sent", &["no packet"]);
}

/// Traces while something is done again and again.
fn meanwhile(node: &Node<'_>, arguments: &[&str], work: impl Fn() + Sync) -> super::Trace {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                work();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut all = arguments.to_vec();
        all.extend(["--timeout", "20"]);
        let trace = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.trace(&all)));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        trace.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
