//! On a crowded node.

use std::fmt::Write as _;
use std::net::{IpAddr, UdpSocket};

use conformance::{Case, Host, Lab, Program, Protocol, case};
use serde_json::json;

use super::{INTERNET, Member, Node, at};
use crate::common::ip;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(among_ten_thousand_rules_and_a_thousand_links_the_one_that_drops_is_found),
        case!(beside_a_hundred_containers_it_asks_for_no_more),
        case!(beside_a_thousand_containers_it_asks_for_no_more).slow(),
        case!(beside_many_tracked_flows_it_asks_for_no_more),
    ]
}

/// Ten thousand rules on a bridge, of which the last drops what goes to an address's port 81.
fn rules(node: &Node<'_>, ip: IpAddr) {
    let mut rules =
        "table bridge crowd {\nchain forwarded {\ntype filter hook forward priority 0;\n"
            .to_owned();
    for number in 0..10_000 {
        let _ = writeln!(
            rules,
            "ip daddr 10.{}.{}.1 drop comment \"rule {number}\"",
            100 + number / 250,
            number % 250
        );
    }
    let _ = writeln!(
        rules,
        "ip daddr {ip} tcp dport 81 drop comment \"the last one\"\n}}\n}}"
    );
    node.run(Program::new("nft").args(["-f", "-"]).stdin(rules))
        .succeeded();
}

fn among_ten_thousand_rules_and_a_thousand_links_the_one_that_drops_is_found(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    let mut links = String::new();
    for number in 0..500 {
        let _ = writeln!(links, "link add l{number} type veth peer name m{number}");
        let _ = writeln!(links, "link set l{number} master cni0 up");
    }
    node.run(Program::new("ip").args(["-batch", "-"]).stdin(links))
        .succeeded();
    let ip = b.ips()[0];
    rules(&node, ip);
    let _server = b.serve(Protocol::Tcp, ip, 8080);
    node.follow(&a, &at(ip, 8080)).is("answered", &[]);
    node.follow(&a, &at(ip, 81))
        .is("dropped", &["bridge crowd forwarded"])
        .has("there", "(the last one): drop");
}

fn beside_a_hundred_containers_it_asks_for_no_more(lab: &Lab) {
    beside(lab, 100);
}

fn beside_a_thousand_containers_it_asks_for_no_more(lab: &Lab) {
    beside(lab, 1_000);
}

/// Real containers, each with its namespace, its interfaces, addresses and its entry in the runtime's cache.
fn beside(lab: &Lab, many: usize) {
    let wide = conformance::host_local(&["10.1.0.0/20", "fd00:1::/64"]);
    let node = Node::new(lab, json!({"ipam": wide}));
    let (a, b) = (node.join("a"), node.join("b"));
    let ip = b.ips()[0];
    let _server = b.serve(Protocol::Tcp, ip, 8080);
    let id = container(&node);
    let few = heard(&node, &[&id, &at(ip, 8080)]);
    let _crowd: Vec<Member> = (0..many)
        .map(|number| node.join(&format!("c{number}")))
        .collect();
    rules(&node, ip);
    let crowded = heard(&node, &[&id, &at(ip, 8080)]);
    assert!(
        crowded.0 <= few.0 + few.0 / 2 + 16_384,
        "{crowded:?} bytes from the kernel, {few:?} before"
    );
    assert!(
        crowded.1 <= few.1 + 4,
        "{crowded:?} files opened, {few:?} before"
    );
    node.follow(&a, &at(ip, 81))
        .is("dropped", &["bridge crowd forwarded"])
        .has("there", "(the last one): drop");
}

/// The whole ID of the first container.
fn container(node: &Node<'_>) -> String {
    let listed = node.run(Program::new(node.lab.bin().join("trestle")).args([
        "list",
        "--json",
        "--conf-dir",
        Host::NET_D,
    ]));
    let listed = listed.succeeded().json();
    let all = listed["attachments"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is = |it: &&serde_json::Value| it["addresses"].to_string().contains("\"10.1.0.2");
    let first = all.iter().find(is).expect("the first container");
    first["container"].as_str().expect("an ID").to_owned()
}

/// How many bytes an answered trace hears from the kernel over sockets, and how many files it opens.
fn heard(node: &Node<'_>, arguments: &[&str]) -> (u64, usize) {
    let trestle = node
        .lab
        .bin()
        .join("trestle")
        .to_string_lossy()
        .into_owned();
    let calls = "--trace=recvfrom,recvmsg,openat";
    let strace = Program::new("strace").args(["-f", "-qq", "-o", "/run/strace", calls, &trestle]);
    let output = node.run(
        strace
            .args(["trace", "--conf-dir", Host::NET_D])
            .args(arguments),
    );
    assert_eq!(output.status.code(), Some(0), "{output}");
    let text = node.read("/run/strace").expect("what strace wrote");
    let bytes = text
        .lines()
        .filter(|line| line.contains(" recv"))
        .filter_map(|line| {
            line.rsplit_once(" = ")?
                .1
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        });
    (
        bytes.sum(),
        text.lines()
            .filter(|line| line.contains(" openat("))
            .count(),
    )
}

fn beside_many_tracked_flows_it_asks_for_no_more(lab: &Lab) {
    const FLOWS: u16 = 20_000;
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    let _server = node.world.serve(Protocol::Tcp, ip(INTERNET[0]), 8080);
    let to = at(ip(INTERNET[0]), 8080);
    let few = heard(&node, &[&a.netns(), &to]);
    let socket = a.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    for port in 20_000..20_000 + FLOWS {
        // Whoever says that nobody listens there is not asked.
        let _ = socket.send_to(b"flow", (ip(INTERNET[0]), port));
    }
    let count = node.sysctl("net/netfilter/nf_conntrack_count");
    assert!(
        count.parse::<u32>().is_ok_and(|count| count > 10_000),
        "{count}"
    );
    let crowded = heard(&node, &[&a.netns(), &to]);
    assert!(
        crowded.0 <= few.0 + few.0 / 2 + 16_384,
        "{crowded:?} bytes from the kernel, {few:?} before"
    );
    node.follow(&a, &to).is("answered", &[]).has(
        "there",
        "connection tracking: answers come from 198.51.100.1:8080 to 198.51.100.2:",
    );
}
