//! The nftables backend alone.

use serde_json::json;

use crate::Case;
use crate::alike::both;
use crate::scene::{Backend, Call, Over, Scene, ask, serve};
use testbed::Node;

const BACKEND: Backend = Backend::Nftables;

pub(crate) const CASES: &[Case] = &[
    case("the_ruleset_reads_like_documentation", golden),
    case("the_steady_state_starts_no_process", no_process),
    case("rules_changed_by_hand_are_noticed_and_replaced", changed),
    case(
        "rules_of_the_former_build_are_noticed_and_replaced",
        upgraded,
    ),
    case("a_refusal_of_the_kernel_names_the_port", port_named),
    case("after_a_flush_the_next_add_restores_the_rules", flushed),
];

const fn case(name: &'static str, run: fn(Backend)) -> Case {
    Case {
        name,
        needs: &["nft", "ip"],
        run,
    }
}

fn golden(_: Backend) {
    let node = Node::new();
    node.run(|| {
        let mappings = json!([
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
            {"hostPort": 5353, "containerPort": 53, "protocol": "UDP"},
            {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "192.0.2.1"},
            {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "2001:db8::1"},
            {"hostPort": 3868, "containerPort": 3868, "protocol": "sctp", "hostIP": "0.0.0.0"},
        ]);
        Call::new(BACKEND, "abc", mappings).add().expect("success");
        Call::new(BACKEND, "def", both(9000, 90))
            .on("other")
            .at(&["10.2.0.5/32"])
            .with("masqAll", json!(true))
            .add()
            .expect("success");
    });
    let ruleset = |node: &Node| node.sh("nft -s list ruleset");
    compare(&ruleset(&node), "portmap.nft");
    // What is listed can be loaded again: every name is one that nft's language can spell.
    node.sh("nft list ruleset > /dev/shm/portmap.$$.nft; nft flush ruleset; nft -f /dev/shm/portmap.$$.nft; rm /dev/shm/portmap.$$.nft");
    compare(&ruleset(&node), "portmap.nft");
    // And is what it was.
    node.run(|| {
        hide_programs();
        let call = Call::new(BACKEND, "def", both(9000, 90))
            .on("other")
            .at(&["10.2.0.5/32"])
            .with("masqAll", json!(true));
        call.check().expect("success");
        call.add().expect("no rules to make");
    });
}

/// The ruleset without the digests, which hang on the versions of nft and the kernel.
fn without_digests(ruleset: &str) -> String {
    let pieces = ruleset
        .split('"')
        .map(|piece| match piece.rsplit_once(' ') {
            Some((name, digest)) if name.starts_with("portmap") && digest.len() == 16 => {
                format!("{name} DIGEST")
            }
            _ => piece.to_owned(),
        });
    pieces.collect::<Vec<_>>().join("\"")
}

fn compare(found: &str, file: &str) {
    let found = without_digests(found);
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("success");
    }
    let expected = std::fs::read_to_string(&path).expect("success");
    assert_eq!(
        found, expected,
        "differs from {file}; UPDATE_GOLDEN=1 writes it anew"
    );
}

fn no_process(_: Backend) {
    let scene = Scene::new();
    scene.add(&Call::new(BACKEND, "first", both(8080, 80)));
    scene.host.run(|| {
        hide_programs();
        let call = Call::new(BACKEND, "abc", both(8081, 80));
        call.add().expect("success");
        call.check().expect("success");
        call.del().expect("success");
        call.del().expect("success");
        Call::new(BACKEND, "first", both(8080, 80))
            .del()
            .expect("success");
        let error = call.add().expect_err("a refusal");
        assert_eq!(
            error.msg,
            "install the rules of port mappings: nft not found"
        );
        assert_eq!(error.code.number(), 105);
    });
}

