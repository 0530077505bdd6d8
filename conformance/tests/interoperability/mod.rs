//! Plugins of both makers beside each other: interface plugins with the other's IPAM, mixed chains, and containers
//! that one maker attached and the other detaches.

mod switch;

use std::path::{Path, PathBuf};

use conformance::differential::chained;
use conformance::{
    Call, Case, Host, Lab, Need, Output, Plugin, Protocol, host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::common::{ip, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = switch::cases();
    for (plugin, ipam, ours) in [
        ("bridge", "host-local", true),
        ("bridge", "static", true),
        ("ptp", "host-local", true),
        ("ptp", "static", true),
        ("bridge", "host-local", false),
        ("bridge", "static", false),
        ("ptp", "host-local", false),
        ("ptp", "static", false),
        ("macvlan", "host-local", false),
        ("macvlan", "static", false),
    ] {
        let (first, second) = if ours { ("our", "go") } else { ("go", "our") };
        let name = format!("interoperability::{first}_{plugin}_with_{second}_{ipam}");
        cases.push(
            Case::new(name, move |lab| matrix(lab, plugin, ipam, ours)).needs(Need::GoPlugins),
        );
    }
    for ours_first in [true, false] {
        let first = if ours_first { "our" } else { "go" };
        let name = format!("interoperability::a_mixed_chain_behind_{first}_bridge");
        let test = move |lab: &Lab| mixed_chain(lab, ours_first);
        cases.push(Case::new(name, test).needs(Need::GoPlugins));
    }
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
    wait_until("the cable has its link-local address", || settled(&host));
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
    // The host is no neighbour of its own macvlans.
    if name != "macvlan" {
        let _server = pod.serve(Protocol::Tcp, ip("10.1.0.2"), 80);
        let seen = host.ask(Protocol::Tcp, ([10, 1, 0, 2], 80).into());
        assert_eq!(seen.expect("the pod answers"), ip("10.1.0.1"));
    }
    plugin.check(&network, &result, &Call::of(&pod)).succeeded();
    plugin
        .call("STATUS", &network, &Call::default())
        .succeeded();
    plugin.del(&with_prev_result(&network, &result), &Call::of(&pod));
    assert!(pod.link("eth0").is_none());
    host.assert_nothing_left(&before, &["pod"]);
}

/// Whether the kernel has given the cable the address that comes a second after its carrier, and its routes.
fn settled(host: &Host) -> bool {
    let shown = host.ip_json("-6 addr show dev up0 scope link -tentative");
    let infos = shown[0]["addr_info"].as_array();
    infos.is_some_and(|infos| !infos.is_empty())
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

/// Plugins of both makers in one chain.
fn mixed_chain(lab: &Lab, ours_first: bool) {
    let host = Host::new();
    let pod = host.pod("pod");
    let (ours, go) = (lab.bin().to_owned(), lab.go_plugins());
    let mut chain = switch::chain_with("bridge");
    for last in ["tuning", "portmap", "firewall", "bandwidth"] {
        chain.extend(switch::chain_with(last).pop());
    }
    let dirs = if ours_first {
        [&ours, &go, &ours, &go, &ours]
    } else {
        [&go, &ours, &go, &ours, &go]
    };
    let dirs = dirs.map(Clone::clone);
    let call = Call::of(&pod);
    let result = add(&host, &chain, &dirs, &call);
    for (network, dir) in chain.iter().zip(&dirs) {
        run(&host, "CHECK", network, &result, dir, &call).succeeded();
    }
    let _server = pod.serve(Protocol::Tcp, ip("10.1.0.2"), 80);
    for to in ["10.1.0.2:80", "10.1.0.1:8080"] {
        let to = to.parse().expect("an address and a port");
        let seen = host.ask(Protocol::Tcp, to);
        assert_eq!(seen.expect("the pod answers"), ip("10.1.0.1"), "{to}");
    }
    for (network, dir) in chain.iter().zip(&dirs).rev() {
        run(&host, "DEL", network, &result, dir, &call).succeeded();
    }
    assert!(pod.link("eth0").is_none());
    // The shared chains of the Go plugins stay for the next container.
    let after = host.observe();
    let left = [after.mentioning("10.1.0.2/"), after.mentioning("pod")].concat();
    assert!(left.is_empty(), "{left:?}");
}
