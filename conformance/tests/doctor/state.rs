//! Addresses and what programs remember of containers.

use conformance::{Call, Case, Host, Lab, Need, Program, case, host_local};
use serde_json::json;

use super::{Member, Node, bridge, list, with};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_full_pool_is_found),
        case!(a_pool_that_is_nearly_full_is_told),
        case!(addresses_of_containers_that_are_gone_are_told),
        case!(state_that_can_not_be_read_is_told),
        case!(ten_thousand_files_and_lies_in_the_cache_break_nothing),
        case!(the_longest_names_are_told_apart),
        case!(more_containers_cost_no_more_programs).needs(Need::Strace),
        case!(list_tells_what_became_of_each_container),
        case!(show_tells_everything_about_one),
    ]
}

fn a_full_pool_is_found(lab: &Lab) {
    let plugin = with(bridge(), json!({"ipam": host_local(&["10.1.0.0/30"])}));
    let node = Node::new(lab, &list(json!([plugin])));
    let _one = node.join("one");
    node.finds("pool-full", "fail", &["1 of 1 addresses", "10.1.0"]);
}

fn a_pool_that_is_nearly_full_is_told(lab: &Lab) {
    let plugin = with(bridge(), json!({"ipam": host_local(&["10.1.0.0/28"])}));
    let node = Node::new(lab, &list(json!([plugin])));
    let _members: Vec<Member> = (0..11)
        .map(|index| node.join(&format!("pod{index}")))
        .collect();
    node.assert_not_found("pool-nearly-full");
    let _one_more = node.join("one-more");
    node.finds(
        "pool-nearly-full",
        "warn",
        &["12 of 13 addresses", "1 addresses left"],
    );
}

#[track_caller]
fn vanish(node: &Node<'_>, member: Member) {
    let end = member.end();
    member.pod.vanish();
    crate::common::wait_until("the veth goes with its namespace", || {
        node.link(&end).is_none()
    });
}

fn addresses_of_containers_that_are_gone_are_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let (_one, two) = (node.join("one"), node.join("two"));
    vanish(&node, two);
    let found = node.finds(
        "addresses-leaked",
        "warn",
        &["10.1.0.3", "1 container", "its network namespace is gone"],
    );
    assert!(!found.to_string().contains("10.1.0.2"), "{found:#}");
    // The same where only host-local knows of it.
    node.sh("rm -r /var/lib/cni/results");
    node.finds("addresses-leaked", "warn", &["10.1.0.3"]);
}

fn state_that_can_not_be_read_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.write("/var/lib/cni/networks/net/10.1.0.9", "a\nb\nc\n");
    node.write("/var/lib/cni/results/net-cut-eth0", "{\"kind\": \"cniCac");
    let report = node.findings();
    let found: Vec<_> = report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .collect();
    assert!(
        found.iter().all(|it| it["id"] == "state-unreadable") && found.len() == 2,
        "{report:#}"
    );
    let text = report.to_string();
    assert!(
        text.contains("networks/net/10.1.0.9") && text.contains("net-cut-eth0"),
        "{report:#}"
    );
    node.sh("rm -r /var/lib/cni/networks");
    node.write("/var/lib/cni/networks", "");
    node.finds("state-unreadable", "fail", &["/var/lib/cni/networks"]);
}

fn ten_thousand_files_and_lies_in_the_cache_break_nothing(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.enter(|| {
        for index in 0..10_000 {
            std::fs::write(format!("/var/lib/cni/results/net-c{index}-eth0"), "garbage")
                .expect("write");
        }
    });
    let lie = json!({
        "kind": "cniCacheV1", "networkName": "net", "containerId": "other", "ifName": "eth0",
        "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}
    });
    node.write("/var/lib/cni/results/net-lie-eth0", lie.to_string());
    node.sh("mkfifo /var/lib/cni/results/net-fifo-eth0");
    node.finds(
        "state-unreadable",
        "warn",
        &["10,002 files", "and 9,998 more"],
    );
    node.assert_not_found("address-twice");
}

