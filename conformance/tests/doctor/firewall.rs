//! Rules: those of others that are in the way, and ours that are gone.

use conformance::{Case, Host, Lab, Need, Program, Protocol, ProxyMode, Service, case};
use serde_json::{Value, json};

use super::{Member, Node, bridge, list, with};
use crate::common::wait_until;

pub(super) fn cases() -> Vec<Case> {
    let services = [
        case!(without_bridge_netfilter_services_answer_from_the_wrong_address),
        case!(a_list_that_refuses_bridge_netfilter_is_told_when_there_are_services),
        case!(ports_without_hairpin_are_told_when_there_are_services),
    ];
    let services = services
        .into_iter()
        .map(|case| case.needs(Need::BridgeNetfilter));
    let others = [
        case!(a_missing_module_is_told_by_its_name),
        case!(a_policy_of_dockers_is_told_with_its_author),
        case!(a_policy_of_an_administrators_ruleset_is_told),
        case!(other_nodes_that_are_not_let_in_are_found),
        case!(forwarding_that_was_switched_off_is_found),
        case!(two_kinds_of_iptables_are_told).needs(Need::LegacyIptables),
        case!(masquerading_that_was_flushed_is_found),
        case!(a_network_that_nobody_masquerades_is_told),
        case!(masquerading_between_nodes_is_told),
        case!(host_ports_that_were_flushed_are_found),
        case!(a_firewall_that_was_flushed_is_found),
        case!(rules_of_a_network_without_a_list_are_told),
        case!(rules_that_the_go_plugins_left_are_told).needs(Need::GoPlugins),
        case!(localhost_without_its_guards_is_found),
        case!(promiscuous_mode_is_no_hairpin_any_more),
        case!(hairpin_that_was_switched_off_is_found),
    ];
    services.chain(others).collect()
}

fn kube_proxy(node: &Node<'_>, mode: ProxyMode) {
    let service = Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.0.2:8080"]);
    node.kube_proxy(mode, &["10.1.0.0/16"], &[service]);
}

fn bridge_netfilter(node: &Node<'_>, value: &str) {
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        node.set_sysctl(&format!("net/bridge/{key}"), value);
    }
}

fn without_bridge_netfilter_services_answer_from_the_wrong_address(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let node = Node::new(lab, &list(json!([bridge()])));
        let _one = node.join("one");
        bridge_netfilter(&node, "0");
        let since = "has switched it off since";
        node.finds("bridge-netfilter-off", "warn", &[since]);
        kube_proxy(&node, mode);
        let name = format!("kube-proxy ({mode:?})").to_lowercase();
        node.finds(
            "bridge-netfilter-off",
            "fail",
            &["wrong address", &name, since],
        );
        bridge_netfilter(&node, "1");
        node.assert_not_found("bridge-netfilter-off");
        // Each version of IP has its own switch, and the network has IPv4 addresses.
        node.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
        node.assert_not_found("bridge-netfilter-off");
        node.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "1");
        node.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
        node.finds("bridge-netfilter-off", "fail", &["nf_call_iptables is off"]);
    }
}

fn a_list_that_refuses_bridge_netfilter_is_told_when_there_are_services(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([with(bridge(), json!({"bridgeNetfilter": "off"}))])),
    );
    bridge_netfilter(&node, "0");
    let _one = node.join("one");
    node.assert_healthy("nobody needs it");
    kube_proxy(&node, ProxyMode::Nftables);
    node.finds("bridge-netfilter-off", "fail", &["10-net.conflist says"]);
}

fn a_missing_module_is_told_by_its_name(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    kube_proxy(&node, ProxyMode::Nftables);
    if node
        .read("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_some()
    {
        // As if the module were not there.
        node.sh("mount -t tmpfs none /proc/sys/net/bridge");
    }
    node.finds(
        "bridge-netfilter-missing",
        "fail",
        &["modprobe br_netfilter", "kube-proxy (nftables)"],
    );
}

fn ports_without_hairpin_are_told_when_there_are_services(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([with(bridge(), json!({"hairpinMode": false}))])),
    );
    let _one = node.join("one");
    node.assert_healthy("nobody needs it");
    kube_proxy(&node, ProxyMode::Iptables);
    node.finds(
        "hairpin-off",
        "warn",
        &["hairpinMode", "kube-proxy (iptables)"],
    );
}

