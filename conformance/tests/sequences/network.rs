//! The networks of a sequence, as an administrator writes them: everything in them is meant well.

use serde_json::{Value, json};

use crate::random::Random;

/// Lengths of names and IDs in bytes up to the longest that there may be, on both sides of what comments and aliases hold.
const LENGTHS: [usize; 7] = [1, 8, 100, 110, 128, 239, 240];

/// What the networks of one sequence have in common.
#[derive(Debug, Clone)]
pub(super) struct Names {
    network: usize,
    container: usize,
    interface: usize,
}

impl Names {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            network: random.pick(&LENGTHS),
            container: random.pick(&LENGTHS),
            interface: random.pick(&[4, 15]),
        }
    }

    /// The network of that letter. Names differ in the last byte.
    pub(super) fn network(&self, letter: char) -> String {
        ending(self.network, "network-", letter)
    }

    /// The ID of the container of that letter.
    pub(super) fn container(&self, letter: char) -> String {
        ending(self.container, "container-", letter)
    }

    /// The interface, the same in every container.
    pub(super) fn interface(&self) -> String {
        ending(self.interface, "eth", '0')
    }
}

fn ending(length: usize, pattern: &str, last: char) -> String {
    let pattern = pattern.chars().cycle();
    pattern.take(length - 1).chain([last]).collect()
}

/// A network: a list of plugins that are called one after the other.
#[derive(Debug, Clone)]
pub(super) struct Network {
    /// Which one: `a` or `b`.
    pub(super) letter: char,
    plugins: Vec<Value>,
}

impl Network {
    /// `kinds` are the plugins that make interfaces and that this kernel has what they need for.
    pub(super) fn new(
        random: &mut Random,
        kinds: &[&'static str],
        names: &Names,
        letter: char,
    ) -> Self {
        let main = random.pick(kinds);
        let mut plugins = vec![main_plugin(random, main, letter)];
        if main != "loopback" {
            plugins[0]["ipam"] = ipam(random, letter);
            if plugins[0]["ipam"]["type"] == "static" {
                // Who has which address after a flush is known of host-local alone (docs/operations.md): no ADD of
                // another brings these back.
                for key in ["ipMasq", "portIsolation"] {
                    plugins[0][key] = json!(false);
                }
            }
        }
        if matches!(main, "bridge" | "ptp") {
            let mut chained = vec![portmap(random), firewall(random), bandwidth()];
            chained.retain(|_| !random.one_in(4));
            plugins.extend(chained);
        }
        if main != "loopback" && random.one_in(2) {
            plugins.push(tuning());
        }
        if !matches!(main, "loopback" | "tap") && random.one_in(4) {
            plugins.push(json!({"type": "sbr"}));
        }
        for plugin in &mut plugins {
            plugin["name"] = json!(names.network(letter));
            plugin["cniVersion"] = json!(random.pick(&["0.4.0", "1.0.0", "1.1.0", "1.1.0"]));
        }
        let version = plugins[0]["cniVersion"].clone();
        for plugin in &mut plugins {
            plugin["cniVersion"] = version.clone();
        }
        Self { letter, plugins }
    }

    /// Which plugin makes the interface.
    pub(super) fn main(&self) -> &str {
        self.plugins[0]["type"].as_str().unwrap_or_default()
    }

    /// The gateway that a container can ping.
    pub(super) fn gateway(&self) -> Option<&'static str> {
        // Behind sbr nothing leaves that doesn't say from which address.
        let by_source = self.plugins.iter().any(|plugin| plugin["type"] == "sbr");
        let pinged = matches!(self.main(), "bridge" | "ptp") && !by_source;
        pinged.then_some(if self.letter == 'a' {
            "10.1.0.1"
        } else {
            "10.2.0.1"
        })
    }

