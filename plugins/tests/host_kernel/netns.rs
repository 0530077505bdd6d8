//! Opening, comparing and entering namespaces.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use nix::sys::stat::Mode;
use plugins::host::{HostError, NetNs, Rtnl};

use super::support::{Needs, Sandbox, Tests, new_netns};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "netns_that_is_missing_is_told_from_one_that_is_none",
        Needs::Root,
        kinds_of_failure,
    );
    tests.add(
        "netns_opens_by_any_path_that_leads_to_it",
        Needs::Root,
        opens_by_any_path,
    );
    tests.add(
        "netns_enter_moves_only_this_thread_and_returns",
        Needs::Root,
        enter_moves_thread,
    );
    tests.add(
        "netns_enter_returns_home_after_a_panic",
        Needs::Root,
        enter_survives_panic,
    );
    tests.add(
        "netns_enter_returns_home_when_it_is_nested",
        Needs::Root,
        enter_nests,
    );
    tests.add(
        "netns_cookie_tells_namespaces_apart",
        Needs::Root,
        cookies_differ,
    );
    tests.add(
        "netns_cookie_at_a_path_is_that_of_the_namespace_that_is_held",
        Needs::Root,
        cookie_of_the_held,
    );
    tests.add(
        "netns_lives_while_it_is_held",
        Needs::Root,
        lives_while_held,
    );
}

fn kinds_of_failure(_: &Sandbox) {
    let dir = std::env::temp_dir().join(format!("trestle-netns-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let at = |name: &str| dir.join(name);
    fs::write(at("empty"), "").unwrap();
    fs::write(at("full"), "x").unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/nowhere", at("dangling")).unwrap();

    for name in ["none", "dangling"] {
        let error = NetNs::open(at(name)).unwrap_err();
        assert!(
            matches!(error, HostError::NetNsMissing { .. }),
            "{name}: {error}"
        );
        assert!(error.not_found());
    }
    for (path, text) in [
        (at("empty"), "empty file"),
        (at("full"), "regular file"),
        (at("fifo"), "FIFO"),
        (dir.clone(), "directory"),
        ("/proc/self/ns/mnt".into(), "namespace of another kind"),
        ("/dev/null".into(), "special file"),
    ] {
        let error = NetNs::open(&path).unwrap_err();
        assert!(
            matches!(error, HostError::NotANetNs { .. }),
            "{}: {error}",
            path.display()
        );
        let message = error.to_string();
        assert!(
            message.contains(text) && message.contains(path.to_str().unwrap()),
            "{message}"
        );
        assert!(error.remedy().is_some());
    }
    let error = NetNs::open(at("full").join("below")).unwrap_err();
    assert!(matches!(error, HostError::NetNsOpen { .. }), "{error}");
    fs::remove_dir_all(&dir).unwrap();
}

fn opens_by_any_path(sandbox: &Sandbox) {
    let by_descriptor = format!("/proc/self/fd/{}", sandbox.netns.fd().as_raw_fd());
    let same = NetNs::open(by_descriptor).unwrap();
    assert!(same.is_current().unwrap());
    assert!(!new_netns().is_current().unwrap());
}

fn enter_moves_thread(sandbox: &Sandbox) {
    let other = new_netns();
    other
        .enter(|| {
            assert!(other.is_current().unwrap());
            thread::scope(|scope| {
                let new = scope.spawn(|| other.is_current().unwrap());
                assert!(new.join().unwrap());
            });
        })
        .unwrap();
    assert!(sandbox.netns.is_current().unwrap());

    let failed: Result<(), &str> = other.enter(|| Err("early")).unwrap();
    assert_eq!(failed, Err("early"));
    assert!(sandbox.netns.is_current().unwrap());
}

fn enter_survives_panic(sandbox: &Sandbox) {
    let other = new_netns();
    // Not panic!, which would print a backtrace first.
    let panic = catch_unwind(AssertUnwindSafe(|| {
        other.enter(|| resume_unwind(Box::new("")))
    }));
    assert!(panic.is_err());
    assert!(sandbox.netns.is_current().unwrap());
}

fn enter_nests(sandbox: &Sandbox) {
    let (a, b) = (new_netns(), new_netns());
    a.enter(|| {
        b.enter(|| assert!(b.is_current().unwrap())).unwrap();
        assert!(a.is_current().unwrap());
    })
    .unwrap();
    assert!(sandbox.netns.is_current().unwrap());
}

fn cookie_of_the_held(sandbox: &Sandbox) {
    let dir = std::env::temp_dir().join(format!("trestle-held-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (path, elsewhere) = (dir.join("netns"), dir.join("elsewhere"));
    let lead_to = |netns: &NetNs| {
        let _ = fs::remove_file(&path);
        let target = format!("/proc/self/fd/{}", netns.fd().as_raw_fd());
        std::os::unix::fs::symlink(target, &path).unwrap();
    };
    let (one, other) = (new_netns(), new_netns());
    let (cookie, other_cookie) = (one.cookie().unwrap(), other.cookie().unwrap());
    lead_to(&one);
    let held = NetNs::open(&path).unwrap();
    let rtnl = Rtnl::in_netns(&held).unwrap();
    lead_to(&other);
    assert_eq!(NetNs::cookie_at(&path).unwrap(), other_cookie);
    held.note_cookie(rtnl.as_fd());
    assert_eq!(NetNs::cookie_at(&path).unwrap(), cookie);
    drop(NetNs::open(&path).unwrap());
    assert_eq!(NetNs::cookie_at(&path).unwrap(), cookie);
    assert!(NetNs::cookie_at(&elsewhere).is_err());
    drop(held);
    assert_eq!(NetNs::cookie_at(&path).unwrap(), other_cookie);
    assert_ne!(cookie, sandbox.netns.cookie().unwrap());
    fs::remove_dir_all(&dir).unwrap();
}

fn cookies_differ(sandbox: &Sandbox) {
    let other = new_netns();
    let cookie = other.cookie().unwrap();
    assert_ne!(cookie, 0);
    assert_eq!(cookie, other.cookie().unwrap());
    assert_ne!(cookie, sandbox.netns.cookie().unwrap());
}

fn lives_while_held(_: &Sandbox) {
    // The thread that made it has ended already.
    let other = new_netns();
    other.enter(|| ()).unwrap();
}
