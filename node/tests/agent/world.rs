//! Hosts on a LAN, each with an agent.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance::{Cnitool, Host, Lab, Pod, Program, address};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::api::Api;

/// For what comes soon unless something is broken.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// Where the agent serves, on each host's own loopback interface.
const LISTEN: &str = "127.0.0.1:9474";

const KUBECONFIG: &str = "/run/kubeconfig";
const LOG: &str = "/run/agent.log";
const BIN_DIR: &str = "/run/cni-bin";

/// The cluster's prefixes.
pub(crate) const CLUSTER: &str = "10.244.0.0/16,fd00:244::/48";

/// The LAN, and the API server on it.
pub(crate) struct World {
    pub(crate) lan: Host,
    pub(crate) api: Api,
}

/// A host of the LAN.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) name: String,
    /// What its addresses and subnets are made of.
    pub(crate) number: u8,
}

/// The program under test: TRESTLE_NODE_BIN, or the one that was built with this test.
pub(crate) fn binary() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_trestle-node"));
    std::env::var_os("TRESTLE_NODE_BIN").map_or_else(built, PathBuf::from)
}

/// Waits until something is so, and fails with what `describe` says where that does not come.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: {}", describe());
        sleep(Duration::from_millis(20));
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let lan = Host::new();
        lan.ip("link add lan0 type bridge");
        lan.ip("link set lan0 up");
        lan.ip("addr add 192.168.77.254/24 dev lan0");
        let api = Api::at(&lan, "192.168.77.254:6443".parse().unwrap());
        Self { lan, api }
    }

    /// A host with the addresses 192.168.77.N and fd77::N, whose Node the API server has.
    pub(crate) fn node(&self, number: u8) -> Node {
        let host = Host::new();
        let port = format!("port{number}");
        self.lan.cable(&port, &host, "eth0");
        self.lan.ip(&format!("link set {port} master lan0"));
        let node = Node {
            host,
            name: format!("node-{number}"),
            number,
        };
        node.take_addresses(number);
        node.host.ip("route add default via 192.168.77.254");
        node.host.write(KUBECONFIG, self.api.kubeconfig());
        self.api.put(node.object());
        node
    }
}

/// A Node of the API.
pub(crate) fn object(name: &str, since: u8, subnets: &[&str], addresses: &[&str]) -> Value {
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    json!({
        "metadata": {"name": name, "uid": format!("uid-of-{name}"),
            "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", since / 60, since % 60)},
        "spec": {"podCIDR": subnets.first(), "podCIDRs": subnets},
        "status": {"addresses": addresses},
    })
}

impl Node {
    pub(crate) fn take_addresses(&self, number: u8) {
        self.host
            .ip(&format!("addr add 192.168.77.{number}/24 dev eth0"));
        self.host
            .ip(&format!("addr add fd77::{number}/64 dev eth0 nodad"));
    }

    /// What the API server says of it.
    pub(crate) fn object(&self) -> Value {
        let number = self.number;
        object(
            &self.name,
            number,
            &[&self.subnet(), &format!("fd00:244:0:{number}::/64")],
            &[&format!("192.168.77.{number}"), &format!("fd77::{number}")],
        )
    }

    /// Its IPv4 subnet.
    pub(crate) fn subnet(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Starts an agent with the defaults of these tests and more.
    pub(crate) fn start(&self, lab: &Lab, more: &[&str]) -> Agent<'_> {
        let log = self
            .host
            .enter(|| File::options().append(true).create(true).open(LOG));
        let log = log.unwrap();
        let mut command = Command::new(binary());
        command
            .args([
                "--node-name",
                &self.name,
                "--kubeconfig",
                KUBECONFIG,
                "--listen",
                LISTEN,
            ])
            .args(["--bin-dir", BIN_DIR, "--conf-dir", Host::NET_D])
            .arg("--trestle")
            .arg(lab.bin().join("trestle"))
            .args(more)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !more.contains(&"--cluster-cidrs") {
            command.args(["--cluster-cidrs", CLUSTER]);
        }
        let child = self.host.enter(|| command.spawn()).unwrap();
        Agent { node: self, child }
    }

