//! Pods of a real containerd, asked for over the CRI as a kubelet does, for each release of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use conformance::{Case, Containerd, Host, Protocol, Subject};
use serde_json::{Value, json};

use crate::image::Http;
use crate::node::{Node, Pod};
use crate::runtime::{Runtime, Scenario, scenario};
use crate::{MACHINE, OUTSIDE, eventually, ip};

/// Protocols as the CRI numbers them.
pub(crate) const TCP: i32 = 0;
const UDP: i32 = 1;

const SCENARIOS: [Scenario; 12] = [
    scenario!(a_pod_gets_our_address_and_serves),
    scenario!(pods_talk_over_both_families),
    scenario!(pods_talk_over_point_to_point_links, "ptp"),
    scenario!(host_ports_are_reached_from_everywhere, "portmap"),
    scenario!(
        the_usual_chain_of_plugins_works,
        "portmap",
        "firewall",
        "tuning"
    ),
    scenario!(stopping_twice_succeeds),
    scenario!(stopping_succeeds_after_the_netns_vanished),
    scenario!(pods_survive_a_crash_of_containerd),
    scenario!(host_ports_survive_a_crash_of_containerd, "portmap"),
    scenario!(eight_pods_at_once),
    scenario!(addresses_come_back_when_pods_are_removed),
    scenario!(a_pod_that_gets_no_address_leaves_nothing),
];

pub(crate) fn cases() -> Vec<Case> {
    let of = |release| SCENARIOS.map(|scenario| scenario.with(release));
    Containerd::ALL.into_iter().flat_map(of).collect()
}

/// A bridge network's plugins: the bridge with these subnets, and more after it.
pub(crate) fn bridge(subnets: &[&str], more: &[Value]) -> Vec<Value> {
    let ranges: Vec<Value> = subnets
        .iter()
        .map(|subnet| json!([{"subnet": subnet}]))
        .collect();
    let default = |subnet: &&str| match subnet.contains(':') {
        true => json!({"dst": "::/0"}),
        false => json!({"dst": "0.0.0.0/0"}),
    };
    let routes: Vec<Value> = subnets.iter().map(default).collect();
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}
    });
    let mut plugins = vec![bridge];
    plugins.extend_from_slice(more);
    plugins
}

pub(crate) fn portmap() -> Value {
    json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}})
}

/// A host on a network with the node, which is seen as part of the node from now on.
pub(crate) fn outside(node: &mut Node) -> Host {
    let (outside, before) = crate::outside(&node.machine);
    node.before = before;
    outside
}

