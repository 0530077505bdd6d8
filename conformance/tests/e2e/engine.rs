//! podman on a machine, and what its user would type.

use std::net::{IpAddr, SocketAddr};

use conformance::{Host, Lab, Machine, Output, Place, Snapshot, Subject};
use serde_json::Value;

use crate::image::{Http, IMAGE, SERVER, WHOAMI, parse_whoami};
use crate::{eventually, ip};

/// podman on a machine of its own.
pub(crate) struct Podman {
    pub(crate) machine: Machine,
    before: Snapshot,
    subject: Subject,
}

impl Podman {
    pub(crate) fn new(lab: &Lab) -> Self {
        let machine = Machine::start(&lab.runtimes());
        let inside = machine.inside();
        inside.write("/run/e2e/containers.conf", containers_conf(lab, &machine));
        inside.write("/run/e2e/storage.conf", STORAGE_CONF);
        let before = machine.observe();
        let podman = Self {
            machine,
            before,
            subject: lab.subject,
        };
        podman.run(&format!("load --quiet --input {}", podman.machine.image()));
        podman
    }

    /// Run it with these arguments (words separated by white space), however it ends.
    pub(crate) fn call(&self, arguments: &str) -> Output {
        let args: Vec<&str> = arguments.split_whitespace().collect();
        let env = [
            ("CONTAINERS_CONF", "/run/e2e/containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "/run/e2e/storage.conf"),
        ];
        self.machine
            .exec(&self.machine.program("podman"), &args, &env)
    }

    /// Run it with these arguments; it must succeed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &str) -> String {
        self.call(arguments).succeeded().text()
    }

    /// Run a container with these options; it serves when this returns.
    #[track_caller]
    pub(crate) fn serve(&self, name: &str, options: &str) {
        let command = SERVER.join(" ");
        self.run(&format!(
            "run --detach --name {name} {options} {IMAGE} {command}"
        ));
        self.await_server(name);
    }

    /// Wait until a container that was started serves.
    #[track_caller]
    pub(crate) fn await_server(&self, name: &str) {
        let inside = self.inside(name);
        let serves = || inside.http(ip("127.0.0.1"), 80).is_ok();
        assert!(
            eventually(serves),
            "{name} doesn't serve: {}",
            self.run(&format!("logs {name}"))
        );
    }

    /// What `podman inspect` says of a container's networks.
    #[track_caller]
    pub(crate) fn settings(&self, name: &str) -> Value {
        let inspected = self.run(&format!("inspect --type container {name}"));
        let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
        inspected[0]["NetworkSettings"].clone()
    }

    /// A container's addresses on a network, the IPv4 address first.
    #[track_caller]
    pub(crate) fn addresses(&self, name: &str, network: &str) -> Vec<IpAddr> {
        let attached = self.settings(name)["Networks"][network].clone();
        let texts = ["IPAddress", "GlobalIPv6Address"].map(|key| attached[key].as_str());
        let addresses: Vec<_> = texts
            .into_iter()
            .flatten()
            .filter_map(|it| it.parse().ok())
            .collect();
        assert!(
            !addresses.is_empty(),
            "{name} has an address on {network}: {attached}"
        );
        addresses
    }

    /// A container's network namespace.
    #[track_caller]
    pub(crate) fn inside(&self, name: &str) -> Place {
        let settings = self.settings(name);
        let path = settings["SandboxKey"].as_str().unwrap_or_default();
        self.machine.netns(path)
    }

    /// Ask a server from inside a container by its own `wget`: the address the server saw.
    pub(crate) fn wget(&self, name: &str, server: SocketAddr) -> Result<IpAddr, String> {
        let call = format!("exec {name} wget -q -O - http://{server}{WHOAMI}");
        let output = self.call(&call);
        if output.ok() {
            parse_whoami(&output.text())
        } else {
            Err(output.to_string())
        }
    }

    /// Remove containers and networks, and check that nothing of them is left.
    #[track_caller]
    pub(crate) fn remove(&self, containers: &[&str], networks: &[&str]) {
        let ids: Vec<String> = containers
            .iter()
            .map(|name| {
                self.run(&format!("inspect --format {{{{.Id}}}} {name}"))
                    .trim()
                    .to_owned()
            })
            .collect();
        self.run(&format!("rm --force --time 0 {}", containers.join(" ")));
        self.run(&format!("network rm {}", networks.join(" ")));
        crate::assert_nothing_left(&self.machine, self.subject, &self.before, &ids);
        let now = self.machine.observe();
        let bridges = now.mentioning("kind=bridge");
        assert!(
            bridges.is_empty(),
            "removed networks keep no bridge: {bridges:?}"
        );
    }

    /// A host on a network with this machine, which is seen as part of the machine from now on.
    pub(crate) fn outside(&mut self) -> Host {
        let (outside, before) = crate::outside(&self.machine);
        self.before = before;
        outside
    }
}

const STORAGE_CONF: &str = r#"[storage]
driver = "overlay"
graphroot = "/run/e2e/storage"
runroot = "/run/e2e/runroot"
"#;

/// The limit of processes is left out because the machine's cgroup may have no controllers, and AppArmor because a
/// profile would be loaded into the real machine's kernel.
fn containers_conf(lab: &Lab, machine: &Machine) -> String {
    let (bin, conmon, runc) = (
        lab.bin(),
        machine.program("conmon"),
        machine.program("runc"),
    );
    let (bin, conmon, runc) = (bin.display(), conmon.display(), runc.display());
    format!(
        r#"[containers]
pids_limit = 0
apparmor_profile = "unconfined"
log_driver = "k8s-file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin}"]
network_config_dir = "/run/e2e/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
conmon_path = ["{conmon}"]
static_dir = "/run/e2e/libpod"
volume_path = "/run/e2e/volumes"
tmp_dir = "/run/e2e/libpod.tmp"
[engine.runtimes]
runc = ["{runc}"]
"#
    )
}
