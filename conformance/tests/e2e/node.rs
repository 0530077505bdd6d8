//! A node: a machine that runs containerd with the plugins under test, and what a kubelet would ask of it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;
use std::thread;

use conformance::{Machine, Place, Snapshot, Subject};
use prost::Message;
use serde_json::Value;

use crate::image::{IMAGE, SERVER, WHOAMI, parse_whoami};
use crate::runtime::{NET_D, Runtime, SOCKET, TEMPLATE};
use crate::{cri, eventually};

const CONFIGURATION: &str = "/run/e2e/containerd.toml";
const LOG: &str = "/run/e2e/containerd.log";

/// containerd on a machine of its own.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) before: Snapshot,
    subject: Subject,
    /// Where `containerd`, its shim and `ctr` are.
    programs: PathBuf,
    daemon: Mutex<Option<Child>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.machine.inside().read(LOG).unwrap_or_default();
            let error = |line: &&str| line.contains("level=error") || line.contains("level=fatal");
            let lines: Vec<&str> = log.lines().filter(error).collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            eprintln!("the last of containerd's errors:\n{}", tail.join("\n"));
        }
        // The daemon and everything else end with the machine; this only collects the child.
        if let Ok(Some(daemon)) = self.daemon.get_mut() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A pod that runs on a node.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: String,
    /// As the status gives them, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// The path of the network namespace on the node.
    pub(crate) netns: String,
    config: cri::PodSandboxConfig,
}

impl Node {
    /// A machine on which containerd runs and serves, with one network configuration list.
    pub(crate) fn start(runtime: &Runtime, network: &Value) -> Self {
        Self::start_prepared(runtime, |node| node.configure(network))
    }

    /// The same without a list, and with this template of one.
    pub(crate) fn start_with_template(runtime: &Runtime, template: &str) -> Self {
        let write = |node: &Self| node.machine.inside().write(TEMPLATE, template);
        Self::start_prepared(runtime, write)
    }

    /// The same without a list, and with the plugins in a directory of the machine, where there are none yet.
    pub(crate) fn start_with_plugins_in(runtime: &Runtime, dir: &str) -> Self {
        Self::start_prepared(runtime, |node| {
            let of_lab = runtime.lab.bin().to_string_lossy().into_owned();
            let configuration = runtime.configuration().replace(&of_lab, dir);
            node.machine.inside().write(CONFIGURATION, configuration);
        })
    }

    fn start_prepared(runtime: &Runtime, prepare: impl FnOnce(&Self)) -> Self {
        let machine = Machine::start(&runtime.lab.runtimes());
        machine
            .inside()
            .write(CONFIGURATION, runtime.configuration());
        let before = machine.observe();
        let mut node = Self {
            machine,
            before,
            subject: runtime.lab.subject,
            programs: PathBuf::new(),
            daemon: Mutex::new(None),
        };
        node.install(runtime);
        prepare(&node);
        node.start_containerd();
        node.load_image();
        node
    }

    fn load_image(&self) {
        self.load(&self.machine.image());
    }

    /// Load the archive of an image.
    pub(crate) fn load(&self, image: &str) {
        let args = ["--address", SOCKET, "--namespace", "k8s.io"];
        let args = [&args[..], &["images", "import", image]].concat();
        self.machine
            .exec(&self.programs.join("ctr"), &args, &[])
            .succeeded();
    }

    /// Make this the release that is started next, on what the one before has left.
    pub(crate) fn install(&mut self, runtime: &Runtime) {
        let inside = self.machine.inside();
        inside.write(CONFIGURATION, runtime.configuration());
        self.programs = runtime.lab.containerd(runtime.release);
    }

    /// Write the network configuration list of that name, or write it anew.
    pub(crate) fn configure(&self, network: &Value) {
        let name = network["name"].as_str().unwrap_or_default();
        let file = format!("{NET_D}/{name}.conflist");
        self.machine.inside().write(&file, network.to_string());
    }

    /// Start containerd and wait until it answers.
    pub(crate) fn start_containerd(&self) {
        // Where the shim is looked for, and runc by runc.sh.
        let (programs, runc) = (self.programs.display(), self.machine.program("runc"));
        let runc = runc.parent().expect("a directory").display();
        let path = format!("{programs}:{runc}:/usr/sbin:/usr/bin:/sbin:/bin");
        let args = ["--config", CONFIGURATION];
        let program = self.programs.join("containerd");
        let env = [("PATH", path.as_str())];
        let child = self.machine.spawn(&program, &args, &env, LOG);
        *self.daemon.lock().expect("lock") = Some(child);
        let answers = || {
            let answer = self.call::<_, cri::VersionResponse>("Version", &cri::VersionRequest {});
            answer.is_ok_and(|answer| answer.runtime_name == "containerd")
        };
        assert!(eventually(answers), "containerd doesn't answer");
    }

    /// End containerd, by SIGKILL as a crash would. Containers and their shims go on.
    pub(crate) fn kill_containerd(&self) {
        let daemon = self.daemon.lock().expect("lock").take();
        self.machine.kill(daemon.expect("containerd runs"), LOG);
    }

