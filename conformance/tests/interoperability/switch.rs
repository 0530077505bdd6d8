//! Changing over in place: one maker attaches, the other checks and detaches.

use std::path::PathBuf;

use conformance::differential::chained;
use conformance::{Call, Case, Host, Lab, Need, Snapshot, host_local, with};
use serde_json::{Value, json};

use super::{add, run};
use crate::common::{dual, plain};

/// What stands at the end of the chain, and whether the old release has it.
const CHAINS: [(&str, bool); 10] = [
    ("bridge", true),
    ("bridge_masquerading", true),
    ("bridge_masquerading_by_nftables", false),
    ("ptp", true),
    ("ptp_masquerading", true),
    ("ptp_masquerading_by_nftables", false),
    ("portmap", true),
    ("firewall", true),
    ("tuning", true),
    ("bandwidth", true),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (last, in_old) in CHAINS {
        for (age, need) in [("old", Need::OldGoPlugins), ("new", Need::GoPlugins)] {
            for up in [true, false] {
                if age == "old" && !in_old {
                    continue;
                }
                let way = if up { "upgrade" } else { "downgrade" };
                let name = format!("interoperability::{way}_of_{last}_{age}");
                let test = move |lab: &Lab| switch(lab, last, age == "old", up);
                cases.push(Case::new(name, test).needs(need).ours());
            }
        }
    }
    for (backend, age, need) in [
        ("iptables", "old", Need::OldGoPlugins),
        ("iptables", "new", Need::GoPlugins),
        ("nftables", "new", Need::GoPlugins),
    ] {
        let name = format!("interoperability::upgrade_beside_host_ports_{backend}_{age}");
        let test = move |lab: &Lab| beside_host_ports(lab, backend, age == "old");
        cases.push(Case::new(name, test).needs(need).ours());
    }
    cases
}

fn go_plugins(lab: &Lab, old: bool) -> PathBuf {
    if old {
        lab.old_go_plugins()
    } else {
        lab.go_plugins()
    }
}

/// What of ours names itself, and the guard of 127.0.0.0/8 as nft sees it.
const OURS: [&str; 6] = [
    "trestle",
    "TRESTLE",
    "\"addr\":\"127.0.0.0\"",
    "file /run/cni/portmap/portmap:",
    "file /run/cni/portmap/.portmap.containers/",
    "file /run/cni/firewall/firewall:",
];

/// Rules of the Go plugins that all their containers share.
const SHARED: [&str; 6] = [
    "CNI-HOSTPORT-",
    "CNI-FORWARD",
    "CNI-ADMIN",
    "CNI-ISOLATION-",
    "cni_plugins_masquerade",
    "cni_hostport",
];

/// One maker attaches, the other checks and detaches, and nothing is left.
fn switch(lab: &Lab, last: &str, old: bool, up: bool) {
    let (go, ours) = (go_plugins(lab, old), lab.bin().to_owned());
    let (from, to) = if up { (go, ours) } else { (ours, go) };
    let host = Host::new();
    let pod = host.pod("pod");
    let before = host.observe();
    let chain = chain_with(last);
    let call = Call::of(&pod);
    let result = add(&host, &chain, &vec![from; chain.len()], &call);
    for network in chain.iter().filter(|network| !has_own_rules(network)) {
        run(&host, "CHECK", network, &result, &to, &call).succeeded();
    }
    for time in 0..2 {
        for network in chain.iter().rev() {
            let output = run(&host, "DEL", network, &result, &to, &call);
            // The Go plugin complains when its chain is not there, after everything else is done.
            let complains = !up && time == 0 && network["ipMasq"] == true;
            assert!(output.ok() || complains, "{output}");
        }
    }
    assert!(pod.link("eth0").is_none());
    let left = left_of_the_container(&host, &before, up);
    assert!(left.is_empty(), "{}", left.join("\n"));
}

