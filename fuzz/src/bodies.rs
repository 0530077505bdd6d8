//! One function per fuzz target: any input is fine, as long as nothing panics and what is asserted here holds.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cni_conf::request::{self, Attachment, AttachmentId, Call, Environment};
use cni_conf::result::CniResult;
use cni_conf::version::SpecVersion;
use ipam::ranges::{Range, RangeSet};
use ipam::store::{LeaseOwner, ProcLiveness, Store, Want};
use plugins::registry;
use serde_json::Value;

/// The name of a target and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] = [
    ("request", request),
    ("conf", conf),
    ("prev_result", prev_result),
    ("state", state),
];

/// What separates the parts of an input that has several.
const SEPARATOR: &[u8] = b"\n---\n";

fn parts<const N: usize>(mut data: &[u8]) -> [&[u8]; N] {
    let mut parts = [&[][..]; N];
    for (index, part) in parts.iter_mut().enumerate() {
        let end = data
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR)
            .filter(|_| index + 1 < N);
        match end {
            Some(end) => {
                *part = &data[..end];
                data = &data[end + SEPARATOR.len()..];
            }
            None => {
                *part = data;
                break;
            }
        }
    }
    parts
}

/// A whole call: CNI_ARGS, then standard input, with every verb.
pub fn request(data: &[u8]) {
    let [args, stdin] = parts(data);
    let Ok(args) = std::str::from_utf8(args) else {
        return;
    };
    let mut words = args.splitn(3, ' ');
    let (container, ifname) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let args = words.next().unwrap_or("");
    let variables = [
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", ifname),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_PATH", "/nonexistent"),
        ("CNI_ARGS", args),
    ];
    let environment: Environment = variables.into_iter().collect();
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        match request::read(verb, &environment, stdin) {
            Ok((request, _)) => {
                // Both become names of files.
                for name in [request.network.as_str(), request.plugin.as_str()] {
                    assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty());
                }
            }
            Err(error) => {
                let object: Value = serde_json::from_str(&error.to_json(SpecVersion::LATEST))
                    .expect("an error object is JSON");
                assert!(object["code"].is_u64());
            }
        }
    }
}

/// The configuration of every plugin.
pub fn conf(data: &[u8]) {
    let environment: Environment = [
        ("CNI_CONTAINERID", "c"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_PATH", "/nonexistent"),
        ("CNI_ARGS", "IP=10.1.0.7;MAC=02:00:00:00:00:01"),
    ]
    .into_iter()
    .collect();
    let Ok((request, Call::Add(attachment))) = request::read("ADD", &environment, data) else {
        return;
    };
    let bare = Attachment {
        args: Default::default(),
        ..attachment.clone()
    };
    for built_in in registry::ALL {
        for attachment in [&attachment, &bare] {
            let _ = registry::parse_conf(built_in.name, &request, attachment);
        }
    }
}

/// A result in any version, read and written in all.
pub fn prev_result(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    for default in SpecVersion::ALL {
        let Ok(result) = CniResult::from_json(&value, default) else {
            continue;
        };
        for version in SpecVersion::ALL {
            let written = result.to_value(version);
            let again = CniResult::from_json(&written, version)
                .unwrap_or_else(|error| panic!("{version}: {error}: {written}"));
            assert_eq!(again.to_value(version), written, "in {version}");
        }
    }
}

/// The state of a network as any files that bear the right names, and ADD and DEL on top of that.
pub fn state(data: &[u8]) {
    let [address, record, index, last, lost] = parts(data);
    // A file system in memory, where there is one.
    let memory = Path::new("/dev/shm");
    let temp = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let temp = temp.expect("a directory");
    let (net, own) = (temp.path().join("net"), temp.path().join(".trestle/net"));
    for dir in [&net, &own] {
        fs::create_dir_all(dir).expect("a directory");
    }
    let held: IpAddr = [10, 1, 0, 3].into();
    for (path, content) in [
        (net.join(held.to_string()), address),
        (own.join("a:eth0"), record),
        (own.join("index"), index),
        (net.join("last_reserved_ip.0"), last),
        (own.join("new:eth0"), lost),
    ] {
        fs::write(path, content).expect("a file");
    }
    let id = |name: &str| AttachmentId {
        container: name.try_into().expect("a name"),
        ifname: "eth0".try_into().expect("a name"),
    };
    let range = Range::new("10.1.0.0/29".parse().expect("a subnet"), None, None, None);
    let set = RangeSet::new(vec![range.expect("a range")]).expect("a set");
    let network = "net".try_into().expect("a name");
    let store = Store::new(temp.path(), &network, &ProcLiveness)
        .with_reclaim(false)
        .with_lock_limit(Duration::ZERO);
    let want = Want {
        index: 0,
        set: &set,
        requested: None,
    };
    let owner = LeaseOwner::parse(address);
    let mut session = store.lock().expect("the lock");
    let before = session.held_by(&id("new")).expect("what is held");
    match session.reserve(&id("new"), None, &[want]) {
        Ok(given) => {
            assert!(before.is_empty());
            assert!(address.is_empty() || given != [held], "{owner:?} holds it");
            assert_eq!(session.held_by(&id("new")).expect("what is held"), given);
            assert_eq!(session.release(&id("new")).expect("a release"), given);
        }
        Err(_) => assert!(!before.is_empty(), "there is room for everybody"),
    }
    session.usage(&set).expect("the usage");
    session.leases().expect("the leases");
    session.release(&id("a")).expect("a release");
    let is_theirs = owner.is_some_and(|owner| owner.matches(&id("a")));
    let stays = net.join(held.to_string()).exists();
    assert!(!(is_theirs && stays), "a holds nothing any more");
    session.retain(&[]).expect("collection");
    assert!(!net.join(held.to_string()).exists());
}
