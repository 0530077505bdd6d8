//! Containers on a machine that a real firewalld guards: it drops what it is not told of, and forwarding first.

use std::net::IpAddr;
use std::path::Path;

use conformance::{
    Call, Case, Host, Lab, Need, Plugin, Pod, Program, Protocol, addresses, bridge, case,
    host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::guarded::Guarded;
use crate::{MACHINE, OUTSIDE, ip, with_plugins};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        case!(an_attached_container_gets_through),
        case!(who_is_not_let_through_is_told).ours(),
        case!(the_commands_that_status_names_let_a_cluster_in).ours(),
        case!(gc_closes_the_way_of_what_is_not_valid).ours(),
        case!(check_notices_a_reload_and_the_next_add_repairs_it).ours(),
        case!(del_finds_the_sources_without_our_own_tables).ours(),
        case!(a_source_in_another_zone_is_a_conflict).ours(),
        case!(a_firewalld_that_stops_is_no_obstacle).ours(),
        case!(one_of_another_network_namespace_is_left_alone).ours(),
        case!(podmans_network_works).needs(Need::Cnitool).ours(),
        case!(repair_puts_back_what_a_reload_forgot)
            .needs(Need::Cnitool)
            .ours(),
        case!(the_go_plugin_and_trestle_share_the_sources)
            .needs(Need::GoPlugins)
            .ours(),
    ];
    let plugins = [
        "bridge",
        "ptp",
        "host-local",
        "portmap",
        "firewall",
        "tuning",
    ];
    let needing = |case: Case| with_plugins(case.needs(Need::Firewalld), &plugins);
    cases.map(needing).into()
}

/// bridge and firewall, called one after the other as a runtime does.
struct Chain<'h> {
    bridge: Plugin<'h>,
    firewall: Plugin<'h>,
    network: Value,
    /// What the configuration of firewall has beside its type.
    more: Value,
}

impl<'h> Chain<'h> {
    fn new(lab: &Lab, host: &'h Host, more: Value) -> Self {
        let ipam = with(
            host_local(&["10.1.0.0/24", "fd00:1::/64"]),
            json!({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}),
        );
        Self {
            bridge: lab.plugin(host, "bridge"),
            firewall: lab.plugin(host, "firewall"),
            network: bridge(ipam),
            more,
        }
    }

    fn conf(&self, result: &Value) -> Value {
        let conf = with(self.network.clone(), json!({"type": "firewall"}));
        with_prev_result(&with(conf, self.more.clone()), result)
    }

    /// ADD of bridge alone: the configuration for firewall, and the container's addresses as sources.
    #[track_caller]
    fn connect(&self, pod: &Pod) -> (Value, Vec<String>) {
        let result = self.bridge.add(&self.network, &Call::of(pod));
        (self.conf(&result), sources(&addresses(&result)))
    }

    /// ADD of both.
    #[track_caller]
    fn add(&self, pod: &Pod) -> (Value, Vec<String>) {
        let (conf, sources) = self.connect(pod);
        let result = self.firewall.add(&conf, &Call::of(pod));
        assert_eq!(result, conf["prevResult"], "the result passes unchanged");
        (conf, sources)
    }
}

/// As firewalld shows them.
fn sources(addresses: &[IpAddr]) -> Vec<String> {
    let length = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let source = |address| format!("{address}/{}", length(address));
    let mut sources: Vec<String> = addresses.iter().map(source).collect();
    sources.sort();
    sources
}