/// From here on the calling thread finds no program where programs of the system are.
pub(crate) fn hide_programs() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("success");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("success");
    for dir in ["/usr/sbin", "/usr/local/sbin"] {
        mount(
            Some("none"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("success");
    }
}

fn flushed(_: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    scene.add(&Call::new(BACKEND, "abc", both(8080, 80)));
    let before = scene.ruleset();
    scene.host.sh("nft flush ruleset");
    scene.add(&Call::new(BACKEND, "abc", both(8080, 80)));
    assert_eq!(scene.ruleset(), before);
    scene.host.sh("nft flush table inet trestle");
    scene.add(&Call::new(BACKEND, "def", both(8081, 80)).at(&["10.1.0.6/24"]));
    assert!(ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").is_some());
}

fn changed(_: Backend) {
    let replace = |chain: &str, number: usize, rule: &str| {
        format!(
            "h=$(nft -a list chain inet trestle {chain} | grep -o 'handle [0-9]*$' | sed -n {}p)
            nft replace rule inet trestle {chain} $h '{rule}'",
            number + 1
        )
    };
    let guard =
        "iifname != \"lo\" ip daddr 127.0.0.0/8 accept comment \"localhost is not for neighbours\"";
    let own =
        "ip saddr 10.9.0.0/24 masquerade comment \"own subnet, the container itself included\"";
    for change in [
        replace("portmap/localnet", 1, guard),
        replace("portmap/from/10.1.0.0-24", 2, own),
        replace(
            "portmap/prerouting",
            1,
            "counter comment \"addressed to this host\"",
        ),
        "nft chain inet trestle portmap/localnet '{ policy drop; }'".to_owned(),
        "nft add rule inet trestle portmap/dnat-v4 counter".to_owned(),
        "nft flush chain inet trestle portmap/from/10.1.0.0-24".to_owned(),
        "nft flush set inet trestle portmap/digests".to_owned(),
    ] {
        let scene = Scene::new();
        let call = Call::new(BACKEND, "abc", both(8080, 80));
        scene.add(&call);
        let before = scene.ruleset();
        scene.check(&call).expect("success");
        scene.host.sh(&change);
        let error = scene.check(&call).expect_err(&change);
        assert_eq!(error.code.number(), 103, "{error}");
        scene.add(&call);
        scene.check(&call).expect("success");
        assert_eq!(scene.ruleset(), before, "{change}");
        scene.del(&call);
        assert_eq!(scene.state(), "", "{change}");
    }
}

fn upgraded(_: Backend) {
    let scene = Scene::new();
    let path = format!(
        "{}/tests/golden/portmap-former.nft",
        env!("CARGO_MANIFEST_DIR")
    );
    scene.host.sh(&format!("nft -f {path}"));
    let call = Call::new(BACKEND, "new", both(9100, 80)).at(&["10.1.0.6/24"]);
    let former = Call::new(BACKEND, "def", both(9000, 90))
        .on("other")
        .at(&["10.2.0.5/32"])
        .with("masqAll", json!(true));
    assert!(scene.check(&former).is_err());
    scene.add(&call);
    scene.check(&call).expect("success");
    // Its mappings were kept, and its chain of sources was made anew with the rest.
    scene.check(&former).expect("success");
    scene.gc(&call, &[]);
    scene.del(&former);
    assert_eq!(scene.state(), "");
}

/// A set of somebody's own making that has no room.
fn port_named(_: Backend) {
    let scene = Scene::new();
    scene.host.sh(
        "nft 'add table inet trestle; add map inet trestle portmap/any-v4 {
        type inet_proto . inet_service : ipv4_addr . inet_service; size 1; }'",
    );
    let error = scene
        .try_add(&Call::new(BACKEND, "abc", both(20_000, 80)).at(&["10.1.0.5/24"]))
        .expect_err("a refusal");
    assert!(
        error.msg.contains("map host port 0.0.0.0:20000/"),
        "{error}"
    );
    assert!(!error.msg.contains("4e20"), "{error}");
}
