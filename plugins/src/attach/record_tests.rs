//! What is written down, who is found by it, and what is removed.

use std::fs::OpenOptions;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;

fn request(network: &str, dir: &Path) -> Request {
    Request {
        version: SpecVersion::V1_0_0,
        network: network.try_into().unwrap(),
        plugin: "portmap".try_into().unwrap(),
        conf: json!({"dataDir": dir, "snat": false, "PrevResult": {"ips": []}}),
        cni_path: Vec::new(),
        prev_result: Some(CniResult::default()),
    }
}

fn attachment(container: &str, netns: &str) -> Attachment {
    Attachment {
        container: container.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
        netns: Some(netns.into()),
        args: CniArgs::default(),
        netns_override: false,
    }
}

fn owner(network: &str, container: &str) -> Owner {
    Owner {
        network: network.try_into().unwrap(),
        container: container.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    }
}

fn living(records: &Records, except: &Owner) -> Vec<String> {
    let living = records.living(except).into_iter();
    living.map(|recorded| recorded.owner().path()).collect()
}

/// The files in a directory, without what is beside records.
fn files(dir: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut names: Vec<_> = paths
        .filter(|path| !path.is_dir())
        .map(|path| name_of(&path).into_owned())
        .collect();
    names.sort();
    names
}

const OWN: &str = "/proc/self/ns/net";

#[test]
fn what_is_written_is_what_add_was_called_with() {
    let dir = tempfile::tempdir().unwrap();
    let request = request("net", &dir.path().join("a/b"));
    let records = Records::of(&request, "portmap").unwrap();
    records.write(&request, &attachment("c1", OWN));
    let found = records.living(&owner("net", "other"));
    let [recorded] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(recorded.owner(), owner("net", "c1"));
    assert_eq!(recorded.request.version, SpecVersion::V1_0_0);
    assert_eq!(recorded.request.prev_result, request.prev_result);
    let keys: Vec<_> = recorded.request.conf.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["dataDir", "snat"]);
    assert!(records.has(recorded));
    records.remove(&recorded.owner()).unwrap();
    records.remove(&recorded.owner()).unwrap();
    assert!(!records.has(recorded));
}

#[test]
fn only_others_that_live_are_found_and_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let request = |network| request(network, dir.path());
    let records = Records::of(&request("net"), "portmap").unwrap();
    let gone = dir.path().join("gone");
    fs::write(&gone, "").unwrap();
    records.write(&request("net"), &attachment("zz", OWN));
    records.write(&request("net"), &attachment("gone", gone.to_str().unwrap()));
    records.write(&request("net"), &attachment("own", OWN));
    records.write(&request("other"), &attachment("aa", OWN));
    let age = |name: &str, seconds| {
        let file = OpenOptions::new()
            .write(true)
            .open(dir.path().join(name))
            .unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(time).unwrap();
    };
    age("portmap:net:zz:eth0", 1);
    age("portmap:other:aa:eth0", 2);
    // The path stays and leads to something else.
    fs::remove_file(&gone).unwrap();
    std::os::unix::fs::symlink(OWN, &gone).unwrap();
    fs::write(dir.path().join("portmap:net:cut:eth0"), "{\"version\":1,").unwrap();
    let found = living(&records, &owner("net", "own"));
    assert_eq!(found, ["net/zz/eth0", "other/aa/eth0"]);
}

/// Networks and containers whose names differ in the last byte only, at every length where something is cut.
#[test]
fn neighbours_have_records_of_their_own() {
    for length in [1, 99, 100, 101, 109, 110, 128, 240] {
        let [x, y] = ["x", "y"].map(|last| format!("{}{last}", "n".repeat(length - 1)));
        for [one, other] in [
            [owner(&x, "c"), owner(&y, "c")],
            [owner("net", &x), owner("net", &y)],
            [owner(&x, &x), owner(&x, &y)],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let request = |of: &Owner| request(of.network.as_str(), dir.path());
            let records = Records::of(&request(&one), "portmap").unwrap();
            for of in [&one, &other] {
                records.write(&request(of), &attachment(of.container.as_str(), OWN));
            }
            let ids = [&one, &other].map(|of| attachment(of.container.as_str(), OWN).id());
            assert_eq!(living(&records, &one), [other.path()]);
            records.collect(&one.network, &ids).unwrap();
            assert_eq!(living(&records, &other), [one.path()]);
            records.collect(&one.network, &ids[..1]).unwrap();
            let left = living(&records, &one);
            assert_eq!(left.len(), usize::from(one.network != other.network));
            records.remove(&one).unwrap();
            assert_eq!(living(&records, &one), left);
            records.remove(&other).unwrap();
            assert!(!records.exist());
        }
    }
}