fn an_attached_container_gets_through(lab: &Lab) {
    let guarded = Guarded::start(lab);
    for more in [
        json!({}),
        json!({"backend": "firewalld"}),
        json!({"backend": "firewalld", "firewalldZone": "work"}),
    ] {
        let zone = more["firewalldZone"].as_str().unwrap_or("trusted");
        // Of firewalld's zones, only the trusted one lets everything through.
        let open = zone == "trusted";
        let chain = Chain::new(lab, &guarded.machine, more.clone());
        let pod = guarded.machine.pod("pod");
        let (conf, sources) = chain.connect(&pod);
        guarded.assert_open(&pod, false);
        chain.firewall.add(&conf, &Call::of(&pod));
        assert_eq!(guarded.sources(zone), sources);
        guarded.assert_open(&pod, open);
        let inside: IpAddr = pod.addresses("eth0")[0]
            .split('/')
            .next()
            .map(ip)
            .expect("an address");
        let server = pod.serve(Protocol::Tcp, inside, 7000);
        assert!(
            guarded.outside.cannot_reach(Protocol::Tcp, server.address),
            "what the outside begins is firewalld's to decide"
        );
        chain
            .firewall
            .call("CHECK", &conf, &Call::of(&pod))
            .succeeded();
        for _ in 0..2 {
            chain.firewall.del(&conf, &Call::of(&pod));
            assert!(guarded.sources(zone).is_empty(), "{more}");
        }
        guarded.assert_open(&pod, false);
        chain.bridge.del(&chain.network, &Call::of(&pod));
        pod.vanish();
    }
}

fn who_is_not_let_through_is_told(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let chain = Chain::new(lab, &guarded.machine, json!({}));
    let ptp = with(
        chain.network.clone(),
        json!({"name": "pairs", "type": "ptp", "ipam": {"subnet": "10.2.0.0/24", "ranges": null}}),
    );
    let plugins = [
        (&chain.bridge, &chain.network),
        (&lab.plugin(&guarded.machine, "ptp"), &ptp),
    ];
    for (index, (plugin, network)) in plugins.into_iter().enumerate() {
        let pod = guarded.machine.pod(&format!("pod{index}"));
        let said = |verb, call: &Call| plugin.call(verb, network, call).succeeded().stderr;
        let status = said("STATUS", &Call::default());
        // Where nobody knows the list, firewall may stand behind the first container's plugin, and nothing is said.
        let first = guarded.machine.pod(&format!("first{index}"));
        assert_eq!(said("ADD", &Call::of(&first)), "");
        for text in [status, said("ADD", &Call::of(&pod))] {
            let named = ["filter_FORWARD", "plugin `firewall`"];
            assert!(named.iter().all(|word| text.contains(word)), "{text}");
        }
        guarded.assert_open(&pod, false);
        plugin.del(network, &Call::of(&pod));
        plugin.del(network, &Call::of(&first));
    }
    // A zone of the administrator's for the whole subnet does as well.
    guarded.cmd("--zone=trusted --add-source=10.1.0.0/24 --add-source=fd00:1::/64");
    for pod in ["one", "two"].map(|name| guarded.machine.pod(name)) {
        let output = chain.bridge.call("ADD", &chain.network, &Call::of(&pod));
        assert_eq!(output.succeeded().stderr, "");
        guarded.assert_open(&pod, true);
    }
}

/// The outside is the other node, with a pod of its own, and there is a stranger. A NodePort of either kind is a rule of
/// kube-proxy's.
fn the_commands_that_status_names_let_a_cluster_in(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let (machine, node) = (&guarded.machine, &guarded.outside);
    let (far, stranger) = (
        ["10.244.2.5", "fd00:244:2::5"],
        ["203.0.113.7", "2001:db8:7::7"],
    );
    for address in far.into_iter().chain(stranger) {
        node.ip(&format!("addr add {address} dev lo"));
        let via = OUTSIDE[usize::from(address.contains(':'))];
        machine.ip(&format!("route add {address} via {via}"));
    }
    let more = json!({"ingressCIDRs": ["192.0.2.0/24", "10.244.0.0/16", "2001:db8::/64", "fd00:244::/32"]});
    let chain = Chain::new(lab, machine, more);
    let pod = machine.pod("pod");
    let (conf, _) = chain.connect(&pod);
    let inside: Vec<IpAddr> = addresses(&conf["prevResult"]);
    let add = || {
        chain
            .firewall
            .call("ADD", &conf, &Call::of(&pod))
            .succeeded()
            .stderr
    };
    let status = || {
        chain
            .firewall
            .call("STATUS", &conf, &Call::default())
            .succeeded()
            .stderr
    };
    let told = status();
    assert!(add().contains(&told), "ADD says the same");
    let reached = |sources: [&str; 2]| {
        speak_as(node, sources);
        let asked = inside.iter().map(|to| {
            let server = pod.serve(Protocol::Tcp, *to, 7000);
            !node.cannot_reach(Protocol::Tcp, server.address)
        });
        asked.collect::<Vec<_>>()
    };
    assert_eq!(reached(OUTSIDE), [false; 2]);
    let commands: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("firewall-cmd "))
        .collect();
    guarded.shell(&commands);
    // The reload has taken the container out of the zone.
    assert_eq!(add(), "");
    assert_eq!(status(), "");
    for sources in [OUTSIDE, far] {
        assert_eq!(reached(sources), [true; 2], "{sources:?}");
    }
    assert_eq!(reached(stranger), [false; 2]);
    guarded.assert_open(&pod, true);
    speak_as(node, far);
    for address in MACHINE {
        let own = machine.serve(Protocol::Tcp, ip(address), 7001);
        assert!(
            node.cannot_reach(Protocol::Tcp, own.address),
            "{address}: the host's own services stay closed"
        );
    }
    speak_as(node, stranger);
    node_ports(&guarded, &pod, inside[0], far[0]);
}

