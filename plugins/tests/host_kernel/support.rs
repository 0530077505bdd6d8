//! Namespaces for tests, and the list of tests with what each needs of the machine.

use std::cell::RefCell;
use std::panic;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use plugins::host::rtnl::{LinkChange, Mac, NewBridge, NewVeth, NewVlan, VethEnd, VethPair};
use plugins::host::{NetNs, Rtnl, Sysctl};

/// A bound for what happens at once unless something is broken.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) const MAC_A: Mac = [0x02, 0, 0, 0, 0, 0x0a];
pub(crate) const MAC_B: Mac = [0x02, 0, 0, 0, 0, 0x0b];

/// What a test needs of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Root, to make namespaces.
    Root,
    /// VLAN devices and bridges that filter VLANs.
    Vlans,
    /// A kernel without them, to see the error.
    NoVlans,
    /// The `ip` command, for what the module itself can't do.
    Ip,
}

pub(crate) struct Tests {
    trials: Vec<Trial>,
    root: bool,
    vlans: bool,
    ip: bool,
}

impl Tests {
    pub(crate) fn new() -> Self {
        let root = nix::unistd::geteuid().is_root();
        Self {
            trials: Vec::new(),
            root,
            vlans: root && Sandbox::run(|sandbox| sandbox.has_vlans()),
            ip: std::process::Command::new("ip").arg("-V").output().is_ok(),
        }
    }

    fn missing(&self, needs: Needs) -> Option<&'static str> {
        match needs {
            _ if !self.root => Some("needs root"),
            Needs::Vlans if !self.vlans => Some("the kernel has no VLANs"),
            Needs::NoVlans if self.vlans => Some("the kernel has VLANs"),
            Needs::Ip if !self.ip => Some("needs the ip command"),
            _ => None,
        }
    }

    /// A test in a new namespace; `name` states the behaviour.
    pub(crate) fn add(
        &mut self,
        name: &str,
        needs: Needs,
        test: impl FnOnce(&Sandbox) + Send + 'static,
    ) {
        let reason = self.missing(needs).map(str::to_owned);
        let test = move || Sandbox::run(test);
        self.trials.push(testbed::trial(name, reason, test));
    }

    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}

/// A namespace that stands for the host's, with a thread of its own in it.
pub(crate) struct Sandbox {
    pub(crate) rtnl: Rtnl,
    pub(crate) netns: NetNs,
    /// Namespaces that no test looks into; dropped, they would take their links with them.
    pods: RefCell<Vec<Pod>>,
}

impl Sandbox {
    /// Runs `test` on a new thread in a new namespace, and passes its panic on.
    fn run<T: Send + 'static>(test: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let outcome = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            let rtnl = Rtnl::new().expect("a netlink socket");
            let netns = NetNs::current().expect("the own namespace");
            test(&Self {
                rtnl,
                netns,
                pods: RefCell::default(),
            })
        })
        .join();
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    fn has_vlans(&self) -> bool {
        let parent = self.bridge("br0");
        let vlan = NewVlan {
            name: "br0.5",
            parent,
            vid: 5,
            ..NewVlan::default()
        };
        self.rtnl.create_vlan(&vlan).is_ok()
    }

    /// A bridge that is up; its index.
    pub(crate) fn bridge(&self, name: &str) -> u32 {
        let new = NewBridge {
            name,
            up: true,
            ..NewBridge::default()
        };
        self.rtnl
            .create_bridge(&new)
            .expect("create a bridge")
            .index
    }

    /// The host's end of a pair as from [`Sandbox::veth`], whose other end does not matter; its
    /// index.
    pub(crate) fn lone_veth(&self, name: &str, master: Option<u32>) -> u32 {
        let pod = Pod::new();
        let pair = self.veth(name, master, &pod);
        self.pods.borrow_mut().push(pod);
        pair.host.index
    }

    /// A pair whose host end, `name`, is up and a port of `master`, and whose other end, eth0, is
    /// down.
    pub(crate) fn veth(&self, name: &str, master: Option<u32>, pod: &Pod) -> VethPair {
        self.rtnl
            .create_veth(&NewVeth {
                host: VethEnd {
                    name,
                    ..VethEnd::default()
                },
                alias: None,
                master,
                up: true,
                peer: VethEnd {
                    name: "eth0",
                    ..VethEnd::default()
                },
                peer_netns: &pod.netns,
            })
            .expect("create a veth pair")
    }
}

/// A namespace that stands for a container's.
pub(crate) struct Pod {
    pub(crate) netns: NetNs,
    pub(crate) rtnl: Rtnl,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let netns = new_netns();
        let rtnl = Rtnl::in_netns(&netns).expect("a netlink socket in the namespace");
        Self { netns, rtnl }
    }

    pub(crate) fn up(&self, index: u32) {
        let change = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        self.rtnl.set_link(index, &change).expect("bring a link up");
    }

    /// As attachments do: no duplicate address detection on this link.
    pub(crate) fn write_sysctl(&self, sysctl: &Sysctl, value: &str) {
        self.netns
            .enter(|| sysctl.write(value))
            .expect("enter")
            .expect("write a sysctl");
    }
}

/// A namespace that no thread is in.
pub(crate) fn new_netns() -> NetNs {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
        NetNs::current().expect("the own namespace")
    })
    .join()
    .expect("a namespace")
}
