//! Whose a port is: attachments of one container share it, the dead lose it, everybody else is refused.

use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::Case;
use crate::alike::{both, case};
use crate::scene::{Backend, Call, Over, Scene, ask, ask_without_answer, serve};
use crate::scratch;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case(
        "of_two_networks_of_a_container_the_first_serves_the_port",
        two_networks,
    ),
    case("gc_of_the_first_network_hands_the_port_over", handed_by_gc),
    case(
        "after_a_flush_the_first_network_serves_the_port_again",
        two_networks_flushed,
    ),
    case(
        "two_networks_of_a_container_can_not_lead_a_port_to_two_places",
        two_places,
    ),
    case(
        "long_names_of_two_networks_are_one_container",
        long_two_networks,
    ),
    case("names_that_differ_in_the_last_byte_are_two", near_names),
    case("a_dead_owners_port_is_taken_over", dead_owner),
    case(
        "a_port_restored_without_records_is_taken_over",
        restored_at_boot,
    ),
    case("an_owner_of_another_boot_loses_its_port", another_boot),
    case("an_owner_that_may_live_keeps_its_port", may_live),
];

/// A container in the neighbour's place, as another one that wants the port.
fn other(backend: Backend, dir: &str) -> Call {
    Call::new(backend, "other", both(8080, 80))
        .at(&["10.1.0.6/24", "fd00:1::6/64"])
        .with("dataDir", json!(dir))
}

/// The attachments of one container to two networks. The second has the neighbour's addresses.
fn attachments(backend: Backend, scene: &Scene, dir: &str) -> (Call, Call) {
    let call = |network, ifname: &str| {
        Call::new(backend, "abc", both(8080, 80))
            .on(network)
            .by(ifname)
            .inside(&scene.pod)
            .with("dataDir", json!(dir))
    };
    serve(&scene.pod, "first", "10.1.0.5:80");
    serve(&scene.pod, "first", "[fd00:1::5]:80");
    serve(&scene.neighbour, "second", "10.1.0.6:80");
    serve(&scene.neighbour, "second", "[fd00:1::6]:80");
    let second = call("netb", "eth1").at(&["10.1.0.6/24", "fd00:1::6/64"]);
    (call("neta", "eth0"), second)
}

/// Who answers the outside, on both families and protocols, and the host itself.
fn served_by(scene: &Scene, name: &str) {
    for over in [Over::Tcp, Over::Udp] {
        for (node, to) in [
            (&scene.outside, "192.0.2.1:8080"),
            (&scene.outside, "[2001:db8::1]:8080"),
            (&scene.host, "127.0.0.1:8080"),
        ] {
            let answer = ask(node, over, to).unwrap_or_default();
            assert!(answer.starts_with(name), "{over:?} {to}: {answer:?}");
        }
    }
}

fn refused(scene: &Scene, call: &Call, owner: &str) {
    let before = scene.state();
    let error = scene.try_add(call).expect_err("a refusal");
    assert_eq!(error.code.number(), 102, "{error}");
    assert!(error.msg.contains(owner), "{error}");
    assert_eq!(scene.state(), before);
}

fn two_networks(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let (first, second) = attachments(backend, &scene, &dir);
    scene.add(&first);
    let alone = scene.state();
    scene.add(&second);
    served_by(&scene, "first");
    for call in [&first, &second] {
        scene.check(call).expect("success");
        scene.add(call);
    }
    assert_eq!(scene.state(), alone, "the second waits");
    refused(&scene, &other(backend, &dir), "neta/abc/eth0");

    scene.del(&first);
    served_by(&scene, "second");
    scene.check(&second).expect("success");
    refused(&scene, &other(backend, &dir), "netb/abc/eth1");
    scene.add(&first);
    served_by(&scene, "second");
    scene.check(&first).expect("success");
    // One that waits goes without a trace.
    scene.del(&first);
    served_by(&scene, "second");
    scene.del(&second);
    assert_eq!(scene.state(), "");
    assert_eq!(scene.route_localnet(), "0");
    assert_eq!(scratch::files(&dir), Vec::<String>::new());
    scene.add(&other(backend, &dir));
}

fn handed_by_gc(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let (first, second) = attachments(backend, &scene, &dir);
    scene.add(&first);
    scene.add(&second);
    scene.gc(&first, &[]);
    served_by(&scene, "second");
    scene.check(&second).expect("success");
    scene.gc(&second, &[("abc", "eth1")]);
    served_by(&scene, "second");
    scene.gc(&second, &[]);
    assert_eq!(scene.state(), "");
}

