//! The firewall plugin as runtimes call it, on hosts that drop what they forward.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use conformance::{
    Call, Host, Lab, Need, Plugin, Pod, Program, Protocol, addresses, bridge, case, host_local,
    with, with_prev_result,
};
use serde_json::{Value, json};

fn main() -> ExitCode {
    conformance::run(vec![
        case!(podmans_network_works_under_dockers_policy)
            .needs(Need::Cnitool)
            .ours(),
        case!(podmans_network_works_under_an_nftables_policy)
            .needs(Need::Cnitool)
            .ours(),
        case!(nerdctls_network_works_under_dockers_policy)
            .needs(Need::Cnitool)
            .ours(),
        case!(containers_reach_the_outside_under_dockers_policy),
        case!(containers_reach_the_outside_under_an_nftables_policy).ours(),
        case!(every_version_passes_the_result_through).ours(),
        case!(without_a_previous_result_add_says_so),
        case!(networks_of_one_policy_are_apart),
        case!(isolated_containers_are_apart_without_bridge_netfilter).ours(),
        case!(del_needs_neither_netns_nor_result_nor_a_first_time).ours(),
        case!(gc_removes_what_is_not_valid).ours(),
        case!(check_fails_when_the_rules_are_gone),
        case!(a_restarted_firewall_is_passed_again_after_the_next_add)
            .needs(Need::Cnitool)
            .ours(),
        case!(status_and_version_are_answered).ours(),
        case!(bad_values_are_named).ours(),
        case!(containers_of_the_go_plugin_keep_their_rules)
            .needs(Need::GoPlugins)
            .ours(),
    ])
}

/// What Docker leaves in the filter table.
const DOCKER: &str = "*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
";

/// What an administrator writes into nftables.conf.
const NFTABLES: &str = "table inet filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
    }
}
";

const HOST: [u8; 4] = [192, 0, 2, 1];
const OUTSIDE: [u8; 4] = [192, 0, 2, 2];

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// A machine that drops, with an outside in front of it that has routes to the containers.
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
        outside.ip("addr add 192.0.2.2/24 dev eth0");
        outside.ip("route add 10.0.0.0/8 via 192.0.2.1");
        Self { host, outside }
    }

    fn docker() -> Self {
        let site = Self::new();
        let restore = Program::new("iptables-restore").stdin(DOCKER);
        site.host.run(restore).succeeded();
        site
    }

    fn nftables() -> Self {
        let site = Self::new();
        let load = Program::new("nft").args(["-f", "-"]).stdin(NFTABLES);
        site.host.run(load).succeeded();
        site
    }

    /// Asserts what an open container can do: reach the outside, and not be reached from there.
    #[track_caller]
    fn assert_open(&self, pod: &Pod, address: IpAddr) {
        for protocol in Protocol::BOTH {
            let server = self.outside.serve(protocol, OUTSIDE.into(), 7000);
            pod.ask(protocol, server.address)
                .expect("the outside answers the container");
            let server = pod.serve(protocol, address, 7000);
            assert!(
                self.outside.cannot_reach(protocol, server.address),
                "the host's policy holds"
            );
        }
    }
}

/// The two plugins of a list, called one after the other as a runtime does.
struct Chain<'h> {
    bridge: Plugin<'h>,
    firewall: Plugin<'h>,
    network: Value,
    more: Value,
}

impl<'h> Chain<'h> {
    /// `more` is what the configuration of firewall has beside its type.
    fn new(lab: &Lab, host: &'h Host, more: Value) -> Self {
        let routed = with(
            host_local(&["10.1.0.0/24"]),
            json!({"routes": [{"dst": "0.0.0.0/0"}]}),
        );
        Self {
            bridge: lab.plugin(host, "bridge"),
            firewall: lab.plugin(host, "firewall"),
            network: bridge(routed),
            more,
        }
    }

    /// The same as another network, with a bridge of its own.
    fn other(&self) -> Self {
        let routed = with(
            host_local(&["10.2.0.0/24"]),
            json!({"routes": [{"dst": "0.0.0.0/0"}]}),
        );
        let network = with(bridge(routed), json!({"name": "net2", "bridge": "cni1"}));
        Self {
            bridge: self.bridge.clone(),
            firewall: self.firewall.clone(),
            network,
            more: self.more.clone(),
        }
    }

    /// The configuration of firewall.
    fn conf(&self) -> Value {
        let conf = with(self.network.clone(), json!({"type": "firewall"}));
        with(conf, self.more.clone())
    }

