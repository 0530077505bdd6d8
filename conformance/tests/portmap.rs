//! Host ports: what runtimes ask of the portmap plugin, judged by traffic and by what is left.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use conformance::{
    Call, Case, Cnitool, Host, Lab, Need, Plugin, Pod, Protocol, addresses, bridge, case,
    host_local, with, with_prev_result,
};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(containerds_sample_maps_ports)
            .needs(Need::Cnitool)
            .ours(),
        case!(k3s_style_sample_maps_ports)
            .needs(Need::Cnitool)
            .ours(),
        case!(a_port_answers_the_outside_and_the_host_under_either_backend),
        case!(every_version_passes_the_result_through),
        case!(without_mappings_nothing_is_done),
        case!(without_a_previous_result_add_says_so),
        case!(a_taken_port_is_refused_and_its_owner_named).ours(),
        case!(del_needs_neither_netns_nor_mappings_nor_a_first_time).ours(),
        case!(a_del_on_one_network_leaves_anothers_ports_alone).ours(),
        case!(gc_removes_what_is_not_valid).ours(),
        case!(check_fails_when_the_rules_are_gone),
        case!(a_flush_takes_no_port_away_for_good).ours(),
        case!(a_pod_that_goes_while_its_port_is_restored_gets_none).ours(),
        case!(status_and_version_are_answered).ours(),
        case!(hostile_values_are_named_and_reach_no_rule).ours(),
        case!(ten_thousand_ports_are_one_add).ours(),
        case!(a_dead_owners_port_is_taken_over_and_a_living_ones_is_not).ours(),
    ]
}

const POD: [u8; 4] = [10, 1, 0, 2];
const HOST: [u8; 4] = [192, 0, 2, 1];

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn localhost() -> IpAddr {
    [127, 0, 0, 1].into()
}

/// A machine with an outside in front of it.
struct Site {
    host: Host,
    outside: Pod,
}

impl Site {
    fn new() -> Self {
        let host = Host::new();
        let outside = host.pod("outside");
        host.cable("up0", &outside, "eth0");
        host.ip("addr add 192.0.2.1/24 dev up0");
        host.ip("-6 addr add 2001:db8::1/64 dev up0 nodad");
        outside.ip("addr add 192.0.2.2/24 dev eth0");
        outside.ip("-6 addr add 2001:db8::2/64 dev eth0 nodad");
        Self { host, outside }
    }
}

/// The two plugins of a list, called one after the other as a runtime does.
struct Chain<'h> {
    bridge: Plugin<'h>,
    portmap: Plugin<'h>,
    network: Value,
}

impl<'h> Chain<'h> {
    fn new(lab: &Lab, host: &'h Host, more: Value) -> Self {
        Self {
            bridge: lab.plugin(host, "bridge"),
            portmap: lab.plugin(host, "portmap"),
            network: with(bridge(routed()), more),
        }
    }

    /// The configuration of portmap with these mappings.
    fn ports(&self, mappings: &Value) -> Value {
        with(
            self.network.clone(),
            json!({"type": "portmap", "runtimeConfig": {"portMappings": mappings}}),
        )
    }

    /// ADD of both; portmap's configuration with the bridge's result in it, and the last result.
    #[track_caller]
    fn add(&self, pod: &Pod, mappings: &Value) -> (Value, Value) {
        let attached = self.bridge.add(&self.network, &Call::of(pod));
        let ports = with_prev_result(&self.ports(mappings), &attached);
        let result = self.portmap.add(&ports, &Call::of(pod));
        (ports, result)
    }
}

fn routed() -> Value {
    with(
        host_local(&["10.1.0.0/24"]),
        json!({"routes": [{"dst": "0.0.0.0/0"}]}),
    )
}

/// One port for TCP and UDP, as containerd writes it.
fn both(host_port: u16, container_port: u16) -> Value {
    json!([
        {"HostPort": host_port, "ContainerPort": container_port, "Protocol": "tcp", "HostIP": ""},
        {"HostPort": host_port, "ContainerPort": container_port, "Protocol": "udp", "HostIP": ""},
    ])
}

fn nft(host: &Host) -> String {
    host.sh("nft list ruleset")
}

fn containerds_sample_maps_ports(lab: &Lab) {
    sample_maps_ports(lab, "60-containerd.conflist", "containerd-net");
}

fn k3s_style_sample_maps_ports(lab: &Lab) {
    sample_maps_ports(lab, "61-k3s-style.conflist", "cbr0");
}

