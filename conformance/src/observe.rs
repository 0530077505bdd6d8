//! What a host looks like: kernel and files as lines of text that can be compared.
//!
//! A line says one fact, without what changes by itself or means nothing to anyone (indexes, counters, handles,
//! carrier). "Nothing is left" then is a difference of two sets.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::exec::Program;
use crate::host::Host;
use crate::place::Place;

/// The sysctls that plugins are known to touch, whole host first.
const SYSCTLS: [&str; 6] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/all/rp_filter",
];

/// Where plugins and `cnitool` keep state.
const STATE_DIRS: [&str; 2] = ["/var/lib/cni", "/run"];

/// Of what is under those, the test host's own furniture, and locks, which are files that stay.
const PRESENT_AT_START: [&str; 6] = [
    "/run/netns/",
    "/run/lock/",
    "/run/net.d/",
    "/run/cni/trestle/",
    "/run/xtables.lock",
    "/run/strace",
];

/// How the line of a built-in chain ends; the first use of a table brings them.
const BUILT_IN_CHAINS: [&str; 5] = [
    "chain PREROUTING ACCEPT",
    "chain INPUT ACCEPT",
    "chain FORWARD ACCEPT",
    "chain OUTPUT ACCEPT",
    "chain POSTROUTING ACCEPT",
];

/// The facts of a host, or of any place, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
    bridges: Vec<String>,
}

impl Snapshot {
    /// Interfaces, addresses, routes, policy rules, firewall, sysctls and state files of a place.
    pub fn of(place: &Place) -> Self {
        let mut lines = BTreeSet::new();
        let links = place.ip_json("link show");
        let links = links.as_array().cloned().unwrap_or_default();
        let bridges = links
            .iter()
            .filter(|link| link["linkinfo"]["info_kind"] == "bridge");
        let bridges = bridges.map(|link| word(&link["ifname"])).collect();
        lines.extend(links.iter().map(link_line));
        addresses(place, &mut lines);
        routes(place, &mut lines);
        nftables(place, &mut lines);
        iptables(place, &mut lines);
        sysctls(place, &links, &mut lines);
        place.enter(|| state_files(&mut lines));
        Self { lines, bridges }
    }

    /// The facts.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// What has changed since `before`: lines that came with `+`, lines that went with `-`.
    pub fn since(&self, before: &Self) -> String {
        let mut text = String::new();
        for line in before.lines.difference(&self.lines) {
            let _ = writeln!(text, "- {line}");
        }
        for line in self.lines.difference(&before.lines) {
            let _ = writeln!(text, "+ {line}");
        }
        text
    }

    /// What containers that are gone left behind since `before`: everything new that isn't a bridge and its
    /// own addresses and routes, forwarding, the bookkeeping that a network keeps (lock, last reserved address,
    /// rules without elements), and everything that went away.
    pub fn leftovers(&self, before: &Self) -> Vec<String> {
        let came = self
            .lines
            .difference(&before.lines)
            .filter(|line| !self.is_shared(line));
        let went = before
            .lines
            .difference(&self.lines)
            .filter(|line| !self.is_shared(line));
        went.map(|line| format!("- {line}"))
            .chain(came.map(|line| format!("+ {line}")))
            .collect()
    }

    /// The facts that mention a text, such as a container's ID.
    pub fn mentioning(&self, text: &str) -> Vec<&str> {
        self.lines().filter(|line| line.contains(text)).collect()
    }

    fn is_shared(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (kind, subject) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match kind {
            // The bridge stays for the next container, and with it its VLAN interfaces.
            "link" | "addr" => self.is_bridge(subject),
            "route" => {
                let mut rest = words.skip_while(|word| *word != "dev");
                rest.nth(1).is_some_and(|device| self.is_bridge(device))
            }
            "sysctl" => {
                let name = subject.rsplit('/').next().unwrap_or("");
                let on_bridge = subject.split('/').any(|part| self.is_bridge(part));
                on_bridge
                    || matches!(name, "ip_forward" | "forwarding")
                    || name.starts_with("bridge-nf")
            }
            "file" => {
                let name = subject.rsplit('/').next().unwrap_or("");
                // The index, and the one file in which an address's file is prepared, over and over.
                let own_index = matches!(name, "index" | "new") && subject.contains("/.trestle/");
                own_index || name == "lock" || name.starts_with("last_reserved_ip.")
            }
            // A table and the chains that the kernel calls hold nobody's rules.
            "nft" if subject == "element" => false,
            "nft" => subject == "table" || line.contains("\"hook\"") || line.contains("trestle"),
            "iptables-save" | "ip6tables-save" => {
                BUILT_IN_CHAINS.iter().any(|end| line.ends_with(end))
            }
            _ => false,
        }
    }

    fn is_bridge(&self, interface: &str) -> bool {
        let base = interface.split('.').next().unwrap_or(interface);
        self.bridges
            .iter()
            .any(|bridge| bridge == interface || bridge == base)
    }
}

impl Host {
    /// Kernel and files as they are now.
    pub fn observe(&self) -> Snapshot {
        Snapshot::of(self)
    }

    /// Check that nothing of these containers is left, compared with how the host looked before they came.
    ///
    /// # Panics
    /// When something is, naming it.
    #[track_caller]
    pub fn assert_nothing_left(&self, before: &Snapshot, containers: &[&str]) {
        let after = self.observe();
        let left = after.leftovers(before);
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        for container in containers {
            let mentions = after.mentioning(container);
            assert!(
                mentions.is_empty(),
                "{container} is still known:\n{}",
                mentions.join("\n")
            );
        }
    }
}

fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn link_line(link: &Value) -> String {
    let mut line = format!("link {}", word(&link["ifname"]));
    let mut fact = |name: &str, value: &Value| {
        if !value.is_null() {
            let _ = write!(line, " {name}={}", word(value));
        }
    };
    let info = &link["linkinfo"];
    fact("kind", &info["info_kind"]);
    for name in ["mtu", "address", "master", "ifalias"] {
        fact(name, &link[name]);
    }
    for name in ["hairpin", "isolated", "guard", "learning", "flood"] {
        fact(name, &info["info_slave_data"][name]);
    }
    for name in ["vlan_filtering", "nf_call_iptables", "nf_call_ip6tables"] {
        fact(name, &info["info_data"][name]);
    }
    for flag in link["flags"].as_array().into_iter().flatten() {
        // The carrier comes and goes with the other end.
        if ["UP", "PROMISC", "NOARP"].iter().any(|kept| flag == kept) {
            let _ = write!(line, " {}", word(flag));
        }
    }
    line
}

fn addresses(place: &Place, lines: &mut BTreeSet<String>) {
    for link in place.ip_json("addr show").as_array().into_iter().flatten() {
        for info in link["addr_info"].as_array().into_iter().flatten() {
            let (name, local) = (word(&link["ifname"]), word(&info["local"]));
            let scope = word(&info["scope"]);
            lines.insert(format!("addr {name} {local}/{} {scope}", info["prefixlen"]));
        }
    }
}

fn routes(place: &Place, lines: &mut BTreeSet<String>) {
    for (family, what) in [("4", "route show table all"), ("6", "route show table all")] {
        let shown = place.ip_json(&format!("-{family} {what}"));
        for route in shown.as_array().into_iter().flatten() {
            // The kernel's own, which come with forwarding, and with an address when the kernel gets to it.
            if family == "6" && (route["type"] == "anycast" || route["type"] == "local") {
                continue;
            }
            let mut line = format!("route {family}");
            let facts = [
                "type", "dst", "gateway", "dev", "table", "scope", "prefsrc", "metric",
            ];
            for name in facts.iter().filter(|name| !route[**name].is_null()) {
                let _ = write!(line, " {name} {}", word(&route[*name]));
            }
            lines.insert(line);
        }
        let shown = place.ip_json(&format!("-{family} rule show"));
        let rules = shown.as_array().into_iter().flatten();
        lines.extend(rules.map(|rule| format!("rule {family} {rule}")));
    }
}

pub(crate) fn nftables(place: &Place, lines: &mut BTreeSet<String>) {
    let ruleset = place
        .run(Program::new("nft").args(["-j", "list", "ruleset"]))
        .succeeded()
        .json();
    for object in ruleset["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        if kind == "metainfo" {
            continue;
        }
        let mut body = body.clone();
        if let Some(elements) = body.as_object_mut().and_then(|body| body.remove("elem")) {
            for element in elements.as_array().into_iter().flatten() {
                let (table, name) = (word(&body["table"]), word(&body["name"]));
                lines.insert(format!("nft element {table} {name} {element}"));
            }
        }
        strip_handles(&mut body);
        lines.insert(format!("nft {kind} {body}"));
    }
}

fn strip_handles(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            if let Some(counter) = map.get_mut("counter").filter(|counter| counter.is_object()) {
                *counter = Value::Object(Map::new());
            }
            map.values_mut().for_each(strip_handles);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_handles),
        _ => {}
    }
}

pub(crate) fn iptables(place: &Place, lines: &mut BTreeSet<String>) {
    for command in ["iptables-save", "ip6tables-save"] {
        let mut table = String::new();
        for line in place.run(Program::new(command)).succeeded().text().lines() {
            match line.split_at_checked(1) {
                Some(("*", name)) => name.clone_into(&mut table),
                Some((":", chain)) => {
                    let chain = chain.split(" [").next().unwrap_or(chain);
                    lines.insert(format!("{command} {table} chain {chain}"));
                }
                Some(("-", _)) => {
                    lines.insert(format!("{command} {table} {line}"));
                }
                _ => {}
            }
        }
    }
}

fn sysctls(place: &Place, links: &[Value], lines: &mut BTreeSet<String>) {
    let mut names: Vec<String> = SYSCTLS.iter().map(|&name| name.to_owned()).collect();
    for link in links {
        let name = word(&link["ifname"]);
        names.extend(["accept_ra", "accept_dad"].map(|key| format!("net/ipv6/conf/{name}/{key}")));
        names.push(format!("net/ipv4/conf/{name}/arp_notify"));
        names.push(format!("net/ipv4/conf/{name}/route_localnet"));
    }
    place.enter(|| {
        for name in names {
            if let Ok(value) = fs::read_to_string(format!("/proc/sys/{name}")) {
                lines.insert(format!("sysctl {name} {}", value.trim()));
            }
        }
    });
}

/// The files that plugins keep, as the calling thread sees them.
pub(crate) fn state_files(lines: &mut BTreeSet<String>) {
    STATE_DIRS
        .iter()
        .for_each(|dir| files(Path::new(dir), lines));
}

fn files(dir: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let shown = path.to_string_lossy();
        if PRESENT_AT_START
            .iter()
            .any(|own| format!("{shown}/").starts_with(own) || shown == *own)
        {
            continue;
        }
        let Ok(kind) = kind else { continue };
        if kind.is_dir() {
            files(&path, lines);
        } else if !kind.is_file() {
            // Reading a FIFO would wait for somebody to write.
            lines.insert(format!("file {shown} {kind:?}"));
        } else {
            let content = fs::read(&path).unwrap_or_default();
            lines.insert(format!(
                "file {shown} {:?}",
                String::from_utf8_lossy(&content)
            ));
        }
    }
}
