//! tap.

use std::fs;

use cni_conf::error::Code;
use plugins::host::rtnl::NewBridge;
use plugins::host::tap::NewTap;
use serde_json::json;

use super::alike::conf;
use super::support::{Needs, Node, Pod, Tests, with};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        Needs::Tap,
        &[
            ("tap_belongs_to_owner_and_group", owner),
            ("tap_mac_address_and_mtu_count_always", mac),
            ("tap_is_a_port_of_a_bridge_in_the_container", bridge),
            ("tap_takes_no_device_over", taken),
            ("tap_context_needs_selinux", context),
            ("tap_without_addresses_is_up", layer_2),
        ],
    );
}

/// What the kernel tells of the device in sysfs is about the namespace that mounted it, so it is asked by the link itself.
fn owner(node: &Node) {
    for (keys, user, group) in [
        (json!({}), "-1", "-1"),
        (json!({"owner": 0}), "0", "-1"),
        (json!({"owner": 1000, "group": 107}), "1000", "107"),
    ] {
        let pod = Pod::new("a");
        node.add("tap", &keys, &pod).unwrap();
        let read = |file: &str| in_sysfs(&pod, &format!("class/net/eth0/{file}"));
        assert_eq!(
            (read("owner").as_str(), read("group").as_str()),
            (user, group)
        );
        node.add_behind(
            "tap",
            &with(&keys, json!({"multiQueue": true})),
            &pod.attachment_as("net1", ""),
            None,
        )
        .unwrap();
        let flags = in_sysfs(&pod, "class/net/net1/tun_flags");
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap();
        // IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI and IFF_PERSIST.
        for flag in [0x2, 0x100, 0x1000, 0x800] {
            assert_eq!(flags & flag, flag, "{flags:x}");
        }
    }
}

/// A file of sysfs as it shows the pod's namespace.
fn in_sysfs(pod: &Pod, path: &str) -> String {
    let read = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)
            .unwrap();
        let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("sysfs"), "/sys", Some("sysfs"), none, None::<&str>).unwrap();
        let text = fs::read_to_string(format!("/sys/{path}")).unwrap();
        text.trim().to_owned()
    };
    std::thread::scope(|scope| {
        let netns = &pod.netns;
        let inside = scope.spawn(move || netns.enter(read).unwrap());
        inside.join().unwrap()
    })
}

fn mac(node: &Node) {
    let keys = json!({"owner": 0, "group": 0, "mtu": 1400, "mac": "02:00:00:00:00:07"});
    let pod = Pod::new("a");
    let result = node.add("tap", &with(&conf(node), keys), &pod).unwrap();
    let link = pod.eth0();
    assert_eq!((link.mac, link.mtu), (Some([2, 0, 0, 0, 0, 7]), 1400));
    let told = &result.interfaces[0];
    assert_eq!((told.mac.as_str(), told.mtu), ("02:00:00:00:00:07", 1400));
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24", "fd07::2/64"]);
}

fn bridge(node: &Node) {
    let keys = json!({"bridge": "br0"});
    let pod = Pod::new("a");
    let error = node.add("tap", &keys, &pod).unwrap_err();
    assert!(
        error.msg.contains("br0") && pod.links().is_empty(),
        "{error}"
    );
    let new = NewBridge {
        name: "br0",
        ..NewBridge::default()
    };
    let bridge = pod.rtnl.create_bridge(&new).unwrap();
    let result = node.add("tap", &keys, &pod).unwrap();
    assert_eq!(pod.eth0().master, Some(bridge.index));
    node.check("tap", &keys, &pod, &result).unwrap();
    pod.rtnl.delete_link(bridge.index).unwrap();
    let error = node.check("tap", &keys, &pod, &result).unwrap_err();
    assert_eq!(error.code, Code::CheckFailed, "{error}");
}

fn taken(_: &Node) {
    let pod = Pod::new("a");
    let new = NewTap {
        name: "eth0".into(),
        multi_queue: true,
        owner: Some(7),
        group: None,
    };
    pod.netns.enter(|| new.create()).unwrap().unwrap();
    let again = pod.netns.enter(|| new.create()).unwrap().unwrap_err();
    assert!(plugins::host::tap::is_taken(&again), "{again}");
    let name = "a name that is too long".into();
    let error = pod.netns.enter(|| NewTap { name, ..new }.create());
    assert!(error.unwrap().is_err());
    assert_eq!(pod.links(), ["eth0"]);
}

fn context(node: &Node) {
    if fs::metadata("/sys/fs/selinux/enforce").is_ok() {
        return;
    }
    let keys = json!({"selinuxContext": "system_u:system_r:container_t:s0"});
    let pod = Pod::new("a");
    let error = node.add("tap", &keys, &pod).unwrap_err();
    assert!(error.msg.contains("container_t"), "{error}");
    assert!(pod.links().is_empty());
}

fn layer_2(node: &Node) {
    let pod = Pod::new("a");
    let result = node.add("tap", &json!({}), &pod).unwrap();
    assert!(pod.eth0().up && result.ips.is_empty());
    node.del("tap", &json!({}), &pod).unwrap();
    assert!(pod.links().is_empty());
}
