//! docs/troubleshooting.md shows what doctor really says: each of its nights is brought about, and the output compared. With
//! `TRESTLE_BLESS=1` the page is written anew.

use std::fs;

use conformance::{
    Case, Lab, Need, Program, Protocol, ProxyMode, Service, case, host_local, workspace,
};
use serde_json::{Value, json};

use super::{Node, list, with};
use crate::common::wait_until;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(the_page_shows_what_doctor_says).needs(Need::BridgeNetfilter),
        case!(the_picture_is_what_map_draws).needs(Need::BridgeNetfilter),
    ]
}

const PAGE: &str = "docs/troubleshooting.md";

type Incident = (&'static str, fn(&Lab) -> String);

const INCIDENTS: &[Incident] = &[
    ("wrong-source", wrong_source),
    ("dropped", dropped),
    ("flushed", flushed),
    ("leaked", leaked),
    ("foreign-address", foreign_address),
    ("hairpin", hairpin),
    ("mtu", mtu),
    ("overlap", overlap),
    ("stale", stale),
    ("key", key),
];

fn the_page_shows_what_doctor_says(lab: &Lab) {
    let path = workspace().join(PAGE);
    let mut page = fs::read_to_string(&path).expect("the page");
    let mut shown = 0;
    for (name, night) in INCIDENTS {
        let said = night(lab);
        let marker = format!("<!-- doctor: {name} -->\n```\n");
        let begin = page
            .find(&marker)
            .unwrap_or_else(|| panic!("no {name} on the page"))
            + marker.len();
        let end = begin + page[begin..].find("```").expect("the end of the block");
        if std::env::var_os("TRESTLE_BLESS").is_some() {
            page.replace_range(begin..end, &said);
        } else {
            assert_eq!(
                &page[begin..end],
                said,
                "{name}: TRESTLE_BLESS=1 writes the page anew"
            );
        }
        shown += 1;
    }
    assert_eq!(
        page.matches("<!-- doctor: ").count(),
        shown,
        "every night has a scenario"
    );
    if std::env::var_os("TRESTLE_BLESS").is_some() {
        fs::write(&path, page).expect("write the page");
    }
}

/// `docs/node.svg`: a node with two networks, and something wrong with one.
fn the_picture_is_what_map_draws(lab: &Lab) {
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let first = with(plugin(), json!({"nonMasqueradeCIDRs": ["10.1.0.0/16"]}));
    let mut node = node(lab, &podnet(json!([first, portmap])));
    let ptp =
        json!({"type": "ptp", "ipMasq": true, "ipam": host_local(&["10.2.0.0/24", "fd00:2::/64"])});
    let direct = with(list(json!([ptp])), json!({"name": "direct"}));
    node.configure("20-direct.conflist", &direct.to_string());
    let mut pods = Vec::new();
    for (network, name) in [
        ("net", "dns"),
        ("net", "shop"),
        ("net", "web"),
        ("direct", "probe"),
    ] {
        if name == "web" {
            node = node.with_ports(8080);
        }
        let pod = node.pod(name);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
        node.cnitool().env("CNI_ARGS", &args).add(network, &pod);
        pods.push(pod);
    }
    node.ip("route add 10.1.1.0/24 via 198.51.100.3");
    node.ip("link set up0 mtu 1420");
    let bin = lab.bin().to_string_lossy().into_owned();
    let map = ["map", "--svg", "/run/node.svg", "--bin-dir", &bin];
    node.run(Program::new(lab.bin().join("trestle")).args(map))
        .succeeded();
    let name = node.sh("uname -n");
    let svg = node.read("/run/node.svg").expect("a picture");
    let svg = svg.replace(&format!("node {}", name.trim()), "node a1");
    let path = workspace().join("docs/node.svg");
    if std::env::var_os("TRESTLE_BLESS").is_some() {
        fs::write(&path, &svg).expect("write the picture");
    }
    let shown = fs::read_to_string(&path).expect("the picture");
    assert_eq!(shown, svg, "TRESTLE_BLESS=1 draws it anew");
}

/// What the page's networks are like.
fn plugin() -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": host_local(&["10.1.0.0/24"])
    })
}

fn podnet(plugins: Value) -> Value {
    with(list(plugins), json!({"name": "net"}))
}

/// A node whose lists are where those of real nodes are.
fn node<'l>(lab: &'l Lab, list: &Value) -> Node<'l> {
    let node = Node::new(lab, list);
    node.sh("mkdir -p /run/etc/up /run/etc/work");
    node.sh(
        "mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/up,workdir=/run/etc/work /etc",
    );
    node.sh("mkdir -p /etc/cni/net.d");
    node.sh("mount --bind /run/net.d /etc/cni/net.d");
    node
}

