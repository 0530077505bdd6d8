//! A node in a namespace of its own with a cable to a machine outside, pods beside it, and the plugins called in-process as a
//! runtime would call them.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, CniArgs, Request};
use cni_conf::result::CniResult;
use cni_conf::version::SpecVersion;
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use plugins::host::rtnl::{
    AddressOptions, Kind, Link, LinkChange, NewRoute, NewVeth, RouteFilter, VethEnd,
};
use plugins::host::{NetNs, Rtnl, tap};
use plugins::registry;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A bound for what happens at once unless something is broken.
const LONG: Duration = Duration::from_secs(20);

/// The node's end of the cable, and its address.
pub(crate) const UPLINK: &str = "up0";

/// What a test needs of the machine, beside root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// Links of that kind.
    Kind(Kind),
    /// A kernel without them.
    NoKind(Kind),
    /// TAP devices.
    Tap,
}

/// A test: what it shows, and how.
pub(crate) type Row = (&'static str, fn(&Node));

#[derive(Default)]
pub(crate) struct Tests {
    trials: Vec<Trial>,
}

impl Tests {
    fn missing(needs: Needs) -> Option<String> {
        let has = |kind| Node::run(move |node| node.rtnl.require_kind(kind).is_ok());
        match needs {
            _ if !nix::unistd::geteuid().is_root() => Some("needs root".into()),
            Needs::Kind(kind) if !has(kind) => Some(format!("the kernel has no {}", kind.name())),
            Needs::NoKind(kind) if has(kind) => Some(format!("the kernel has {}", kind.name())),
            Needs::Tap if tap::require().is_err() => Some("no /dev/net/tun here".into()),
            Needs::Nothing | Needs::Kind(_) | Needs::NoKind(_) | Needs::Tap => None,
        }
    }

    /// Tests on a new node each; their names state the behaviour.
    pub(crate) fn add(&mut self, needs: Needs, rows: &[Row]) {
        let missing = Self::missing(needs);
        for (name, test) in rows.iter().copied() {
            let test = move || Node::run(test);
            self.trials
                .push(testbed::trial(name, missing.clone(), test));
        }
    }

    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}

/// A namespace that stands for the host's, with the thread of the test in it, and a directory for state.
pub(crate) struct Node {
    pub(crate) rtnl: Rtnl,
    pub(crate) dir: TempDir,
    /// A machine on the wire, `10.7.0.1` and `fd07::1`.
    pub(crate) outside: Pod,
}

impl Node {
    /// Runs `test` on a new thread in a new namespace, and passes its panic on.
    fn run<T: Send + 'static>(test: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let outcome = thread::spawn(|| {
            own_run_directory();
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            // What is this very file is called in-process.
            fs::create_dir(dir.path().join("bin")).unwrap();
            let program = std::env::current_exe().unwrap();
            fs::hard_link(program, dir.path().join("bin/host-local")).unwrap();
            let node = Self {
                rtnl: Rtnl::new().expect("a netlink socket"),
                dir,
                outside: Pod::new("outside"),
            };
            node.lay_cable();
            test(&node)
        })
        .join();
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    fn lay_cable(&self) {
        let end = |name| VethEnd {
            name,
            ..VethEnd::default()
        };
        let new = NewVeth {
            host: end(UPLINK),
            alias: None,
            master: None,
            up: true,
            peer: end("eth0"),
            peer_netns: &self.outside.netns,
        };
        let pair = self.rtnl.create_veth(&new).unwrap();
        let outside = &self.outside.rtnl;
        outside
            .set_link(pair.peer_index, &LinkChange::up())
            .unwrap();
        for address in ["10.7.0.1/24", "fd07::1/64"] {
            let options = AddressOptions {
                nodad: true,
                noprefixroute: false,
            };
            let address = address.parse().unwrap();
            outside
                .add_address(pair.peer_index, address, options)
                .unwrap();
        }
    }

    /// Makes the node's own way out lead over the cable.
    pub(crate) fn add_default_route(&self) {
        let link = self.uplink().index;
        let address = "10.7.0.250/24".parse().unwrap();
        let options = AddressOptions::default();
        self.rtnl.add_address(link, address, options).unwrap();
        let route = NewRoute {
            gateway: Some("10.7.0.1".parse().unwrap()),
            ..NewRoute::to("0.0.0.0/0".parse().unwrap())
        };
        self.rtnl.add_route(&route).unwrap();
    }

    pub(crate) fn uplink(&self) -> Link {
        self.rtnl.link_by_name(UPLINK).unwrap().expect(UPLINK)
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
    pub(crate) fn leases(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.path("networks/net")) else {
            return 0;
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).count()
    }

    fn request(&self, plugin: &str, conf: &Value, previous: Option<&CniResult>) -> Request {
        let mut conf = conf.clone();
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

    pub(crate) fn add(&self, plugin: &str, conf: &Value, pod: &Pod) -> Result<CniResult, Error> {
        self.add_behind(plugin, conf, &pod.attachment(), None)
    }

    /// ADD with the result of a plugin before.
    pub(crate) fn add_behind(
        &self,
        plugin: &str,
        conf: &Value,
        attachment: &Attachment,
        previous: Option<&CniResult>,
    ) -> Result<CniResult, Error> {
        plugin_called(plugin).add(&self.request(plugin, conf, previous), attachment)
    }

    pub(crate) fn del(&self, plugin: &str, conf: &Value, pod: &Pod) -> Result<(), Error> {
        self.del_of(plugin, conf, &pod.attachment())
    }

    pub(crate) fn del_of(
        &self,
        plugin: &str,
        conf: &Value,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        self.del_behind(plugin, conf, attachment, None)
    }

    /// DEL with the result of ADD.
    pub(crate) fn del_behind(
        &self,
        plugin: &str,
        conf: &Value,
        attachment: &Attachment,
        previous: Option<&CniResult>,
    ) -> Result<(), Error> {
        plugin_called(plugin).del(&self.request(plugin, conf, previous), attachment)
    }

    /// DEL as after a restart of the machine: without the namespace.
    pub(crate) fn del_without_netns(
        &self,
        plugin: &str,
        conf: &Value,
        pod: &Pod,
    ) -> Result<(), Error> {
        let attachment = Attachment {
            netns: None,
            ..pod.attachment()
        };
        self.del_of(plugin, conf, &attachment)
    }

    pub(crate) fn check(
        &self,
        plugin: &str,
        conf: &Value,
        pod: &Pod,
        result: &CniResult,
    ) -> Result<(), Error> {
        let request = self.request(plugin, conf, Some(result));
        plugin_called(plugin).check(&request, &pod.attachment())
    }

    pub(crate) fn gc(&self, plugin: &str, conf: &Value, valid: &[&Pod]) -> Result<(), Error> {
        let valid: Vec<AttachmentId> = valid.iter().map(|pod| pod.attachment().id()).collect();
        plugin_called(plugin).gc(&self.request(plugin, conf, None), &valid)
    }

    pub(crate) fn status(&self, plugin: &str, conf: &Value) -> Result<(), Error> {
        plugin_called(plugin).status(&self.request(plugin, conf, None))
    }

    /// Names of all links of the node, but for `lo`.
    pub(crate) fn links(&self) -> Vec<String> {
        names(&self.rtnl)
    }
}