fn hairpin_that_was_switched_off_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let one = node.join("one");
    node.sh(&format!("bridge link set dev {} hairpin off", one.end()));
    let found = node.finds("hairpin-off", "fail", &[&one.end()]);
    node.sh(found["remedy"]["command"].as_str().expect("a command"));
    node.assert_healthy("after the remedy");
}

fn promiscuous_mode_is_no_hairpin_any_more(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([with(
            bridge(),
            json!({"hairpinMode": false, "promiscMode": true})
        )])),
    );
    let _one = node.join("one");
    let release = node.sh("uname -r");
    let mut numbers = release.split(['.', '-']).map(|it| it.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version >= (6, 8) {
        true => drop(node.finds(
            "promiscuous-no-hairpin",
            "warn",
            &["6.8", "cni0 is promiscuous: yes"],
        )),
        false => node.assert_not_found("promiscuous-no-hairpin"),
    }
}

fn a_policy_of_dockers_is_told_with_its_author(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.sh("iptables -w -P FORWARD DROP");
    node.finds(
        "forward-dropped",
        "warn",
        &[
            "once there are any",
            "somebody set the policy with iptables",
        ],
    );
    let _one = node.join("one");
    node.sh("iptables -w -N DOCKER-USER");
    node.finds(
        "forward-dropped",
        "fail",
        &[
            "ip filter FORWARD",
            "packets so far",
            "Docker set the policy",
            "{\\\"type\\\": \\\"firewall\\\"}",
        ],
    );
    node.sh("iptables -w -A FORWARD -i cni0 -j ACCEPT");
    node.sh("iptables -w -A FORWARD -o cni0 -j ACCEPT");
    node.assert_not_found("forward-dropped");
}

fn a_policy_of_an_administrators_ruleset_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    let nft = |rules: &str| {
        node.run(Program::new("nft").args(["-f", "-"]).stdin(rules))
            .succeeded()
    };
    nft(
        "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }\n }",
    );
    node.finds(
        "forward-dropped",
        "fail",
        &["inet filter forward", "administrator"],
    );
    nft(
        "flush ruleset\ntable ip filter { chain ufw-before-forward { }\n chain FORWARD { type filter hook forward priority 0; policy drop; }\n }",
    );
    node.finds("forward-dropped", "fail", &["ufw set the policy"]);
}

fn other_nodes_that_are_not_let_in_are_found(lab: &Lab) {
    let first = with(bridge(), json!({"nonMasqueradeCIDRs": ["10.1.0.0/16"]}));
    let node = Node::new(lab, &list(json!([first, {"type": "firewall"}])));
    node.sh("iptables -w -P FORWARD DROP");
    let _one = node.join("one");
    node.assert_healthy("no other node");
    node.ip("route add 10.1.1.0/24 via 198.51.100.3");
    let words = ["10.1.1.0/24", "ip filter FORWARD", "ingressCIDRs"];
    node.finds("forward-dropped", "fail", &words);
    node.sh("iptables -w -A FORWARD -s 10.1.0.0/16 -j ACCEPT");
    node.assert_not_found("forward-dropped");
}

fn forwarding_that_was_switched_off_is_found(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([with(
            bridge(),
            json!({"ipam": conformance::host_local(&["10.1.0.0/24", "fd00:1::/64"])})
        )])),
    );
    let _one = node.join("one");
    for (name, family) in [
        ("net.ipv4.ip_forward", "IPv4"),
        ("net.ipv6.conf.all.forwarding", "IPv6"),
    ] {
        node.set_sysctl(name, "0");
        node.finds("forwarding-off", "fail", &[name, family]);
        node.set_sysctl(name, "1");
    }
    node.assert_not_found("forwarding-off");
}

fn two_kinds_of_iptables_are_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.sh("iptables-legacy -w -t nat -N OLD");
    node.assert_not_found("iptables-mixed");
    node.sh("iptables-nft -w -t filter -N NEW");
    node.finds("iptables-mixed", "warn", &["tables nat", "chains, such as"]);
}

