//! A node in a namespace of its own, pods beside it, and the plugins called in-process as a runtime would call them.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, CniArgs, Request};
use cni_conf::result::CniResult;
use cni_conf::version::SpecVersion;
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use plugins::host::rtnl::{Link, LinkChange, RouteFilter, TokenBucket};
use plugins::host::{NetNs, Rtnl};
use plugins::registry;
use serde_json::{Value, json};
use tempfile::TempDir;

const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A bound for what happens at once unless something is broken.
const LONG: Duration = Duration::from_secs(20);

/// What a test needs of the machine, beside root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// The `nft` command.
    Nft,
    /// Token buckets and ifb devices.
    Shaping,
    /// Bridged packets that go through the rules of the IP layer, and the `nft` command.
    BridgeNetfilter,
}

#[derive(Default)]
pub(crate) struct Tests {
    trials: Vec<Trial>,
}

impl Tests {
    fn missing(needs: Needs) -> Option<&'static str> {
        let has = |program: &str| {
            let mut command = std::process::Command::new(program);
            command.arg("-v").output().is_ok()
        };
        match needs {
            _ if !nix::unistd::geteuid().is_root() => Some("needs root"),
            Needs::Nft if !has("nft") => Some("needs the nft command"),
            Needs::Shaping if !can_shape() => Some("the kernel has no tbf or no ifb"),
            Needs::BridgeNetfilter if !Path::new(BRIDGE_NETFILTER).exists() || !has("nft") => {
                Some("the kernel has no br_netfilter, or there is no nft command")
            }
            Needs::Nft | Needs::Shaping | Needs::BridgeNetfilter | Needs::Nothing => None,
        }
    }

    /// A test on a new node; `name` states the behaviour.
    pub(crate) fn add(&mut self, name: &str, needs: Needs, test: fn(&Node)) {
        let reason = Self::missing(needs).map(str::to_owned);
        let test = move || Node::run(test);
        self.trials.push(testbed::trial(name, reason, test));
    }

    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}

fn can_shape() -> bool {
    Node::run(|node| {
        let bucket = TokenBucket {
            rate: 1_000_000,
            burst: 10_000,
            limit: 10_000,
        };
        let ifb = node.rtnl.create_ifb("ifb0", None, true);
        ifb.is_ok_and(|ifb| node.rtnl.set_token_bucket(ifb.index, &bucket).is_ok())
    })
}

/// A namespace that stands for the host's, with the thread of the test in it, and a directory for state.
pub(crate) struct Node {
    pub(crate) rtnl: Rtnl,
    pub(crate) dir: TempDir,
}

