//! The agent of a cluster's nodes as `dist/kubernetes` has it run: the image that `dist/image.sh` packs, in a pod with what the
//! manifest's DaemonSet says, by a real containerd that has no list and no plugin before.

use std::path::Path;
use std::process::Command;

use conformance::{Case, Containerd, Lab, Need, Program, case, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api_server::{self, AUTHORITY_FILE, ApiServer};
use crate::cri;
use crate::node::Node;
use crate::runtime::{NET_D, Runtime, Scenario, scenario};
use crate::{MACHINE, OUTSIDE, eventually};

/// Where clients of the API find how to reach it.
const KUBECONFIG: &str = "/run/e2e/kubeconfig";

const MANIFEST: &str = "dist/kubernetes/trestle.yaml";

/// Where the plugins go on the node.
const BIN: &str = "/run/e2e/bin";

const IN_A_POD: Scenario = scenario!(it_sets_up_a_node_from_its_image);

pub(crate) fn cases() -> Vec<Case> {
    let in_a_pod = IN_A_POD.with(Containerd::V2).needs(Need::Agent);
    vec![
        in_a_pod.needs(Need::Kubectl).ours(),
        case!(kubectl_accepts_the_manifest)
            .needs(Need::Kubectl)
            .needs(Need::Runtimes)
            .ours(),
        case!(two_images_are_the_same).ours(),
    ]
}

/// Pack the image; its archive in a directory of that name.
fn pack(lab: &Lab, agent: &Path, dir: &TempDir, name: &str) -> Vec<u8> {
    let out = dir.path().join(name);
    let packed = Command::new(workspace().join("dist/image.sh"))
        .arg("x86_64")
        .arg(lab.binary())
        .arg(agent)
        .arg(workspace().join("LICENSE"))
        .arg(&out)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("IMAGE", "localhost/trestle-node:e2e")
        .output()
        .expect("run dist/image.sh");
    assert!(packed.status.success(), "{packed:?}");
    std::fs::read(out).expect("read the image")
}

fn two_images_are_the_same(lab: &Lab) {
    let dir = TempDir::new().expect("make a directory");
    // What is packed as the agent is of no concern here, and the plugins are smaller.
    let agent = lab.binary();
    let [one, other] = ["one", "other"].map(|name| pack(lab, &agent, &dir, name));
    assert!(one == other, "of {} and {} bytes", one.len(), other.len());
}

/// With the kinds of a cluster before it, which is all that kubectl asks the server for.
fn kubectl_accepts_the_manifest(lab: &Lab) {
    let machine = conformance::Machine::start(&lab.runtimes());
    let _server = ApiServer::start(&machine, &[]);
    api_server::write_kubeconfig(&machine, KUBECONFIG);
    let manifest = workspace().join(MANIFEST);
    let layout = workspace().join("dist/kubernetes");
    let env = [("KUBECONFIG", KUBECONFIG)];
    for (flag, what) in [("-f", &manifest), ("-k", &layout)] {
        let what = what.to_string_lossy();
        let args = [
            "create",
            "--dry-run=client",
            "--validate=false",
            flag,
            &what,
            "-o",
            "name",
        ];
        let created = machine.exec(&lab.kubectl(), &args, &env).succeeded();
        let created = String::from_utf8_lossy(&created.stdout).into_owned();
        let kinds: Vec<_> = created
            .lines()
            .filter_map(|line| line.split(['/', '.']).next())
            .collect();
        let expected = [
            "namespace",
            "configmap",
            "serviceaccount",
            "clusterrole",
            "clusterrolebinding",
            "daemonset",
        ];
        for kind in expected {
            assert!(kinds.contains(&kind), "{kind} of {what} in {created}");
        }
        assert_eq!(kinds.len(), expected.len(), "{created}");
    }
}

/// The objects of the manifest.
fn manifest(lab: &Lab) -> Vec<Value> {
    let manifest = workspace().join(MANIFEST);
    let manifest = manifest.to_string_lossy();
    // The command that reads YAML, asks no server and changes nothing.
    let args = [
        "label",
        "--local",
        "--dry-run=client",
        "-f",
        &manifest,
        "read=yes",
        "-o",
        "json",
    ];
    let read = Program::new(lab.kubectl()).args(args).run().succeeded();
    let objects = serde_json::Deserializer::from_slice(&read.stdout).into_iter();
    objects
        .map(|object| object.expect("JSON of kubectl"))
        .collect()
}

/// The container that a kubelet makes of the manifest's, with what this machine has elsewhere.
fn container(lab: &Lab) -> cri::ContainerConfig {
    let objects = manifest(lab);
    let of_kind = |kind: &str| {
        let found = objects.iter().find(|object| object["kind"] == kind);
        found.unwrap_or_else(|| panic!("a {kind} in {objects:?}"))
    };
    let spec = &of_kind("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(spec["hostNetwork"], true);
    let container = &spec["containers"][0];
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect()
    };
    let key_value = |key: &str, value: &str| cri::KeyValue {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let config = of_kind("ConfigMap")["data"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut envs: Vec<_> = config
        .iter()
        .map(|(key, value)| key_value(key, value.as_str().unwrap_or_default()))
        .collect();
    for (key, value) in [
        ("NODE_NAME", "e2e"),
        ("CNI_BIN_DIR", BIN),
        ("CNI_CONF_DIR", NET_D),
        ("KUBECONFIG", KUBECONFIG),
    ] {
        envs.push(key_value(key, value));
    }
    let mount = |container_path: &str, host_path: &str, propagation| cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_owned(),
        propagation,
    };
    let host = &container["volumeMounts"][0];
    assert_eq!(host["mountPropagation"], "HostToContainer");
    assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/");
    let security = &container["securityContext"];
    let capabilities = cri::Capability {
        add_capabilities: texts(&security["capabilities"]["add"]),
        drop_capabilities: texts(&security["capabilities"]["drop"]),
    };
    let context = cri::LinuxContainerSecurityContext {
        capabilities: Some(capabilities),
        namespace_options: Some(cri::NamespaceOption { network: 2 }),
        readonly_rootfs: security["readOnlyRootFilesystem"] == true,
        no_new_privs: security["allowPrivilegeEscalation"] == false,
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "trestle-node".to_owned(),
        }),
        image: Some(cri::ImageSpec {
            image: "localhost/trestle-node:e2e".to_owned(),
        }),
        args: texts(&container["args"]),
        envs,
        mounts: vec![
            mount(host["mountPath"].as_str().expect("a path"), "/", 1),
            mount(KUBECONFIG, KUBECONFIG, 0),
            mount(AUTHORITY_FILE, AUTHORITY_FILE, 0),
        ],
        log_path: "trestle-node.log".to_owned(),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(context),
        }),
        ..Default::default()
    }
}