    /// ADD of both. The configuration with the bridge's result in it, and the container's address.
    #[track_caller]
    fn add(&self, pod: &Pod) -> (Value, IpAddr) {
        let attached = self.bridge.add(&self.network, &Call::of(pod));
        let conf = with_prev_result(&self.conf(), &attached);
        let result = self.firewall.add(&conf, &Call::of(pod));
        assert_eq!(result, attached, "the result passes through unchanged");
        // Results before 0.3.0 are of another form.
        let address = addresses(&result).first().copied();
        (conf, address.unwrap_or([10, 1, 0, 2].into()))
    }
}

/// The filter rules of a host. Of those that iptables keeps in nftables, nft doesn't print everything.
fn rules(host: &Host) -> String {
    let rules = host.sh("nft -s list ruleset");
    match rules.contains("table ip filter") {
        true => format!("{rules}{}", host.sh("iptables -S")),
        false => rules,
    }
}

fn podmans_network_works_under_dockers_policy(lab: &Lab) {
    sample_works(lab, &Site::docker(), "62-podman.conflist", "podman");
}

fn podmans_network_works_under_an_nftables_policy(lab: &Lab) {
    sample_works(lab, &Site::nftables(), "62-podman.conflist", "podman");
}

fn nerdctls_network_works_under_dockers_policy(lab: &Lab) {
    sample_works(lab, &Site::docker(), "63-nerdctl.conflist", "bridge");
}

/// A published port and the way out, with a file that a runtime writes.
fn sample_works(lab: &Lab, site: &Site, file: &str, network: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cni-conf/net.d")
        .join(file);
    site.host
        .configure(file, &std::fs::read_to_string(path).expect("read a sample"));
    let ports = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
    ]});
    let cnitool = lab.cnitool(&site.host).env("CAP_ARGS", &ports.to_string());
    let pod = site.host.pod("pod");
    let before = site.host.observe();
    let result = cnitool.add(network, &pod);
    let address = addresses(&result)[0];
    site.assert_open(&pod, address);
    for protocol in Protocol::BOTH {
        let _server = pod.serve(protocol, address, 80);
        let seen = site.outside.ask(protocol, at(HOST, 8080));
        assert_eq!(
            seen.expect("the published port answers the outside"),
            IpAddr::from(OUTSIDE)
        );
    }
    cnitool.check(network, &pod);
    for _ in 0..2 {
        cnitool.del(network, &pod);
    }
    site.host.assert_nothing_left(&before, &[]);
}

fn containers_reach_the_outside_under_dockers_policy(lab: &Lab) {
    for backend in ["", "iptables"] {
        outside_is_reached(lab, &Site::docker(), backend);
    }
}

fn containers_reach_the_outside_under_an_nftables_policy(lab: &Lab) {
    for backend in ["", "nftables"] {
        outside_is_reached(lab, &Site::nftables(), backend);
    }
}

fn outside_is_reached(lab: &Lab, site: &Site, backend: &str) {
    let chain = Chain::new(lab, &site.host, json!({"backend": backend}));
    let (pod, other) = (site.host.pod("pod"), site.host.pod("other"));
    let (conf, address) = chain.add(&pod);
    site.assert_open(&pod, address);
    let (of_other, _) = chain.add(&other);
    chain.firewall.del(&conf, &Call::of(&pod));
    let server = site.outside.serve(Protocol::Udp, OUTSIDE.into(), 7000);
    other
        .ask(Protocol::Udp, server.address)
        .expect("another container keeps its rules");
    // With iptables a container may share them with its network.
    chain.firewall.del(&of_other, &Call::of(&other));
    for gone in [&pod, &other] {
        assert!(gone.cannot_reach(Protocol::Udp, server.address));
    }
}

fn every_version_passes_the_result_through(lab: &Lab) {
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let site = Site::docker();
        let mut chain = Chain::new(lab, &site.host, json!({}));
        chain.network["cniVersion"] = version.into();
        let pod = site.host.pod("pod");
        let (conf, _) = chain.add(&pod);
        let server = site.outside.serve(Protocol::Tcp, OUTSIDE.into(), 7000);
        let seen = pod.ask(Protocol::Tcp, server.address);
        seen.unwrap_or_else(|error| panic!("{version}: {error}"));
        chain.firewall.del(&conf, &Call::of(&pod));
    }
}

fn without_a_previous_result_add_says_so(lab: &Lab) {
    let host = Host::new();
    let chain = Chain::new(lab, &host, json!({}));
    let error = chain
        .firewall
        .add_error(&chain.conf(), &Call::of(&host.pod("pod")));
    assert!(error["msg"].to_string().contains("prevResult"), "{error}");
}