/// A former version cut the name of the file within the network's.
#[test]
fn a_record_of_a_former_version_is_found_replaced_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let of = owner(&"n".repeat(128), "c");
    let request = request(of.network.as_str(), dir.path());
    let records = Records::of(&request, "portmap").unwrap();
    let (now, then) = (of.file_name("portmap"), of.former_file_name("portmap"));
    let back_then = || {
        records.write(&request, &attachment("c", OWN));
        fs::rename(dir.path().join(&now), dir.path().join(&then)).unwrap();
    };
    back_then();
    let [recorded] = &records.living(&owner("net", "x"))[..] else {
        panic!("one record");
    };
    assert!(records.has(recorded));
    assert_eq!(living(&records, &of), Vec::<String>::new());
    records
        .collect(&of.network, &[attachment("c", OWN).id()])
        .unwrap();
    assert!(records.exist());
    records.write(&request, &attachment("c", OWN));
    assert_eq!(files(&dir).len(), 1, "it was replaced");
    records.remove(&of).unwrap();
    back_then();
    records.remove(&of).unwrap();
    assert!(!records.exist());
    back_then();
    records.collect(&of.network, &[]).unwrap();
    assert!(!records.exist());
}

#[test]
fn another_boot_or_another_hosts_record_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let request = request("net", dir.path());
    let records = Records::of(&request, "portmap").unwrap();
    records.write(&request, &attachment("c1", OWN));
    let path = dir.path().join("portmap:net:c1:eth0");
    let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in [
        ("/origin/boot", json!("b")),
        ("/host/1", json!(1)),
        ("/version", json!(2)),
        ("/origin/netns", json!(null)),
    ] {
        assert_eq!(living(&records, &owner("net", "x")), ["net/c1/eth0"]);
        let mut changed = written.clone();
        *changed.pointer_mut(key).unwrap() = value;
        fs::write(&path, changed.to_string()).unwrap();
        assert_eq!(
            living(&records, &owner("net", "x")),
            Vec::<String>::new(),
            "{key}"
        );
        fs::write(&path, written.to_string()).unwrap();
    }
}

#[test]
fn gc_removes_what_is_this_networks_and_not_valid() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    let records = Records::of(&request("net", dir.path()), "portmap").unwrap();
    for network in ["net", "net2", &long] {
        for container in ["live", "dead"] {
            records.write(&request(network, dir.path()), &attachment(container, OWN));
        }
    }
    fs::write(dir.path().join("portmap:net:cut:eth0"), "{").unwrap();
    let live = AttachmentId {
        container: "live".try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    };
    for network in ["net", &long] {
        let network = network.try_into().unwrap();
        records
            .collect(&network, std::slice::from_ref(&live))
            .unwrap();
    }
    let mut found = living(&records, &owner("net", "x"));
    found.sort();
    let long = format!("{long}/live/eth0");
    let expected = ["net/live/eth0", "net2/dead/eth0", "net2/live/eth0", &long];
    assert_eq!(found, expected);
    assert_eq!(files(&dir).len(), 4);
}

#[test]
fn without_a_directory_there_is_nothing_to_do() {
    let request = request("net", Path::new("/nonexistent/x"));
    let records = Records::to_remove(&request, "portmap");
    records.remove(&owner("net", "c")).unwrap();
    records.collect(&request.network, &[]).unwrap();
    assert!(!records.exist() && records.living(&owner("net", "c")).is_empty());
}

#[test]
fn an_unusable_directory_is_an_error_for_add_and_the_default_for_del() {
    let request = request("net", Path::new("relative"));
    let error = Records::of(&request, "portmap").unwrap_err();
    assert!(error.msg.contains("dataDir") && error.msg.contains("relative"));
    let records = Records::to_remove(&request, "portmap");
    assert_eq!(records.dir, Path::new("/run/cni/portmap"));
}

#[test]
fn plugins_may_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let request = request("net", dir.path());
    let [one, other] = ["portmap", "firewall"].map(|it| Records::of(&request, it).unwrap());
    one.write(&request, &attachment("a", OWN));
    other.write(&request, &attachment("b", OWN));
    other.collect(&request.network, &[]).unwrap();
    assert_eq!(living(&one, &owner("net", "x")), ["net/a/eth0"]);
    assert!(!other.exist());
}

/// Whoever may write to the directory can put anything there.
#[test]
fn what_is_no_regular_file_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let request = request("net", dir.path());
    let records = Records::of(&request, "portmap").unwrap();
    assert!(records.write(&request, &attachment("c", OWN)));
    let fifo = dir.path().join("portmap:net:fifo:eth0");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(living(&records, &owner("net", "x")), ["net/c/eth0"]);
    assert!(records.find(&owner("net", "fifo")).is_none());
    // A record takes its place.
    assert!(records.write(&request, &attachment("fifo", OWN)));
    assert!(records.find(&owner("net", "fifo")).is_some());
    records.remove(&owner("net", "fifo")).unwrap();
    assert!(!fifo.exists());
}

