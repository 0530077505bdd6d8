//! What a place looks like, in full: every attribute that `ip` shows, every sysctl of every interface, firewall
//! and state files. Only what comes and goes by itself is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::neutral::neutral;
use crate::exec::Program;
use crate::observe;
use crate::place::Place;

/// Attributes of links and routes that say nothing about who made them: indexes, identifiers that follow from MAC
/// addresses, states of the carrier and timers.
const VOLATILE: [&str; 31] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "link",
    "operstate",
    "permaddr",
    "broadcast",
    "root_id",
    "bridge_id",
    "hello_timer",
    "gc_timer",
    "tcn_timer",
    "topology_change_timer",
    "topology_change",
    "topology_change_detected",
    "root_port",
    "root_path_cost",
    "designated_bridge",
    "designated_port",
    "designated_cost",
    "id",
    "no",
    "state",
    "hold_timer",
    "message_age_timer",
    "forward_delay_timer",
    "valid_life_time",
    "preferred_life_time",
    "tentative",
    "carrier",
    "fdb_n_learned",
];

/// Everything about a place.
pub(super) fn facts(place: &Place, host: bool) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let links = place.ip_json("link show");
    let names: Vec<String> = links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect();
    for link in links.as_array().into_iter().flatten() {
        link_facts(link, &mut lines);
    }
    addresses(place, &mut lines);
    routes(place, &mut lines);
    if host {
        vlans(place, &mut lines);
        limits(place, &mut lines);
        observe::nftables(place, &mut lines);
        observe::iptables(place, &mut lines);
    }
    place.enter(|| {
        sysctls(&names, &mut lines);
        if host {
            observe::state_files(&mut lines);
        }
    });
    lines.iter().map(|line| neutral(line)).collect()
}

fn link_facts(link: &Value, lines: &mut BTreeSet<String>) {
    let name = link["ifname"].as_str().unwrap_or("?");
    let mut link = link.clone();
    if let Some(flags) = link["flags"].as_array_mut() {
        flags.retain(|flag| flag != "LOWER_UP" && flag != "NO-CARRIER");
    }
    lines.insert(format!("link {name}"));
    flatten("", &link, &mut |path, value| {
        lines.insert(format!("link {name} {path}={value}"));
    });
}

fn addresses(place: &Place, lines: &mut BTreeSet<String>) {
    let shown = place.ip_json("addr show");
    for link in shown.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or("?");
        for info in link["addr_info"].as_array().into_iter().flatten() {
            let local = info["local"].as_str().unwrap_or("?");
            // They come when the carrier does. A scenario of its own looks at them.
            if local.starts_with("fe80:") {
                continue;
            }
            let address = format!("{local}/{}", info["prefixlen"]);
            lines.insert(format!("addr {name} {address}"));
            flatten("", info, &mut |path, value| {
                if !["local", "prefixlen", "label", "broadcast"].contains(&path) {
                    lines.insert(format!("addr {name} {address} {path}={value}"));
                }
            });
            if let Some(broadcast) = info["broadcast"].as_str() {
                lines.insert(format!("addr {name} {address} broadcast={broadcast}"));
            }
        }
    }
}

fn routes(place: &Place, lines: &mut BTreeSet<String>) {
    for family in ["4", "6"] {
        let shown = place.ip_json(&format!("-{family} route show table all"));
        for route in shown.as_array().into_iter().flatten() {
            let dst = route["dst"].as_str().unwrap_or("?");
            if dst.starts_with("fe80:") || dst.starts_with("ff00:") {
                continue;
            }
            // They follow from the addresses, some moments later.
            if family == "6" && route["table"] == "local" {
                continue;
            }
            let mut route = route.clone();
            // Whether the carrier is there.
            if let Some(route) = route.as_object_mut() {
                route.remove("flags");
            }
            let mut line = format!("route {family}");
            flatten("", &route, &mut |path, value| {
                line.push_str(&format!(" {path}={value}"));
            });
            lines.insert(line);
        }
        let shown = place.ip_json(&format!("-{family} rule show"));
        for rule in shown.as_array().into_iter().flatten() {
            lines.insert(format!("rule {family} {rule}"));
        }
    }
}

/// The VLANs of each bridge port; none where the kernel has no VLAN filtering.
fn vlans(place: &Place, lines: &mut BTreeSet<String>) {
    let shown = place.run(Program::new("bridge").args(["-j", "vlan", "show"]));
    if !shown.ok() {
        return;
    }
    for port in shown.json().as_array().into_iter().flatten() {
        let name = port["ifname"].as_str().unwrap_or("?");
        for vlan in port["vlans"].as_array().into_iter().flatten() {
            lines.insert(format!("vlan {name} {vlan}"));
        }
    }
}

/// Queueing disciplines that limit what an interface sends, and where what it receives is sent instead.
fn limits(place: &Place, lines: &mut BTreeSet<String>) {
    let shown = place.run(Program::new("tc").args(["-j", "qdisc", "show"]));
    for discipline in shown.succeeded().json().as_array().into_iter().flatten() {
        let (kind, device) = (&discipline["kind"], &discipline["dev"]);
        let (Some(kind), Some(device)) = (kind.as_str(), device.as_str()) else {
            continue;
        };
        if kind == "noqueue" {
            continue;
        }
        lines.insert(format!("qdisc {device} {kind}"));
        flatten("", &discipline["options"], &mut |path, value| {
            lines.insert(format!("qdisc {device} {kind} {path}={value}"));
        });
        if kind == "ingress" || kind == "clsact" {
            let filters = ["filter", "show", "dev", device, "ingress"];
            let filters = place.run(Program::new("tc").args(filters)).text();
            for line in filters.lines().filter(|line| line.contains("mirred")) {
                let to = line.split(['(', ')']).nth(1).unwrap_or(line);
                lines.insert(format!("filter {device} {to}"));
            }
        }
    }
}

/// Every sysctl of every interface, and those of the host that plugins touch.
fn sysctls(interfaces: &[String], lines: &mut BTreeSet<String>) {
    let all = ["all".to_owned(), "default".to_owned()];
    for family in ["ipv4", "ipv6"] {
        for interface in interfaces.iter().chain(&all) {
            let dir = format!("net/{family}/conf/{interface}");
            for name in names(&dir) {
                sysctl(&format!("{dir}/{name}"), lines);
            }
        }
    }
    for name in names("net/bridge") {
        sysctl(&format!("net/bridge/{name}"), lines);
    }
    sysctl("net/ipv4/ip_forward", lines);
    sysctl("net/core/somaxconn", lines);
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new("/proc/sys").join(dir));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn sysctl(name: &str, lines: &mut BTreeSet<String>) {
    if let Ok(value) = fs::read_to_string(format!("/proc/sys/{name}")) {
        lines.insert(format!("sysctl {name}={}", value.trim()));
    }
}

/// Every leaf of a JSON value by its path; what is empty or volatile is left out.
pub(super) fn flatten(path: &str, value: &Value, leaf: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map
                .iter()
                .filter(|(key, _)| !VOLATILE.contains(&key.as_str()))
            {
                let deeper = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&deeper, value, leaf);
            }
        }
        Value::Array(items) => {
            let texts = items.iter().all(Value::is_string);
            if texts && !items.is_empty() {
                leaf(path, &value.to_string());
                return;
            }
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), item, leaf);
            }
        }
        Value::Null => {}
        Value::String(text) => leaf(path, text),
        other => leaf(path, &other.to_string()),
    }
}