impl Node {
    /// Runs `test` on a new thread in a new namespace, and passes its panic on.
    fn run<T: Send + 'static>(test: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let outcome = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            // What is this very file is called in-process.
            fs::create_dir(dir.path().join("bin")).unwrap();
            let program = std::env::current_exe().unwrap();
            fs::hard_link(program, dir.path().join("bin/host-local")).unwrap();
            test(&Self {
                rtnl: Rtnl::new().expect("a netlink socket"),
                dir,
            })
        })
        .join();
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The `ipam` section of a dual-stack host-local.
    pub(crate) fn ipam(&self) -> Value {
        json!({
            "type": "host-local",
            "dataDir": self.path("networks"),
            "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        })
    }

    /// Addresses that host-local has given away.
    pub(crate) fn leases(&self, network: &str) -> usize {
        let Ok(entries) = fs::read_dir(self.path("networks").join(network)) else {
            return 0;
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).count()
    }

    fn request(&self, plugin: &str, mut conf: Value, previous: Option<&CniResult>) -> Request {
        conf["type"] = plugin.into();
        Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: plugin.try_into().unwrap(),
            conf,
            cni_path: vec![self.path("bin")],
            prev_result: previous.cloned(),
        }
    }

    pub(crate) fn add(
        &self,
        plugin: &str,
        conf: &Value,
        pod: &Pod,
        previous: Option<&CniResult>,
    ) -> Result<CniResult, Error> {
        let request = self.request(plugin, conf.clone(), previous);
        let plugin_called = registry::find(registry::ALL, plugin).unwrap();
        plugin_called.plugin.add(&request, &pod.attachment())
    }

    pub(crate) fn del(&self, plugin: &str, conf: &Value, pod: &Pod) -> Result<(), Error> {
        let request = self.request(plugin, conf.clone(), None);
        let plugin_called = registry::find(registry::ALL, plugin).unwrap();
        plugin_called.plugin.del(&request, &pod.attachment())
    }

    /// DEL as after a restart of the machine: without the namespace.
    pub(crate) fn del_without_netns(
        &self,
        plugin: &str,
        conf: &Value,
        pod: &Pod,
    ) -> Result<(), Error> {
        let request = self.request(plugin, conf.clone(), None);
        let plugin_called = registry::find(registry::ALL, plugin).unwrap();
        let attachment = Attachment {
            netns: None,
            ..pod.attachment()
        };
        plugin_called.plugin.del(&request, &attachment)
    }

    pub(crate) fn check(
        &self,
        plugin: &str,
        conf: &Value,
        pod: &Pod,
        previous: &CniResult,
    ) -> Result<(), Error> {
        let request = self.request(plugin, conf.clone(), Some(previous));
        let plugin_called = registry::find(registry::ALL, plugin).unwrap();
        plugin_called.plugin.check(&request, &pod.attachment())
    }

    pub(crate) fn gc(&self, plugin: &str, conf: &Value, valid: &[&Pod]) -> Result<(), Error> {
        let request = self.request(plugin, conf.clone(), None);
        let plugin_called = registry::find(registry::ALL, plugin).unwrap();
        let valid: Vec<AttachmentId> = valid.iter().map(|pod| pod.attachment().id()).collect();
        plugin_called.plugin.gc(&request, &valid)
    }

    pub(crate) fn status(&self, plugin: &str, conf: &Value) -> Result<(), Error> {
        let request = self.request(plugin, conf.clone(), None);
        let plugin_called = registry::find(registry::ALL, plugin).unwrap();
        plugin_called.plugin.status(&request)
    }

    /// What somebody on the host types: `ip` and these words.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) {
        ip(words);
    }

    /// The host's end of a pod's pair, which is to be true to us.
    pub(crate) fn end_of(&self, pod: &Pod) -> Link {
        let index = pod.eth0().link.unwrap();
        self.rtnl.link_by_index(index).unwrap().unwrap()
    }

    /// Makes a pair look like one of another implementation: without alias, under a name of its own.
    pub(crate) fn make_foreign(&self, end: &Link, name: &str) {
        let down = LinkChange {
            up: Some(false),
            ..LinkChange::default()
        };
        let foreign = LinkChange {
            name: Some(name),
            alias: Some(""),
            ..LinkChange::up()
        };
        self.rtnl.set_link(end.index, &down).unwrap();
        self.rtnl.set_link(end.index, &foreign).unwrap();
    }

    /// Names of all links of a kind.
    pub(crate) fn links(&self, kind: &str) -> Vec<String> {
        let links = self.rtnl.links_of_kind(kind).unwrap();
        links.into_iter().map(|link| link.name).collect()
    }
}

/// Runs `ip` with these words in the thread's namespace.
#[track_caller]
fn ip(words: &str) {
    let run = Command::new("ip").args(words.split_whitespace()).output();
    let output = run.expect("run ip");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {complaint}");
}

/// A container: a namespace that no thread is in, reached by a path as runtimes give it.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) netns: NetNs,
    pub(crate) rtnl: Rtnl,
}

