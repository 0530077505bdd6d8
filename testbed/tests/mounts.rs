//! A test on a machine that has containers of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::process::ExitCode;

use libtest_mimic::Arguments;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use testbed::{Case, case, cover_run, run};

fn main() -> ExitCode {
    run(&Arguments::from_args(), CASES)
}

const CASES: &[Case] = &[case!(namespaces_of_the_machine_are_not_inherited, &[])];

fn namespaces_of_the_machine_are_not_inherited() {
    let none = None::<&str>;
    // Stands for the machine: namespaces in /run/netns, with the names that people give them.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run", tmpfs, MsFlags::empty(), none).unwrap();
    fs::create_dir("/run/netns").unwrap();
    mount(tmpfs, "/run/netns", tmpfs, MsFlags::empty(), none).unwrap();
    let names = (0..1000).map(|number| format!("pod{number}"));
    for name in names.chain(["a blank".to_owned(), "b\\s".to_owned()]) {
        let path = format!("/run/netns/{name}");
        fs::File::create(&path).unwrap();
        let of = Some("/proc/thread-self/ns/net");
        mount(of, path.as_str(), none, MsFlags::MS_BIND, none).unwrap();
    }
    let below = || {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| point.starts_with("/run")).count()
    };
    assert!(below() >= 1004, "{} mounts", below());

    cover_run();

    assert_eq!(below(), 1, "nothing but the own /run");
    assert_eq!(fs::read_dir("/run").unwrap().count(), 0);
}
