//! Containers of a real podman, with its CNI backend.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use conformance::{Case, Lab, Need, Protocol, Snapshot, case};

use crate::engine::Podman;
use crate::image::{Http, IMAGE};
use crate::{MACHINE, OUTSIDE, ip, with_plugins};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        case!(a_container_serves_on_a_published_port),
        case!(containers_talk_over_both_families),
        case!(address_and_mac_that_are_asked_for_are_given),
        case!(connecting_and_disconnecting_a_running_container),
        case!(stopping_and_starting),
        case!(reloading_the_network_brings_lost_rules_back),
        case!(networks_that_isolate_are_apart),
        case!(four_containers_at_once),
    ];
    // The network that podman writes is a chain of all of these.
    let plugins = ["bridge", "host-local", "portmap", "firewall", "tuning"];
    cases
        .map(|case| with_plugins(case.needs(Need::Runtimes), &plugins))
        .into()
}

fn a_container_serves_on_a_published_port(lab: &Lab) {
    let mut podman = Podman::new(lab);
    let outside = podman.outside();
    podman.run("network create --subnet 10.89.0.0/24 net1");
    podman.serve("a", "--network net1 --publish 18080:80");
    podman.serve("b", "--network net1");
    let address = podman.addresses("a", "net1")[0];
    let seen = podman
        .machine
        .http(address, 80)
        .expect("an answer to the machine");
    assert_eq!(seen, ip("10.89.0.1"), "it asks from the bridge's address");
    let seen = outside
        .http(ip(MACHINE[0]), 18080)
        .expect("an answer to the outside");
    assert_eq!(seen, ip(OUTSIDE[0]), "with its own address");
    podman
        .machine
        .http(ip("127.0.0.1"), 18080)
        .expect("an answer on the loopback address");
    let published = SocketAddr::new(ip(MACHINE[0]), 18080);
    podman
        .wget("b", published)
        .expect("an answer to the other container");
    podman
        .wget("a", published)
        .expect("an answer to the container itself");
    podman.remove(&["a", "b"], &["net1"]);
}

fn containers_talk_over_both_families(lab: &Lab) {
    let mut podman = Podman::new(lab);
    let outside = podman.outside();
    podman.run("network create --subnet 10.89.0.0/24 --ipv6 --subnet fd00:89::/64 net1");
    podman.serve("a", "--network net1 --publish 18080:80");
    podman.serve("b", "--network net1");
    let (of_a, of_b) = (podman.addresses("a", "net1"), podman.addresses("b", "net1"));
    assert_eq!((of_a.len(), of_b.len()), (2, 2), "one of each family");
    for (family, (a, b)) in of_a.into_iter().zip(of_b).enumerate() {
        let seen = podman
            .wget("a", SocketAddr::new(b, 80))
            .expect("b answers a");
        assert_eq!(seen, a);
        let seen = outside
            .http(ip(MACHINE[family]), 18080)
            .expect("an answer to the outside");
        assert_eq!(seen, ip(OUTSIDE[family]));
        // A container goes out with the machine's address.
        let server = outside.serve(Protocol::Tcp, ip(OUTSIDE[family]), 80);
        let seen = podman.inside("a").ask(Protocol::Tcp, server.address);
        assert_eq!(seen.expect("an answer from outside"), ip(MACHINE[family]));
    }
    podman.remove(&["a", "b"], &["net1"]);
}

fn address_and_mac_that_are_asked_for_are_given(lab: &Lab) {
    let podman = Podman::new(lab);
    podman.run("network create --subnet 10.89.0.0/24 net1");
    let mac = "92:d0:c6:0a:29:33";
    podman.serve(
        "a",
        &format!("--network net1 --ip 10.89.0.77 --mac-address {mac}"),
    );
    assert_eq!(podman.addresses("a", "net1"), [ip("10.89.0.77")]);
    let eth0 = podman.inside("a").link("eth0").expect("eth0");
    assert_eq!(eth0["address"], mac);
    assert_eq!(podman.inside("a").addresses("eth0"), ["10.89.0.77/24"]);
    podman
        .machine
        .http(ip("10.89.0.77"), 80)
        .expect("an answer");

    let before = podman.machine.observe();
    let taken = podman.call(&format!(
        "run --rm --network net1 --ip 10.89.0.77 {IMAGE} true"
    ));
    assert!(!taken.ok(), "an address is given once: {taken}");
    let changed = podman.machine.observe().since(&before);
    assert!(changed.is_empty(), "the refused container left:\n{changed}");
    podman.remove(&["a"], &["net1"]);
}

