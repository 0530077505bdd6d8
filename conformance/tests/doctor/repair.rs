//! `trestle repair`: what somebody has flushed or switched off is put back, now.

use conformance::{Case, Host, Lab, Need, Output, Program, case, host_local};
use serde_json::{Value, json};

use super::{Member, Node, bridge, list, with};
use crate::common::at_once;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_flush_is_mended_with_every_backend).needs(Need::BridgeNetfilter),
        case!(ptp_is_mended_too),
        case!(what_can_not_be_put_back_is_told),
        case!(repair_does_not_disturb_pods_that_come_and_go),
    ]
}

fn repair(node: &Node<'_>, more: &[&str]) -> Output {
    let bin = node.lab.bin().to_string_lossy().into_owned();
    let program = Program::new(node.lab.bin().join("trestle"))
        .args(["repair", "--conf-dir", Host::NET_D, "--bin-dir", &bin])
        .args(more);
    node.run(program)
}

fn whole(first: Value, backend: &str) -> Value {
    list(json!([
        with(first, json!({"ipMasqBackend": backend})),
        {"type": "portmap", "capabilities": {"portMappings": true}, "backend": backend},
        {"type": "firewall"}
    ]))
}

#[track_caller]
fn mends(lab: &Lab, first: Value, spoil: &dyn Fn(&Node<'_>, &[Member])) {
    for backend in ["nftables", "iptables"] {
        let mut node = Node::new(lab, &whole(first.clone(), backend)).with_ports(8080);
        let guard = || node.sh("iptables -w -P FORWARD DROP");
        guard();
        let one = node.join("one");
        node = node.with_ports(8081);
        let two = node.join("two");
        let members = [one, two];
        node.assert_healthy("as ADD left it");
        assert!(
            repair(&node, &["--all"])
                .succeeded()
                .text()
                .contains("2 attachments fine, 0 repaired")
        );
        node.sh("nft flush ruleset");
        node.sh("iptables -w -P FORWARD DROP");
        spoil(&node, &members);
        let before = node.observe();
        let said = repair(&node, &["--all", "--dry-run"]).succeeded().text();
        assert!(
            said.contains("network net: 0 attachments fine, 2 to repair"),
            "{backend}: {said}"
        );
        assert_eq!(
            node.observe().since(&before),
            "",
            "{backend}: nothing was touched"
        );
        let said = repair(&node, &["--all"]).succeeded().text();
        assert!(
            said.contains("0 broken") && said.contains("put back"),
            "{backend}: {said}"
        );
        node.assert_healthy(&format!("{backend}: repaired"));
        let conf = format!("{}/10-net.conflist", Host::NET_D);
        let said = repair_one(&node, &conf).succeeded().text();
        assert!(
            said.contains("2 attachments fine, 0 repaired, 0 broken"),
            "{backend}: {said}"
        );
        for member in &members {
            node.cnitool().call("check", "net", &member.pod.netns());
            node.cnitool().del("net", &member.pod);
        }
        node.assert_healthy(&format!("{backend}: nothing is left"));
    }
}

fn repair_one(node: &Node<'_>, conf: &str) -> Output {
    let bin = node.lab.bin().to_string_lossy().into_owned();
    let program = Program::new(node.lab.bin().join("trestle"));
    node.run(program.args(["repair", "--conf", conf, "--bin-dir", &bin]))
}

fn a_flush_is_mended_with_every_backend(lab: &Lab) {
    mends(lab, bridge(), &|node, members| {
        for member in members {
            node.sh(&format!("bridge link set dev {} hairpin off", member.end()));
        }
        for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            node.set_sysctl(&format!("net/bridge/{key}"), "0");
        }
    });
}

fn ptp_is_mended_too(lab: &Lab) {
    let first = json!({"type": "ptp", "ipMasq": true, "ipam": host_local(&["10.1.0.0/24"])});
    mends(lab, first, &|_, _| {});
}

fn what_can_not_be_put_back_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let one = node.join("one");
    one.pod.ip("addr flush dev eth0");
    let output = repair(&node, &["--all"]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    assert!(
        output.text().contains("still missing") && output.text().contains("1 broken"),
        "{output}"
    );
    assert!(
        one.pod.addresses("eth0").is_empty(),
        "the container's own is not touched"
    );
    node.configure("20-broken.conflist", "garbage");
    let output = repair(&node, &["--all"]);
    assert!(
        output.stderr.contains("20-broken.conflist") && output.text().contains("network net"),
        "{output}"
    );
}

fn repair_does_not_disturb_pods_that_come_and_go(lab: &Lab) {
    let node = Node::new(lab, &whole(bridge(), "nftables")).with_ports(8080);
    let stays = node.join("stays");
    let plain = Node {
        port_mappings: json!([]),
        ..node
    };
    let pods: Vec<_> = (0..4)
        .map(|index| plain.pod(&format!("pod{index}")))
        .collect();
    at_once(6, |index| match pods.get(index) {
        Some(pod) => {
            for _ in 0..6 {
                let tool = plain.lab.cnitool(&plain);
                tool.add("net", pod);
                tool.del("net", pod);
            }
        }
        None => {
            for _ in 0..8 {
                let rules = "delete table inet trestle\n";
                // It may be gone, or made anew, at any moment.
                plain.run(Program::new("nft").args(["-f", "-"]).stdin(rules));
                repair(&plain, &["--all"]);
            }
        }
    });
    repair(&plain, &["--all"]).succeeded();
    plain.assert_healthy("whoever stays has everything");
    plain.cnitool().del("net", &stays.pod);
    // Of all that came and went nothing is left.
    let rules = plain.sh("nft list ruleset");
    assert!(!rules.contains("net/"), "{rules}");
    for dir in [
        "/var/lib/cni/results",
        "/run/cni/portmap",
        "/run/cni/firewall",
    ] {
        assert_eq!(plain.list(dir), [""; 0], "{dir}");
    }
}