/// ADD is called again for a container, and its process or the disk comes to an end.
#[test]
fn a_record_that_cant_be_written_again_is_still_there() {
    let dir = tempfile::tempdir().unwrap();
    let request = request("net", dir.path());
    for plugin in ["portmap", "firewall"] {
        let records = Records::of(&request, plugin).unwrap();
        let of = owner("net", "c");
        assert!(records.write(&request, &attachment("c", OWN)));
        // An ADD that was killed left half a file, and nobody can write where the next one would.
        let temporary = dir.path().join(format!(".{plugin}:net:c:eth0"));
        fs::write(&temporary, "{").unwrap();
        assert!(records.write(&request, &attachment("c", OWN)));
        assert!(!temporary.exists() && records.find(&of).is_some());
        fs::create_dir(&temporary).unwrap();
        assert!(!records.write(&request, &attachment("c", OWN)));
        assert!(records.find(&of).is_some());
        fs::remove_dir(&temporary).unwrap();
        // DEL removes what was left of its own, and GC what was left of the network's.
        fs::write(&temporary, "{").unwrap();
        records.remove(&of).unwrap();
        assert_eq!(files(&dir), Vec::<String>::new());
        fs::write(&temporary, "{").unwrap();
        let others = dir.path().join(format!(".{plugin}:net2:c:eth0"));
        fs::write(&others, "{").unwrap();
        records.collect(&of.network, &[]).unwrap();
        assert!(!temporary.exists() && others.exists());
        fs::remove_file(&others).unwrap();
    }
}

fn attached(container: &str, ifname: &str) -> Attachment {
    Attachment {
        ifname: ifname.try_into().unwrap(),
        ..attachment(container, OWN)
    }
}

fn of_container(records: &Records, container: &str) -> Vec<String> {
    let found = records.of_container(&container.try_into().unwrap());
    found.iter().map(|it| it.owner().path()).collect()
}

/// Containers whose IDs differ in the last byte, on several networks, with what former versions and killed processes leave.
#[test]
fn the_attachments_of_a_container_are_found() {
    for length in [1, 99, 100, 101, 109, 110, 128, 240] {
        let [x, y] = ["x", "y"].map(|last| format!("{}{last}", "c".repeat(length - 1)));
        let dir = tempfile::tempdir().unwrap();
        let request = |network| request(network, dir.path());
        let records = Records::of(&request("a"), "portmap").unwrap();
        assert!(of_container(&records, &x).is_empty());
        for (network, ifname) in [("a", "eth0"), ("b", "eth1")] {
            for container in [&x, &y] {
                assert!(records.write(&request(network), &attached(container, ifname)));
            }
        }
        let expected = |container: &str| {
            [("a", "eth0"), ("b", "eth1")]
                .map(|(net, ifname)| format!("{net}/{container}/{ifname}"))
        };
        assert_eq!(of_container(&records, &x), expected(&x));
        assert_eq!(of_container(&records, &y), expected(&y));
        let index = dir.path().join(".portmap.containers");
        let kept = fs::read_dir(&index).unwrap().count();
        assert_eq!(kept, 2);
        // A DEL that was killed took the record alone. The next GC takes the rest.
        let id = attached(&y, "eth1").id();
        let record = records.path(&Owner::new(&"b".try_into().unwrap(), &id));
        fs::remove_file(&record).unwrap();
        assert_eq!(of_container(&records, &y), expected(&y)[..1]);
        records.collect(&"b".try_into().unwrap(), &[]).unwrap();
        records
            .collect(&"a".try_into().unwrap(), &[attached(&x, "eth0").id()])
            .unwrap();
        assert_eq!(fs::read_dir(&index).unwrap().count(), 1);
        assert_eq!(of_container(&records, &x), expected(&x)[..1]);
        records
            .remove(&Owner::new(
                &"a".try_into().unwrap(),
                &attached(&x, "eth0").id(),
            ))
            .unwrap();
        assert!(!index.exists(), "it goes with the last one");
    }
}

#[test]
fn beside_records_of_a_former_version_all_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let request = request("net", dir.path());
    let records = Records::of(&request, "portmap").unwrap();
    assert!(records.write(&request, &attached("old", "eth0")));
    fs::remove_dir_all(dir.path().join(".portmap.containers")).unwrap();
    for (container, ifname) in [("old", "eth1"), ("new", "eth0")] {
        assert!(records.write(&request, &attached(container, ifname)));
    }
    assert_eq!(
        of_container(&records, "old"),
        ["net/old/eth0", "net/old/eth1"]
    );
    assert_eq!(of_container(&records, "new"), ["net/new/eth0"]);
    // When they are gone it is kept again.
    records.collect(&request.network, &[]).unwrap();
    assert!(records.write(&request, &attached("new", "eth0")));
    assert!(dir.path().join(".portmap.containers").exists());
}