fn connecting_and_disconnecting_a_running_container(lab: &Lab) {
    let podman = Podman::new(lab);
    podman.run("network create --subnet 10.89.0.0/24 net1");
    podman.run("network create --subnet 10.90.0.0/24 net2");
    podman.serve("a", "--network net1");
    podman.serve("b", "--network net2");
    podman.run("network connect net2 a");
    let second = podman.addresses("a", "net2")[0];
    assert_eq!(
        podman.inside("a").addresses("eth1"),
        [format!("{second}/24")]
    );
    let seen = podman
        .wget("b", SocketAddr::new(second, 80))
        .expect("a answers on net2");
    assert_eq!(seen, podman.addresses("b", "net2")[0]);

    podman.run("network disconnect net2 a");
    assert!(podman.inside("a").link("eth1").is_none(), "eth1 is gone");
    assert!(
        podman.machine.http(second, 80).is_err(),
        "its address doesn't answer"
    );
    let first = podman.addresses("a", "net1")[0];
    podman.machine.http(first, 80).expect("net1 still works");
    podman.remove(&["a", "b"], &["net1", "net2"]);
}

fn stopping_and_starting(lab: &Lab) {
    let mut podman = Podman::new(lab);
    let outside = podman.outside();
    podman.run("network create --subnet 10.89.0.0/24 net1");
    podman.serve("a", "--network net1 --publish 18080:80");
    let created = podman.machine.observe();
    for round in 0..2 {
        outside
            .http(ip(MACHINE[0]), 18080)
            .expect("an answer while it runs");
        podman.run("stop --time 0 a");
        assert!(
            outside.http(ip(MACHINE[0]), 18080).is_err(),
            "none when it is stopped"
        );
        let held = podman.machine.observe();
        let held = held.mentioning("/var/lib/cni/networks/net1/10.89.");
        assert!(
            held.is_empty(),
            "a stopped container holds an address: {held:?}"
        );
        podman.run(if round == 0 {
            "start a"
        } else {
            "restart --time 0 a"
        });
        podman.await_server("a");
    }
    outside
        .http(ip(MACHINE[0]), 18080)
        .expect("an answer after the restart");
    let now = podman.machine.observe();
    let links = |snapshot: &Snapshot| {
        snapshot
            .lines()
            .filter(|it| it.starts_with("link "))
            .count()
    };
    assert_eq!(
        links(&now),
        links(&created),
        "as many interfaces as at first"
    );
    podman.remove(&["a"], &["net1"]);
}

fn reloading_the_network_brings_lost_rules_back(lab: &Lab) {
    let mut podman = Podman::new(lab);
    let outside = podman.outside();
    podman.run("network create --subnet 10.89.0.0/24 net1");
    podman.serve("a", "--network net1 --publish 18080:80");
    let address = podman.addresses("a", "net1");
    // What restarting a machine's firewall does to everybody's rules.
    podman.machine.sh("nft flush ruleset");
    assert!(
        outside.http(ip(MACHINE[0]), 18080).is_err(),
        "the port is lost"
    );
    podman.run("network reload a");
    outside
        .http(ip(MACHINE[0]), 18080)
        .expect("an answer after the reload");
    assert_eq!(podman.addresses("a", "net1"), address, "the address stays");
    podman.remove(&["a"], &["net1"]);
}

fn networks_that_isolate_are_apart(lab: &Lab) {
    let podman = Podman::new(lab);
    podman.run("network create --opt isolate=true --subnet 10.89.0.0/24 net1");
    podman.run("network create --opt isolate=true --subnet 10.90.0.0/24 net2");
    podman.serve("a", "--network net1");
    podman.serve("b", "--network net1");
    podman.serve("c", "--network net2");
    let of = |name, network| podman.addresses(name, network)[0];
    let near = podman.inside("a").http(of("b", "net1"), 80);
    near.expect("the same network's containers talk");
    let far = podman.inside("a").http(of("c", "net2"), 80);
    assert!(far.is_err(), "the other network's don't");
    podman.remove(&["a", "b", "c"], &["net1", "net2"]);
}

fn four_containers_at_once(lab: &Lab) {
    let podman = Podman::new(lab);
    podman.run("network create --subnet 10.89.0.0/24 net1");
    let names = ["a", "b", "c", "d"];
    thread::scope(|scope| {
        for name in names {
            let podman = &podman;
            scope.spawn(move || podman.serve(name, "--network net1"));
        }
    });
    let mut addresses: Vec<IpAddr> = names.map(|name| podman.addresses(name, "net1")[0]).to_vec();
    for (name, address) in names.iter().zip(addresses.clone()) {
        podman
            .machine
            .http(address, 80)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 4, "every address once");
    podman.remove(&names, &["net1"]);
}