    /// An agent that is ready.
    pub(crate) fn run(&self, lab: &Lab, more: &[&str]) -> Agent<'_> {
        let agent = self.start(lab, more);
        agent.until_ready();
        agent
    }

    /// The agent's routes as `destination via router`, sorted.
    pub(crate) fn routes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for family in ["-4", "-6"] {
            let shown = self.host.ip_json(&format!("{family} route show proto 116"));
            for route in shown.as_array().into_iter().flatten() {
                let text = |key: &str| route[key].as_str().unwrap_or("?").to_owned();
                found.push(format!("{} via {}", text("dst"), text("gateway")));
            }
        }
        found.sort();
        found
    }

    /// The routes to these nodes, as [`Node::routes`] shows them.
    pub(crate) fn routes_to(others: &[u8]) -> Vec<String> {
        let of = |number: &u8| {
            [
                format!("10.244.{number}.0/24 via 192.168.77.{number}"),
                format!("fd00:244:0:{number}::/64 via fd77::{number}"),
            ]
        };
        let mut routes: Vec<String> = others.iter().flat_map(of).collect();
        routes.sort();
        routes
    }

    #[track_caller]
    pub(crate) fn until_routes(&self, expected: &[String]) {
        let what = format!("{} has the routes {expected:?}", self.name);
        until(
            &what,
            || self.routes() == expected,
            || format!("{:?}\n{}", self.routes(), self.log()),
        );
    }

    /// Waits until routes lead to these nodes and to no others.
    #[track_caller]
    pub(crate) fn until_routes_to(&self, others: &[u8]) {
        self.until_routes(&Self::routes_to(others));
    }

    /// What its agents wrote.
    pub(crate) fn log(&self) -> String {
        self.host.read(LOG).unwrap_or_default()
    }

    /// The list that the agent wrote.
    pub(crate) fn list(&self) -> Option<Value> {
        let text = self
            .host
            .read(&format!("{}/10-trestle.conflist", Host::NET_D))?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// cnitool with the plugins that the agent installed.
    pub(crate) fn cnitool(&self, lab: &Lab) -> Cnitool<'_> {
        let mut tool = lab.cnitool(&self.host);
        BIN_DIR.clone_into(&mut tool.path);
        tool
    }

    /// A pod on the network of the list, and its addresses.
    pub(crate) fn attach(&self, lab: &Lab, name: &str) -> (Pod, Vec<IpAddr>) {
        let pod = self.host.pod(name);
        let result = self.cnitool(lab).add("podnet", &pod);
        let ips = result["ips"].as_array().unwrap();
        let addresses = (0..ips.len())
            .map(|index| address(&result, index))
            .collect();
        (pod, addresses)
    }

    /// What is served under a path: the status and the text.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{LISTEN}{path}");
        let arguments = ["-s", "-m", "60", "-w", "\n%{http_code}", &url];
        let said = self.host.run(Program::new("curl").args(arguments)).text();
        let (text, code) = said.rsplit_once('\n').unwrap_or(("", &said));
        (code.parse().unwrap_or(0), text.to_owned())
    }

    /// The value of a metric by its whole name, labels included; 0 where it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// A running agent; it is killed when this value goes.
pub(crate) struct Agent<'n> {
    node: &'n Node,
    child: Child,
}

impl Agent<'_> {
    #[track_caller]
    pub(crate) fn until_ready(&self) {
        let node = self.node;
        let what = format!("{} is ready", node.name);
        let describe = || format!("{:?}\n{}", node.get("/readyz"), node.log());
        until(&what, || node.get("/readyz").0 == 200, describe);
    }

    /// Waits until /readyz says something like that.
    #[track_caller]
    pub(crate) fn until_not_ready(&self, said: &str) {
        let node = self.node;
        let is_so = || {
            let (code, text) = node.get("/readyz");
            code == 503 && text.contains(said)
        };
        until(said, is_so, || {
            format!("{:?}\n{}", node.get("/readyz"), node.log())
        });
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: Signal) -> ExitStatus {
        let id = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(id, signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address and a port.
pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