/// An address with a port, as it stands in a URL.
pub(crate) fn url(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

fn a_pod_gets_our_address_and_serves(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/24"], &[]));
    let pod = node.run_pod("a");
    let [address] = pod.addresses[..] else {
        panic!("one address: {pod:?}")
    };
    assert_eq!(
        node.inside(&pod).addresses("eth0"),
        [format!("{address}/24")]
    );
    let stored = node
        .machine
        .read(&format!("/var/lib/cni/networks/net/{address}"));
    assert_eq!(stored, Some(format!("{}\r\neth0", pod.id)));

    let server = node.run_server(&pod);
    let seen = node
        .machine
        .http(address, 80)
        .expect("an answer to the node");
    assert_eq!(
        seen,
        ip("10.88.0.1"),
        "the node asks from the bridge's address"
    );
    let seen = node
        .wget(&server, &url(address, 80))
        .expect("an answer to itself");
    assert_eq!(seen, address);
    node.remove(&[pod]);
}

fn pods_talk_over_both_families(runtime: &Runtime) {
    pods_talk(runtime, &bridge(&["10.88.0.0/24", "fd00:88::/64"], &[]));
}

fn pods_talk_over_point_to_point_links(runtime: &Runtime) {
    let mut plugins = bridge(&["10.88.0.0/24", "fd00:88::/64"], &[]);
    plugins[0]["type"] = "ptp".into();
    pods_talk(runtime, &plugins);
}

fn pods_talk(runtime: &Runtime, plugins: &[Value]) {
    pods_talk_on(&mut runtime.start(plugins));
}

/// Two pods reach each other as themselves, and what is outside as the node, in both families; nothing is left after.
pub(crate) fn pods_talk_on(node: &mut Node) {
    let outside = outside(node);
    let pods = [node.run_pod("a"), node.run_pod("b")];
    let servers = [node.run_server(&pods[0]), node.run_server(&pods[1])];
    for (family, (from, to)) in pods[0].addresses.iter().zip(&pods[1].addresses).enumerate() {
        let seen = node.wget(&servers[0], &url(*to, 80)).expect("b answers a");
        assert_eq!(seen, *from);
        let seen = node
            .wget(&servers[1], &url(*from, 80))
            .expect("a answers b");
        assert_eq!(seen, *to);
        // A pod goes out with the node's address.
        let server = outside.serve(Protocol::Tcp, ip(OUTSIDE[family]), 80);
        let seen = node.inside(&pods[0]).ask(Protocol::Tcp, server.address);
        assert_eq!(seen.expect("an answer from outside"), ip(MACHINE[family]));
    }
    let addresses = &pods[0].addresses;
    assert_eq!(addresses.len(), 2, "one of each family: {addresses:?}");
    node.remove(&pods);
}

fn host_ports_are_reached_from_everywhere(runtime: &Runtime) {
    let mut node = runtime.start(&bridge(&["10.88.0.0/24", "fd00:88::/64"], &[portmap()]));
    let outside = outside(&mut node);
    let ports = [(TCP, 18080), (TCP, 18081), (UDP, 18080)];
    let pods = [node.run_pod_with_ports("a", &ports), node.run_pod("b")];
    let servers = pods.each_ref().map(|pod| node.run_server(pod));

    for family in 0..2 {
        let address = ip(MACHINE[family]);
        let seen = outside
            .http(address, 18080)
            .expect("an answer to the outside");
        assert_eq!(seen, ip(OUTSIDE[family]), "with its own address");
        outside
            .http(address, 18081)
            .expect("an answer on the second port");
        node.machine
            .http(address, 18080)
            .expect("an answer to the node itself");
        node.wget(&servers[1], &url(address, 18080))
            .expect("an answer to the other pod");
        node.wget(&servers[0], &url(address, 18080))
            .expect("an answer to the pod itself");
        let udp = node
            .inside(&pods[0])
            .serve(Protocol::Udp, pods[0].addresses[family], 80);
        let seen = outside.ask(Protocol::Udp, SocketAddr::new(address, 18080));
        assert_eq!(seen.expect("a datagram's answer"), ip(OUTSIDE[family]));
        drop(udp);
    }
    node.machine
        .http(ip("127.0.0.1"), 18080)
        .expect("an answer on the node's loopback address");

    node.stop_pod(&pods[0]);
    assert!(
        outside.http(ip(MACHINE[0]), 18080).is_err(),
        "nobody answers for a stopped pod"
    );
    assert!(
        node.machine.http(ip("127.0.0.1"), 18080).is_err(),
        "nor on the node itself"
    );
    node.remove(&pods);
}

fn the_usual_chain_of_plugins_works(runtime: &Runtime) {
    let tuning =
        json!({"type": "tuning", "sysctl": {"net.ipv4.ip_local_port_range": "20000 30000"}});
    let chain = [portmap(), json!({"type": "firewall"}), tuning];
    let mut node = runtime.start(&bridge(&["10.88.0.0/24"], &chain));
    let outside = outside(&mut node);
    let pods = [
        node.run_pod_with_ports("a", &[(TCP, 18080)]),
        node.run_pod("b"),
    ];
    let servers = pods.each_ref().map(|pod| node.run_server(pod));

    let range = node.inside(&pods[0]).sysctl("net.ipv4.ip_local_port_range");
    assert_eq!(
        range.split_whitespace().collect::<Vec<_>>(),
        ["20000", "30000"]
    );
    node.wget(&servers[1], &url(pods[0].addresses[0], 80))
        .expect("an answer to the other pod");
    outside
        .http(ip(MACHINE[0]), 18080)
        .expect("an answer to the outside");
    node.remove(&pods);
}

fn stopping_twice_succeeds(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/24"], &[]));
    let pod = node.run_pod("a");
    node.run_server(&pod);
    node.stop_pod(&pod);
    assert!(
        node.machine.http(pod.addresses[0], 80).is_err(),
        "a stopped pod doesn't answer"
    );
    node.stop_pod(&pod);
    node.remove(&[pod]);
}

fn stopping_succeeds_after_the_netns_vanished(runtime: &Runtime) {
    let mut plugins = bridge(&["10.88.0.0/24"], &[]);
    if runtime.lab.subject == Subject::Go {
        // The Go plugin then forgets the rules of its masquerade.
        plugins[0]["ipMasq"] = false.into();
    }
    let node = runtime.start(&plugins);
    let (a, b) = (node.run_pod("a"), node.run_pod("b"));
    node.sh(&format!("umount {0} && rm {0}", a.netns));
    node.stop_pod(&a);
    // As after a reboot, but for the state in files: no containerd, no containers, no namespace.
    node.kill_containerd();
    node.sh("kill -9 -1 || true");
    node.sh(&format!("umount {0} && rm {0}", b.netns));
    node.start_containerd();
    node.remove(&[a, b]);
}

fn pods_survive_a_crash_of_containerd(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/24"], &[]));
    let a = node.run_pod("a");
    let server = node.run_server(&a);
    node.kill_containerd();
    let seen = node.machine.http(a.addresses[0], 80);
    seen.expect("a pod answers without containerd");
    node.start_containerd();
    assert_eq!(node.ready_addresses(&a), a.addresses);
    let b = node.run_pod("b");
    node.run_server(&b);
    let seen = node
        .wget(&server, &url(b.addresses[0], 80))
        .expect("a new pod answers the old");
    assert_eq!(seen, a.addresses[0]);
    node.remove(&[a, b]);
}

fn host_ports_survive_a_crash_of_containerd(runtime: &Runtime) {
    let mut node = runtime.start(&bridge(&["10.88.0.0/24"], &[portmap()]));
    let outside = outside(&mut node);
    let pod = node.run_pod_with_ports("a", &[(TCP, 18080)]);
    node.run_server(&pod);
    node.kill_containerd();
    outside
        .http(ip(MACHINE[0]), 18080)
        .expect("an answer without containerd");
    node.start_containerd();
    node.stop_pod(&pod);
    assert!(
        outside.http(ip(MACHINE[0]), 18080).is_err(),
        "nobody answers for a stopped pod"
    );
    node.remove(&[pod]);
}

fn eight_pods_at_once(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/24", "fd00:88::/64"], &[]));
    let pods = at_once(8, |number| node.run_pod(&format!("pod{number}")));
    let addresses: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
    assert_eq!(addresses.len(), 16, "every address once: {pods:?}");
    for (pod, next) in pods.iter().zip(pods.iter().cycle().skip(1)) {
        for (from, to) in pod.addresses.iter().zip(&next.addresses) {
            let server = node.inside(next).serve(Protocol::Tcp, *to, 80);
            let seen = node.inside(pod).ask(Protocol::Tcp, server.address);
            assert_eq!(seen.expect("the next pod's answer"), *from);
        }
    }
    at_once(8, |number| node.stop_pod(&pods[number]));
    node.remove(&pods);
}

/// Do something so many times at the same time.
pub(crate) fn at_once<R: Send>(times: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..times)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread's work"))
            .collect()
    })
}