fn masquerading_that_was_flushed_is_found(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let node = Node::new(
            lab,
            &list(json!([with(bridge(), json!({"ipMasqBackend": backend}))])),
        );
        let _members = [node.join("one"), node.join("two")];
        node.sh("nft flush ruleset");
        node.finds(
            "masquerade-missing",
            "fail",
            &[
                "container cnitool-",
                "10.1.0.2",
                "10.1.0.3",
                "trestle repair",
            ],
        );
        let _three = node.join("three");
        node.assert_healthy("the next ADD brings it back");
    }
}

fn a_network_that_nobody_masquerades_is_told(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([with(bridge(), json!({"ipMasq": false}))])),
    );
    let _one = node.join("one");
    node.finds(
        "masquerade-missing",
        "warn",
        &["10.1.0.0/24", "up0", "has no \\\"ipMasq\\\""],
    );
    node.sh("iptables -w -t nat -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE");
    node.assert_healthy("somebody else does it");
}

fn masquerading_between_nodes_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    node.ip("route add 10.1.1.0/24 via 198.51.100.3");
    node.finds(
        "masquerade-between-nodes",
        "warn",
        &["10.1.1.0/24", "nonMasqueradeCIDRs"],
    );
    let cluster = with(bridge(), json!({"nonMasqueradeCIDRs": ["10.1.0.0/16"]}));
    node.configure("10-net.conflist", &list(json!([cluster])).to_string());
    node.assert_not_found("masquerade-between-nodes");
}

fn ports(backend: &str) -> Value {
    json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": backend})
}

fn host_ports_that_were_flushed_are_found(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let plugin = with(bridge(), json!({"ipMasq": false}));
        let node = Node::new(lab, &list(json!([plugin, ports(backend)]))).with_ports(8080);
        let _one = node.join("one");
        node.assert_not_found("rules-missing");
        node.sh("nft flush ruleset");
        node.finds(
            "rules-missing",
            "fail",
            &[
                "host ports of net",
                "1 container without rules of portmap",
                "8080",
            ],
        );
    }
}

fn a_firewall_that_was_flushed_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge(), {"type": "firewall"}])));
    node.sh("iptables -w -P FORWARD DROP");
    let _one = node.join("one");
    node.assert_healthy("its rules are there");
    node.sh("iptables -w -F FORWARD");
    let ids = node.ids();
    assert!(
        ids.contains("rules-missing") && ids.contains("forward-dropped"),
        "{ids:?}"
    );
    node.finds(
        "forward-dropped",
        "fail",
        &["rules of the plugin firewall are gone", "trestle repair"],
    );
}

fn rules_of_a_network_without_a_list_are_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _one = node.join("one");
    let other = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [
        with(bridge(), json!({"bridge": "cni1", "ipam": conformance::host_local(&["10.2.0.0/24"])}))
    ]});
    node.configure("20-other.conflist", &other.to_string());
    let pod = node.pod("two");
    node.cnitool().add("other", &pod);
    node.assert_healthy("two networks");
    node.sh(&format!("rm {}/20-other.conflist", Host::NET_D));
    node.finds(
        "rules-foreign",
        "warn",
        &["other", "1 element of network other"],
    );
}

fn rules_that_the_go_plugins_left_are_told(lab: &Lab) {
    let node = Node::new(
        lab,
        &list(json!([with(
            bridge(),
            json!({"ipMasqBackend": "iptables"})
        )])),
    );
    let mut go = node.cnitool();
    go.path = lab.go_plugins().display().to_string();
    let pod = node.pod("old");
    let result = go.add("net", &pod);
    let old = Member { pod, result };
    let ids = node.ids();
    assert!(
        !ids.contains("rules-foreign"),
        "their container lives: {ids:?}"
    );
    // Its namespace and the runtime's memory of it are gone; its rules are not.
    let end = old.end();
    old.pod.vanish();
    node.sh("rm -r /var/lib/cni/results");
    wait_until("the veth goes", || node.link(&end).is_none());
    node.finds(
        "rules-foreign",
        "warn",
        &["rules of the Go plugins", "ip nat CNI-"],
    );
}

fn localhost_without_its_guards_is_found(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let node = Node::new(lab, &list(json!([bridge(), ports(backend)]))).with_ports(8080);
        let _one = node.join("one");
        node.assert_healthy("it is guarded");
        node.sh("nft flush ruleset");
        node.finds(
            "localhost-open",
            "fail",
            &["net.ipv4.conf.cni0.route_localnet is 1"],
        );
    }
}