fn sample_maps_ports(lab: &Lab, file: &str, network: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cni-conf/net.d")
        .join(file);
    let text = std::fs::read_to_string(path).expect("read a sample");
    let site = Site::new();
    site.host.configure(file, &text);
    let before = site.host.observe();
    let cnitool = lab.cnitool(&site.host);
    let (pod, other) = (site.host.pod("pod"), site.host.pod("other"));
    let mapped = cnitool.env(
        "CAP_ARGS",
        &json!({"portMappings": both(8080, 80)}).to_string(),
    );
    let result = mapped.add(network, &pod);
    cnitool.add(network, &other);

    answers_everywhere(&site, &pod, &other, &addresses(&result));
    mapped.check(network, &pod);
    detach(&mapped, &cnitool, network, &pod, &other);
    site.host.assert_nothing_left(&before, &[]);
}

fn detach(mapped: &Cnitool<'_>, plain: &Cnitool<'_>, network: &str, pod: &Pod, other: &Pod) {
    for _ in 0..2 {
        mapped.del(network, pod);
        plain.del(network, other);
    }
}

/// The port answers everyone who may ask, under the host's addresses of the pod's families.
fn answers_everywhere(site: &Site, pod: &Pod, other: &Pod, addresses: &[IpAddr]) {
    for &address in addresses {
        let host: IpAddr = match address {
            IpAddr::V4(_) => HOST.into(),
            IpAddr::V6(_) => "2001:db8::1".parse().expect("an address"),
        };
        for protocol in Protocol::BOTH {
            let _server = pod.serve(protocol, address, 80);
            let seen = site.outside.ask(protocol, at(host, 8080));
            assert_ne!(
                seen.expect("the outside is answered"),
                host,
                "the source is kept"
            );
            for (who, place) in [
                ("the host", &*site.host),
                ("another", other),
                ("itself", pod),
            ] {
                let seen = place.ask(protocol, at(host, 8080));
                assert!(seen.is_ok(), "{who} over {protocol:?} to {host}: {seen:?}");
            }
            if address.is_ipv4() {
                let seen = site.host.ask(protocol, at(localhost(), 8080));
                seen.expect("localhost is answered");
            }
        }
    }
}

fn a_port_answers_the_outside_and_the_host_under_either_backend(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
        let pod = site.host.pod("pod");
        let (ports, _) = chain.add(&pod, &both(8080, 80));
        for protocol in Protocol::BOTH {
            let _server = pod.serve(protocol, POD.into(), 80);
            let seen = site.outside.ask(protocol, at(HOST, 8080));
            assert_eq!(seen.expect(backend), IpAddr::from([192, 0, 2, 2]));
            let seen = site.host.ask(protocol, at(HOST, 8080));
            seen.expect(backend);
        }
        chain.portmap.del(&ports, &Call::of(&pod));
        let _server = pod.serve(Protocol::Tcp, POD.into(), 80);
        assert!(site.outside.cannot_reach(Protocol::Tcp, at(HOST, 8080)));
    }
}

fn every_version_passes_the_result_through(lab: &Lab) {
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"cniVersion": version}));
        let pod = site.host.pod("pod");
        let (ports, result) = chain.add(&pod, &both(8080, 80));
        assert_eq!(result, ports["prevResult"], "{version}");
        let _server = pod.serve(Protocol::Tcp, POD.into(), 80);
        let seen = site.outside.ask(Protocol::Tcp, at(HOST, 8080));
        seen.unwrap_or_else(|error| panic!("{version}: {error}"));
        chain.portmap.del(&ports, &Call::of(&pod));
    }
}

fn without_mappings_nothing_is_done(lab: &Lab) {
    let site = Site::new();
    let chain = Chain::new(lab, &site.host, json!({}));
    let pod = site.host.pod("pod");
    let attached = chain.bridge.add(&chain.network, &Call::of(&pod));
    let before = nft(&site.host);
    for mappings in [json!([]), Value::Null] {
        let ports = with_prev_result(&chain.ports(&mappings), &attached);
        assert_eq!(chain.portmap.add(&ports, &Call::of(&pod)), attached);
        chain.portmap.del(&ports, &Call::of(&pod));
    }
    assert_eq!(nft(&site.host), before);
}

