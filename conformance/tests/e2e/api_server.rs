//! What stands in for an API server where one answer is enough: a list of Nodes that never changes, and what a client asks
//! for before it believes that there are the kinds of a manifest.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use conformance::Machine;
use serde_json::{Value, json};

/// Where it listens, inside a machine.
pub(crate) const URL: &str = "http://127.0.0.1:6443";

/// A certificate: the agent's image has none, and its client wants one even where nothing is encrypted. In a cluster there is
/// the service account's.
const AUTHORITY: &str = include_str!("authority.pem");

/// Where the kubeconfig says that this is.
pub(crate) const AUTHORITY_FILE: &str = "/run/e2e/authority.pem";

/// Write down how a client is told of it, in a machine.
pub(crate) fn write_kubeconfig(machine: &Machine, path: &str) {
    machine.inside().write(AUTHORITY_FILE, AUTHORITY);
    machine.inside().write(path, kubeconfig());
}

fn kubeconfig() -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": URL, "certificate-authority": AUTHORITY_FILE}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}]
    });
    config.to_string()
}

/// A server that answers until it is dropped.
pub(crate) struct ApiServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl ApiServer {
    /// One on this machine's loopback interface, with these Nodes.
    pub(crate) fn start(machine: &Machine, nodes: &[Value]) -> Self {
        let listener = machine.enter(|| TcpListener::bind("127.0.0.1:6443"));
        let listener = listener.expect("listen for the API's clients");
        listener
            .set_nonblocking(true)
            .expect("not wait for clients");
        let answers = answers(nodes);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // Watches stay open, without a word.
            let mut watches = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => watches.extend(serve(stream, &answers)),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

fn answers(nodes: &[Value]) -> BTreeMap<&'static str, Value> {
    let list = json!({
        "kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": nodes
    });
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let resources = |version: &str, kinds: &[(&str, &str, bool)]| {
        let of = |&(name, kind, namespaced): &(&str, &str, bool)| {
            json!({
                "name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
                "verbs": ["create", "get", "list"]
            })
        };
        let kinds: Vec<Value> = kinds.iter().map(of).collect();
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds
        })
    };
    let rbac = "rbac.authorization.k8s.io";
    let rbac_kinds = [
        ("clusterroles", "ClusterRole", false),
        ("clusterrolebindings", "ClusterRoleBinding", false),
    ];
    let core_kinds = [
        ("namespaces", "Namespace", false),
        ("configmaps", "ConfigMap", true),
        ("serviceaccounts", "ServiceAccount", true),
    ];
    BTreeMap::from([
        ("/api/v1/nodes", list),
        ("/api", json!({"kind": "APIVersions", "versions": ["v1"]})),
        (
            "/apis",
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group("apps"), group(rbac)]}),
        ),
        ("/api/v1", resources("v1", &core_kinds)),
        (
            "/apis/apps/v1",
            resources("apps/v1", &[("daemonsets", "DaemonSet", true)]),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1",
            resources("rbac.authorization.k8s.io/v1", &rbac_kinds),
        ),
    ])
}

/// Answer one request; the stream, if it is a watch.
fn serve(stream: TcpStream, answers: &BTreeMap<&str, Value>) -> Option<TcpStream> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next()?.ok()?;
    // A client that is answered before it has asked to the end may not read the answer.
    lines
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .for_each(drop);
    let target = request.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut to = &stream;
    if query
        .split('&')
        .any(|it| it == "watch=true" || it == "watch=1")
    {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        to.write_all(head.as_bytes()).ok()?;
        return Some(stream);
    }
    let (status, body) = match answers.get(path) {
        Some(answer) => ("200 OK", answer.to_string()),
        None => (
            "404 Not Found",
            json!({"kind": "Status", "code": 404}).to_string(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    to.write_all(head.as_bytes()).ok()?;
    to.write_all(body.as_bytes()).ok()?;
    None
}
