//! What both backends do alike.

use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::Case;
use crate::scene::{Backend, Call, Client, Over, Scene, ask, ask_without_answer, serve, state_of};
use crate::scratch;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("a_mapped_port_answers_from_everywhere", everywhere),
    case(
        "a_host_ip_opens_the_port_on_that_address_alone",
        one_address,
    ),
    case(
        "cve_2025_67499_traffic_for_others_is_left_alone",
        not_for_us,
    ),
    case("cve_2019_9946_kube_proxy_goes_first", behind_kube_proxy),
    case(
        "a_service_to_the_container_keeps_its_source",
        service_source,
    ),
    case("cve_2020_8558_neighbours_do_not_reach_localhost", guard),
    case("snat_off_translates_no_source_and_masq_all_every", sources),
    case("a_port_has_one_owner_who_is_named", conflicts),
    case("one_address_and_all_addresses_overlap", overlaps),
    case("of_simultaneous_adds_for_one_port_one_wins", one_winner),
    case("adding_twice_is_adding_once", twice),
    case("the_last_del_leaves_nothing_behind", last_leaves),
    case(
        "a_del_on_one_network_leaves_anothers_mappings_alone",
        per_network,
    ),
    case("a_del_needs_no_mappings_in_its_configuration", bare_del),
    case("a_setting_of_the_go_plugins_stays_on", foreign_localnet),
    case("gc_keeps_the_valid_and_removes_the_rest", collected),
    case("check_tells_what_is_missing", checked),
    Case {
        name: "a_udp_client_that_keeps_sending_follows_the_port",
        needs: &["nft", "ip", "iptables", "ip6tables", "conntrack"],
        run: stale,
    },
    Case {
        name: "an_sctp_port_answers",
        needs: &["nft", "ip", "iptables", "ip6tables", "sctp"],
        run: sctp,
    },
    case("adds_and_dels_in_a_storm_leave_nothing", storm),
];

pub(crate) const fn case(name: &'static str, run: fn(Backend)) -> Case {
    Case {
        name,
        needs: &["nft", "ip", "iptables", "ip6tables"],
        run,
    }
}

/// One mapping for both protocols.
pub(crate) fn both(host_port: u16, container_port: u16) -> Value {
    json!([
        {"hostPort": host_port, "containerPort": container_port, "protocol": "tcp"},
        {"hostPort": host_port, "containerPort": container_port, "protocol": "udp"},
    ])
}

fn everywhere(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    serve(&scene.pod, "pod", "[fd00:1::5]:80");
    assert_eq!(
        ask_without_answer(&scene.outside, Over::Tcp, "192.0.2.1:8080"),
        None
    );
    let call = Call::new(backend, "abc", both(8080, 80));
    assert_eq!(scene.try_add(&call).expect("success"), call.result());
    for over in [Over::Tcp, Over::Udp] {
        for (node, to, seen) in [
            (&scene.outside, "192.0.2.1:8080", "192.0.2.2"),
            (&scene.outside, "[2001:db8::1]:8080", "2001:db8::2"),
            (&scene.host, "192.0.2.1:8080", "192.0.2.1"),
            (&scene.host, "[2001:db8::1]:8080", "2001:db8::1"),
            (&scene.host, "127.0.0.1:8080", "10.1.0.1"),
            (&scene.host, "127.1.2.3:8080", "10.1.0.1"),
            (&scene.neighbour, "192.0.2.1:8080", "10.1.0.1"),
            (&scene.neighbour, "10.1.0.1:8080", "10.1.0.1"),
            (&scene.neighbour, "[2001:db8::1]:8080", "fd00:1::1"),
            (&scene.pod, "192.0.2.1:8080", "10.1.0.1"),
            (&scene.pod, "10.1.0.1:8080", "10.1.0.1"),
            (&scene.pod, "[fd00:1::1]:8080", "fd00:1::1"),
        ] {
            let answer = ask(node, over, to);
            assert_eq!(answer, Some(format!("pod {seen}")), "{over:?} {to}");
        }
    }
    // The host's own service behind ::1 is still there.
    serve(&scene.host, "host", "[::1]:8080");
    assert_eq!(
        ask(&scene.host, Over::Tcp, "[::1]:8080").expect("success"),
        "host ::1"
    );
    scene.del(&call);
    assert_eq!(
        ask_without_answer(&scene.outside, Over::Tcp, "192.0.2.1:8080"),
        None
    );
}

