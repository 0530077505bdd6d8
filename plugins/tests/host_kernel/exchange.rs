//! The socket: which namespace it belongs to, and listings under change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use plugins::host::Rtnl;
use plugins::host::rtnl::NewBridge;

use super::support::{Needs, Pod, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "socket_stays_in_the_namespace_it_was_opened_in",
        Needs::Root,
        stays_in_its_namespace,
    );
    tests.add(
        "socket_is_closed_when_the_handle_is_dropped",
        Needs::Root,
        closes,
    );
    tests.add(
        "listing_succeeds_while_links_come_and_go",
        Needs::Root,
        listing_under_change,
    );
}

fn stays_in_its_namespace(sandbox: &Sandbox) {
    let pod = Pod::new();
    let new = NewBridge {
        name: "inside",
        ..NewBridge::default()
    };
    pod.rtnl.create_bridge(&new).unwrap();
    assert!(sandbox.rtnl.link_by_name("inside").unwrap().is_none());
    assert!(pod.rtnl.link_by_name("inside").unwrap().is_some());
    pod.netns
        .enter(|| assert!(sandbox.rtnl.link_by_name("inside").unwrap().is_none()))
        .unwrap();
}

fn closes(_: &Sandbox) {
    let sockets = || {
        std::fs::read_dir("/proc/thread-self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .collect::<Vec<_>>()
    };
    let rtnl = Rtnl::new().unwrap();
    rtnl.links().unwrap();
    let with = sockets();
    drop(rtnl);
    let without = sockets();
    // Other tests open and close theirs meanwhile; this one's must be gone.
    assert!(with.iter().any(|socket| !without.contains(socket)));
}

fn listing_under_change(sandbox: &Sandbox) {
    let done = Arc::new(AtomicBool::new(false));
    // The thread starts in this namespace.
    let churn = thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let rtnl = Rtnl::new().unwrap();
            let mut round = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let name = format!("churn{}", round % 7);
                let new = NewBridge {
                    name: &name,
                    ..NewBridge::default()
                };
                let link = rtnl.create_bridge(&new).unwrap();
                assert!(rtnl.delete_link(link.index).unwrap());
                round += 1;
            }
        }
    });
    for number in 0..40 {
        sandbox.bridge(&format!("stays{number}"));
        let links = sandbox.rtnl.links().unwrap();
        let staying = links
            .iter()
            .filter(|link| link.name.starts_with("stays"))
            .count();
        assert_eq!(staying, number + 1);
    }
    done.store(true, Ordering::Relaxed);
    churn.join().unwrap();
}
