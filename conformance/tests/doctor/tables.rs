//! The kernel's tables of connections and neighbours.

use conformance::{Case, Lab, Program, Protocol, ProxyMode, Service, case};
use serde_json::json;

use super::{Node, bridge, list};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(connections_to_a_service_without_an_answer_are_told),
        case!(a_udp_flow_to_a_container_that_is_gone_is_told),
        case!(a_table_of_connections_that_is_nearly_full_is_found),
        case!(a_table_of_neighbours_that_is_nearly_full_is_found),
    ]
}

#[track_caller]
fn conntrack(node: &Node<'_>, arguments: &str) {
    node.run(Program::new("conntrack").args(arguments.split(' ')))
        .succeeded();
}

fn connections_to_a_service_without_an_answer_are_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    let service = Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.0.2:53"]);
    node.kube_proxy(ProxyMode::Nftables, &["10.1.0.0/16"], &[service]);
    conntrack(
        &node,
        "-I -p udp -s 10.1.0.2 -d 10.96.0.10 --sport 4000 --dport 53 --timeout 120 -u UNSET",
    );
    let found = node.finds(
        "conntrack-stale",
        "warn",
        &["10.96.0.10 port 53", "[UNREPLIED]"],
    );
    node.sh(found["remedy"]["command"].as_str().expect("a command"));
    node.assert_not_found("conntrack-stale");
}

fn a_udp_flow_to_a_container_that_is_gone_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    // What a mapped port leaves: asked at the host, led to a container.
    let flow = |to: &str| {
        conntrack(
            &node,
            &format!(
                "-I -p udp -s 198.51.100.1 -d 198.51.100.2 --sport 4000 --dport 53 -r {to} -q 198.51.100.1 --reply-port-src 53 --reply-port-dst 4000 --timeout 120 -u SEEN_REPLY"
            ),
        );
    };
    flow("10.1.0.2");
    node.assert_not_found("conntrack-stale");
    conntrack(&node, "-D -p udp");
    flow("10.1.0.200");
    node.finds(
        "conntrack-stale",
        "warn",
        &["led to 10.1.0.200", "containers that are gone"],
    );
}

fn a_table_of_connections_that_is_nearly_full_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    for port in 4001..4011 {
        conntrack(
            &node,
            &format!(
                "-I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport {port} --dport 53 --timeout 120 -u SEEN_REPLY"
            ),
        );
    }
    node.assert_not_found("conntrack-nearly-full");
    // The limit is the whole machine's: this host sees another one.
    node.write("/run/limit", "11\n");
    node.sh("mount --bind /run/limit /proc/sys/net/netfilter/nf_conntrack_max");
    node.finds("conntrack-nearly-full", "fail", &["nf_conntrack_max is 11"]);
}

fn a_table_of_neighbours_that_is_nearly_full_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    for last in 10..30 {
        node.ip(&format!(
            "neigh add 198.51.100.{last} lladdr 02:00:00:00:00:{last} dev up0"
        ));
    }
    node.assert_not_found("neighbours-nearly-full");
    // The limit is the whole machine's, and told in its own namespace alone: this host sees another one.
    node.sh("mount -t tmpfs none /proc/sys/net/ipv4/neigh");
    node.write("/proc/sys/net/ipv4/neigh/default/gc_thresh3", "20\n");
    node.finds(
        "neighbours-nearly-full",
        "fail",
        &["gc_thresh3 is 20", "sysctl -w"],
    );
}