fn two_networks_flushed(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let (first, second) = attachments(backend, &scene, &dir);
    scene.add(&first);
    scene.add(&second);
    let before = scene.state();
    scene.host.sh("nft flush ruleset");
    // Whoever comes next; the others are restored first, the older one before the other.
    let plain = Call::new(backend, "plain", json!([])).with("dataDir", json!(dir));
    scene.add(&plain);
    assert_eq!(scene.state(), before);
    served_by(&scene, "first");
    for call in [&first, &second] {
        scene.check(call).expect("success");
        scene.del(call);
    }
    assert_eq!(scene.state(), "");
}

fn two_places(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let (first, mut second) = attachments(backend, &scene, &dir);
    scene.add(&first);
    second.conf["runtimeConfig"]["portMappings"] = both(8080, 81);
    refused(&scene, &second, "neta/abc/eth0");
    // Others of the same container are nobody's business.
    second.conf["runtimeConfig"]["portMappings"] = both(8081, 81);
    scene.add(&second);
    scene.check(&second).expect("success");
    served_by(&scene, "first");
}

fn long_two_networks(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let (mut first, mut second) = attachments(backend, &scene, &dir);
    let name = |last: char| -> &'static str { format!("{}{last}", "n".repeat(239)).leak() };
    for (call, network) in [(&mut first, name('a')), (&mut second, name('b'))] {
        call.network = network;
        call.container = "c".repeat(200);
    }
    scene.add(&first);
    scene.add(&second);
    served_by(&scene, "first");
    for call in [&first, &second] {
        scene.check(call).expect("success");
    }
    let mut foreign = other(backend, &dir);
    foreign.container = format!("{}d", "c".repeat(199));
    foreign.network = name('a');
    refused(&scene, &foreign, "has it already");
    scene.del(&first);
    served_by(&scene, "second");
    scene.del(&second);
    assert_eq!(scene.state(), "");
}

/// Networks, containers and interfaces whose names are alike but for the last byte, through every verb.
fn near_names(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let call = |network: &str, container: &str, ifname: &str, port| {
        Call::new(backend, container, both(port, 80))
            .on(network.to_owned().leak())
            .by(ifname)
            .at(match port {
                8080 => &["10.1.0.5/24"],
                _ => &["10.1.0.6/24"],
            })
            .with("dataDir", json!(dir))
    };
    let name = |length: usize, last: char| format!("{}{last}", "n".repeat(length - 1));
    let mut pairs: Vec<(Call, Call)> = Vec::new();
    for length in [1, 99, 100, 101, 109, 110, 128, 240] {
        let (a, b) = (name(length, 'a'), name(length, 'b'));
        pairs.push((call(&a, "abc", "eth0", 8080), call(&b, "def", "eth0", 8081)));
        pairs.push((call("net", &a, "eth0", 8080), call("net", &b, "eth0", 8081)));
        pairs.push((call(&a, &a, "eth0", 8080), call(&a, &b, "eth0", 8081)));
    }
    pairs.push((
        call("net", "abc", "e$", 8080),
        call("net", "abc", "e_", 8081),
    ));
    for (one, other) in pairs {
        scene.add(&other);
        let alone = scene.state();
        scene.add(&one);
        scene.check(&one).expect("success");
        scene.check(&other).expect("success");
        let mut third = one.clone();
        third.container = "third".to_owned();
        assert!(scene.try_add(&third).is_err(), "{}", one.network);
        scene.del(&one);
        assert_eq!(scene.state(), alone, "{} {}", one.network, one.container);
        scene.add(&one);
        let valid: &[_] = match one.network == other.network {
            true => &*vec![(
                &*other.container.clone().leak(),
                &*other.ifname.clone().leak(),
            )]
            .leak(),
            false => &[],
        };
        scene.gc(&one, valid);
        assert_eq!(scene.state(), alone, "{} {}", one.network, one.container);
        scene.check(&other).expect("success");
        scene.del(&other);
        assert_eq!(scene.state(), "");
        assert_eq!(scratch::files(&dir), Vec::<String>::new());
    }
}

/// A process in a network namespace of its own, as a container is: what is seen of it goes with it.
struct Container(Child);

