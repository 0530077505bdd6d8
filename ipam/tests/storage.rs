//! The store on file systems that are full or read-only.
//!
//! Each test is a process of its own (the test program again) with a mount namespace of its own, in which a small tmpfs
//! stands at the data directory.
#![expect(clippy::unwrap_used, reason = "a test program, workers included")]

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, ExitCode};

use cni_conf::error::Code;
use cni_conf::request::AttachmentId;
use ipam::Error;
use ipam::ranges::{Range, RangeSet};
use ipam::store::{LeaseOwner, Origin, ProcLiveness, Store, Want};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const SCENE: &str = "IPAM_TEST_SCENE";
const DATA_DIR: &str = "IPAM_TEST_DATA_DIR";

/// A name, the options of the tmpfs, and what happens on it.
type Scene = (&'static str, &'static str, fn(&Path));

const SCENES: [Scene; 4] = [
    (
        "add_on_a_file_system_without_inodes_leaves_nothing_half_done",
        "nr_inodes=40",
        full,
    ),
    (
        "add_on_a_full_file_system_leaves_nothing_half_done",
        "size=64k",
        full,
    ),
    (
        "without_inodes_and_without_a_lock_del_makes_room",
        "nr_inodes=40",
        no_lock,
    ),
    (
        "a_read_only_file_system_is_a_clear_error_and_del_of_nothing_succeeds",
        "",
        read_only,
    ),
];

fn main() -> ExitCode {
    if let (Ok(scene), Ok(data_dir)) = (env::var(SCENE), env::var(DATA_DIR)) {
        let (_, options, play) = SCENES
            .into_iter()
            .find(|(name, ..)| *name == scene)
            .unwrap();
        mount_tmpfs(Path::new(&data_dir), options);
        play(Path::new(&data_dir));
        return ExitCode::SUCCESS;
    }
    let is_root = nix::unistd::geteuid().is_root();
    let tests = SCENES.map(|(name, ..)| {
        let trial = Trial::test(name, move || run(name));
        if is_root {
            trial
        } else {
            trial
                .with_ignored_flag(true)
                .with_kind("skipped: needs root to mount a tmpfs")
        }
    });
    libtest_mimic::run(&Arguments::from_args(), tests.into()).exit_code()
}

fn run(scene: &str) -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let output = Command::new(env::current_exe()?)
        .env(SCENE, scene)
        .env(DATA_DIR, temp.path())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}

fn mount_tmpfs(data_dir: &Path, options: &str) {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
    mount(
        Some("tmpfs"),
        data_dir,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options),
    )
    .unwrap();
}

fn id(container: &str) -> AttachmentId {
    AttachmentId {
        container: container.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    }
}

fn store(data_dir: &Path) -> Store<'static> {
    Store::new(data_dir, &"net".try_into().unwrap(), &ProcLiveness)
}

fn add(data_dir: &Path, container: &str) -> Result<Vec<IpAddr>, Error> {
    let sets = ["10.1.0.0/16", "fd00::/64"].map(|subnet| {
        let range = Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
        RangeSet::new(vec![range]).unwrap()
    });
    let wants = [0, 1].map(|index| Want {
        index,
        set: &sets[index],
        requested: None,
    });
    let origin = Origin::now(None, &ProcLiveness);
    store(data_dir)
        .lock()?
        .reserve(&id(container), origin, &wants)
}

fn del(data_dir: &Path, container: &str) -> Result<usize, Error> {
    match store(data_dir).lock_existing()? {
        Some(mut session) => Ok(session.release(&id(container))?.len()),
        None => Ok(0),
    }
}

fn address_files(data_dir: &Path) -> Vec<String> {
    let names = fs::read_dir(data_dir.join("net"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.parse::<IpAddr>().is_ok())
        .collect()
}

fn full(data_dir: &Path) {
    let mut containers = Vec::new();
    let error = loop {
        let container = format!("c{}", containers.len());
        match add(data_dir, &container) {
            Ok(_) => containers.push(container),
            Err(error) => break error,
        }
    };
    assert!(
        error.to_string().contains("No space left on device"),
        "{error}"
    );
    assert!(
        error.remedy().starts_with("free space or inodes"),
        "{}",
        error.remedy()
    );
    assert!(containers.len() > 3);

    // Once more, so that what the first failure left would show.
    add(data_dir, "again").unwrap_err();
    let files = address_files(data_dir);
    assert_eq!(files.len(), 2 * containers.len());
    for name in files {
        let content = fs::read(data_dir.join("net").join(&name)).unwrap();
        assert!(LeaseOwner::parse(&content).is_some(), "{name}: {content:?}");
    }
    let own = data_dir.join(".trestle/net");
    assert!(!own.join("new").exists() && !own.join("again:eth0").exists());

    let fillers = (0..).map(|n| data_dir.join(format!("filler{n}")));
    let fillers: Vec<_> = fillers
        .take_while(|path| fs::write(path, [1; 4096]).is_ok())
        .collect();
    assert!(store(data_dir).check_writable().is_err());
    for path in fillers {
        fs::remove_file(path).unwrap();
    }

    for container in &containers {
        assert_eq!(del(data_dir, container).unwrap(), 2);
    }
    assert!(address_files(data_dir).is_empty());
    assert_eq!(add(data_dir, "again").unwrap().len(), 2);
}

fn read_only(data_dir: &Path) {
    add(data_dir, "a").unwrap();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, data_dir, None::<&str>, flags, None::<&str>).unwrap();
    for error in [
        add(data_dir, "b").unwrap_err(),
        del(data_dir, "a").unwrap_err(),
        store(data_dir).check_writable().unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("Read-only file system"),
            "{error}"
        );
        assert!(error.remedy().contains("read-write"), "{}", error.remedy());
        assert_eq!(error.code(), Code::Io);
    }
    // A network that has no directory yet: nothing is made to find out.
    let other = "other".try_into().unwrap();
    let error = Store::new(data_dir, &other, &ProcLiveness)
        .check_writable()
        .unwrap_err();
    assert!(
        error.to_string().contains("Read-only file system"),
        "{error}"
    );
    assert_eq!(del(data_dir, "nothing").unwrap(), 0);
    assert_eq!(address_files(data_dir).len(), 2);
    let held = store(data_dir)
        .lock_existing()
        .unwrap()
        .unwrap()
        .held_by(&id("a"))
        .unwrap();
    assert_eq!(held.len(), 2);
}

fn no_lock(data_dir: &Path) {
    add(data_dir, "a").unwrap();
    fs::remove_file(data_dir.join("net/lock")).unwrap();
    let fill = |n: u32| fs::write(data_dir.join(format!("fill{n}")), "");
    let mut fillers = 0..1000;
    assert!(fillers.any(|n| fill(n).is_err()), "out of inodes");
    assert_eq!(del(data_dir, "a").unwrap(), 2);
    assert_eq!(address_files(data_dir), Vec::<String>::new());
    assert!(fill(1000).is_ok(), "there is room");
}
