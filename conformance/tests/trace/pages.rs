//! The documentation shows what trace really says: each scene is brought about, and the output compared. With
//! `TRESTLE_BLESS=1` the pages are written anew.

use std::fs;

use conformance::{Case, Lab, Need, Protocol, ProxyMode, Service, case, workspace};
use serde_json::json;

use super::{Member, Node};

pub(super) fn cases() -> Vec<Case> {
    vec![case!(the_pages_show_what_trace_says).needs(Need::BridgeNetfilter)]
}

type Scene = (&'static str, &'static str, fn(&Lab) -> String);

const SCENES: &[Scene] = &[
    ("docs/service-traffic.md", "translated", translated),
    ("docs/service-traffic.md", "untranslated", untranslated),
    ("docs/troubleshooting.md", "forward", forward),
];

fn the_pages_show_what_trace_says(lab: &Lab) {
    for (page, name, scene) in SCENES {
        let path = workspace().join(page);
        let mut text = fs::read_to_string(&path).expect("the page");
        let marker = format!("<!-- trace: {name} -->\n```\n");
        let begin = text
            .find(&marker)
            .unwrap_or_else(|| panic!("no {name} on {page}"));
        let begin = begin + marker.len();
        let end = begin + text[begin..].find("```").expect("the end of the block");
        let said = scene(lab);
        if std::env::var_os("TRESTLE_BLESS").is_some() {
            text.replace_range(begin..end, &said);
            fs::write(&path, text).expect("write the page");
        } else {
            assert_eq!(
                &text[begin..end],
                said,
                "{name}: TRESTLE_BLESS=1 writes the page anew"
            );
        }
    }
}

/// The output, with a fixed port in place of the one that the kernel chose. All have five digits.
fn said(node: &Node<'_>, from: &Member, to: &str) -> String {
    let text = node.call(&[&from.netns(), to]).text();
    let own = format!("({}:", from.ips()[0]);
    let begin = text.find(&own).expect("the source") + own.len();
    let port = text[begin..]
        .split(')')
        .next()
        .expect("the port")
        .to_owned();
    text.replace(&format!(":{port}"), ":40000")
}

fn service(lab: &Lab, bridge_netfilter: bool) -> String {
    let node = Node::new(lab, json!({"hairpinMode": true}));
    let (client, server) = (node.join("client"), node.join("server"));
    node.bridge_netfilter(bridge_netfilter);
    let web = Service::new("WEB", Protocol::Tcp, "10.96.0.10:80", &["10.1.0.3:8080"]);
    node.kube_proxy(ProxyMode::Nftables, &["10.1.0.0/16"], &[web]);
    let _server = server.serve(Protocol::Tcp, server.ips()[0], 8080);
    said(&node, &client, "10.96.0.10:80").replace("/run/net.d", "/etc/cni/net.d")
}

fn translated(lab: &Lab) -> String {
    service(lab, true)
}

fn untranslated(lab: &Lab) -> String {
    service(lab, false)
}

fn forward(lab: &Lab) -> String {
    let node = Node::new(lab, json!({}));
    let client = node.join("client");
    node.sh("iptables -N DOCKER");
    node.sh("iptables -P FORWARD DROP");
    said(&node, &client, "198.51.100.1:443").replace("/run/net.d", "/etc/cni/net.d")
}
