//! The store under many processes at once, and under processes that are killed.
//!
//! The test program runs itself as the worker; what a worker is to do stands in its environment.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program, workers included"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use cni_conf::request::AttachmentId;
use ipam::ranges::{Range, RangeSet};
use ipam::store::{LeaseOwner, Origin, ProcLiveness, Store, Want};
use libtest_mimic::{Arguments, Failed, Trial};

const WORKER: &str = "IPAM_TEST_WORKER";
const DATA_DIR: &str = "IPAM_TEST_DATA_DIR";

fn main() -> ExitCode {
    if let (Ok(job), Ok(data_dir)) = (env::var(WORKER), env::var(DATA_DIR)) {
        return work(&job, Path::new(&data_dir));
    }
    let tests = vec![
        Trial::test("64_processes_get_64_different_addresses", many_at_once),
        Trial::test("interleaved_add_and_del_leave_exactly_what_is_held", storm),
        Trial::test("a_killed_process_leaves_no_half_file_and_no_lock", killed),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn sets() -> [RangeSet; 2] {
    ["10.1.0.0/16", "fd00::/64"].map(|subnet| {
        let range = Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
        RangeSet::new(vec![range]).unwrap()
    })
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

fn add(store: &Store<'_>, container: &str) -> Vec<IpAddr> {
    let sets = sets();
    let wants = [0, 1].map(|index| Want {
        index,
        set: &sets[index],
        requested: None,
    });
    let origin = Origin::now(None, &ProcLiveness);
    store
        .lock()
        .unwrap()
        .reserve(&id(container), origin, &wants)
        .unwrap()
}

fn del(store: &Store<'_>, container: &str) -> usize {
    let session = store.lock_existing().unwrap();
    session.map_or(0, |mut session| {
        session.release(&id(container)).unwrap().len()
    })
}

/// A worker's job is `once NAME`, `storm NAME ROUNDS` or `forever NAME`.
fn work(job: &str, data_dir: &Path) -> ExitCode {
    let store = store(data_dir);
    let words: Vec<&str> = job.split(' ').collect();
    match words[..] {
        ["once", name] => print(&add(&store, name)),
        ["storm", name, rounds] => {
            for round in 0..rounds.parse::<usize>().unwrap() {
                let container = format!("{name}-{round}");
                let addresses = add(&store, &container);
                if round % 3 == 0 {
                    print(&addresses);
                } else {
                    assert_eq!(del(&store, &container), 2);
                }
            }
        }
        ["forever", name] => {
            for round in 0.. {
                println!("next");
                let container = format!("{name}-{round}");
                add(&store, &container);
                if round % 2 == 0 {
                    del(&store, &container);
                }
            }
        }
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn print(addresses: &[IpAddr]) {
    for address in addresses {
        println!("{address}");
    }
}

fn spawn(data_dir: &Path, job: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .env(WORKER, job)
        .env(DATA_DIR, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the jobs at the same time and returns the addresses that they said they got.
fn run_all(data_dir: &Path, jobs: impl Iterator<Item = String>) -> Vec<IpAddr> {
    let children: Vec<Child> = jobs.map(|job| spawn(data_dir, &job)).collect();
    let mut addresses = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        addresses.extend(text.lines().map(|line| line.parse::<IpAddr>().unwrap()));
    }
    addresses
}

/// The addresses on the disk with their owners; fails on anything that should not be there.
fn on_disk(data_dir: &Path) -> BTreeMap<IpAddr, LeaseOwner> {
    let entries = fs::read_dir(data_dir.join("net"))
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut addresses = BTreeMap::new();
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        match name.parse() {
            Ok(address) => {
                let content = fs::read(entry.path()).unwrap();
                let owner = LeaseOwner::parse(&content);
                let owner = owner.unwrap_or_else(|| panic!("{name} is half a file: {content:?}"));
                addresses.insert(address, owner);
            }
            Err(_) => assert!(
                name == "lock" || name.starts_with("last_reserved_ip."),
                "{name}"
            ),
        }
    }
    addresses
}

/// True if what is on the disk is exactly these addresses, each once.
fn assert_exactly(data_dir: &Path, mut given: Vec<IpAddr>) {
    given.sort();
    let on_disk: Vec<IpAddr> = on_disk(data_dir).into_keys().collect();
    assert_eq!(on_disk, given);
    // The index, as long as it is believed, says the same.
    let store = store(data_dir);
    let mut session = store.lock().unwrap();
    for lease in session.leases().unwrap() {
        let owner = lease.owner.unwrap();
        assert_eq!(
            session.held_by(&id(&owner.container)).unwrap().len(),
            2,
            "{owner}"
        );
    }
}

fn many_at_once() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let given = run_all(temp.path(), (0..64).map(|n| format!("once c{n}")));
    assert_eq!(given.len(), 128);
    assert_exactly(temp.path(), given);
    Ok(())
}

fn storm() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let given = run_all(temp.path(), (0..16).map(|n| format!("storm c{n} 20")));
    assert_eq!(given.len(), 16 * 7 * 2);
    assert_exactly(temp.path(), given);
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    add(&store(temp.path()), "neighbour");
    for kill in 0..100 {
        let mut child = spawn(temp.path(), &format!("forever k{kill}"));
        // Rounds differ in where they are when the signal comes.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.take(1 + kill % 7).all(|line| line.is_ok()));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut containers: Vec<String> = on_disk(temp.path())
            .into_values()
            .map(|owner| owner.container)
            .filter(|container| container != "neighbour")
            .collect();
        containers.dedup();
        let store = store(temp.path());
        containers.iter().for_each(|container| {
            del(&store, container);
        });
        assert_eq!(on_disk(temp.path()).len(), 2, "after kill {kill}");
        assert_eq!(add(&store, "next").len(), 2);
        assert_eq!(del(&store, "next"), 2);
    }
    assert_eq!(del(&store(temp.path()), "neighbour"), 2);
    assert!(on_disk(temp.path()).is_empty());
    Ok(())
}
