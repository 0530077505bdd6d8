//! Nodes on which all is well.

use conformance::{Case, Lab, Need, Program, Protocol, ProxyMode, Service, case, host_local};
use serde_json::{Value, json};

use super::{Node, bridge, list, with};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(an_empty_node_is_healthy),
        case!(a_bridge_is_healthy_with_every_backend),
        case!(ptp_is_healthy_with_every_backend),
        case!(a_dual_stack_node_beside_kube_proxy_is_healthy).needs(Need::BridgeNetfilter),
        case!(layer_two_is_healthy),
        case!(a_person_reads_eighty_columns_without_color),
        case!(a_container_with_the_hosts_namespaces_looks_as_well),
    ]
}

fn an_empty_node_is_healthy(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.assert_healthy("before the first pod");
}

/// Everything that goes behind a plugin that makes interfaces.
fn chain(first: Value, backend: &str) -> Value {
    let masqueraded = with(first, json!({"ipMasqBackend": backend}));
    list(json!([
        masqueraded,
        {"type": "portmap", "capabilities": {"portMappings": true}, "backend": backend},
        {"type": "firewall", "backend": backend},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}}
    ]))
}

/// As Docker leaves a host.
fn guard(node: &Node<'_>) {
    for program in ["iptables", "ip6tables"] {
        node.sh(&format!("{program} -w -P FORWARD DROP"));
    }
}

fn healthy(lab: &Lab, first: &Value) {
    for backend in ["nftables", "iptables"] {
        for guarded in [false, true] {
            let node = Node::new(lab, &chain(first.clone(), backend)).with_ports(8080);
            if guarded && backend == "iptables" {
                guard(&node);
            }
            let members = node.join("one");
            node.assert_healthy(&format!("{backend}, guarded: {guarded}"));
            node.cnitool().del("net", &members.pod);
            node.assert_healthy("without pods again");
        }
    }
}

fn a_bridge_is_healthy_with_every_backend(lab: &Lab) {
    healthy(lab, &bridge());
}

fn ptp() -> Value {
    json!({"type": "ptp", "ipMasq": true, "ipam": host_local(&["10.1.0.0/24", "fd00:1::/64"])})
}

fn ptp_is_healthy_with_every_backend(lab: &Lab) {
    healthy(lab, &ptp());
}

fn a_dual_stack_node_beside_kube_proxy_is_healthy(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let first = with(
            bridge(),
            json!({"ipam": host_local(&["10.1.0.0/24", "fd00:1::/64"])}),
        );
        let node = Node::new(lab, &chain(first, "nftables")).with_ports(8080);
        let services = [
            Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.0.2:8080"]),
            Service::new(
                "WEB6",
                Protocol::Tcp,
                "[fd00:96::1]:80",
                &["[fd00:1::2]:8080"],
            ),
        ];
        node.kube_proxy(mode, &["10.1.0.0/16", "fd00:1::/48"], &services);
        let _member = node.join("one");
        node.assert_healthy(&format!("{mode:?}"));
    }
}

fn layer_two_is_healthy(lab: &Lab) {
    let node = Node::new(lab, &list(json!([{"type": "bridge", "bridge": "l2"}])));
    let _member = node.join("one");
    node.assert_healthy("no addresses");
}

fn a_person_reads_eighty_columns_without_color(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    let _members = [node.join("one"), node.join("two")];
    node.set_sysctl("net.ipv4.ip_forward", "0");
    let said = node.trestle("doctor", &["--verbose"]).text();
    assert!(
        said.contains("networks: net (2 attachments, pool 2 of 253)"),
        "{said}"
    );
    assert!(
        said.contains("FAIL  forwarding-off  containers of net"),
        "{said}"
    );
    assert!(said.contains("      remedy    switch it on"), "{said}");
    assert!(
        said.contains("                sysctl -w net.ipv4.ip_forward=1"),
        "{said}"
    );
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    assert!(
        !said.contains('\x1b') && said.contains("subnet-overlap"),
        "{said}"
    );
    // On a terminal of script(1)'s, but for those who want none.
    let tty = |no_color: &str| {
        let line = format!(
            "{} doctor --conf-dir {}",
            lab.bin().join("trestle").display(),
            conformance::Host::NET_D
        );
        let program = Program::new("script").args(["-qec", &line, "/dev/null"]);
        node.run(program.env("NO_COLOR", no_color).env("TERM", "xterm"))
            .text()
    };
    if node.run(Program::new("script").args(["-V"])).ok() {
        assert!(tty("").contains("\x1b[1;31mFAIL"), "{}", tty(""));
        assert!(!tty("1").contains('\x1b'));
    }
}

/// As a pod with the host's network, process IDs and directories is, whose image has nothing but the binary.
fn a_container_with_the_hosts_namespaces_looks_as_well(lab: &Lab) {
    const SHARED: [&str; 5] = ["/proc", "/sys", "/run/net.d", "/run/netns", "/var/lib/cni"];
    let node = Node::new(lab, &chain(bridge(), "nftables"));
    let _one = node.join("one");
    let bin = lab.bin().display().to_string();
    for (from, to) in SHARED
        .map(|dir| (dir, dir))
        .into_iter()
        .chain([(&*bin, "/bin")])
    {
        node.sh(&format!("mkdir -p /run/image{to}"));
        node.sh(&format!("mount --rbind {from} /run/image{to}"));
    }
    let look = || {
        // The first process of the machine stays outside, where the host's programs are.
        let script = "mount -t proc proc /run/image/proc && chroot /run/image \
             /bin/trestle doctor --json --conf-dir /run/net.d --bin-dir /bin; true";
        let machine = ["--pid", "--fork", "--mount", "sh", "-c", script];
        let output = node.run(Program::new("unshare").args(machine));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let report = look();
    assert_eq!(report["findings"], json!([]), "{report:#}");
    node.sh("nft flush ruleset");
    let report = look();
    let ids = report["findings"].as_array().into_iter().flatten();
    let ids: Vec<_> = ids.filter_map(|it| it["id"].as_str()).collect();
    assert!(ids.contains(&"masquerade-missing"), "{report:#}");
}
