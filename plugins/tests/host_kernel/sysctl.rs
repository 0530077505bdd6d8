//! Sysctls of a namespace.

use nix::errno::Errno;
use plugins::host::rtnl::LinkChange;
use plugins::host::{Procfs, Sysctl};

use super::support::{Needs, Pod, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "sysctl_is_written_only_when_it_differs",
        Needs::Root,
        written_when_different,
    );
    tests.add(
        "sysctl_belongs_to_the_namespace_entered",
        Needs::Root,
        per_namespace,
    );
    tests.add(
        "sysctl_of_an_interface_with_a_dot_in_its_name",
        Needs::Root,
        dotted_interface,
    );
    tests.add(
        "sysctl_is_reached_by_a_mount_of_ones_own",
        Needs::Root,
        own_mount,
    );
    tests.add("sysctl_failures_tell_the_remedy", Needs::Root, failures);
}

fn written_when_different(_: &Sandbox) {
    let sysctl = Sysctl::ipv4_forwarding();
    sysctl.write("0").unwrap();
    assert!(sysctl.exists());
    assert!(sysctl.ensure("1").unwrap());
    assert!(!sysctl.ensure("1").unwrap());
    assert_eq!(sysctl.read().unwrap(), "1");
}

fn per_namespace(_: &Sandbox) {
    let pod = Pod::new();
    let sysctl = Sysctl::ipv4_conf("all", "arp_notify");
    sysctl.write("0").unwrap();
    pod.write_sysctl(&sysctl, "1");
    assert_eq!(sysctl.read().unwrap(), "0");
    assert_eq!(pod.netns.enter(|| sysctl.read()).unwrap().unwrap(), "1");
}

/// One mount shows each namespace its own settings, under their own names, as /proc does.
fn own_mount(_: &Sandbox) {
    let pod = Pod::new();
    let procfs = Procfs::private();
    let sysctl = Sysctl::ipv6_conf("lo", "accept_ra");
    sysctl.write("1").unwrap();
    let (wrote, by_path) = pod
        .netns
        .enter(|| (sysctl.ensure_in(&procfs, "2").unwrap(), sysctl.read()))
        .unwrap();
    assert!(wrote);
    assert_eq!(by_path.unwrap(), "2");
    assert!(!sysctl.ensure_in(&procfs, "1").unwrap());
    assert_eq!(sysctl.read_in(&procfs).unwrap(), "1");
    let missing = Sysctl::ipv6_conf("nobody", "accept_ra");
    let error = missing.write_in(&procfs, "0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "write sysctl net.ipv6.conf.nobody.accept_ra: No such file or directory"
    );
    let elsewhere = Sysctl::net(["..", "kernel", "hostname"]);
    assert!(elsewhere.write_in(&procfs, "mine").is_err());
}

fn dotted_interface(sandbox: &Sandbox) {
    let index = sandbox.lone_veth("veth0", None);
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(index, &down).unwrap();
    let rename = LinkChange {
        name: Some("eth0.10"),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(index, &rename).unwrap();
    let sysctl = Sysctl::ipv4_conf("eth0.10", "arp_notify");
    assert!(sysctl.ensure("1").unwrap());
    assert_eq!(
        Sysctl::parse("net.ipv4.conf.eth0/10.arp_notify")
            .unwrap()
            .read()
            .unwrap(),
        "1"
    );
}

fn failures(_: &Sandbox) {
    let sysctl = Sysctl::ipv6_conf("nobody", "accept_ra");
    assert!(!sysctl.exists());
    let error = sysctl.ensure("0").unwrap_err();
    assert!(error.not_found());
    assert_eq!(
        error.to_string(),
        "read sysctl net.ipv6.conf.nobody.accept_ra: No such file or directory"
    );
    assert!(error.remedy().unwrap().contains("interface does not exist"));
    let error = Sysctl::ipv4_forwarding().write("nonsense").unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL));
    assert_eq!(
        error.to_string(),
        "write sysctl net.ipv4.ip_forward: Invalid argument"
    );
}