fn networks_of_one_policy_are_apart(lab: &Lab) {
    for policy in ["open", "same-bridge", "isolated"] {
        let site = Site::new();
        let one = Chain::new(lab, &site.host, json!({"ingressPolicy": policy}));
        let two = one.other();
        let [a, b, c] = ["a", "b", "c"].map(|name| site.host.pod(name));
        let (conf, _) = one.add(&a);
        let (_, of_b) = one.add(&b);
        let (_, of_c) = two.add(&c);
        let elsewhere = c.serve(Protocol::Tcp, of_c, 7000);
        let beside = b.serve(Protocol::Tcp, of_b, 7000);
        if policy == "open" {
            a.ask(Protocol::Tcp, elsewhere.address).expect(policy);
        } else {
            assert!(a.cannot_reach(Protocol::Tcp, elsewhere.address), "{policy}");
        }
        if policy != "isolated" {
            a.ask(Protocol::Tcp, beside.address).expect(policy);
        }
        let server = site.outside.serve(Protocol::Tcp, OUTSIDE.into(), 7000);
        a.ask(Protocol::Tcp, server.address).expect(policy);
        one.firewall.del(&conf, &Call::of(&a));
    }
}

fn isolated_containers_are_apart_without_bridge_netfilter(lab: &Lab) {
    let site = Site::new();
    let chain = Chain::new(lab, &site.host, json!({"ingressPolicy": "isolated"}));
    let (a, b) = (site.host.pod("a"), site.host.pod("b"));
    let (conf, _) = chain.add(&a);
    let (_, of_b) = chain.add(&b);
    for switch in ["iptables", "ip6tables"] {
        let file = format!("/proc/sys/net/bridge/bridge-nf-call-{switch}");
        if site.host.read(&file).is_some() {
            site.host.write(&file, "0");
        }
    }
    let server = b.serve(Protocol::Udp, of_b, 7000);
    assert!(a.cannot_reach(Protocol::Udp, server.address));
    let result = conf["prevResult"].clone();
    chain
        .firewall
        .check(&chain.conf(), &result, &Call::of(&a))
        .succeeded();
}

fn del_needs_neither_netns_nor_result_nor_a_first_time(lab: &Lab) {
    for site in [Site::docker(), Site::nftables()] {
        let chain = Chain::new(lab, &site.host, json!({"ingressPolicy": "same-bridge"}));
        let before = rules(&site.host);
        let gone = Call::named("pod", None);
        chain.firewall.del(&chain.conf(), &gone);
        assert_eq!(rules(&site.host), before);
        let pod = site.host.pod("pod");
        chain.add(&pod);
        assert_ne!(rules(&site.host), before);
        for _ in 0..2 {
            chain.firewall.del(&chain.conf(), &gone);
        }
        assert_eq!(rules(&site.host), before);
    }
}

