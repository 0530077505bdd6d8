//! `trestle trace`: what becomes of a packet, in scenes where it is brought about for real.

mod asking;
mod drops;
mod filters;
mod hostile;
mod killed;
mod many;
mod outside;
mod pages;
mod pods;
mod services;
mod size;

use std::net::IpAddr;
use std::ops::Deref;

use conformance::{
    Case, Cnitool, Host, Lab, Need, Output, Place, Pod, Program, addresses, host_local, with,
};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        pods::cases(),
        services::cases(),
        filters::cases(),
        drops::cases(),
        hostile::cases(),
        outside::cases(),
        size::cases(),
        asking::cases(),
        killed::cases(),
        many::cases(),
        pages::cases(),
    ];
    let needy = |case: Case| case.ours().needs(Need::Cnitool);
    cases.into_iter().flatten().map(needy).collect()
}

/// The sysctls of bridge netfilter, for IPv4 and IPv6.
const BRIDGE_NF: [&str; 2] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];

/// The other end of the uplink.
const INTERNET: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];

/// The node's end of it.
const UPLINK: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];

/// The plugin of a dual-stack bridge that is its pods' gateway, masquerades and leaves bridge netfilter alone.
fn bridge() -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true,
        "bridgeNetfilter": "off", "ipam": host_local(&["10.1.0.0/24", "fd00:1::/64"])
    })
}

/// A machine with an uplink and the network `net`.
struct Node<'l> {
    lab: &'l Lab,
    host: Host,
    world: Host,
}

impl Deref for Node<'_> {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl<'l> Node<'l> {
    /// With a bridge that has more keys.
    fn new(lab: &'l Lab, more: Value) -> Self {
        Self::of(lab, json!([with(bridge(), more)]))
    }

    /// With a list of these plugins.
    fn of(lab: &'l Lab, plugins: Value) -> Self {
        let (host, world) = (Host::new(), Host::new());
        for place in [&host, &world] {
            place.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        }
        host.cable("up0", &world, "eth0");
        for (place, device, ends) in [(&*host, "up0", UPLINK), (&*world, "eth0", INTERNET)] {
            place.ip(&format!("addr add {}/24 dev {device}", ends[0]));
            place.ip(&format!("addr add {}/64 dev {device} nodad", ends[1]));
        }
        host.ip(&format!("route add default via {}", INTERNET[0]));
        host.ip(&format!("-6 route add default via {}", INTERNET[1]));
        let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins});
        host.configure("10-net.conflist", &list.to_string());
        let node = Self { lab, host, world };
        node.bridge_netfilter(false);
        node
    }

    /// Whether bridged packets pass the rules of IP.
    fn bridge_netfilter(&self, on: bool) {
        for name in BRIDGE_NF {
            if self.read(&format!("/proc/sys/{name}")).is_some() {
                self.set_sysctl(name, if on { "1" } else { "0" });
            }
        }
    }

    fn cnitool(&self) -> Cnitool<'_> {
        self.lab.cnitool(&self.host)
    }

    #[track_caller]
    fn join(&self, name: &str) -> Member {
        let pod = self.pod(name);
        let result = self.cnitool().add("net", &pod);
        Member { pod, result }
    }

    /// `trestle trace` with these arguments.
    fn call(&self, arguments: &[&str]) -> Output {
        let bin = self.lab.bin().to_string_lossy().into_owned();
        let program = Program::new(self.lab.bin().join("trestle"))
            .args(["trace", "--conf-dir", Host::NET_D, "--bin-dir", &bin])
            .args(arguments);
        self.run(program)
    }

    /// What it finds. The exit status must fit, and nothing be left of it in the kernel.
    #[track_caller]
    fn trace(&self, arguments: &[&str]) -> Trace {
        let before = self.sh("nft list ruleset");
        let mut all = vec!["--json"];
        all.extend(arguments);
        if !all.contains(&"--timeout") {
            all.extend(["--timeout", "2"]);
        }
        let output = self.call(&all);
        let parsed = serde_json::from_slice(&output.stdout);
        let trace = Trace(parsed.unwrap_or_else(|error| panic!("{error}: {output}")));
        let good = matches!(trace.id(), "answered" | "delivered");
        assert_eq!(
            output.status.code(),
            Some(if good { 0 } else { 2 }),
            "{output}"
        );
        let after = self.sh("nft list ruleset");
        let counted = |text: &str| {
            let words = text
                .split_whitespace()
                .filter(|word| word.parse::<u64>().is_err());
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            counted(&after),
            counted(&before),
            "the rules are as they were"
        );
        trace
    }

    /// What it finds about a packet of a pod.
    #[track_caller]
    fn follow(&self, from: &Member, to: &str) -> Trace {
        self.trace(&[&from.pod.netns(), to])
    }
}

/// What trace says.
struct Trace(Value);

impl Trace {
    fn id(&self) -> &str {
        self.0["verdict"]["id"].as_str().unwrap_or("?")
    }

    /// That the verdict is this one and has these words in it.
    #[track_caller]
    fn is(&self, id: &str, words: &[&str]) -> &Self {
        assert_eq!(self.id(), id, "{:#}", self.0);
        let text = self.0["verdict"]["text"].as_str().unwrap_or_default();
        for word in words {
            assert!(text.contains(word), "{word}: {:#}", self.0);
        }
        let step = self.0["verdict"]["step"].as_u64();
        let step = step
            .and_then(|step| usize::try_from(step).ok())
            .expect("a step");
        assert!(self.steps().get(step).is_some(), "{:#}", self.0);
        self
    }

    fn steps(&self) -> &[Value] {
        self.0["steps"].as_array().map_or(&[], Vec::as_slice)
    }

    /// That there is a step of that direction whose words have these in them.
    #[track_caller]
    fn has(&self, direction: &str, text: &str) -> &Self {
        let is = |step: &Value| {
            let words = step["text"].as_str().unwrap_or_default();
            step["direction"] == direction && words.contains(text)
        };
        assert!(
            self.steps().iter().any(is),
            "no {direction} {text}: {:#}",
            self.0
        );
        self
    }

    /// That no step's words have these in them.
    #[track_caller]
    fn lacks(&self, text: &str) -> &Self {
        let is = |step: &Value| step["text"].as_str().unwrap_or_default().contains(text);
        assert!(!self.steps().iter().any(is), "{text}: {:#}", self.0);
        self
    }

    /// That doctor's finding comes along.
    #[track_caller]
    fn finds(&self, id: &str) -> &Self {
        let findings = self.0["findings"].as_array().cloned().unwrap_or_default();
        assert!(
            findings.iter().any(|it| it["id"] == id),
            "no {id}: {:#}",
            self.0
        );
        self
    }
}

/// A pod on a [`Node`].
struct Member {
    pod: Pod,
    result: Value,
}

impl Deref for Member {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

impl Member {
    /// Its addresses, IPv4 first.
    fn ips(&self) -> Vec<IpAddr> {
        addresses(&self.result)
    }

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

/// What a line of shell prints at a place.
#[track_caller]
fn shell(place: &Place, line: &str) -> String {
    place
        .run(Program::new("sh").args(["-c", line]))
        .succeeded()
        .text()
}

/// `10.1.0.3:80`, `[fd00:1::3]:80`.
fn at(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}