fn one_address(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    let mappings = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
    ]);
    scene.add(&Call::new(backend, "abc", mappings));
    let asked = |node, to| ask(node, Over::Tcp, to);
    assert_eq!(
        asked(&scene.outside, "192.0.2.1:8080").expect("success"),
        "pod 192.0.2.2"
    );
    assert_eq!(
        asked(&scene.host, "192.0.2.1:8080").expect("success"),
        "pod 192.0.2.1"
    );
    assert_eq!(
        asked(&scene.neighbour, "192.0.2.1:8080").expect("success"),
        "pod 10.1.0.1"
    );
    assert_eq!(
        asked(&scene.host, "127.0.0.1:8081").expect("success"),
        "pod 10.1.0.1"
    );
    for (node, to) in [
        (&scene.outside, "192.0.2.9:8080"),
        (&scene.host, "127.0.0.1:8080"),
        (&scene.outside, "192.0.2.1:8081"),
    ] {
        assert_eq!(ask_without_answer(node, Over::Tcp, to), None, "{to}");
    }
}

fn not_for_us(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    serve(&scene.neighbour, "neighbour", "10.1.0.6:8080");
    serve(&scene.neighbour, "neighbour", "[fd00:1::6]:8080");
    serve(&scene.outside, "outside", "192.0.2.2:8080");
    scene.add(&Call::new(backend, "abc", both(8080, 80)));
    for over in [Over::Tcp, Over::Udp] {
        for (node, to, answer) in [
            (&scene.outside, "10.1.0.6:8080", "neighbour 192.0.2.2"),
            (&scene.outside, "[fd00:1::6]:8080", "neighbour 2001:db8::2"),
            (&scene.neighbour, "192.0.2.2:8080", "outside 10.1.0.6"),
            (&scene.host, "192.0.2.2:8080", "outside 192.0.2.1"),
        ] {
            assert_eq!(
                ask(node, over, to).as_deref(),
                Some(answer),
                "{over:?} {to}"
            );
        }
    }
}

fn behind_kube_proxy(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    serve(&scene.neighbour, "service", "10.1.0.6:80");
    scene.add(&Call::new(backend, "abc", both(8080, 80)));
    // As kube-proxy's chains for a node port, made after ours.
    scene.host.sh("nft 'add table ip kube-proxy
        add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat; }
        add chain ip kube-proxy nat-output { type nat hook output priority -100; }
        add rule ip kube-proxy nat-prerouting fib daddr type local tcp dport 8080 dnat to 10.1.0.6:80
        add rule ip kube-proxy nat-output fib daddr type local tcp dport 8080 dnat to 10.1.0.6:80'");
    let asked = |node, over| ask(node, over, "192.0.2.1:8080").expect("success");
    assert_eq!(asked(&scene.outside, Over::Tcp), "service 192.0.2.2");
    assert_eq!(asked(&scene.host, Over::Tcp), "service 192.0.2.1");
    assert_eq!(asked(&scene.outside, Over::Udp), "pod 192.0.2.2");
}

fn service_source(backend: Backend) {
    let scene = Scene::new();
    // Answers come back through the host only when bridged packets do, as Kubernetes has it.
    scene
        .host
        .sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables");
    serve(&scene.pod, "pod", "10.1.0.5:80");
    scene.add(&Call::new(backend, "abc", both(8080, 80)));
    scene.host.sh("nft 'add table ip kube-proxy
        add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat; }
        add rule ip kube-proxy nat-prerouting ip daddr 10.96.0.1 tcp dport 443 dnat to 10.1.0.5:80'");
    let asked = |to| ask(&scene.neighbour, Over::Tcp, to).expect("success");
    assert_eq!(asked("10.96.0.1:443"), "pod 10.1.0.6");
    assert_eq!(asked("10.1.0.5:80"), "pod 10.1.0.6");
    assert_eq!(asked("192.0.2.1:8080"), "pod 10.1.0.1");
    assert_eq!(
        ask(&scene.host, Over::Tcp, "127.0.0.1:8080").expect("success"),
        "pod 10.1.0.1"
    );
}