fn the_longest_names_are_told_apart(lab: &Lab) {
    let name = "n".repeat(100);
    let node = Node::new(
        lab,
        &with(
            list(json!([bridge(), {"type": "firewall"}])),
            json!({"name": name}),
        ),
    );
    let plugin = lab.plugin(&node, "bridge");
    let network = with(bridge(), json!({"name": name, "cniVersion": "1.0.0"}));
    let mut members = Vec::new();
    for last in ["a", "b"] {
        let container = format!("{}{last}", "c".repeat(150));
        let pod = node.pod(last);
        plugin.add(&network, &Call::named(&container, Some(&pod.netns())));
        members.push(pod);
    }
    let listed: serde_json::Value = node.trestle("list", &["--json"]).json();
    let addresses: Vec<_> = listed["attachments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (&it["addresses"], &it["state"]))
        .collect();
    assert_eq!(
        addresses,
        [
            (&json!(["10.1.0.2"]), &json!("ok")),
            (&json!(["10.1.0.3"]), &json!("ok"))
        ],
        "{listed:#}"
    );
    node.assert_not_found("addresses-leaked");
}

/// Looking at a container costs some system calls, but no program.
fn more_containers_cost_no_more_programs(lab: &Lab) {
    let portmap =
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": "iptables"});
    let node = Node::new(lab, &list(json!([bridge(), portmap, {"type": "firewall"}])));
    node.sh("iptables -w -P FORWARD DROP");
    let programs = |node: &Node<'_>| {
        let trace = "-f -qq -e trace=execve -o /run/trace";
        let doctor = lab.bin().join("trestle").display().to_string();
        let program = Program::new("strace").args(trace.split(' ')).args([
            &*doctor,
            "doctor",
            "--conf-dir",
            Host::NET_D,
        ]);
        node.run(program);
        let trace = node.read("/run/trace").expect("a trace");
        trace
            .lines()
            .filter(|line| line.contains("execve(") && line.ends_with("= 0"))
            .count()
    };
    let mut node = node.with_ports(8000);
    let mut members = vec![node.join("pod0")];
    let few = programs(&node);
    for index in 1..12 {
        node = node.with_ports(8000 + index);
        members.push(node.join(&format!("pod{index}")));
    }
    assert_eq!(programs(&node), few, "with {} containers", members.len());
}

fn list_tells_what_became_of_each_container(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let names = ["well", "gone", "bare", "lost", "open"];
    let mut members: Vec<Member> = Vec::new();
    for name in names {
        let pod = node.pod(name);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
        let result = node.cnitool().env("CNI_ARGS", &args).add("net", &pod);
        members.push(Member { pod, result });
    }
    let gone = members.remove(1);
    vanish(&node, gone);
    members[1].pod.ip("addr flush dev eth0");
    members[2].pod.ip("link del eth0");
    let open = format!("10.1.0.{}", 6);
    node.run(conformance::Program::new("nft").args([
        "delete",
        "element",
        "inet",
        "trestle",
        "masq/net/10.1.0.0-24",
        &format!("{{ {open} }}"),
    ]))
    .succeeded();
    let listed: serde_json::Value = node.trestle("list", &["--json"]).json();
    let mut states: Vec<String> = listed["attachments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            format!(
                "{} {}",
                it["pod"].as_str().unwrap_or("?"),
                it["state"].as_str().unwrap_or("?")
            )
        })
        .collect();
    states.sort();
    assert_eq!(
        states,
        [
            "shop/bare no address",
            "shop/gone no namespace",
            "shop/lost no interface",
            "shop/open rules missing",
            "shop/well ok"
        ],
        "{listed:#}"
    );
    let text = node
        .trestle("list", &["--network", "net"])
        .succeeded()
        .text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(lines[0].starts_with("NETWORK  CONTAINER     POD"), "{text}");
    let others = node
        .trestle("list", &["--network", "other"])
        .succeeded()
        .text();
    assert_eq!(others.lines().count(), 1, "{others}");
}

fn show_tells_everything_about_one(lab: &Lab) {
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let node = Node::new(lab, &list(json!([bridge(), portmap]))).with_ports(8080);
    let one = node.join("one");
    let listed: serde_json::Value = node.trestle("list", &["--json"]).json();
    let container = listed["attachments"][0]["container"]
        .as_str()
        .expect("a container")
        .to_owned();
    let said = node.trestle("show", &[&container[..12]]).succeeded().text();
    for words in [
        &*container,
        "state       ok",
        "inside      eth0: up, mtu 1500",
        "inside      eth0: address 10.1.0.2/24",
        "inside      eth0: route 0.0.0.0/0 via 10.1.0.1",
        &format!("host        {}: up", one.end()),
        "hairpin on",
        "bridge      cni0",
        "holds       10.1.0.2",
        "rule        masquerade:",
        "rule        portmap:",
        "asked for   portMappings:",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(node.trestle("show", &["nobody"]).status.code(), Some(1));
}