/// Has what a host sends to the machine and its containers come from these addresses of its own.
fn speak_as(node: &Host, [v4, v6]: [&str; 2]) {
    let [machine4, machine6] = MACHINE;
    for route in [
        format!("{machine4} dev eth0 src {v4}"),
        format!("10.0.0.0/8 via {machine4} src {v4}"),
        format!("{machine6} dev eth0 src {v6}"),
        format!("fd00:1::/64 via {machine6} src {v6}"),
    ] {
        node.ip(&format!("route replace {route}"));
    }
}

fn node_ports(guarded: &Guarded, pod: &Pod, inside: IpAddr, far: &str) {
    let (machine, node) = (&guarded.machine, &guarded.outside);
    for command in [
        "nft add table ip ports".to_owned(),
        "nft add chain ip ports pre { type nat hook prerouting priority -100 ; }".to_owned(),
        "nft add chain ip ports post { type nat hook postrouting priority 100 ; }".to_owned(),
        format!("nft add rule ip ports pre tcp dport 30080 dnat to {inside}:7002"),
        format!("nft add rule ip ports pre tcp dport 30081 dnat to {far}:7003"),
        format!("nft add rule ip ports post ip daddr {far} tcp dport 7003 masquerade"),
    ] {
        machine.sh(&command);
    }
    let _near = pod.serve(Protocol::Tcp, inside, 7002);
    let _far = node.serve(Protocol::Tcp, ip(far), 7003);
    for port in [30080, 30081] {
        let seen = node.ask(Protocol::Tcp, (ip(MACHINE[0]), port).into());
        seen.unwrap_or_else(|error| panic!("port {port}: {error}"));
    }
}

fn gc_closes_the_way_of_what_is_not_valid(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let chain = Chain::new(lab, &guarded.machine, json!({}));
    let (kept, lost) = (guarded.machine.pod("kept"), guarded.machine.pod("lost"));
    let (conf, sources) = chain.add(&kept);
    chain.add(&lost);
    assert_eq!(guarded.sources("trusted").len(), 4);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]});
    let gc = with(with(conf, json!({"prevResult": null})), valid);
    chain.firewall.call("GC", &gc, &Call::default()).succeeded();
    assert_eq!(guarded.sources("trusted"), sources);
    guarded.assert_open(&kept, true);
    guarded.assert_open(&lost, false);
}

fn check_notices_a_reload_and_the_next_add_repairs_it(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let chain = Chain::new(lab, &guarded.machine, json!({}));
    let [old, gone, new] = ["old", "gone", "new"].map(|name| guarded.machine.pod(name));
    let (conf, mut sources) = chain.add(&old);
    let (conf_of_gone, _) = chain.add(&gone);
    guarded.cmd("--reload");
    guarded.assert_open(&old, false);
    let check = || chain.firewall.call("CHECK", &conf, &Call::of(&old));
    let error = check().error();
    assert_eq!(error["code"], 103, "{error}");
    let said = error["msg"].to_string();
    assert!(
        sources.iter().all(|source| {
            let (address, _) = source.split_once('/').expect("a prefix");
            said.contains(address)
        }) && said.contains("trusted"),
        "{error}"
    );
    // Nothing is there to be removed.
    chain.firewall.del(&conf_of_gone, &Call::of(&gone));

    let (_, more) = chain.add(&new);
    sources.extend(more);
    sources.sort();
    assert_eq!(guarded.sources("trusted"), sources);
    guarded.assert_open(&old, true);
    guarded.assert_open(&new, true);
    check().succeeded();
}