fn without_a_previous_result_add_says_so(lab: &Lab) {
    let site = Site::new();
    let chain = Chain::new(lab, &site.host, json!({}));
    let pod = site.host.pod("pod");
    let error = chain
        .portmap
        .add_error(&chain.ports(&both(8080, 80)), &Call::of(&pod));
    let text = error.to_string();
    assert!(
        text.contains("prevResult") || text.contains("chained"),
        "{error}"
    );
}

fn a_taken_port_is_refused_and_its_owner_named(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
        let (pod, other) = (site.host.pod("pod"), site.host.pod("other"));
        let (_, result) = chain.add(&pod, &both(8080, 80));
        let attached = chain.bridge.add(&chain.network, &Call::of(&other));
        let before = site.host.observe();
        for ip in ["", "0.0.0.0", "192.0.2.1", "127.0.0.1"] {
            let mapping =
                json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ip}]);
            let ports = with_prev_result(&chain.ports(&mapping), &attached);
            let error = chain.portmap.add_error(&ports, &Call::of(&other));
            assert_eq!(error["code"], 102, "{error}");
            let msg = error["msg"].as_str().unwrap_or_default();
            assert!(
                msg.contains("net/pod/eth0") && msg.contains("8080"),
                "{error}"
            );
        }
        assert_eq!(site.host.observe().since(&before), "");
        // The same attachment may ask again.
        let again = with_prev_result(&chain.ports(&both(8080, 80)), &result);
        chain.portmap.add(&again, &Call::of(&pod));
    }
}

fn del_needs_neither_netns_nor_mappings_nor_a_first_time(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
        let pod = site.host.pod("pod");
        let before = site.host.observe();
        let attached = chain.bridge.add(&chain.network, &Call::of(&pod));
        let ports = with_prev_result(&chain.ports(&both(8080, 80)), &attached);
        chain.portmap.add(&ports, &Call::of(&pod));
        let bare = with(chain.network.clone(), json!({"type": "portmap"}));
        for _ in 0..2 {
            chain.portmap.del(&bare, &Call::named("pod", None));
        }
        assert!(site.outside.cannot_reach(Protocol::Tcp, at(HOST, 8080)));
        chain.bridge.del(&chain.network, &Call::named("pod", None));
        site.host.assert_nothing_left(&before, &[]);
    }
}

fn a_del_on_one_network_leaves_anothers_ports_alone(lab: &Lab) {
    let site = Site::new();
    let pod = site.host.pod("pod");
    let one = Chain::new(lab, &site.host, json!({}));
    let (first, result) = one.add(&pod, &both(8080, 80));
    let second = with(
        with_prev_result(&one.ports(&both(9090, 80)), &result),
        json!({"name": "second"}),
    );
    one.portmap.add(&second, &Call::of(&pod));
    one.portmap.del(&first, &Call::of(&pod));
    let _server = pod.serve(Protocol::Tcp, POD.into(), 80);
    assert!(site.outside.cannot_reach(Protocol::Tcp, at(HOST, 8080)));
    let seen = site.outside.ask(Protocol::Tcp, at(HOST, 9090));
    seen.expect("the other network's port answers");
}

fn gc_removes_what_is_not_valid(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
        let (pod, other) = (site.host.pod("pod"), site.host.pod("other"));
        chain.add(&pod, &both(8080, 80));
        chain.add(&other, &both(8081, 80));
        let bare = with(chain.network.clone(), json!({"type": "portmap"}));
        let gc = |valid: Value| {
            let configuration = with(bare.clone(), json!({"cni.dev/valid-attachments": valid}));
            chain
                .portmap
                .call("GC", &configuration, &Call::default())
                .succeeded();
            site.host.observe()
        };
        let after = gc(json!([{"containerID": "pod", "ifname": "eth0"}]));
        assert!(
            after
                .mentioning("net/other/eth0")
                .iter()
                .all(|line| line.starts_with("link"))
        );
        assert!(
            after
                .mentioning("net/pod/eth0")
                .iter()
                .any(|line| line.contains("8080"))
        );
        let after = gc(json!([]));
        assert!(
            after
                .mentioning("net/pod/eth0")
                .iter()
                .all(|line| line.starts_with("link"))
        );
    }
}

fn check_fails_when_the_rules_are_gone(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
        let pod = site.host.pod("pod");
        let (ports, result) = chain.add(&pod, &both(8080, 80));
        let check = || chain.portmap.check(&ports, &result, &Call::of(&pod));
        check().succeeded();
        site.host.sh("nft flush ruleset");
        let _ = check().error();
    }
}