    /// What a machine is after its runtime's disk was replaced and it was started again: no containers, no
    /// namespaces, and a containerd that knows of none.
    pub(crate) fn forget_everything(&self) {
        self.kill_containerd();
        self.sh("kill -9 -1 || true");
        let mounts = "grep -o ' /run/\\(containerd\\|netns\\)/[^ ]*' /proc/mounts";
        self.sh(&format!("{mounts} | sort -r | xargs -r umount"));
        self.sh("rm -rf /run/e2e/root /run/containerd/* /run/netns/* /var/lib/cni/results");
        self.start_containerd();
        self.load_image();
    }

    /// Run a shell command on the node.
    pub(crate) fn sh(&self, command: &str) {
        let shell = std::path::Path::new("/bin/sh");
        self.machine.exec(shell, &["-ec", command], &[]).succeeded();
    }

    /// Whether the runtime says that pods can have networks; else what it says of the reason.
    pub(crate) fn network_ready(&self) -> Result<(), String> {
        let answer: cri::StatusResponse = self.call("Status", &cri::StatusRequest {})?;
        let conditions = answer.status.unwrap_or_default().conditions;
        let network = conditions.iter().find(|it| it.kind == "NetworkReady");
        match network {
            Some(condition) if condition.status => Ok(()),
            Some(condition) => Err(condition.message.clone()),
            None => Err(format!("no condition NetworkReady: {conditions:?}")),
        }
    }