/// Puts the calling thread where `/run` is empty and nobody else's: plugins lock files there.
fn own_run_directory() {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("unshare the mounts");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
    let none = MsFlags::empty();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), none, None::<&str>).expect("mount a tmpfs");
}

fn plugin_called(plugin: &str) -> &'static dyn cni_conf::dispatch::Plugin {
    registry::find(registry::ALL, plugin).unwrap().plugin
}

fn names(rtnl: &Rtnl) -> Vec<String> {
    let links = rtnl.links().unwrap().into_iter();
    let mut names: Vec<_> = links
        .filter(|link| !link.loopback && !is_of_every_namespace(link))
        .map(|link| link.name)
        .collect();
    names.sort();
    names
}

/// Tunnels that a kernel with their modules puts into each namespace.
fn is_of_every_namespace(link: &Link) -> bool {
    let tunnels = [
        "sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0",
    ];
    tunnels.contains(&link.name.as_str())
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
        self.attachment_as("eth0", "")
    }

    /// The attachment of another interface, with `CNI_ARGS`.
    pub(crate) fn attachment_as(&self, ifname: &str, args: &str) -> Attachment {
        Attachment {
            container: self.name.as_str().try_into().unwrap(),
            ifname: ifname.try_into().unwrap(),
            netns: Some(self.path()),
            args: CniArgs::parse(args).unwrap(),
            netns_override: false,
        }
    }

    pub(crate) fn link(&self, name: &str) -> Option<Link> {
        self.rtnl.link_by_name(name).unwrap()
    }

    pub(crate) fn eth0(&self) -> Link {
        self.link("eth0").expect("eth0")
    }

    /// Names of its links, but for `lo`.
    pub(crate) fn links(&self) -> Vec<String> {
        names(&self.rtnl)
    }

    /// Its addresses on an interface, but for link-local ones.
    pub(crate) fn addresses(&self, name: &str) -> Vec<String> {
        let link = self.link(name).expect("the interface");
        let addresses = self.rtnl.addresses(link.index).unwrap().into_iter();
        let mut texts: Vec<_> = addresses.map(|address| address.net.to_string()).collect();
        texts.retain(|text| !text.starts_with("fe80:"));
        texts.sort();
        texts
    }

    /// Routes in a table as text: `10.7.0.0/24 via 10.7.0.1`.
    pub(crate) fn routes(&self, table: u32) -> Vec<String> {
        let filter = RouteFilter {
            table: Some(table),
            ..RouteFilter::default()
        };
        let routes = self.rtnl.routes(&filter).unwrap().into_iter();
        let mut texts: Vec<_> = routes
            .map(|route| match route.gateway {
                None => route.dst.to_string(),
                Some(gateway) => format!("{} via {gateway}", route.dst),
            })
            .filter(|text| !text.starts_with("fe80:") && !text.starts_with("ff00:"))
            .collect();
        texts.sort();
        texts
    }

    /// Connects to a server in another pod at once, and tells under which address that saw us.
    pub(crate) fn ask(&self, server: &Self, address: IpAddr) -> IpAddr {
        let target = SocketAddr::new(address, 8080);
        let listener = server
            .netns
            .enter(|| TcpListener::bind(target))
            .unwrap()
            .expect("listen on the pod's address");
        let connected = self
            .netns
            .enter(|| TcpStream::connect_timeout(&target, LONG))
            .unwrap();
        connected.expect("connect to the other pod");
        listener.accept().unwrap().1.ip()
    }
}

/// The addresses of a result.
pub(crate) fn addresses(result: &CniResult) -> Vec<IpAddr> {
    result.ips.iter().map(|ip| ip.address.addr()).collect()
}

/// `conf` with further keys.
pub(crate) fn with(conf: &Value, more: Value) -> Value {
    let mut conf = conf.clone();
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}
