//! Whatever happens to it, the kernel is as before.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use conformance::{Case, Host, Lab, case};
use serde_json::json;

use super::Node;
use crate::common::wait_until;

pub(super) fn cases() -> Vec<Case> {
    vec![case!(a_kill_at_any_moment_leaves_the_kernel_as_it_was)]
}

fn a_kill_at_any_moment_leaves_the_kernel_as_it_was(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    let before = node.sh("nft list ruleset");
    let trestle = lab.bin().join("trestle");
    let path = a.netns();
    let mut with_table = 0;
    for attempt in 0..40_u64 {
        let mut child = node.enter(|| {
            Command::new(&trestle)
                .args(["trace", "--conf-dir", Host::NET_D, &path, "198.51.100.1:53"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start trestle")
        });
        // Later and later: before, while and after the table is made, and while it waits for an answer.
        thread::sleep(Duration::from_millis(attempt * 2));
        with_table += u32::from(node.sh("nft list tables").contains("trestle-trace"));
        child.kill().expect("kill trestle");
        child.wait().expect("wait for trestle");
        wait_until("its table is gone", || {
            !node.sh("nft list tables").contains("trestle-trace")
        });
    }
    assert!(with_table > 0, "some were killed while their table stood");
    assert_eq!(node.sh("nft list ruleset"), before);
}