fn del_finds_the_sources_without_our_own_tables(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let chain = Chain::new(lab, &guarded.machine, json!({"backend": "firewalld"}));
    let (pod, other) = (guarded.machine.pod("pod"), guarded.machine.pod("other"));
    let (conf, of_pod) = chain.add(&pod);
    let (_, of_other) = chain.add(&other);
    guarded.machine.sh("nft delete table inet trestle");
    chain.firewall.del(&conf, &Call::of(&pod));
    assert_eq!(guarded.sources("trusted"), of_other);
    // A late second DEL leaves alone whom the address belongs to now.
    let heir = guarded.machine.pod("heir");
    let heirs = with(conf.clone(), json!({"name": "net"}));
    chain.firewall.add(&heirs, &Call::of(&heir));
    chain.firewall.del(&conf, &Call::of(&pod));
    let mut sources = [of_pod, of_other].concat();
    sources.sort();
    assert_eq!(guarded.sources("trusted"), sources);
}

fn a_source_in_another_zone_is_a_conflict(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let chain = Chain::new(lab, &guarded.machine, json!({}));
    let pod = guarded.machine.pod("pod");
    let (conf, sources) = chain.connect(&pod);
    guarded.cmd(&format!("--zone=drop --add-source={}", sources[1]));
    let error = chain.firewall.add_error(&conf, &Call::of(&pod));
    assert_eq!(error["code"], 102, "{error}");
    let said = error.to_string();
    assert!(
        said.contains(&sources[1]) && said.contains("firewalldZone"),
        "{error}"
    );
    assert!(guarded.sources("trusted").is_empty(), "nothing is left");
    assert_eq!(guarded.sources("drop"), sources[1..]);
}

fn a_firewalld_that_stops_is_no_obstacle(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let by_name = Chain::new(lab, &guarded.machine, json!({"backend": "firewalld"}));
    let chosen = Chain::new(lab, &guarded.machine, json!({}));
    let (a, b) = (guarded.machine.pod("a"), guarded.machine.pod("b"));
    let (conf, _) = by_name.add(&a);
    let status = |conf: &Value| by_name.firewall.call("STATUS", conf, &Call::default());
    status(&conf).succeeded();
    guarded.stop_firewalld();
    let error = status(&conf).error();
    assert_eq!(error["code"], 50, "{error}");
    let (conf_of_b, of_b) = by_name.connect(&b);
    let error = by_name.firewall.add_error(&conf_of_b, &Call::of(&b));
    assert!(
        error.to_string().contains("systemctl start firewalld"),
        "{error}"
    );
    by_name.firewall.del(&conf, &Call::of(&a));
    let chosen_conf = chosen.conf(&conf_of_b["prevResult"]);
    chosen.firewall.add(&chosen_conf, &Call::of(&b));
    guarded.assert_open(&b, true);
    // One that starts later finds the containers at the next ADD.
    guarded.start_firewalld();
    guarded.assert_open(&b, false);
    let (_, of_a) = {
        let c = guarded.machine.pod("c");
        chosen.add(&c)
    };
    let mut sources = [of_a, of_b].concat();
    sources.sort();
    assert_eq!(guarded.sources("trusted"), sources);
    guarded.assert_open(&b, true);
}

/// A rootless engine, for one, runs plugins in a network namespace of its own, where it sees the machine's bus.
fn one_of_another_network_namespace_is_left_alone(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let previous = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]});
    let firewall = lab.bin().join("firewall").to_string_lossy().into_owned();
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "pod"),
        ("CNI_NETNS", "/proc/1/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nonexistent"),
    ];
    for (backend, sources) in [("", &[][..]), ("firewalld", &["10.1.0.2/32"])] {
        let conf = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "firewall", "backend": backend, "prevResult": previous
        });
        guarded.machine.write("/run/conf", conf.to_string());
        let script = format!("exec unshare --net {firewall} </run/conf");
        let shell = Path::new("/bin/sh");
        let output = guarded.machine.exec(shell, &["-c", &script], &env);
        output.succeeded();
        assert_eq!(guarded.sources("trusted"), sources, "backend {backend:?}");
    }
}