/// What doctor says, but for the machine's own name and kernel.
fn said(node: &Node<'_>) -> String {
    let bin = node.lab.bin().to_string_lossy().into_owned();
    let program = Program::new(node.lab.bin().join("trestle")).args(["doctor", "--bin-dir", &bin]);
    let text = node.run(program).text();
    let (first, rest) = text.split_once('\n').expect("a first line");
    let networks = first
        .split("networks: ")
        .nth(1)
        .unwrap_or_else(|| panic!("{text}"));
    // The first line may be wrapped where the kernel's name is long.
    let (more, rest) = match rest.strip_prefix("      ") {
        Some(rest) => rest
            .split_once('\n')
            .map_or((rest, ""), |(more, rest)| (more, rest)),
        None => ("", rest),
    };
    let space = if more.is_empty() { "" } else { " " };
    format!("node a1  kernel 6.12  networks: {networks}{space}{more}\n{rest}")
}

fn wrong_source(lab: &Lab) -> String {
    let node = node(lab, &podnet(json!([plugin()])));
    let service = Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.0.2:53"]);
    node.kube_proxy(ProxyMode::Nftables, &["10.1.0.0/16"], &[service]);
    let _pods = [node.join("dns"), node.join("client")];
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        node.set_sysctl(&format!("net/bridge/{key}"), "0");
    }
    said(&node)
}

fn dropped(lab: &Lab) -> String {
    let node = node(lab, &podnet(json!([plugin()])));
    let _pod = node.join("web");
    node.sh("iptables -w -N DOCKER-USER");
    node.sh("iptables -w -P FORWARD DROP");
    said(&node)
}

fn flushed(lab: &Lab) -> String {
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let node = node(lab, &podnet(json!([plugin(), portmap]))).with_ports(8080);
    let _pod = node.join("web");
    node.sh("nft flush ruleset");
    said(&node)
}

fn leaked(lab: &Lab) -> String {
    let node = node(
        lab,
        &podnet(json!([with(
            plugin(),
            json!({"ipam": host_local(&["10.1.0.0/29"])})
        )])),
    );
    let pods: Vec<_> = (1..6)
        .map(|index| node.join(&format!("web-{index}")))
        .collect();
    for pod in pods.into_iter().skip(2) {
        let end = pod.end();
        pod.pod.vanish();
        wait_until("the veth goes", || node.link(&end).is_none());
    }
    said(&node)
}

fn foreign_address(lab: &Lab) -> String {
    let node = node(lab, &podnet(json!([plugin()])));
    node.ip("link add cni0 type bridge");
    node.ip("addr add 10.88.0.1/16 dev cni0");
    said(&node)
}

fn hairpin(lab: &Lab) -> String {
    let node = node(
        lab,
        &podnet(json!([with(plugin(), json!({"hairpinMode": false}))])),
    );
    let service = Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.0.2:8080"]);
    node.kube_proxy(ProxyMode::Iptables, &["10.1.0.0/16"], &[service]);
    let _pod = node.join("web");
    said(&node)
}

fn mtu(lab: &Lab) -> String {
    let node = node(lab, &podnet(json!([plugin()])));
    let _pod = node.join("web");
    node.ip("link set up0 mtu 1420");
    said(&node)
}

fn overlap(lab: &Lab) -> String {
    let node = node(lab, &podnet(json!([plugin()])));
    let _pod = node.join("web");
    node.ip("link add tun0 type ifb");
    node.ip("addr add 10.1.200.7/16 dev tun0");
    said(&node)
}

fn stale(lab: &Lab) -> String {
    let node = node(lab, &podnet(json!([plugin()])));
    let service = Service::new("DNS", Protocol::Dns, "10.96.0.10:53", &["10.1.0.2:53"]);
    node.kube_proxy(ProxyMode::Nftables, &["10.1.0.0/16"], &[service]);
    let _pods = [node.join("dns"), node.join("client")];
    let flow = "-I -p udp -s 10.1.0.3 -d 10.96.0.10 --sport 40000 --dport 53 -r 10.1.0.77 -q 10.1.0.3 --reply-port-src 53 \
                --reply-port-dst 40000 --timeout 120 -u SEEN_REPLY";
    node.run(Program::new("conntrack").args(flow.split_whitespace()))
        .succeeded();
    said(&node)
}

fn key(lab: &Lab) -> String {
    let node = node(
        lab,
        &podnet(json!([with(plugin(), json!({"ipMask": true}))])),
    );
    said(&node)
}
