//! Pairs of attachments whose names differ in the last byte, at every length where something is cut or hashed, through
//! every plugin and verb: what is done to one is not done to the other.

use conformance::{Call, Case, Host, Lab, Need, Pod, Snapshot, host_local, with, with_prev_result};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    let case = |chain: &'static Chain| {
        let name = format!(
            "names::that_differ_in_the_last_byte_are_two_to_{}",
            chain.name
        );
        let case = Case::new(name, move |lab| tell_apart(lab, chain)).ours();
        chain
            .kernel
            .iter()
            .fold(case, |case, kind| case.needs(Need::LinkKind(kind)))
    };
    CHAINS.iter().map(case).collect()
}

/// A list of plugins, and what the kernel must have for it.
struct Chain {
    name: &'static str,
    plugins: &'static [&'static str],
    kernel: &'static [&'static str],
}

const fn chain(name: &'static str, plugins: &'static [&'static str]) -> Chain {
    Chain {
        name,
        plugins,
        kernel: &[],
    }
}

const fn on(kernel: &'static [&'static str], chain: Chain) -> Chain {
    Chain { kernel, ..chain }
}

const CHAINS: [Chain; 12] = [
    chain(
        "bridge_portmap_and_firewall",
        &["bridge", "portmap", "firewall"],
    ),
    chain("ptp_and_bandwidth", &["ptp", "bandwidth"]),
    chain("bridge_and_bandwidth", &["bridge", "bandwidth"]),
    chain("macvlan", &["macvlan"]),
    chain("macvlan_and_sbr", &["macvlan", "sbr"]),
    chain("macvlan_and_tuning", &["macvlan", "tuning"]),
    chain("tap_and_tuning", &["tap", "tuning"]),
    chain("host_device", &["host-device"]),
    on(&["ipvlan"], chain("ipvlan", &["ipvlan"])),
    on(&["vlan"], chain("vlan", &["vlan"])),
    on(&["dummy"], chain("dummy", &["dummy"])),
    on(&["vrf"], chain("macvlan_and_vrf", &["macvlan", "vrf"])),
];

/// Lengths in bytes of names and IDs up to the longest, on both sides of what comments, aliases and files hold.
const LENGTHS: [usize; 8] = [1, 99, 100, 101, 109, 110, 128, 240];

/// Lengths of names of interfaces.
const INTERFACES: [usize; 3] = [5, 14, 15];

/// Which name is the one that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Network,
    Container,
    Interface,
}

/// One of a pair.
struct Attachment<'p> {
    pod: &'p Pod,
    call: Call,
    plugins: Vec<Value>,
    result: Value,
}

fn tell_apart(lab: &Lab, chain: &Chain) {
    let host = Host::new();
    let outside = host.pod("outside");
    host.cable("up0", &outside, "eth0");
    for device in ["device0", "device1"] {
        host.ip(&format!(
            "link add {device} type veth peer name {device}-end"
        ));
    }
    let pods = ["one", "other"].map(|name| host.pod(name));
    let before = host.observe();
    let of_names = [Part::Network, Part::Container].map(|part| (part, &LENGTHS[..]));
    for (part, lengths) in of_names
        .into_iter()
        .chain([(Part::Interface, &INTERFACES[..])])
    {
        // Two interfaces of one container can't both have the route to ptp's gateway.
        if part == Part::Interface && chain.plugins[0] == "ptp" {
            continue;
        }
        for &length in lengths {
            eprintln!("{}: {part:?} of {length} bytes", chain.name);
            let pair = Pair {
                lab,
                host: &host,
                before: &before,
                network: part == Part::Network,
            };
            let ends = ["a", "b"].map(|last| format!("{}{last}", "n".repeat(length - 1)));
            let attachment = |side: usize| attachment(chain, part, &ends[side], side, &pods);
            pair.go_through([attachment(0), attachment(1)]);
        }
    }
}

fn attachment<'p>(
    chain: &Chain,
    part: Part,
    name: &str,
    side: usize,
    pods: &'p [Pod; 2],
) -> Attachment<'p> {
    let named = |which: Part, otherwise: &str| match which == part {
        true => name.to_owned(),
        false => otherwise.to_owned(),
    };
    // The interfaces of one container are in one namespace.
    let pod = &pods[if part == Part::Interface { 0 } else { side }];
    let network = usize::from(part == Part::Network && side == 1);
    let plugins = chain.plugins.iter();
    Attachment {
        pod,
        call: Call::named(&named(Part::Container, "container"), Some(&pod.netns()))
            .ifname(&named(Part::Interface, "eth0")),
        plugins: plugins
            .map(|plugin| conf(plugin, &named(Part::Network, "network"), network, side))
            .collect(),
        result: Value::Null,
    }
}

