//! A cluster without Kubernetes: three nodes whose pods reach each other by the routes that BIRD carries between them, set up
//! by `dist/bird/bird.conf`.

use std::net::IpAddr;
use std::path::Path;
use std::process::Child;
use std::thread;

use conformance::{Call, Case, Host, Lab, Machine, Need, Pod, Protocol, case, workspace};
use serde_json::{Value, json};

use crate::{eventually, with_plugins};

pub(crate) fn cases() -> Vec<Case> {
    let case = case!(pods_of_three_nodes_talk_by_birds_routes);
    let case = case.needs(Need::Bird).needs(Need::Plugin("bridge"));
    vec![with_plugins(case, &["host-local", "portmap", "firewall"])]
}

const LOG: &str = "/run/e2e/bird.log";

/// A node with its number on the nodes' network and in the pools.
struct Node {
    number: usize,
    machine: Machine,
    bird: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.machine.inside().read(LOG).unwrap_or_default();
            eprintln!("BIRD of node {} says:\n{log}", self.number);
        }
        // It ends with the machine; this only collects the child.
        if let Some(mut bird) = self.bird.take() {
            let _ = bird.kill();
            let _ = bird.wait();
        }
    }
}

impl Node {
    /// A machine that forwards, with its addresses on the nodes' network.
    fn on(lan: &Host, lab: &Lab, number: usize) -> Self {
        let machine = Machine::start(&lab.bird());
        let port = format!("port{number}");
        machine.cable("eth0", lan, &port);
        lan.ip(&format!("link set {port} master lan"));
        machine.ip(&format!("addr add 192.0.2.1{number}/24 dev eth0"));
        machine.ip(&format!("addr add 2001:db8::1{number}/64 dev eth0 nodad"));
        machine.set_sysctl("net.ipv4.ip_forward", "1");
        machine.set_sysctl("net.ipv6.conf.all.forwarding", "1");
        Self {
            number,
            machine,
            bird: None,
        }
    }

    /// The sample as this node's administrator edits it. Hellos are quicker, to have the test quicker.
    fn start_bird(&mut self) {
        let sample = workspace().join("dist/bird/bird.conf");
        let sample = std::fs::read_to_string(sample).expect("read the sample");
        let number = self.number;
        let edits = [
            (
                "router id 192.0.2.11;",
                format!("router id 192.0.2.1{number};"),
            ),
            ("10.244.1.0/24", format!("10.244.{number}.0/24")),
            ("fd00:244:1::/64", format!("fd00:244:{number}::/64")),
            ("hello 5; dead 20;", "hello 1; dead 4;".to_owned()),
        ];
        let edited = edits.iter().fold(sample, |text, (from, to)| {
            assert!(text.contains(from), "{from:?} stands in the sample");
            text.replace(from, to)
        });
        let inside = self.machine.inside();
        inside.write("/run/e2e/bird.conf", edited);
        let args = ["-f", "-c", "/run/e2e/bird.conf", "-s", "/run/e2e/bird.ctl"];
        let bird = Path::new("/usr/sbin/bird");
        self.bird = Some(self.machine.spawn(bird, &args, &[], LOG));
    }

    /// As a crash ends it: what it has told the kernel stays.
    fn kill_bird(&mut self) {
        let bird = self.bird.take().expect("BIRD runs");
        self.machine.kill(bird, LOG);
    }

    /// Where this node sends what is for that node's pods, of each family.
    fn ways_to(&self, number: usize) -> [Option<String>; 2] {
        let pools = [
            format!("-4 -j route show 10.244.{number}.0/24"),
            format!("-6 -j route show fd00:244:{number}::/64"),
        ];
        pools.map(|show| {
            let routes = self.machine.ip_json(&show);
            let way = |key| routes[0][key].as_str().map(str::to_owned);
            way("gateway")
                .or_else(|| way("type"))
                .or_else(|| way("dev"))
        })
    }

    fn knows_the_way_to(&self, other: &Self) -> bool {
        let [v4, v6] = self.ways_to(other.number);
        let by_address = v4 == Some(format!("192.0.2.1{}", other.number));
        // By the link-local address of the other's interface.
        by_address && v6.is_some_and(|way| way.starts_with("fe80:"))
    }

