//! Whatever happens to it, the kernel is as before.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use conformance::{Case, Host, Lab, case};
use serde_json::json;

use super::{Node, shell};
use crate::common::wait_until;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_kill_at_any_moment_leaves_the_kernel_as_it_was),
        case!(a_kill_while_a_packet_comes_in_from_outside_leaves_no_device_behind),
    ]
}

fn a_kill_at_any_moment_leaves_the_kernel_as_it_was(lab: &Lab) {
    killed(lab, &["198.51.100.1:53"]);
}

fn a_kill_while_a_packet_comes_in_from_outside_leaves_no_device_behind(lab: &Lab) {
    // Nobody listens, and what is said so of a datagram is kept away, so that it waits.
    killed(lab, &["198.51.100.2:53", "--from", "up0"]);
}

/// Kills it later and later: before, while and after its table is made, and while it waits for an answer.
fn killed(lab: &Lab, arguments: &[&str]) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.sh("nft add table inet quiet");
    node.sh("nft add chain inet quiet in { type filter hook input priority 0 ; }");
    node.sh("nft add rule inet quiet in udp dport 53 drop");
    let state = || {
        // Whatever counts or times out apart.
        let links = shell(&node, "ip -o link | sed 's/ qlen .*//'");
        let rest = shell(
            &node,
            "tc qdisc; ip rule; ip route; ip -6 route | sort; bridge fdb | sort",
        );
        format!("{}{links}{rest}", node.sh("nft list ruleset"))
    };
    let trestle = lab.bin().join("trestle");
    let (path, before) = (a.netns(), state());
    let (mut with_table, mut with_device) = (0, 0);
    for attempt in 0..40_u64 {
        let mut child = node.enter(|| {
            Command::new(&trestle)
                .args(["trace", "--conf-dir", Host::NET_D, &path])
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start trestle")
        });
        thread::sleep(Duration::from_millis(attempt * 3));
        with_table += u32::from(node.sh("nft list tables").contains("trestle-trace"));
        with_device += u32::from(node.sh("ip -o link").contains("trestle-"));
        child.kill().expect("kill trestle");
        child.wait().expect("wait for trestle");
        wait_until("its table and its device are gone", || {
            !node.sh("nft list tables").contains("trestle-trace")
                && !node.sh("ip -o link").contains("trestle-")
        });
    }
    assert!(with_table > 0, "some were killed while their table stood");
    let outside = arguments.contains(&"--from");
    assert_eq!(with_device > 0, outside, "and while their device did");
    assert_eq!(state(), before);
}
