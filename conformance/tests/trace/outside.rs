//! From outside, and traffic that others send.

use std::time::Duration;

use conformance::{Case, Lab, Protocol, case};
use serde_json::json;

use super::{Node, UPLINK, at, bridge};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_host_port_is_followed_from_the_host),
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

fn a_host_port_is_followed_from_the_host(lab: &Lab) {
    let node = node(lab);
    let web = join(&node);
    for (own, pod) in UPLINK.into_iter().zip(web.ips()) {
        let _server = web.serve(Protocol::Tcp, pod, 80);
        node.trace(&[&web.netns(), &at(ip(own), 8080), "--from", "up0"])
            .is("answered", &[])
            .has("there", "from the address of up0")
            .has("there", &format!("becomes {}", at(pod, 80)))
            .has("there", &format!("leaves by {}", web.end()));
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