fn gc_removes_what_is_not_valid(lab: &Lab) {
    for site in [Site::docker(), Site::nftables()] {
        let chain = Chain::new(lab, &site.host, json!({}));
        let before = rules(&site.host);
        let (kept, lost) = (site.host.pod("kept"), site.host.pod("lost"));
        let (conf, _) = chain.add(&kept);
        chain.add(&lost);
        let valid =
            json!({"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]});
        let call = Call::default();
        chain
            .firewall
            .call("GC", &with(chain.conf(), valid), &call)
            .succeeded();
        let left = rules(&site.host);
        // With iptables the network's rules stand for its containers.
        let stand = ["/kept/eth0", "-j TRESTLE-FW-"];
        assert!(
            stand.iter().any(|rule| left.contains(rule)) && !left.contains("/lost/eth0"),
            "{left}"
        );
        chain
            .firewall
            .check(&chain.conf(), &conf["prevResult"], &Call::of(&kept))
            .succeeded();
        let none = json!({"cni.dev/valid-attachments": []});
        chain
            .firewall
            .call("GC", &with(chain.conf(), none), &call)
            .succeeded();
        assert_eq!(rules(&site.host), before);
    }
}

fn check_fails_when_the_rules_are_gone(lab: &Lab) {
    let site = Site::docker();
    let chain = Chain::new(lab, &site.host, json!({}));
    let pod = site.host.pod("pod");
    let (conf, _) = chain.add(&pod);
    let check = || {
        chain
            .firewall
            .check(&chain.conf(), &conf["prevResult"], &Call::of(&pod))
    };
    check().succeeded();
    site.host.sh("iptables -F");
    check().error();
    chain.firewall.add(&conf, &Call::of(&pod));
    check().succeeded();
    let server = site.outside.serve(Protocol::Tcp, OUTSIDE.into(), 7000);
    pod.ask(Protocol::Tcp, server.address)
        .expect("ADD restores the rules");
}

/// A whole list as `trestle install` writes it: the way out, masqueraded, and a published port.
fn a_restarted_firewall_is_passed_again_after_the_next_add(lab: &Lab) {
    for site in [Site::docker(), Site::nftables()] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni-conf/net.d/10-trestle.conflist");
        let list = std::fs::read_to_string(path).expect("read a sample");
        site.host.configure("10-trestle.conflist", &list);
        let ports =
            json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        let plain = lab.cnitool(&site.host);
        let cnitool = plain.env("CAP_ARGS", &ports.to_string());
        let [pod, removed, other] = ["pod", "removed", "other"].map(|name| site.host.pod(name));
        let before = site.host.observe();
        let own = rules(&site.host);
        let result = cnitool.add("trestle", &pod);
        plain.add("trestle", &removed);
        plain.del("trestle", &removed);
        // The service of the host's firewall starts anew and loads what it knows.
        site.host.sh("nft flush ruleset");
        match own.contains("DOCKER-USER") {
            true => site
                .host
                .run(Program::new("iptables-restore").stdin(DOCKER)),
            false => site
                .host
                .run(Program::new("nft").args(["-f", "-"]).stdin(NFTABLES)),
        }
        .succeeded();
        let server = site.outside.serve(Protocol::Tcp, OUTSIDE.into(), 7000);
        assert!(pod.cannot_reach(Protocol::Tcp, server.address));
        drop(server);

        plain.add("trestle", &other);
        for pod in [&pod, &other] {
            let server = site.outside.serve(Protocol::Udp, OUTSIDE.into(), 7000);
            let seen = pod.ask(Protocol::Udp, server.address);
            assert_eq!(seen.expect("the outside answers"), IpAddr::from(HOST));
        }
        let server = pod.serve(Protocol::Tcp, addresses(&result)[0], 80);
        let seen = site.outside.ask(Protocol::Tcp, at(HOST, 8080));
        seen.expect("the published port answers");
        drop(server);
        cnitool.check("trestle", &pod);
        let now = site.host.observe();
        assert!(now.mentioning("/removed/").is_empty());
        cnitool.del("trestle", &pod);
        plain.del("trestle", &other);
        site.host.assert_nothing_left(&before, &[]);
    }
}

fn status_and_version_are_answered(lab: &Lab) {
    let host = Host::new();
    for backend in ["", "iptables", "nftables"] {
        let chain = Chain::new(lab, &host, json!({"backend": backend}));
        chain
            .firewall
            .call("STATUS", &chain.conf(), &Call::default())
            .succeeded();
    }
    let chain = Chain::new(lab, &host, json!({"backend": "firewalld"}));
    let error = chain
        .firewall
        .call("STATUS", &chain.conf(), &Call::default())
        .error();
    assert_eq!(error["code"], 50, "{error}");
    let answer = chain
        .firewall
        .call("VERSION", &chain.conf(), &Call::default());
    let versions = answer.succeeded().json()["supportedVersions"].clone();
    assert_eq!(versions.as_array().map(Vec::len), Some(7), "{versions}");
}

fn bad_values_are_named(lab: &Lab) {
    let host = Host::new();
    let before = rules(&host);
    for (more, word) in [
        (json!({"backend": "pf"}), "backend"),
        (json!({"backend": "firewalld"}), "firewalld"),
        (json!({"ingressPolicy": "closed"}), "ingressPolicy"),
        (
            json!({"iptablesAdminChainName": "A; flush ruleset"}),
            "iptablesAdminChainName",
        ),
        (json!({"firewalldZone": "--panic-on"}), "firewalldZone"),
    ] {
        let chain = Chain::new(lab, &host, more);
        let previous = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/24"}]});
        let conf = with_prev_result(&chain.conf(), &previous);
        let error = chain
            .firewall
            .add_error(&conf, &Call::named("c", Some("/run/netns/none")));
        assert!(error["msg"].to_string().contains(word), "{error}");
    }
    assert_eq!(rules(&host), before);
}

fn containers_of_the_go_plugin_keep_their_rules(lab: &Lab) {
    let site = Site::docker();
    let ours = Chain::new(lab, &site.host, json!({"backend": "iptables"}));
    let go = lab.plugin_in(&site.host, "firewall", &lab.go_plugins(), &[]);
    let (old, new) = (site.host.pod("old"), site.host.pod("new"));
    let attached = ours.bridge.add(&ours.network, &Call::of(&old));
    let conf = with_prev_result(&ours.conf(), &attached);
    go.add(&conf, &Call::of(&old));
    let before = rules(&site.host);
    let (ours_conf, _) = ours.add(&new);
    ours.firewall.del(&ours_conf, &Call::of(&new));
    assert_eq!(rules(&site.host), before);
    let server = site.outside.serve(Protocol::Tcp, OUTSIDE.into(), 7000);
    old.ask(Protocol::Tcp, server.address)
        .expect("the Go plugin's container keeps its way out");
    go.del(&conf, &Call::of(&old));
}