/// The Nodes: the machine, and one whose pods are behind the address outside.
fn nodes() -> [Value; 2] {
    let node = |name: &str, uid: &str, pods: [&str; 2], addresses: [&str; 2]| {
        let address = |address: &&str| json!({"type": "InternalIP", "address": address});
        json!({
            "metadata": {"name": name, "uid": uid, "resourceVersion": "9",
                         "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"podCIDR": pods[0], "podCIDRs": pods},
            "status": {"addresses": addresses.iter().map(address).collect::<Vec<_>>()}
        })
    };
    [
        node("e2e", "a", ["10.244.1.0/24", "fd00:244:0:1::/64"], MACHINE),
        node(
            "other",
            "b",
            ["10.244.2.0/24", "fd00:244:0:2::/64"],
            OUTSIDE,
        ),
    ]
}

fn it_sets_up_a_node_from_its_image(runtime: &Runtime) {
    let node = Node::start_with_plugins_in(runtime, BIN);
    let (outside, _) = crate::outside(&node.machine);
    let dir = TempDir::new().expect("make a directory");
    pack(runtime.lab, &runtime.lab.agent(), &dir, "image.tar");
    node.load(&dir.path().join("image.tar").to_string_lossy());
    let server = ApiServer::start(&node.machine, &nodes());
    api_server::write_kubeconfig(&node.machine, KUBECONFIG);
    // As systemd has it, which a volume with mount propagation needs.
    node.sh("mount --make-rshared /");
    node.network_ready().expect_err("there is no list yet");

    let agent = node.run_pod_on_host("agent");
    node.run_container(&agent, container(runtime.lab));
    let log = || node.machine.inside().read("/run/e2e/trestle-node.log");
    let ready = eventually(|| node.network_ready().is_ok());
    assert!(
        ready,
        "{:?}; the agent says: {:?}",
        node.network_ready(),
        log()
    );

    let pod = node.run_pod("pod");
    let first: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    assert!(
        first[0].starts_with("10.244.1."),
        "of the Node's subnets: {first:?}"
    );
    assert!(
        first[1].starts_with("fd00:244:0:1:"),
        "of the Node's subnets: {first:?}"
    );
    let routes = || {
        let v4 = node.machine.sh("ip route show proto 116");
        v4 + &node.machine.sh("ip -6 route show proto 116")
    };
    let told = || {
        let routes = routes();
        let v4 = format!("10.244.2.0/24 via {} ", OUTSIDE[0]);
        routes.contains(&v4) && routes.contains(&format!("fd00:244:0:2::/64 via {} ", OUTSIDE[1]))
    };
    assert!(
        eventually(told),
        "routes: {}; the agent says: {:?}",
        routes(),
        log()
    );
    // Another node's pod sees this one as itself.
    outside.ip("link add pods type veth peer name peer");
    outside.ip("addr add 10.244.2.2/24 dev pods");
    outside.ip("link set pods up");
    outside.ip("link set peer up");
    outside.ip(&format!("route add 10.244.1.0/24 via {}", MACHINE[0]));
    let other = outside.serve(conformance::Protocol::Tcp, crate::ip("10.244.2.2"), 80);
    let seen = node
        .inside(&pod)
        .ask(conformance::Protocol::Tcp, other.address);
    assert_eq!(seen.expect("an answer"), pod.addresses[0]);

    // What a flush takes comes back, by the host's own nft in the host's files.
    let masquerade = || node.machine.sh("nft list ruleset").contains("masquerade");
    assert!(masquerade(), "rules of the list");
    node.sh("nft flush ruleset");
    assert!(
        eventually(masquerade),
        "after a flush; the agent says: {:?}",
        log()
    );

    // Pods start and stop without it.
    node.stop_pod(&agent);
    node.remove_pod(&agent);
    drop(server);
    let late = node.run_pod("late");
    assert!(told(), "the routes stay");
    for pod in [pod, late] {
        node.stop_pod(&pod);
        node.remove_pod(&pod);
    }
    let left = node.machine.inside().list("/var/lib/cni/networks/podnet");
    let left: Vec<_> = left
        .iter()
        .filter(|name| name.contains("10.244") || name.contains("fd00"))
        .collect();
    assert!(left.is_empty(), "addresses are left: {left:?}");
}