fn guard(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.host, "host", "127.0.0.1:7000");
    scene.add(&Call::new(backend, "abc", both(8080, 80)));
    assert_eq!(scene.route_localnet(), "1");
    // A neighbour that takes 127.0.0.1 for somebody behind its gateway.
    scene.neighbour.sh(
        "ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null || true
         ip route add 127.0.0.1 via 10.1.0.1; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
    );
    assert_eq!(
        ask_without_answer(&scene.neighbour, Over::Udp, "127.0.0.1:7000"),
        None
    );
    // That it is for the rules that they don't get through.
    scene.host.sh(match backend {
        Backend::Nftables => "nft flush chain inet trestle portmap/localnet",
        Backend::Iptables => "iptables -t raw -F PREROUTING",
    });
    assert_eq!(
        ask(&scene.neighbour, Over::Udp, "127.0.0.1:7000").as_deref(),
        Some("host 10.1.0.6")
    );
}

fn sources(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    let off = Call::new(backend, "abc", both(8080, 80)).with("snat", json!(false));
    scene.add(&off);
    let asked = |node, to| ask(node, Over::Udp, to);
    assert_eq!(
        asked(&scene.outside, "192.0.2.1:8080").expect("success"),
        "pod 192.0.2.2"
    );
    assert_eq!(
        ask_without_answer(&scene.neighbour, Over::Udp, "192.0.2.1:8080"),
        None
    );
    assert_eq!(scene.route_localnet(), "0");
    scene.del(&off);
    let all = Call::new(backend, "abc", both(8080, 80)).with("masqAll", json!(true));
    scene.add(&all);
    assert_eq!(
        asked(&scene.outside, "192.0.2.1:8080").expect("success"),
        "pod 10.1.0.1"
    );
    assert_eq!(
        asked(&scene.outside, "10.1.0.5:80").expect("success"),
        "pod 192.0.2.2"
    );
    scene.del(&all);
    assert_eq!(scene.state(), "");
}