impl Pod {
    pub(crate) fn new(name: &str) -> Self {
        let netns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            NetNs::current().expect("the own namespace")
        })
        .join()
        .expect("a namespace");
        let rtnl = Rtnl::in_netns(&netns).expect("a netlink socket in the namespace");
        Self {
            name: name.into(),
            netns,
            rtnl,
        }
    }

    /// The open file of the namespace, by a path that leads to it from every thread of this process.
    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", self.netns.fd().as_raw_fd()))
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment {
            container: self.name.as_str().try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
            netns: Some(self.path()),
            args: CniArgs::default(),
            netns_override: false,
        }
    }

    /// What somebody in the container types: `ip` and these words.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) {
        self.netns.enter(|| ip(words)).unwrap();
    }

    /// Replaces eth0 with a pair inside the container whose indices are those of a neighbour's pair.
    #[track_caller]
    pub(crate) fn claim_pair_of(&self, victim: &Self) {
        let (inside, at_host) = (victim.eth0().index, victim.eth0().link.unwrap());
        self.ip("link del eth0");
        self.ip(&format!(
            "link add name eth0 index {inside} type veth peer name x index {at_host}"
        ));
    }

    pub(crate) fn eth0(&self) -> Link {
        self.rtnl.link_by_name("eth0").unwrap().expect("eth0")
    }

    /// Routes in the main table as text: `10.7.0.0/24 via 10.7.0.1`.
    pub(crate) fn routes(&self) -> Vec<String> {
        let routes = self.rtnl.routes(&RouteFilter::default()).unwrap();
        let texts = routes.into_iter().map(|route| match route.gateway {
            None => route.dst.to_string(),
            Some(gateway) => format!("{} via {gateway}", route.dst),
        });
        texts.collect()
    }

    /// Connects to a server in another pod at once, and tells under which address that saw us.
    pub(crate) fn ask(&self, server: &Self, address: IpAddr) -> IpAddr {
        let listener = server
            .netns
            .enter(|| TcpListener::bind(SocketAddr::new(address, 8080)))
            .unwrap()
            .expect("listen on the pod's address");
        let serving = thread::spawn(move || {
            let (mut stream, client) = listener.accept().unwrap();
            stream
                .write_all(client.ip().to_string().as_bytes())
                .unwrap();
        });
        let target = SocketAddr::new(address, 8080);
        let connected = self
            .netns
            .enter(|| TcpStream::connect_timeout(&target, LONG))
            .unwrap();
        let mut answer = String::new();
        connected
            .expect("connect to the other pod")
            .read_to_string(&mut answer)
            .unwrap();
        serving.join().unwrap();
        answer.parse().unwrap()
    }
}

/// How long [`Pod::push`] sends.
const WINDOW: Duration = Duration::from_millis(600);

impl Pod {
    /// Sends to another pod as fast as it goes, for a while. The bytes that arrived in a second.
    pub(crate) fn push(&self, receiver: &Self, address: IpAddr) -> f64 {
        let listener = receiver
            .netns
            .enter(|| TcpListener::bind(SocketAddr::new(address, 8081)))
            .unwrap()
            .expect("listen on the pod's address");
        let target = SocketAddr::new(address, 8081);
        let sender = self
            .netns
            .enter(|| TcpStream::connect_timeout(&target, LONG))
            .unwrap()
            .expect("connect to the other pod");
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        sender
            .set_write_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let sending = thread::spawn(move || {
            let (data, start) = (vec![0; 1 << 16], Instant::now());
            while start.elapsed() < WINDOW {
                // A full queue is what is measured here.
                let _ = (&sender).write(&data);
            }
        });
        let (mut buffer, mut moved, start) = (vec![0; 1 << 16], 0, Instant::now());
        while start.elapsed() < WINDOW {
            moved += stream.read(&mut buffer).unwrap_or_default();
        }
        let rate = moved as f64 / start.elapsed().as_secs_f64();
        sending.join().unwrap();
        rate
    }
}

/// The addresses of a result.
pub(crate) fn addresses(result: &CniResult) -> Vec<IpAddr> {
    result.ips.iter().map(|ip| ip.address.addr()).collect()
}