/// The subnet has room for five pods, so one that is removed without its address would be missed soon.
fn addresses_come_back_when_pods_are_removed(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/29"], &[]));
    let stays = node.run_pod("stays");
    node.run_server(&stays);
    let mut gone = Vec::new();
    for round in 0..8 {
        let pod = node.run_pod(&format!("round{round}"));
        let seen = node.inside(&pod).http(stays.addresses[0], 80);
        assert_eq!(seen.expect("an answer"), pod.addresses[0]);
        node.stop_pod(&pod);
        node.remove_pod(&pod);
        gone.push(pod);
    }
    node.remove(&[stays]);
    node.assert_nothing_left(&gone);
}

fn a_pod_that_gets_no_address_leaves_nothing(runtime: &Runtime) {
    let node = runtime.start(&bridge(&["10.88.0.0/30"], &[]));
    let first = node.run_pod("first");
    let state = |node: &Node| node.machine.observe().since(&node.before);
    let before = state(&node);
    let refused = node
        .try_run_pod("second")
        .expect_err("there is one address only");
    assert!(refused.contains("network"), "a reason: {refused}");
    // containerd takes the namespace of a failed pod away a moment later.
    assert!(
        eventually(|| state(&node) == before),
        "{before}\nbecame\n{}",
        state(&node)
    );
    let again: Pod = {
        node.stop_pod(&first);
        node.run_pod("third")
    };
    assert_eq!(again.addresses, first.addresses);
    node.remove(&[first, again]);
}