    /// The configurations that the container of that number is attached with.
    pub(super) fn plugins(&self, number: usize) -> Vec<Value> {
        let mut plugins = self.plugins.clone();
        for plugin in &mut plugins {
            if plugin["ipam"]["type"] == "static" {
                plugin["ipam"]["addresses"] = addresses(self.letter, 10 + number);
            }
            match plugin["type"].as_str() {
                Some("host-device") => plugin["device"] = json!(device(self.letter, number)),
                // A master has one link of each VLAN.
                Some("vlan") => {
                    let first = if self.letter == 'a' { 100 } else { 200 };
                    plugin["vlanId"] = json!(first + number);
                }
                _ => {}
            }
            if plugin["type"] == "portmap" {
                let port = 8000 + 10 * number + usize::from(self.letter == 'b');
                plugin["runtimeConfig"] = json!({"portMappings": [
                    {"hostPort": port, "containerPort": 80, "protocol": "tcp"},
                    {"hostPort": port, "containerPort": 53, "protocol": "udp"}]});
            }
        }
        plugins
    }
}

/// The plugins that make interfaces, those more often that do more, and what kind of link the kernel must have for them.
pub(super) const KINDS: [(&str, Option<&str>); 12] = [
    ("bridge", None),
    ("bridge", None),
    ("bridge", None),
    ("ptp", None),
    ("ptp", None),
    ("macvlan", None),
    ("host-device", None),
    ("tap", None),
    ("ipvlan", Some("ipvlan")),
    ("vlan", Some("vlan")),
    ("dummy", Some("dummy")),
    ("loopback", None),
];

/// The host's device for the container of that number.
pub(super) fn device(letter: char, number: usize) -> String {
    format!("dev-{letter}-{number}")
}

fn main_plugin(random: &mut Random, main: &str, letter: char) -> Value {
    let mut flag = |key: &str, plugin: &mut Value| plugin[key] = json!(random.one_in(2));
    let mut plugin = json!({"type": main});
    match main {
        "bridge" => {
            plugin["bridge"] = json!(format!("bridge-bridge-{letter}"));
            plugin["isGateway"] = json!(true);
            for key in [
                "isDefaultGateway",
                "ipMasq",
                "hairpinMode",
                "portIsolation",
                "macspoofchk",
            ] {
                flag(key, &mut plugin);
            }
        }
        "ptp" => flag("ipMasq", &mut plugin),
        "macvlan" | "vlan" => plugin["master"] = json!("up0"),
        // Not beside a macvlan.
        "ipvlan" => plugin["master"] = json!("up1"),
        "tap" => plugin["multiQueue"] = json!(random.one_in(2)),
        _ => {}
    }
    if matches!(main, "bridge" | "ptp") {
        plugin["ipMasqBackend"] = json!(random.pick(&["nftables", "iptables"]));
    }
    plugin
}

fn ipam(random: &mut Random, letter: char) -> Value {
    match random.below(4) {
        0 => json!({"type": "static"}),
        1 if letter == 'a' => {
            json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]})
        }
        1 => json!({"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}]]}),
        _ => {
            let number = if letter == 'a' { 1 } else { 2 };
            json!({"type": "host-local", "ranges": [
                [{"subnet": format!("10.{number}.0.0/24")}], [{"subnet": format!("fd00:{number}::/64")}]]})
        }
    }
}

fn addresses(letter: char, host: usize) -> Value {
    let number = if letter == 'a' { 1 } else { 2 };
    json!([{"address": format!("10.{number}.0.{host}/24"), "gateway": format!("10.{number}.0.1")}])
}

fn portmap(random: &mut Random) -> Value {
    json!({"type": "portmap", "backend": random.pick(&["nftables", "iptables"]), "masqAll": random.one_in(4)})
}

fn firewall(random: &mut Random) -> Value {
    let mut plugin = json!({"type": "firewall", "ingressPolicy": random.pick(&["open", "same-bridge", "isolated"])});
    if let Some(backend) = random.pick(&[None, Some("iptables"), Some("nftables")]) {
        plugin["backend"] = json!(backend);
    }
    plugin
}

fn bandwidth() -> Value {
    json!({"type": "bandwidth", "ingressRate": 100_000_000, "ingressBurst": 2_000_000,
        "egressRate": 50_000_000, "egressBurst": 2_000_000})
}

fn tuning() -> Value {
    json!({"type": "tuning", "mtu": 1400, "allmulti": true,
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"}})
}
