//! Plugins of both makers beside each other: interface plugins with the other's IPAM, mixed chains, and containers
//! that one maker attached and the other detaches.

use std::path::{Path, PathBuf};

use conformance::differential::chained;
use conformance::{
    Call, Case, Host, Lab, Need, Output, Plugin, host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::common::{dual, plain};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (plugin, ipam, ours) in [
        ("ptp", "host-local", true),
        ("bridge", "static", true),
        ("ptp", "static", true),
        ("ptp", "host-local", false),
        ("macvlan", "host-local", false),
        ("bridge", "static", false),
        ("ptp", "static", false),
        ("macvlan", "static", false),
    ] {
        let (first, second) = if ours { ("our", "go") } else { ("go", "our") };
        let name = format!("interoperability::{first}_{plugin}_with_{second}_{ipam}");
        cases.push(
            Case::new(name, move |lab| matrix(lab, plugin, ipam, ours)).needs(Need::GoPlugins),
        );
    }
    for plugin in ["bridge", "ptp", "tuning", "portmap"] {
        for (age, need) in [("old", Need::OldGoPlugins), ("new", Need::GoPlugins)] {
            for up in [true, false] {
                let way = if up { "upgrade" } else { "downgrade" };
                let name = format!("interoperability::{way}_of_{plugin}_{age}");
                let test = move |lab: &Lab| switch(lab, plugin, age == "old", up);
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
    cases.push(Case::new("interoperability::a_mixed_chain", mixed_chain).needs(Need::GoPlugins));
    cases
}

fn plugin<'h>(host: &'h Host, name: &str, dir: &Path, path: &Path) -> Plugin<'h> {
    Plugin {
        host,
        program: dir.join(name),
        path: path.to_string_lossy().into_owned(),
    }
}

fn ipam(name: &str) -> Value {
    match name {
        "static" => {
            json!({"type": "static", "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]})
        }
        _ => host_local(&["10.1.0.0/24"]),
    }
}

/// ADD, CHECK, DEL with the interface plugin of one and the IPAM of the other.
fn matrix(lab: &Lab, name: &str, ipam_name: &str, ours: bool) {
    let host = Host::new();
    let pod = host.pod("pod");
    let far = host.pod("far");
    host.cable("up0", &far, "eth0");
    let before = host.observe();
    let (dir, path) = if ours {
        (lab.bin().to_owned(), lab.go_plugins())
    } else {
        (lab.go_plugins(), lab.bin().to_owned())
    };
    let more = json!({"master": "up0", "isGateway": true, "ipam": ipam(ipam_name)});
    let network = with(chained(name, json!({})), more);
    let plugin = plugin(&host, name, &dir, &path);
    let result = plugin.add(&network, &Call::of(&pod));
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/24"]);
    plugin.check(&network, &result, &Call::of(&pod)).succeeded();
    plugin
        .call("STATUS", &network, &Call::default())
        .succeeded();
    plugin.del(&with_prev_result(&network, &result), &Call::of(&pod));
    assert!(pod.link("eth0").is_none());
    host.assert_nothing_left(&before, &["pod"]);
}

/// One maker attaches, the other checks and detaches, and nothing is left.
fn switch(lab: &Lab, last: &str, old: bool, up: bool) {
    let go = if old {
        lab.old_go_plugins()
    } else {
        lab.go_plugins()
    };
    let ours = lab.bin().to_owned();
    let (from, to) = if up { (go, ours) } else { (ours, go) };
    let host = Host::new();
    let pod = host.pod("pod");
    let before = host.observe();
    let chain = chain_with(last);
    let call = Call::of(&pod);
    let result = add(&host, &chain, &vec![from; chain.len()], &call);
    // The rules of host ports are each maker's own.
    for network in chain.iter().filter(|network| network["type"] != "portmap") {
        run(&host, "CHECK", network, &result, &to, &call).succeeded();
    }
    for network in chain.iter().rev() {
        run(&host, "DEL", network, &result, &to, &call).succeeded();
    }
    assert!(pod.link("eth0").is_none());
    // What is known to one maker alone (an index, say) goes with its own next DEL.
    if up && last == "portmap" {
        let after = host.observe();
        let mut left = after.leftovers(&before);
        // The shared chains of the reference stay for its other containers.
        left.retain(|line| !line.contains("CNI-HOSTPORT-"));
        let mentions = after.mentioning("pod");
        assert!(
            left.is_empty() && mentions.is_empty(),
            "{left:?}\n{mentions:?}"
        );
    } else if up {
        host.assert_nothing_left(&before, &["pod"]);
    }
}

/// The reference attaches two containers with host ports. Our DEL takes out the rules of each, and no others.
fn beside_host_ports(lab: &Lab, backend: &str, old: bool) {
    let go = if old {
        lab.old_go_plugins()
    } else {
        lab.go_plugins()
    };
    let ours = lab.bin().to_owned();
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

fn chain_with(last: &str) -> Vec<Value> {
    let old = json!({"cniVersion": "1.0.0"});
    let bridge = with(plain(), old.clone());
    let more = match last {
        "bridge" => return vec![bridge],
        "ptp" => {
            return vec![with(
                chained("ptp", json!({"ipam": host_local(&["10.1.0.0/24"])})),
                old,
            )];
        }
        "tuning" => json!({"mtu": 1400, "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}),
        _ => ports(8080, "iptables"),
    };
    vec![bridge, with(with(chained(last, json!({})), more), old)]
}

fn run(
    host: &Host,
    verb: &str,
    network: &Value,
    result: &Value,
    dir: &Path,
    call: &Call,
) -> Output {
    let name = network["type"].as_str().expect("a type");
    let network = if result.is_null() {
        network.clone()
    } else {
        with_prev_result(network, result)
    };
    plugin(host, name, dir, dir).call(verb, &network, call)
}

fn add(host: &Host, chain: &[Value], dirs: &[PathBuf], call: &Call) -> Value {
    let mut result = Value::Null;
    for (network, dir) in chain.iter().zip(dirs) {
        result = run(host, "ADD", network, &result, dir, call)
            .succeeded()
            .json();
    }
    result
}

fn mixed_chain(lab: &Lab) {
    for ours_first in [true, false] {
        let host = Host::new();
        let pod = host.pod("pod");
        let before = host.observe();
        let (ours, go) = (lab.bin().to_owned(), lab.go_plugins());
        let mut chain = chain_with("tuning");
        chain.extend(chain_with("portmap").pop());
        let dirs = if ours_first {
            [ours.clone(), go, ours]
        } else {
            [go.clone(), ours, go]
        };
        let call = Call::of(&pod);
        let result = add(&host, &chain, &dirs, &call);
        for (network, dir) in chain.iter().zip(&dirs) {
            run(&host, "CHECK", network, &result, dir, &call).succeeded();
        }
        for (network, dir) in chain.iter().zip(&dirs).rev() {
            run(&host, "DEL", network, &result, dir, &call).succeeded();
        }
        // The shared chains of the reference stay for the next container.
        let after = host.observe();
        let left = after.mentioning("10.1.0.2/32");
        assert!(left.is_empty(), "{left:?}\n{}", after.since(&before));
    }
}