impl Container {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["-n", "sleep", "1000"])
            .spawn();
        let container = Self(child.expect("success"));
        let own = std::fs::read_link("/proc/self/ns/net").expect("success");
        while std::fs::read_link(container.path()).is_ok_and(|it| it == own) {
            std::thread::yield_now();
        }
        container
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Gives it an address by a pair whose host end is a port of br0 and has an alias, if any.
    fn connect(&self, scene: &Scene, address: &str, alias: Option<&str>) {
        let pid = self.0.id();
        scene.host.sh(&format!(
            "ip link add dead type veth peer name eth0 netns {pid}; ip link set dead master br0 up
            nsenter -t {pid} -n sh -c 'ip link set eth0 up; ip addr add {address} dev eth0'"
        ));
        if let Some(alias) = alias {
            scene.host.sh(&format!("ip link set dead alias {alias}"));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The ports of br0 that the scene makes are of other containers.
fn name_ports(scene: &Scene) {
    scene
        .host
        .sh("ip link set pod alias trestle:podnet/someone/eth0
        ip link set near alias trestle:podnet/other/eth0");
}

fn dead_owner(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    serve(&scene.neighbour, "other", "10.1.0.6:80");
    let container = Container::new();
    let mut dead = Call::new(backend, "dead", both(8080, 80)).with("dataDir", json!(dir));
    dead.netns = Some(container.path().into());
    scene.add(&dead);
    let other = other(backend, &dir).inside(&scene.neighbour);
    refused(&scene, &other, "podnet/dead/eth0");
    drop(container);
    scene.add(&other);
    assert!(!scene.state().contains("dead"), "{}", scene.state());
    assert_eq!(
        ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").as_deref(),
        Some("other 192.0.2.2")
    );
    scene.check(&other).expect("success");
    assert_eq!(scratch::files(&dir), ["portmap:podnet:other:eth0"]);
    // Its DEL comes late.
    scene.del(&dead);
    assert!(ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").is_some());
    scene.del(&other);
    assert_eq!(scene.state(), "");
}

fn restored_at_boot(backend: Backend) {
    let scene = Scene::new();
    name_ports(&scene);
    let dir = scratch::own();
    let container = Container::new();
    container.connect(&scene, "10.1.0.7/24", Some("trestle:podnet/dead/eth0"));
    let mut dead = Call::new(backend, "dead", both(8080, 80))
        .with("dataDir", json!(dir))
        .at(&["10.1.0.7/24"]);
    dead.netns = Some(container.path().into());
    scene.add(&dead);
    std::fs::remove_dir_all(&dir).expect("success");
    let other = other(backend, &dir).inside(&scene.neighbour);
    refused(&scene, &other, "podnet/dead/eth0");
    drop(container);
    while scene.host.sh("ip -o link").contains("dead") {
        std::thread::yield_now();
    }
    // Another container got the address meanwhile.
    let reused = Container::new();
    reused.connect(&scene, "10.1.0.7/24", Some("trestle:podnet/new/eth0"));
    scene.add(&other);
    assert!(!scene.state().contains("podnet/dead/"), "{}", scene.state());
    scene.del(&other);
    assert_eq!(scene.state(), "");
}

fn another_boot(backend: Backend) {
    let scene = Scene::new();
    let dir = scratch::own();
    let dead = Call::new(backend, "dead", both(8080, 80))
        .with("dataDir", json!(dir))
        .inside(&scene.pod);
    scene.add(&dead);
    let other = other(backend, &dir).inside(&scene.neighbour);
    refused(&scene, &other, "podnet/dead/eth0");
    let path = format!("{dir}/portmap:podnet:dead:eth0");
    let mut record: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("success")).expect("success");
    record["origin"]["boot"] = json!("another");
    std::fs::write(&path, record.to_string()).expect("success");
    scene.add(&other);
    assert!(!scene.state().contains("podnet/dead/"), "{}", scene.state());
}

fn may_live(backend: Backend) {
    // Of an owner without a namespace nothing is known.
    let scene = Scene::new();
    name_ports(&scene);
    let dir = scratch::own();
    let nameless = Call::new(backend, "nameless", both(8080, 80)).with("dataDir", json!(dir));
    scene.add(&nameless);
    refused(&scene, &other(backend, &dir), "podnet/nameless/eth0");
    scene.del(&nameless);

    // Nor of one without a record while an interface stands that may be its own, or a namespace has its address.
    for alias in [None, Some("trestle:podnet/dead/eth0")] {
        let container = Container::new();
        container.connect(&scene, "10.1.0.7/24", alias);
        let unwritable = Call::new(backend, "dead", both(8080, 80))
            .with("dataDir", json!("/proc/nowhere"))
            .at(&["10.1.0.7/24"]);
        scene.add(&unwritable);
        refused(&scene, &other(backend, &dir), "podnet/dead/eth0");
        scene.del(&unwritable);
        drop(container);
        while scene.host.sh("ip -o link").contains("dead") {
            std::thread::yield_now();
        }
    }
    let container = Container::new();
    let inside = format!("nsenter -t {} -n", container.0.id());
    scene.host.sh(&format!(
        "{inside} ip link add d0 type bridge; {inside} ip addr add 10.1.0.7/24 dev d0"
    ));
    let unseen = Call::new(backend, "dead", both(8080, 80))
        .with("dataDir", json!("/proc/nowhere"))
        .at(&["10.1.0.7/24"]);
    scene.add(&unseen);
    refused(&scene, &other(backend, &dir), "podnet/dead/eth0");
    assert_eq!(
        ask_without_answer(&scene.outside, Over::Tcp, "192.0.2.1:8080"),
        None
    );
    let _: &Node = &scene.host;
}
