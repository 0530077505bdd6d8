//! `trestle doctor`: each finding where its state is brought about for real, and silence where all is well.

mod firewall;
mod healthy;
mod lists;
mod look;
mod pages;
mod ports;
mod repair;
mod routes;
mod state;
mod tables;
mod units;

use std::collections::BTreeSet;
use std::ops::Deref;

use conformance::{Case, Cnitool, Host, Lab, Need, Output, Pod, Program, host_local};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        healthy::cases(),
        lists::cases(),
        firewall::cases(),
        ports::cases(),
        routes::cases(),
        state::cases(),
        tables::cases(),
        look::cases(),
        repair::cases(),
        units::cases(),
        pages::cases(),
    ];
    let needy = |case: Case| case.ours().needs(Need::Cnitool);
    cases.into_iter().flatten().map(needy).collect()
}

/// A machine with an uplink and its network `net`, whose pods come and go by `cnitool`, as by a runtime.
struct Node<'l> {
    lab: &'l Lab,
    host: Host,
    _world: Host,
    port_mappings: Value,
}

impl Deref for Node<'_> {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

/// A list of version 1.0.0 called `net`.
fn list(plugins: Value) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins})
}

/// The plugin of a bridge that is the gateway of an IPv4 subnet and masquerades.
fn bridge() -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true,
        "hairpinMode": true, "ipam": host_local(&["10.1.0.0/24"])
    })
}

fn with(mut plugin: Value, more: Value) -> Value {
    let more = more.as_object().cloned().unwrap_or_default();
    for (key, value) in more {
        plugin[key] = value;
    }
    plugin
}

impl<'l> Node<'l> {
    fn new(lab: &'l Lab, list: &Value) -> Self {
        let (host, world) = (Host::new(), Host::new());
        host.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        host.cable("up0", &world, "eth0");
        for (place, device, last) in [(&*host, "up0", 2), (&*world, "eth0", 1)] {
            place.ip(&format!("addr add 198.51.100.{last}/24 dev {device}"));
            place.ip(&format!(
                "addr add 2001:db8:1::{last}/64 dev {device} nodad"
            ));
        }
        host.ip("route add default via 198.51.100.1");
        host.ip("-6 route add default via 2001:db8:1::1");
        host.configure("10-net.conflist", &list.to_string());
        Self {
            lab,
            host,
            _world: world,
            port_mappings: json!([]),
        }
    }

    /// The same with pods that want host ports.
    fn with_ports(mut self, first: u16) -> Self {
        self.port_mappings = json!([{"hostPort": first, "containerPort": 80, "protocol": "tcp"}]);
        self
    }

    fn cnitool(&self) -> Cnitool<'_> {
        let tool = self.lab.cnitool(&self.host);
        match self.port_mappings.as_array().is_none_or(Vec::is_empty) {
            true => tool,
            false => tool.env(
                "CAP_ARGS",
                &json!({"portMappings": self.port_mappings}).to_string(),
            ),
        }
    }

    #[track_caller]
    fn join(&self, name: &str) -> Member {
        let pod = self.pod(name);
        let result = self.cnitool().add("net", &pod);
        Member { pod, result }
    }

    /// A command line of trestle, with this machine's directories.
    fn trestle(&self, verb: &str, more: &[&str]) -> Output {
        let bin = self.lab.bin().to_string_lossy().into_owned();
        let program = Program::new(self.lab.bin().join("trestle"))
            .args([verb, "--conf-dir", Host::NET_D, "--bin-dir", &bin])
            .args(more);
        self.run(program)
    }

    /// What doctor finds, as JSON.
    #[track_caller]
    fn findings(&self) -> Value {
        let output = self.trestle("doctor", &["--json"]);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output}"));
        assert_eq!(output.status.code(), Some(status(&report)), "{report:#}");
        report
    }

    /// The finding with that ID, which must be there.
    #[track_caller]
    fn finding(&self, id: &str) -> Value {
        let report = self.findings();
        let found = report["findings"]
            .as_array()
            .and_then(|all| all.iter().find(|it| it["id"] == id));
        let found = found
            .unwrap_or_else(|| panic!("no {id}: {report:#}"))
            .clone();
        for key in ["summary", "cause"] {
            assert_ne!(found[key], "", "{found:#}");
        }
        assert_ne!(found["remedy"]["text"], "", "{found:#}");
        assert_ne!(found["evidence"], json!([]), "{found:#}");
        found
    }

    /// The finding with that ID, which must be there, be of that severity and have these words in it.
    #[track_caller]
    fn finds(&self, id: &str, severity: &str, words: &[&str]) -> Value {
        let found = self.finding(id);
        assert_eq!(found["severity"], severity, "{found:#}");
        let text = found.to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {found:#}");
        }
        found
    }

    /// The IDs of everything that is found or could not be looked at.
    #[track_caller]
    fn ids(&self) -> BTreeSet<String> {
        let report = self.findings();
        let ids = |key: &str, id: &str| -> Vec<String> {
            let all = report[key].as_array().cloned().unwrap_or_default();
            all.iter()
                .map(|it| it[id].as_str().unwrap_or("?").to_owned())
                .collect()
        };
        ids("findings", "id")
            .into_iter()
            .chain(ids("skipped", "check"))
            .collect()
    }

    /// That nothing is found, and doctor has changed nothing.
    #[track_caller]
    fn assert_healthy(&self, what: &str) {
        let before = self.observe();
        let report = self.findings();
        assert_eq!(report["findings"], json!([]), "{what}: {report:#}");
        assert_eq!(report["skipped"], json!([]), "{what}: {report:#}");
        assert_eq!(
            self.observe().since(&before),
            "",
            "{what}: nothing was touched"
        );
    }

    /// That a finding is gone with its reason.
    #[track_caller]
    fn assert_not_found(&self, id: &str) {
        let report = self.findings();
        assert!(!self.ids().contains(id), "{report:#}");
    }
}

/// What the exit status is to be.
fn status(report: &Value) -> i32 {
    let any = |severity: &str| {
        let all = report["findings"].as_array().cloned().unwrap_or_default();
        all.iter().any(|it| it["severity"] == severity)
    };
    match () {
        () if any("fail") => 2,
        () if report["skipped"] != json!([]) => 3,
        () if any("warn") => 1,
        () => 0,
    }
}

/// A pod on a [`Node`], with what ADD said about it.
struct Member {
    pod: Pod,
    result: Value,
}

impl Member {
    #[track_caller]
    fn end(&self) -> String {
        let interfaces = self.result["interfaces"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut names = interfaces.iter().filter_map(|it| it["name"].as_str());
        names
            .find(|name| name.starts_with("veth"))
            .expect("a host's end")
            .to_owned()
    }
}