    /// Tell the runtime the node's pod subnets, as a kubelet does once its Node has them.
    pub(crate) fn tell_pod_cidrs(&self, pod_cidr: &str) {
        let network_config = Some(cri::NetworkConfig {
            pod_cidr: pod_cidr.to_owned(),
        });
        let request = cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig { network_config }),
        };
        let told: Result<cri::Empty, _> = self.call("UpdateRuntimeConfig", &request);
        told.unwrap_or_else(|error| panic!("{error}"));
    }

    fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, String> {
        let connection = self.machine.connect(SOCKET);
        let connection = connection.map_err(|error| format!("connect {SOCKET}: {error}"))?;
        cri::call(connection, method, request)
    }

    /// Run a pod.
    pub(crate) fn run_pod(&self, name: &str) -> Pod {
        self.run_pod_with_ports(name, &[])
    }

    /// Run a pod with these host ports, each forwarded to port 80 of it by a protocol, 0 for TCP and 1 for UDP.
    pub(crate) fn run_pod_with_ports(&self, name: &str, ports: &[(i32, i32)]) -> Pod {
        let mapping = |&(protocol, host_port): &(i32, i32)| cri::PortMapping {
            protocol,
            host_port,
            container_port: 80,
            host_ip: String::new(),
        };
        let config = cri::PodSandboxConfig {
            port_mappings: ports.iter().map(mapping).collect(),
            ..pod_config(name)
        };
        self.run_pod_of(config)
            .unwrap_or_else(|error| panic!("run {name}: {error}"))
    }

    /// Run a pod with these annotations.
    pub(crate) fn run_pod_with_annotations(&self, name: &str, annotations: &[(&str, &str)]) -> Pod {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let config = cri::PodSandboxConfig {
            annotations: annotations.iter().map(owned).collect(),
            ..pod_config(name)
        };
        self.run_pod_of(config)
            .unwrap_or_else(|error| panic!("run {name}: {error}"))
    }

    /// Run a pod, which may fail.
    pub(crate) fn try_run_pod(&self, name: &str) -> Result<Pod, String> {
        self.run_pod_of(pod_config(name))
    }

    fn run_pod_of(&self, config: cri::PodSandboxConfig) -> Result<Pod, String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let answer: cri::PodSandboxId = self.call("RunPodSandbox", &request)?;
        let status = self.pod_status(&answer.pod_sandbox_id)?;
        Ok(Pod {
            id: answer.pod_sandbox_id,
            addresses: addresses(&status),
            netns: netns(&status),
            config,
        })
    }

    /// What the runtime says of a pod.
    pub(crate) fn pod_status(&self, id: &str) -> Result<cri::PodSandboxStatusResponse, String> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        self.call("PodSandboxStatus", &request)
    }

    /// The addresses of a pod that is ready, as its status gives them now.
    pub(crate) fn ready_addresses(&self, pod: &Pod) -> Vec<IpAddr> {
        let status = self.pod_status(&pod.id).expect("the status of a pod");
        assert_eq!(
            status.status.as_ref().map(|status| status.state),
            Some(0),
            "ready"
        );
        addresses(&status)
    }

    pub(crate) fn stop_pod(&self, pod: &Pod) {
        let request = cri::PodSandboxId {
            pod_sandbox_id: pod.id.clone(),
        };
        let stopped: Result<cri::Empty, _> = self.call("StopPodSandbox", &request);
        stopped.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn remove_pod(&self, pod: &Pod) {
        let request = cri::PodSandboxId {
            pod_sandbox_id: pod.id.clone(),
        };
        let removed: Result<cri::Empty, _> = self.call("RemovePodSandbox", &request);
        removed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Run a container in a pod; its ID.
    pub(crate) fn run_container(&self, pod: &Pod, config: cri::ContainerConfig) -> String {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let created: Result<cri::ContainerId, _> = self.call("CreateContainer", &request);
        let created = created.unwrap_or_else(|error| panic!("{error}"));
        let started: Result<cri::Empty, _> = self.call("StartContainer", &created);
        started.unwrap_or_else(|error| panic!("{error}"));
        created.container_id
    }

    /// Run a pod on the node's own network.
    pub(crate) fn run_pod_on_host(&self, name: &str) -> Pod {
        let options = cri::NamespaceOption { network: 2 };
        let context = cri::LinuxSandboxSecurityContext {
            namespace_options: Some(options),
        };
        let linux = cri::LinuxPodSandboxConfig {
            security_context: Some(context),
        };
        let config = cri::PodSandboxConfig {
            linux: Some(linux),
            // The node's own.
            hostname: String::new(),
            ..pod_config(name)
        };
        self.run_pod_of(config)
            .unwrap_or_else(|error| panic!("run {name}: {error}"))
    }

    /// Run the container that serves HTTP in a pod; its ID. It serves when this returns.
    pub(crate) fn run_server(&self, pod: &Pod) -> String {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata {
                name: "server".to_owned(),
            }),
            image: Some(cri::ImageSpec {
                image: IMAGE.to_owned(),
            }),
            command: SERVER.map(str::to_owned).to_vec(),
            log_path: format!("{}.log", pod.id),
            linux: Some(cri::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let id = self.run_container(pod, config);
        // Over the loopback interface, which the plugin of that name has brought up.
        let serves = || self.wget(&id, "127.0.0.1:80").is_ok();
        if !eventually(serves) {
            let log = self
                .machine
                .inside()
                .read(&format!("/run/e2e/{}.log", pod.id));
            let error = self.wget(&id, "127.0.0.1:80");
            panic!("the server of {pod:?} doesn't answer: {error:?}; its log: {log:?}");
        }
        id
    }

    /// Ask a server from inside a container by its own `wget`: the address the server saw.
    pub(crate) fn wget(&self, container: &str, server: &str) -> Result<IpAddr, String> {
        let url = format!("http://{server}{WHOAMI}");
        let command = ["wget", "-q", "-O", "-", &url];
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.map(str::to_owned).to_vec(),
            timeout: 10,
        };
        let answer: cri::ExecSyncResponse = self.call("ExecSync", &request)?;
        let (out, err) = (&answer.stdout, &answer.stderr);
        if answer.exit_code != 0 {
            return Err(format!(
                "wget {url}: status {}: {}",
                answer.exit_code,
                String::from_utf8_lossy(err)
            ));
        }
        parse_whoami(&String::from_utf8_lossy(out))
    }

    /// The network of a pod.
    pub(crate) fn inside(&self, pod: &Pod) -> Place {
        self.machine.netns(&pod.netns)
    }

    /// Stop and remove pods, whatever state they are in, and check that nothing of them is left on the node.
    #[track_caller]
    pub(crate) fn remove(&self, pods: &[Pod]) {
        for pod in pods {
            self.stop_pod(pod);
            self.remove_pod(pod);
        }
        self.assert_nothing_left(pods);
    }

    /// Check that the node looks as it did before there were pods, and knows nothing of these.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, pods: &[Pod]) {
        let ids: Vec<String> = pods.iter().map(|pod| pod.id.clone()).collect();
        crate::assert_nothing_left(&self.machine, self.subject, &self.before, &ids);
    }
}

fn pod_config(name: &str) -> cri::PodSandboxConfig {
    let metadata = cri::PodSandboxMetadata {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        namespace: "default".to_owned(),
    };
    cri::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: name.to_owned(),
        log_directory: "/run/e2e".to_owned(),
        linux: Some(cri::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

fn addresses(status: &cri::PodSandboxStatusResponse) -> Vec<IpAddr> {
    let network = status
        .status
        .as_ref()
        .and_then(|status| status.network.as_ref());
    let more = network
        .map(|network| &network.additional_ips[..])
        .unwrap_or_default();
    let texts = network
        .map(|network| &network.ip)
        .into_iter()
        .chain(more.iter().map(|it| &it.ip));
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn netns(status: &cri::PodSandboxStatusResponse) -> String {
    let info = status.info.get("info").map_or("", String::as_str);
    let info: Value = serde_json::from_str(info).unwrap_or_default();
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        .as_array()
        .cloned();
    let namespaces = namespaces.unwrap_or_default();
    let network = namespaces
        .iter()
        .find(|namespace| namespace["type"] == "network");
    network
        .and_then(|network| network["path"].as_str())
        .unwrap_or_default()
        .to_owned()
}