fn a_flush_takes_no_port_away_for_good(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
        let pods = ["alice", "bob", "carol"].map(|name| site.host.pod(name));
        let [alice, bob, carol] = &pods;
        let dead = site.host.pod("dead");
        let before = site.host.observe();
        let (ports, result) = chain.add(alice, &both(8080, 80));
        let (_, of_bob) = chain.add(bob, &both(8081, 80));
        chain.add(&dead, &both(8082, 80));
        dead.vanish();
        site.host.sh("nft flush ruleset");
        chain.add(carol, &both(8083, 80));
        for protocol in Protocol::BOTH {
            let _server = alice.serve(protocol, POD.into(), 80);
            let _other = bob.serve(protocol, addresses(&of_bob)[0], 80);
            for (who, place, to) in [
                ("outside", &*site.outside, at(HOST, 8080)),
                ("outside", &site.outside, at(HOST, 8081)),
                ("localhost", &site.host, at(localhost(), 8080)),
                ("another pod", carol, at(HOST, 8080)),
                ("itself", alice, at(HOST, 8080)),
            ] {
                let seen = place.ask(protocol, to);
                seen.unwrap_or_else(|error| panic!("{backend}: {who} to {to}: {error}"));
            }
        }
        let check = chain.portmap.check(&ports, &result, &Call::of(alice));
        check.succeeded();
        let now = site.host.observe();
        let of_dead = now.mentioning("8082");
        let rules = of_dead.iter().filter(|line| !line.starts_with("file "));
        assert_eq!(rules.count(), 0, "{backend}: {of_dead:#?}");
        for name in ["alice", "bob", "carol", "dead"] {
            let bare = with(chain.network.clone(), json!({"type": "portmap"}));
            chain.portmap.del(&bare, &Call::named(name, None));
            chain.bridge.del(&chain.network, &Call::named(name, None));
        }
        site.host
            .assert_nothing_left(&before, &["alice", "bob", "carol", "dead"]);
    }
}