fn conflicts(backend: Backend) {
    let scene = Scene::new();
    let first = Call::new(backend, "abc", both(8080, 80));
    scene.add(&first);
    let before = scene.state();
    let second = Call::new(
        backend,
        "def",
        json!([
            {"hostPort": 8079, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        ]),
    )
    .on("other")
    .at(&["10.1.0.6/24"]);
    let error = scene.try_add(&second).expect_err("a refusal");
    assert_eq!(error.code.number(), 102);
    assert_eq!(
        error.msg,
        "map host port 0.0.0.0:8080/tcp: podnet/abc/eth0 has it already"
    );
    assert_eq!(scene.state(), before);
    let sctp = Call::new(
        backend,
        "ghi",
        json!([{"hostPort": 8080, "containerPort": 80, "protocol": "sctp"}]),
    );
    scene.add(&sctp);
    scene.del(&first);
    scene.add(&second);
}

fn overlaps(backend: Backend) {
    let scene = Scene::new();
    let one = |container: &str, ip: &str| {
        Call::new(
            backend,
            container,
            json!([{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": ip}]),
        )
    };
    scene.add(&one("a", "192.0.2.1"));
    scene.add(&one("b", "192.0.2.9"));
    scene.add(&one("c", "::"));
    let before = scene.state();
    let refusal = |container: &str, ip: &str| {
        scene
            .try_add(&one(container, ip))
            .expect_err("a refusal")
            .msg
    };
    assert_eq!(
        refusal("x", "192.0.2.9"),
        "map host port 192.0.2.9:80/tcp: podnet/b/eth0 has it already"
    );
    let all = refusal("x", "0.0.0.0");
    assert!(
        all.starts_with("map host port 0.0.0.0:80/tcp: podnet/") && all.contains(" as 192.0.2."),
        "{all}"
    );
    assert_eq!(
        refusal("x", "2001:db8::1"),
        "map host port [2001:db8::1]:80/tcp: podnet/c/eth0 has it already as [::]:80/tcp"
    );
    assert_eq!(scene.state(), before);
}

/// Runs `work(n)` for each n in a process-like fashion: a thread of its own in the same namespace.
pub(crate) fn at_once<T: Send + 'static>(
    node: &Node,
    count: u16,
    work: impl Fn(u16) -> T + Send + Copy + 'static,
) -> Vec<T> {
    node.run(move || {
        let start = Arc::new(Barrier::new(count.into()));
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let start = Arc::clone(&start);
                std::thread::spawn(move || {
                    start.wait();
                    work(n)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread panics"))
            .collect()
    })
}

fn one_winner(backend: Backend) {
    for _ in 0..5 {
        let node = Node::new();
        let won = at_once(&node, 8, move |n| {
            let call = Call::new(backend, &format!("c{n}"), both(8080, 80)).at(&["10.1.0.5/24"]);
            match call.add() {
                Ok(_) => true,
                Err(error) => {
                    assert!(error.msg.contains("has it already"), "{error}");
                    false
                }
            }
        });
        assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
    }
}

fn twice(backend: Backend) {
    let scene = Scene::new();
    let call = Call::new(backend, "abc", both(8080, 80));
    scene.add(&call);
    let before = scene.state();
    scene.add(&call);
    assert_eq!(scene.state(), before);
}

fn last_leaves(backend: Backend) {
    let scene = Scene::new();
    scene
        .host
        .sh("nft 'add table inet foreign; add chain inet foreign c'");
    let before = scene.state();
    let (a, b) = (
        Call::new(backend, "a", both(8080, 80)),
        Call::new(backend, "b", both(8081, 80)).at(&["10.1.0.6/24"]),
    );
    scene.add(&a);
    scene.add(&b);
    assert_eq!(scene.route_localnet(), "1");
    scene.del(&a);
    assert_eq!(scene.route_localnet(), "1");
    assert!(!scene.state().contains("podnet/a/eth0"));
    assert!(!scene.state().contains("fd00_1__-64"), "its chain is gone");
    scene.del(&b);
    scene.del(&b);
    scene.del(&Call::new(backend, "never", both(8082, 80)));
    assert_eq!(scene.state(), before);
    assert_eq!(scene.route_localnet(), "0");
}

fn per_network(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    let (one, other) = (
        Call::new(backend, "abc", both(8080, 80)),
        Call::new(backend, "abc", both(9090, 80)).on("podnet2"),
    );
    scene.add(&one);
    scene.add(&other);
    scene.del(&one);
    assert_eq!(
        ask_without_answer(&scene.outside, Over::Tcp, "192.0.2.1:8080"),
        None
    );
    assert!(ask(&scene.outside, Over::Tcp, "192.0.2.1:9090").is_some());
    scene.del(&other);
    assert_eq!(scene.state(), "");
}

fn bare_del(backend: Backend) {
    let scene = Scene::new();
    let mut call = Call::new(backend, "abc", both(8080, 80));
    scene.add(&call);
    call.conf = json!({"backend": "nonsense", "runtimeConfig": {"portMappings": "nonsense"},
        "dataDir": scratch::own()});
    scene.del(&call);
    assert_eq!(scene.state(), "");
    assert_eq!(scene.route_localnet(), "0");
}

fn foreign_localnet(backend: Backend) {
    let scene = Scene::new();
    scene
        .host
        .sh("echo 1 > /proc/sys/net/ipv4/conf/br0/route_localnet
            nft 'add table ip nat; add chain ip nat CNI-HOSTPORT-DNAT'");
    let before = scene.state();
    let call = Call::new(backend, "abc", both(8080, 80));
    scene.add(&call);
    scene.del(&call);
    assert_eq!(scene.route_localnet(), "1");
    assert_eq!(scene.state(), before);
}

fn collected(backend: Backend) {
    let scene = Scene::new();
    let (a, b) = (
        Call::new(backend, "a", both(8080, 80)),
        Call::new(backend, "b", both(8081, 80)).at(&["10.1.0.6/24"]),
    );
    let other = Call::new(backend, "a", both(8082, 80)).on("podnet2");
    for call in [&a, &b, &other] {
        scene.add(call);
    }
    let gc = |valid: &'static [&'static str]| {
        let call = a.clone();
        scene.host.run(move || call.gc(valid)).expect("success");
    };
    gc(&["b", "c"]);
    let ruleset = scene.state();
    assert!(!ruleset.contains("podnet/a/eth0"), "{ruleset}");
    assert!(ruleset.contains("podnet/b/eth0") && ruleset.contains("podnet2/a/eth0"));
    gc(&[]);
    assert!(!scene.state().contains("podnet/b/eth0"));
    scene.del(&other);
    assert_eq!(scene.state(), "");
}

fn checked(backend: Backend) {
    let scene = Scene::new();
    let call = Call::new(backend, "abc", both(8080, 80));
    let check = || {
        let call = call.clone();
        scene.host.run(move || call.check())
    };
    assert!(check().is_err());
    scene.add(&call);
    check().expect("success");
    scene
        .host
        .sh("echo 0 > /proc/sys/net/ipv4/conf/br0/route_localnet");
    assert!(
        check()
            .expect_err("a refusal")
            .msg
            .contains("route_localnet")
    );
    scene.add(&call);
    scene.host.sh(match backend {
        Backend::Nftables => "nft delete element inet trestle portmap/any-v6 '{ tcp . 8080 }'",
        Backend::Iptables => "ip6tables -t nat -F $(ip6tables -t nat -S | grep -o 'TRESTLE-PORT-[0-9a-f]*' | head -1)",
    });
    let error = check().expect_err("a refusal");
    assert_eq!(error.code.number(), 103);
    assert!(
        error.msg.contains("host port [::]:8080/tcp leads nowhere"),
        "{error}"
    );
    scene.add(&call);
    check().expect("success");
    let (flush, complaint) = match backend {
        Backend::Nftables => (
            "nft flush chain inet trestle portmap/dnat-v4",
            "the rules of port mappings",
        ),
        Backend::Iptables => (
            "iptables -t nat -F OUTPUT",
            "no rule of OUTPUT leads to the chain TRESTLE-PORTS",
        ),
    };
    scene.host.sh(flush);
    assert!(check().expect_err("a refusal").msg.contains(complaint));
}

fn stale(backend: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    serve(&scene.neighbour, "neighbour", "10.1.0.6:80");
    serve(&scene.outside, "outside", "192.0.2.2:8080");
    // Something that has the kernel track connections.
    scene.add(&Call::new(backend, "first", both(7000, 80)));
    let client = Client::new(&scene.outside, "192.0.2.1:8080");
    assert_eq!(client.ask_without_answer(), None);
    let other = Client::new(&scene.neighbour, "192.0.2.2:8080");
    assert_eq!(other.ask().as_deref(), Some("outside 10.1.0.6"));
    let call = Call::new(backend, "abc", both(8080, 80));
    scene.add(&call);
    assert_eq!(client.ask().as_deref(), Some("pod 192.0.2.2"));
    scene.del(&call);
    assert_eq!(client.ask_without_answer(), None);
    scene.add(&Call::new(backend, "def", both(8080, 80)).at(&["10.1.0.6/24"]));
    assert_eq!(client.ask().as_deref(), Some("neighbour 192.0.2.2"));
    let flows = scene
        .host
        .sh("conntrack -L -p udp --dport 8080 2>/dev/null");
    assert!(
        flows.contains("dst=192.0.2.2"),
        "others' flows are left alone: {flows}"
    );
}

fn sctp(backend: Backend) {
    let scene = Scene::new();
    crate::scene::serve_sctp(&scene.pod, "10.1.0.5:80");
    let mappings = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "sctp"}]);
    let call = Call::new(backend, "abc", mappings);
    scene.add(&call);
    for (node, address) in [
        (&scene.outside, "192.0.2.1:8080"),
        (&scene.host, "192.0.2.1:8080"),
        (&scene.host, "127.0.0.1:8080"),
        (&scene.neighbour, "192.0.2.1:8080"),
        (&scene.pod, "192.0.2.1:8080"),
    ] {
        let answer = crate::scene::ask_sctp(node, address);
        assert_eq!(answer.expect("an answer"), "sctp", "{address}");
    }
    scene.del(&call);
    let refused = crate::scene::ask_sctp(&scene.outside, "192.0.2.1:8080");
    assert!(refused.is_err(), "nobody listens any more: {refused:?}");
}

fn storm(backend: Backend) {
    let node = Node::new();
    at_once(&node, 10, move |n| {
        for round in 0..5 {
            let call = Call::new(backend, &format!("c{n}"), both(8000 + n, 80))
                .at(&["10.1.0.5/24", "fd00::5/64"]);
            call.add()
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            call.check().expect("success");
            call.del().expect("success");
        }
    });
    assert_eq!(state_of(&node), "");
}