fn podmans_network_works(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let (machine, file) = (&guarded.machine, "62-podman.conflist");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni-conf/net.d");
    let text = std::fs::read_to_string(dir.join(file)).expect("read a sample");
    machine.configure(file, &text);
    let ports = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
    ]});
    let cnitool = lab.cnitool(machine).env("CAP_ARGS", &ports.to_string());
    let pod = machine.pod("pod");
    let result = cnitool.add("podman", &pod);
    for protocol in Protocol::BOTH {
        let server = guarded.outside.serve(protocol, ip(OUTSIDE[0]), 7000);
        let seen = pod.ask(protocol, server.address);
        assert_eq!(seen.expect("the way out is open"), ip(MACHINE[0]));
        let _server = pod.serve(protocol, addresses(&result)[0], 80);
        let seen = guarded.outside.ask(protocol, (ip(MACHINE[0]), 8080).into());
        assert_eq!(seen.expect("the published port answers"), ip(OUTSIDE[0]));
    }
    cnitool.check("podman", &pod);
    cnitool.del("podman", &pod);
    assert!(guarded.sources("trusted").is_empty());
    pod.vanish();
    guarded.stop_firewalld();
    let left = machine.observe().leftovers(&guarded.before);
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

fn repair_puts_back_what_a_reload_forgot(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let machine = &guarded.machine;
    let chain = Chain::new(lab, machine, json!({}));
    let list = json!({
        "cniVersion": "1.0.0", "name": "net",
        "plugins": [chain.network, {"type": "firewall"}]
    });
    machine.configure("10-net.conflist", &list.to_string());
    let cnitool = lab.cnitool(machine);
    let pod = machine.pod("pod");
    let result = cnitool.add("net", &pod);
    guarded.assert_open(&pod, true);
    guarded.cmd("--reload");
    guarded.assert_open(&pod, false);
    let bin = lab.bin().to_string_lossy().into_owned();
    let repair = |more: &[&str]| {
        let program = Program::new(lab.bin().join("trestle"))
            .args([
                "repair",
                "--all",
                "--conf-dir",
                Host::NET_D,
                "--bin-dir",
                &bin,
            ])
            .args(more);
        machine.run(program)
    };
    repair(&["--dry-run"]);
    guarded.assert_open(&pod, false);
    let output = repair(&[]);
    assert!(output.ok(), "{output}");
    assert_eq!(guarded.sources("trusted"), sources(&addresses(&result)));
    guarded.assert_open(&pod, true);
    cnitool.del("net", &pod);
    assert!(guarded.sources("trusted").is_empty());
}

fn the_go_plugin_and_trestle_share_the_sources(lab: &Lab) {
    let guarded = Guarded::start(lab);
    let ours = Chain::new(lab, &guarded.machine, json!({"backend": "firewalld"}));
    let go = lab.plugin_in(&guarded.machine, "firewall", &lab.go_plugins(), &[]);
    let pod = guarded.machine.pod("pod");
    let (conf, sources) = ours.connect(&pod);
    let firewalls = [&ours.firewall, &go];
    for (adds, deletes) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        firewalls[adds].add(&conf, &Call::of(&pod));
        assert_eq!(guarded.sources("trusted"), sources, "{adds}");
        guarded.assert_open(&pod, true);
        firewalls[deletes].del(&conf, &Call::of(&pod));
        assert!(guarded.sources("trusted").is_empty(), "{adds} {deletes}");
        guarded.assert_open(&pod, false);
    }
    // The Go plugin asks whether the source is there and does not look at the answer.
    let check = |plugin: &Plugin| plugin.call("CHECK", &conf, &Call::of(&pod));
    check(&go).succeeded();
    check(&ours.firewall).error();
}
