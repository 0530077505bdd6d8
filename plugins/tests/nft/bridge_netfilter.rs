//! Bridge netfilter: both ways of switching it on, and what is said where it can't be.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use plugins::attach::bridge_netfilter::{Mode, check, ensure, status};
use plugins::host::Rtnl;

use crate::Case;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("sysctl_mode_switches_the_whole_namespace_on", by_sysctl),
    case("bridge_mode_leaves_the_sysctls_alone", by_bridge),
    case("off_touches_nothing", off),
    case("without_the_module_the_remedy_is_told", no_module),
    case(
        "with_a_read_only_proc_sys_status_warns_before_add_fails",
        read_only,
    ),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["ip"],
        run,
    }
}

/// A namespace with a bridge for which bridge netfilter is off.
fn node() -> Node {
    let node = Node::new();
    node.sh("ip link add br0 type bridge
        for f in iptables ip6tables; do echo 0 > /proc/sys/net/bridge/bridge-nf-call-$f; done");
    node
}

fn sysctls(node: &Node) -> String {
    node.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables")
}

fn attributes(node: &Node) -> usize {
    let details = node.sh("ip -d link show br0");
    details.matches("nf_call_iptables 1").count() + details.matches("nf_call_ip6tables 1").count()
}

fn make(mode: Mode) {
    let rtnl = Rtnl::new().unwrap();
    let bridge = rtnl.link_by_name("br0").unwrap().unwrap();
    ensure(&rtnl, &bridge, mode).unwrap();
}

fn differences(mode: Mode) -> Vec<String> {
    let bridge = Rtnl::new().unwrap().link_by_name("br0").unwrap().unwrap();
    check(&bridge, mode).unwrap()
}

fn by_sysctl() {
    let node = node();
    node.run(|| {
        assert_eq!(differences(Mode::Sysctl).len(), 2);
        make(Mode::Sysctl);
        status(Mode::Sysctl).unwrap();
        assert_eq!(differences(Mode::Sysctl), Vec::<String>::new());
    });
    assert_eq!((sysctls(&node).as_str(), attributes(&node)), ("1\n1\n", 0));
    node.sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables");
    let found = node.run(|| differences(Mode::Sysctl));
    assert_eq!(found, ["net.bridge.bridge-nf-call-iptables is no longer 1"]);
}

fn by_bridge() {
    let node = node();
    node.run(|| {
        assert_eq!(differences(Mode::Bridge).len(), 1);
        make(Mode::Bridge);
        make(Mode::Bridge);
        assert_eq!(differences(Mode::Bridge), Vec::<String>::new());
    });
    assert_eq!((sysctls(&node).as_str(), attributes(&node)), ("0\n0\n", 2));
    node.sh("ip link set br0 type bridge nf_call_ip6tables 0");
    assert_eq!(node.run(|| differences(Mode::Bridge)).len(), 1);
}

fn off() {
    let node = node();
    node.run(|| {
        make(Mode::Off);
        status(Mode::Off).unwrap();
        assert_eq!(differences(Mode::Off), Vec::<String>::new());
    });
    assert_eq!((sysctls(&node).as_str(), attributes(&node)), ("0\n0\n", 0));
}

/// Gives the thread mounts of its own.
fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

fn no_module() {
    let node = node();
    node.run(|| {
        own_mounts();
        // As where the module is not loaded and there is nothing to load it with.
        for dir in ["/proc/sys/net/bridge", "/usr/sbin"] {
            mount(
                Some("none"),
                dir,
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
        }
        let rtnl = Rtnl::new().unwrap();
        let bridge = rtnl.link_by_name("br0").unwrap().unwrap();
        let error = ensure(&rtnl, &bridge, Mode::Sysctl).unwrap_err();
        assert_eq!(
            error.to_string(),
            "load kernel module br_netfilter: modprobe not found"
        );
        assert!(error.remedy().is_some());
        let error = status(Mode::Bridge).unwrap_err();
        assert!(
            error.remedy().unwrap().contains("modprobe br_netfilter"),
            "{error}"
        );
        assert_eq!(
            differences(Mode::Sysctl),
            ["the module br_netfilter is no longer loaded"]
        );
    });
}

fn read_only() {
    let node = node();
    node.run(|| {
        own_mounts();
        let (sys, none) = ("/proc/sys", None::<&str>);
        mount(Some(sys), sys, none, MsFlags::MS_BIND, none).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, sys, none, flags, none).unwrap();
        let error = status(Mode::Sysctl).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("write sysctl net.bridge.bridge-nf-call-iptables")
        );
        status(Mode::Bridge).unwrap();
    });
}