/// The configuration of a plugin for a side of the pair on a network of that number.
fn conf(plugin: &str, name: &str, network: usize, side: usize) -> Value {
    let (v4, v6) = (
        format!("10.{}.0.0/24", network + 1),
        format!("fd00:{}::/64", network + 1),
    );
    let ipam = json!({"ipam": host_local(&[&v4, &v6])});
    let more = match plugin {
        "bridge" => with(
            ipam,
            json!({"bridge": format!("br{network}"), "isDefaultGateway": true, "ipMasq": true}),
        ),
        "ptp" => with(ipam, json!({"ipMasq": true})),
        "macvlan" | "ipvlan" => with(ipam, json!({"master": "up0"})),
        "vlan" => with(ipam, json!({"master": "up0", "vlanId": 100 + side})),
        "host-device" => with(ipam, json!({"device": format!("device{side}")})),
        "dummy" | "tap" => ipam,
        "bandwidth" => json!({"ingressRate": 100_000_000, "ingressBurst": 2_000_000,
            "egressRate": 50_000_000, "egressBurst": 2_000_000}),
        "portmap" => {
            let mappings =
                json!([{"hostPort": 8000 + side, "containerPort": 80, "protocol": "tcp"}]);
            json!({"runtimeConfig": {"portMappings": mappings}})
        }
        "tuning" => json!({"mtu": 1400, "allmulti": true}),
        "vrf" => json!({"vrfname": format!("blue{side}")}),
        _ => json!({}),
    };
    with(
        json!({"cniVersion": "1.1.0", "name": name, "type": plugin}),
        more,
    )
}

/// What a pair is attached to.
struct Pair<'s> {
    lab: &'s Lab,
    host: &'s Host,
    before: &'s Snapshot,
    /// Whether they have networks of their own.
    network: bool,
}

impl Pair<'_> {
    fn go_through(&self, [mut one, mut other]: [Attachment<'_>; 2]) {
        self.add(&mut one);
        self.add(&mut other);
        let (one_inside, other_inside) = (inside(&one), inside(&other));
        self.check(&one);
        self.check(&other);
        // DEL with and without the namespace, twice; then again from the start.
        for netns in [true, false] {
            self.del(&one, netns);
            self.assert_unharmed(&other, &other_inside, &one);
            self.del(&one, true);
            self.assert_unharmed(&other, &other_inside, &one);
            self.add(&mut one);
            self.check(&one);
            self.assert_unharmed(&other, &other_inside, &one);
        }
        // GC takes what is of those that it isn't told of.
        self.gc(&one, &[]);
        if self.network {
            self.assert_unharmed(&other, &other_inside, &one);
        }
        self.del(&one, true);
        self.add(&mut one);
        let valid = [&one, &other];
        self.gc(&one, &valid[..if self.network { 1 } else { 2 }]);
        self.check(&one);
        if one.pod.name != other.pod.name {
            assert_eq!(inside(&one).len(), one_inside.len());
        }
        if self.network {
            self.assert_unharmed(&other, &other_inside, &one);
        }
        for attachment in [&one, &other] {
            self.del(attachment, true);
        }
        self.host.assert_nothing_left(self.before, &[]);
    }

    fn add(&self, attachment: &mut Attachment<'_>) {
        attachment.result = Value::Null;
        for conf in &attachment.plugins {
            let conf = match attachment.result.is_null() {
                true => conf.clone(),
                false => with_prev_result(conf, &attachment.result),
            };
            let output = self.plugin(&conf).call("ADD", &conf, &attachment.call);
            attachment.result = output.succeeded().json();
        }
    }

    fn check(&self, attachment: &Attachment<'_>) {
        for conf in &attachment.plugins {
            self.plugin(conf)
                .check(conf, &attachment.result, &attachment.call)
                .succeeded();
        }
    }

    fn del(&self, attachment: &Attachment<'_>, netns: bool) {
        let mut call = attachment.call.clone();
        if !netns {
            call.netns = None;
        }
        for conf in attachment.plugins.iter().rev() {
            let conf = with_prev_result(conf, &attachment.result);
            self.plugin(&conf).call("DEL", &conf, &call).succeeded();
        }
    }

    fn gc(&self, of: &Attachment<'_>, valid: &[&Attachment<'_>]) {
        let id = |attachment: &&Attachment<'_>| json!({"containerID": attachment.call.container, "ifname": attachment.call.ifname});
        let valid: Vec<Value> = valid.iter().map(id).collect();
        for conf in &of.plugins {
            let conf = with(conf.clone(), json!({"cni.dev/valid-attachments": valid}));
            self.plugin(&conf)
                .call("GC", &conf, &Call::default())
                .succeeded();
        }
    }

    fn plugin(&self, conf: &Value) -> conformance::Plugin<'_> {
        let program = conf["type"].as_str().expect("a type");
        self.lab.plugin(self.host, program)
    }

    /// Whether everything of an attachment is as it was. Where another one is in the same namespace only CHECK can tell.
    fn assert_unharmed(&self, of: &Attachment<'_>, was: &[String], beside: &Attachment<'_>) {
        self.check(of);
        if of.pod.name != beside.pod.name {
            assert_eq!(inside(of), was);
        }
    }
}

/// What the container of an attachment looks like from inside.
fn inside(attachment: &Attachment<'_>) -> Vec<String> {
    let snapshot = Snapshot::of(attachment.pod);
    let lines = snapshot.lines().filter(|line| !line.starts_with("file "));
    lines.map(str::to_owned).collect()
}