/// What there is that was not there before, or that speaks of the container, but for what containers share.
fn left_of_the_container(host: &Host, before: &Snapshot, up: bool) -> Vec<String> {
    let after = host.observe();
    let mut left = after.leftovers(before);
    left.retain(|line| !SHARED.iter().any(|shared| line.contains(shared)));
    for text in ["10.1.0.2/", "10.1.0.2\"", "pod"] {
        let lines = after.mentioning(text).into_iter();
        // Where host-local goes on.
        let lines = lines.filter(|line| !line.contains("last_reserved_ip"));
        left.extend(lines.map(str::to_owned));
    }
    if !up {
        // What the Go plugins do not know of: our rules and records, and the index, which goes with our next DEL.
        left.retain(|line| !OURS.iter().any(|own| line.contains(own)));
    }
    left
}

/// Whether the rules of the network are each maker's own, and missing when the other looks for them.
fn has_own_rules(network: &Value) -> bool {
    network["type"] == "portmap" || network["type"] == "firewall"
}

/// The Go plugins attach two containers with host ports. Our DEL removes the rules of each, and no others.
fn beside_host_ports(lab: &Lab, backend: &str, old: bool) {
    let (go, ours) = (go_plugins(lab, old), lab.bin().to_owned());
    let host = Host::new();
    let version = json!({"cniVersion": "1.0.0"});
    let chain = |port| {
        let mapped = with(chained("portmap", ports(port, backend)), version.clone());
        vec![with(dual(), version.clone()), mapped]
    };
    let (stays, goes) = (host.pod("stays"), host.pod("goes"));
    let dirs = vec![go; 2];
    let stays_result = add(&host, &chain(8080), &dirs, &Call::of(&stays));
    let before = firewall(&host);
    let goes_result = add(&host, &chain(8081), &dirs, &Call::of(&goes));
    assert_ne!(firewall(&host), before);
    let del = |port, result: &Value, pod| {
        let call = Call::of(pod);
        run(&host, "DEL", &chain(port)[1], result, &ours, &call).succeeded();
    };
    for _ in 0..2 {
        del(8081, &goes_result, &goes);
        assert_eq!(firewall(&host), before);
    }
    del(8080, &stays_result, &stays);
    let left = firewall(&host);
    let of_a_container = ["stays", "10.1.0.", "fd00:1::", "CNI-DN-"];
    let is_left = |line: &&String| of_a_container.iter().any(|text| line.contains(text));
    assert_eq!(left.iter().find(is_left), None);
    // What containers share stays.
    assert!(
        left.iter()
            .any(|line| line.to_lowercase().contains("hostport"))
    );
}

/// What of the host's facts is about its firewall.
fn firewall(host: &Host) -> Vec<String> {
    let snapshot = host.observe();
    let is_rule = |line: &&str| {
        ["nft ", "iptables", "ip6tables"]
            .iter()
            .any(|kind| line.starts_with(kind))
    };
    snapshot
        .lines()
        .filter(is_rule)
        .map(str::to_owned)
        .collect()
}

fn ports(port: u16, backend: &str) -> Value {
    let mapping = json!({"hostPort": port, "containerPort": 80, "protocol": "tcp"});
    json!({"runtimeConfig": {"portMappings": [mapping]}, "backend": backend})
}

/// The plugins of a network, of a version that both releases know.
pub(super) fn chain_with(last: &str) -> Vec<Value> {
    let old = json!({"cniVersion": "1.0.0"});
    let bridge = with(plain(), old.clone());
    let ptp = chained("ptp", json!({"ipam": host_local(&["10.1.0.0/24"])}));
    let ptp = with(ptp, old.clone());
    let masq = json!({"ipMasq": true});
    let by_nftables = json!({"ipMasq": true, "ipMasqBackend": "nftables"});
    let more = match last {
        "bridge" => return vec![bridge],
        "bridge_masquerading" => return vec![with(bridge, masq)],
        "bridge_masquerading_by_nftables" => return vec![with(bridge, by_nftables)],
        "ptp" => return vec![ptp],
        "ptp_masquerading" => return vec![with(ptp, masq)],
        "ptp_masquerading_by_nftables" => return vec![with(ptp, by_nftables)],
        "tuning" => json!({"mtu": 1400, "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}),
        "portmap" => ports(8080, "iptables"),
        "bandwidth" => json!({
            "ingressRate": 80_000_000, "ingressBurst": 8_000_000,
            "egressRate": 80_000_000, "egressBurst": 8_000_000
        }),
        _ => json!({}),
    };
    vec![bridge, with(with(chained(last, json!({})), more), old)]
}