    fn attach(&self, lab: &Lab) -> Pod {
        let pod = self.machine.pod("pod");
        let plugin = lab.plugin(&self.machine, "bridge");
        plugin.add(&list(self.number), &Call::of(&pod));
        pod
    }

    fn detach(&self, lab: &Lab, pod: &Pod) {
        let plugin = lab.plugin(&self.machine, "bridge");
        plugin.del(&list(self.number), &Call::of(pod));
    }
}

/// What the page on operations says of the list: this node's pools, and no masquerading between pods.
fn list(number: usize) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "podnet", "type": "bridge", "bridge": "cni0",
        "isDefaultGateway": true, "hairpinMode": true,
        "ipMasq": true, "nonMasqueradeCIDRs": ["10.244.0.0/16", "fd00:244::/32"],
        "ipam": {"type": "host-local", "ranges": [
            [{"subnet": format!("10.244.{number}.0/24")}],
            [{"subnet": format!("fd00:244:{number}::/64")}],
        ]}
    })
}

/// The addresses of a pod's interface.
fn of(pod: &Pod) -> Vec<IpAddr> {
    let prefixes = pod.addresses("eth0");
    let address = |prefix: &String| prefix.split('/').next()?.parse().ok();
    prefixes.iter().filter_map(address).collect()
}

/// Each asks the other, which sees the asking pod's own address, in both families.
#[track_caller]
fn assert_talk(one: &Pod, other: &Pod) {
    for (from, to) in [(one, other), (other, one)] {
        let pairs: Vec<_> = of(from).into_iter().zip(of(to)).collect();
        assert_eq!(pairs.len(), 2, "both families: {pairs:?}");
        for (from_address, to_address) in pairs {
            let server = to.serve(Protocol::Tcp, to_address, 80);
            let seen = from.ask(Protocol::Tcp, server.address);
            assert_eq!(seen.expect("an answer"), from_address, "no translation");
        }
    }
}

fn pods_of_three_nodes_talk_by_birds_routes(lab: &Lab) {
    let lan = Host::new();
    lan.ip("link add lan type bridge mcast_snooping 0");
    lan.ip("link set lan up");
    let mut nodes = [1, 2, 3].map(|number| Node::on(&lan, lab, number));
    nodes.iter_mut().for_each(Node::start_bird);
    let everybody = |nodes: &[Node]| {
        let to_all = |node: &Node| {
            let mut others = nodes.iter().filter(|other| other.number != node.number);
            others.all(|other| node.knows_the_way_to(other))
        };
        // Neighbours wait for each other's hellos, elect who speaks for the network, and then exchange what they know.
        (0..3).any(|_| eventually(|| nodes.iter().all(to_all)))
    };
    // Before there is any bridge: the pools are announced from the start.
    assert!(
        everybody(&nodes),
        "ways: {:?}",
        nodes[0]
            .machine
            .sh("ip route; ip -6 route; ip -6 addr show dev eth0")
    );
    let own = nodes[0].ways_to(1).map(|way| way.unwrap_or_default());
    assert_eq!(
        own, ["unreachable"; 2],
        "no default route takes what is for no pod"
    );

    let pods = [0, 1, 2].map(|index| nodes[index].attach(lab));
    assert_talk(&pods[0], &pods[1]);
    assert_talk(&pods[0], &pods[2]);

    // A node that fails is forgotten by the others, who go on.
    nodes[2].kill_bird();
    let forgotten = || {
        nodes[..2]
            .iter()
            .all(|node| node.ways_to(3) == [None, None])
    };
    assert!(eventually(forgotten), "ways: {:?}", nodes[0].ways_to(3));
    // Where it was the one that speaks for the network, they have to agree on another.
    assert!(everybody(&nodes[..2]), "ways: {:?}", nodes[0].ways_to(2));
    assert_talk(&pods[0], &pods[1]);
    nodes[2].start_bird();
    assert!(everybody(&nodes), "back again: {:?}", nodes[0].ways_to(3));
    assert_talk(&pods[1], &pods[2]);
    for (node, pod) in nodes.iter().zip(&pods) {
        node.detach(lab, pod);
    }
}
