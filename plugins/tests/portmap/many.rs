//! Ports by the thousand: all or nothing, and work that grows with them and not with their square.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::Case;
use crate::alike::case;
use crate::scene::{Backend, Call, Over, Scene, ask, serve};
use crate::scratch;

pub(crate) const CASES: &[Case] = &[
    case("as_many_ports_as_are_asked_for", whole_path),
    case(
        "of_ten_thousand_ports_one_taken_refuses_all",
        all_or_nothing,
    ),
    case("children_are_as_many_for_one_port_as_for_many", children),
];

/// Ports from 20,000 on, half of them of each protocol, for all addresses of the host.
fn ports(count: u16) -> Value {
    let mapping = |n: u16| {
        json!({
            "hostPort": 20_000 + n / 2, "containerPort": 80,
            "protocol": if n.is_multiple_of(2) { "tcp" } else { "udp" },
        })
    };
    (0..count).map(mapping).collect()
}

fn whole_path(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    serve(&scene.pod, "pod", "[fd00:1::5]:80");
    let other = Call::new(
        backend,
        "other",
        json!([{"hostPort": 8080, "containerPort": 80}]),
    )
    .at(&["10.1.0.6/24", "fd00:1::6/64"]);
    for count in [1, 128, 129, 1_000, 10_000] {
        let dir = scratch::own();
        let call = Call::new(backend, "many", ports(count))
            .with("dataDir", json!(dir))
            .inside(&scene.pod);
        let other = other
            .clone()
            .with("dataDir", json!(dir))
            .inside(&scene.neighbour);
        scene.add(&other);
        let alone = scene.state();
        scene.add(&call);
        answered(&scene, count);
        scene.check(&call).expect("success");
        scene.host.sh("nft flush ruleset");
        scene.add(&Call::new(backend, "plain", json!([])).with("dataDir", json!(dir)));
        answered(&scene, count);
        scene.check(&call).expect("success");
        scene.del(&call);
        assert_eq!(scene.state(), alone, "{count}");
        scene.add(&call);
        scene.gc(&call, &[("other", "eth0")]);
        assert_eq!(scene.state(), alone, "{count}");
        scene.del(&other);
        assert_eq!(scene.state(), "");
        assert_eq!(scratch::files(&dir), Vec::<String>::new());
    }
}

/// The first port and the last one of each protocol, on both families.
fn answered(scene: &Scene, count: u16) {
    let last_tcp = 20_000 + (count - 1) / 2;
    let last_udp = (count > 1).then(|| 20_000 + (count - 2) / 2);
    for host in ["192.0.2.1", "[2001:db8::1]"] {
        for port in [20_000, last_tcp] {
            assert!(ask(&scene.outside, Over::Tcp, &format!("{host}:{port}")).is_some());
        }
        for port in last_udp.into_iter().chain((count > 1).then_some(20_000)) {
            assert!(ask(&scene.outside, Over::Udp, &format!("{host}:{port}")).is_some());
        }
    }
}

fn all_or_nothing(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let owner = json!([{"hostPort": 24_999, "containerPort": 80, "protocol": "udp"}]);
    scene.add(&Call::new(backend, "owner", owner).with("dataDir", json!(dir)));
    let before = scene.state();
    let many = Call::new(backend, "many", ports(10_000))
        .at(&["10.1.0.6/24", "fd00:1::6/64"])
        .with("dataDir", json!(dir));
    let error = scene.try_add(&many).expect_err("a refusal");
    assert_eq!(
        error.msg,
        "map host port 0.0.0.0:24999/udp: podnet/owner/eth0 has it already"
    );
    assert_eq!(scene.state(), before);
    assert_eq!(scratch::files(&dir), ["portmap:podnet:owner:eth0"]);
}

/// Counts the programs that are run, by scripts in their place.
fn children(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let other = Call::new(
        backend,
        "other",
        json!([{"hostPort": 8080, "containerPort": 80}]),
    )
    .with("dataDir", json!(dir));
    scene.add(&other);
    let log = format!("{}.log", scratch::own());
    let count = |ports_wanted: u16| {
        let call = Call::new(backend, "many", ports(ports_wanted)).with("dataDir", json!(dir));
        let call = call.at(&["10.1.0.6/24", "fd00:1::6/64"]);
        let log = log.clone();
        scene.host.run(move || {
            // In a mount namespace of the thread's own, which ends with it.
            std::thread::spawn(move || {
                count_programs(&log);
                let so_far = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
                let before = so_far();
                call.add().expect("success");
                let added = so_far();
                call.check().expect("success");
                let checked = so_far();
                call.del().expect("success");
                [added - before, checked - added, so_far() - checked]
            })
            .join()
            .expect("success")
        })
    };
    let one = count(2);
    assert_eq!(count(600), one);
    match backend {
        Backend::Nftables => assert_eq!(one, [0, 0, 0]),
        // A listing of each chain that is looked at and one transaction, for each version of IP.
        Backend::Iptables => assert!(one[2] > 0 && one[2] <= 10, "{one:?}"),
    }
}

/// From here on the calling thread runs every program of the system's by way of a script that writes its name down.
fn count_programs(log: &str) {
    use nix::mount::{MsFlags, mount};
    const NONE: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("success");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("success");
    let dir = scratch::own();
    let (real, scripts) = (format!("{dir}/real"), format!("{dir}/scripts"));
    fs::create_dir_all(&real).expect("success");
    fs::create_dir_all(&scripts).expect("success");
    mount(
        Some("/usr/sbin"),
        real.as_str(),
        NONE,
        MsFlags::MS_BIND,
        NONE,
    )
    .expect("success");
    for tables in ["iptables", "ip6tables"] {
        for name in [tables.to_owned(), format!("{tables}-restore")] {
            // The one that several names lead to takes the name as its first argument.
            let file = fs::canonicalize(format!("/usr/sbin/{name}")).expect("success");
            let file = file
                .file_name()
                .expect("success")
                .to_string_lossy()
                .into_owned();
            script(
                &scripts,
                &name,
                &format!("exec {real}/{file} {name} \"$@\""),
                log,
            );
        }
    }
    script(&scripts, "nft", &format!("exec {real}/nft \"$@\""), log);
    mount(
        Some(scripts.as_str()),
        "/usr/sbin",
        NONE,
        MsFlags::MS_BIND,
        NONE,
    )
    .expect("success");
}

fn script(dir: &str, name: &str, command: &str, log: &str) {
    let path = format!("{dir}/{name}");
    fs::write(
        &path,
        format!("#!/bin/sh\necho {name} >> {log}\n{command}\n"),
    )
    .expect("success");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("success");
}