/// Stands for iptables of every name: the real one, after which a DEL of `alice` has begun.
const CROSSED: &str = "#!/bin/sh
name=${0##*/}
/run/real/$name \"$@\"
status=$?
[ $name = iptables-restore ] && rm -f /run/cni/portmap/portmap:net:alice:eth0
exit $status
";

fn a_pod_that_goes_while_its_port_is_restored_gets_none(lab: &Lab) {
    let site = Site::new();
    let chain = Chain::new(lab, &site.host, json!({"backend": "iptables"}));
    let [alice, bob] = ["alice", "bob"].map(|name| site.host.pod(name));
    chain.add(&alice, &both(8080, 80));
    site.host.sh("nft flush ruleset");
    site.host.sh("mkdir /run/real");
    for name in [
        "iptables",
        "ip6tables",
        "iptables-restore",
        "ip6tables-restore",
        "iptables-save",
        "ip6tables-save",
    ] {
        let path = site.host.sh(&format!("which {name}"));
        site.host
            .sh(&format!("cp -L {} /run/real/{name}", path.trim()));
    }
    site.host.script("/run/crossed", CROSSED);
    let path = site.host.sh("which iptables-restore");
    site.host
        .sh(&format!("mount --bind /run/crossed {}", path.trim()));
    let (_, result) = chain.add(&bob, &both(8081, 80));
    let now = site.host.observe();
    let of_alice = now.mentioning("net/alice/eth0");
    let rules = of_alice.iter().filter(|line| !line.starts_with("link "));
    assert_eq!(rules.count(), 0, "{of_alice:#?}");
    let _server = bob.serve(Protocol::Tcp, addresses(&result)[0], 80);
    let seen = site.outside.ask(Protocol::Tcp, at(HOST, 8081));
    seen.expect("the other's port answers");
}

fn status_and_version_are_answered(lab: &Lab) {
    let host = Host::new();
    let chain = Chain::new(lab, &host, json!({"type": "portmap"}));
    chain
        .portmap
        .call("STATUS", &chain.network, &Call::default())
        .succeeded();
    let versions = chain
        .portmap
        .call("VERSION", &chain.network, &Call::default())
        .succeeded()
        .json();
    assert_eq!(
        versions["supportedVersions"].as_array().map(Vec::len),
        Some(7)
    );
}

fn hostile_values_are_named_and_reach_no_rule(lab: &Lab) {
    let site = Site::new();
    let chain = Chain::new(lab, &site.host, json!({}));
    let pod = site.host.pod("pod");
    let attached = chain.bridge.add(&chain.network, &Call::of(&pod));
    let before = nft(&site.host);
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    let cases = [
        ("hostIP", json!({"hostIP": "0.0.0.0; flush ruleset"})),
        ("protocol", json!({"protocol": "tcp dport 22 accept; tcp"})),
        ("hostPort", json!({"hostPort": 70000})),
        ("hostPort", json!({"hostPort": "8080"})),
        ("containerPort", json!({"containerPort": 0})),
    ];
    for (field, more) in cases {
        let ports = chain.ports(&json!([with(mapping.clone(), more)]));
        let error = chain
            .portmap
            .add_error(&with_prev_result(&ports, &attached), &Call::of(&pod));
        assert_eq!(error["code"], 7, "{error}");
        let msg = error["msg"].as_str().unwrap_or_default();
        assert!(msg.contains(&format!("portMappings[0].{field}")), "{error}");
    }
    for more in [
        json!({"externalSetMarkChain": "X -j ACCEPT"}),
        json!({"conditionsV4": ["-d", "192.0.2.0/24\n-A PREROUTING"]}),
        json!({"conditionsV4": ["-d", "192.0.2.0/24", "-j", "ACCEPT"]}),
        json!({"markMasqBit": 32}),
    ] {
        let ports = with(chain.ports(&json!([mapping])), more);
        let error = chain
            .portmap
            .add_error(&with_prev_result(&ports, &attached), &Call::of(&pod));
        assert_eq!(error["code"], 7, "{error}");
    }
    assert_eq!(nft(&site.host), before);
}

fn ten_thousand_ports_are_one_add(lab: &Lab) {
    let site = Site::new();
    let chain = Chain::new(lab, &site.host, json!({}));
    let pod = site.host.pod("pod");
    let before = site.host.observe();
    let mappings: Value = (0..10_000)
        .map(|n| {
            let protocol = if n % 2 == 0 { "tcp" } else { "udp" };
            json!({"hostPort": 20_000 + n / 2, "containerPort": 80, "protocol": protocol})
        })
        .collect();
    let (ports, result) = chain.add(&pod, &mappings);
    let checked = chain.portmap.check(&ports, &result, &Call::of(&pod));
    assert!(checked.ok(), "{}", checked.text());
    for protocol in Protocol::BOTH {
        let _server = pod.serve(protocol, POD.into(), 80);
        let seen = site.outside.ask(protocol, at(HOST, 24_999));
        seen.expect("the last port answers");
    }
    chain.portmap.del(&ports, &Call::of(&pod));
    chain.bridge.del(&chain.network, &Call::of(&pod));
    site.host.assert_nothing_left(&before, &[]);
}

fn a_dead_owners_port_is_taken_over_and_a_living_ones_is_not(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        for records in [true, false] {
            let site = Site::new();
            let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
            let (dead, other) = (site.host.pod("dead"), site.host.pod("other"));
            chain.add(&dead, &both(8080, 80));
            if !records {
                site.host.script("/run/boot", BOOT);
                site.host.sh("/run/boot");
            }
            let attached = chain.bridge.add(&chain.network, &Call::of(&other));
            let ports = with_prev_result(&chain.ports(&both(8080, 80)), &attached);
            let error = chain.portmap.add_error(&ports, &Call::of(&other));
            assert_eq!(error["code"], 102, "{backend} {records}: {error}");
            dead.vanish();
            chain.portmap.add(&ports, &Call::of(&other));
            let checked = chain.portmap.check(&ports, &attached, &Call::of(&other));
            assert!(checked.ok(), "{}", checked.text());
            let address = addresses(&attached)[0];
            let _server = other.serve(Protocol::Tcp, address, 80);
            let seen = site.outside.ask(Protocol::Tcp, at(HOST, 8080));
            seen.unwrap_or_else(|error| panic!("{backend} {records}: {error}"));
        }
    }
}

/// What services do at boot that restore the rules that were saved, each its own; nothing else is left of the last boot.
const BOOT: &str = "#!/bin/sh
set -e
iptables-save > /run/saved.v4
ip6tables-save > /run/saved.v6
nft list table inet trestle > /run/saved.nft || true
nft flush ruleset
iptables-restore /run/saved.v4
ip6tables-restore /run/saved.v6
nft -f /run/saved.nft
rm -r /run/cni
";
