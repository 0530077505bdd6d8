//! What each key of the bridge plugin does, judged by the kernel and by traffic.

use std::net::IpAddr;
use std::process::ExitCode;

use conformance::{
    Call, Host, Lab, Pod, Program, Protocol, Subject, addresses, bridge, case, host_local, layer2,
    sandbox_interface, with,
};
use serde_json::{Value, json};

fn main() -> ExitCode {
    conformance::run(vec![
        case!(a_requested_address_comes_from_all_three_sources),
        case!(a_requested_mac_comes_from_all_three_sources),
        case!(dual_stack_is_usable_the_moment_add_returns).ours(),
        case!(ipv6_works_where_it_is_disabled_by_default),
        case!(ipv4_works_on_a_host_without_ipv6),
        case!(a_default_route_asked_for_twice_is_one).ours(),
        case!(routes_have_their_attributes),
        case!(router_advertisements_are_not_listened_to_on_the_host).ours(),
        case!(router_advertisements_are_ignored_where_ipam_gave_an_ipv6_address).ours(),
        case!(layer_2_and_ipv4_attachments_keep_slaac),
        case!(an_uplink_with_router_advertisements_keeps_them).ours(),
        case!(forwarding_is_switched_on_for_a_gateway_alone),
        case!(the_mac_follows_from_the_ipv4_address).ours(),
        case!(macs_are_set_by_us_and_not_left_to_udev).ours(),
        case!(the_bridge_keeps_its_mac).ours(),
        case!(the_alias_says_whose_the_interface_is).ours(),
        case!(the_host_interface_has_the_known_pattern),
        case!(mtu_is_set_on_all_three_interfaces),
        case!(port_flags_are_set),
        case!(promiscuous_mode_is_set_on_the_bridge),
        case!(a_foreign_source_mac_is_dropped),
        case!(isolated_ports_reach_the_gateway_alone),
        case!(force_address_replaces_the_address),
        case!(a_bridge_that_exists_is_used_as_it_is),
        case!(the_interface_can_stay_down),
        case!(an_interface_that_stays_down_has_no_ipam),
        case!(dns_of_the_configuration_wins),
        case!(enabledad_leaves_detection_on),
        case!(result_lists_bridge_host_and_container_interface),
    ])
}

const POD: [u8; 4] = [10, 1, 0, 2];
const GATEWAY: [u8; 4] = [10, 1, 0, 1];

fn plain() -> Value {
    bridge(host_local(&["10.1.0.0/24"]))
}

fn dual() -> Value {
    bridge(host_local(&["10.1.0.0/24", "fd00:1::/64"]))
}

/// A host with one pod attached to this network.
struct Attached {
    host: Host,
    pod: Pod,
    result: Value,
}

impl Attached {
    #[track_caller]
    fn new(lab: &Lab, network: &Value) -> Self {
        let host = Host::new();
        let pod = host.pod("pod");
        let result = lab.plugin(&host, "bridge").add(network, &Call::of(&pod));
        Self { host, pod, result }
    }

    /// The name of the host's end.
    #[track_caller]
    fn veth(&self) -> String {
        let name = self.result["interfaces"][1]["name"].as_str();
        name.expect("the result names the host's end").to_owned()
    }

    fn port(&self) -> Value {
        self.host
            .bridge_port(&self.veth())
            .expect("the host's end is a port")
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn a_requested_address_comes_from_all_three_sources(lab: &Lab) {
    let sources = [
        (json!({}), "IgnoreUnknown=1;IP=10.1.0.33"),
        (json!({"args": {"cni": {"ips": ["10.1.0.33"]}}}), ""),
        (json!({"runtimeConfig": {"ips": ["10.1.0.33/24"]}}), ""),
    ];
    for (more, args) in sources {
        let host = Host::new();
        let pod = host.pod("pod");
        let network = with(plain(), more);
        lab.plugin(&host, "bridge")
            .add(&network, &Call::of(&pod).args(args));
        assert_eq!(pod.addresses("eth0"), ["10.1.0.33/24"], "{network} {args}");
    }
}

fn a_requested_mac_comes_from_all_three_sources(lab: &Lab) {
    let (args, runtime) = (
        json!({"args": {"cni": {"mac": "02:00:00:00:00:0b"}}}),
        json!({"runtimeConfig": {"mac": "02:00:00:00:00:0c"}}),
    );
    let both = with(args.clone(), runtime.clone());
    let sources = [
        (
            json!({}),
            "IgnoreUnknown=1;MAC=02:00:00:00:00:0a",
            "02:00:00:00:00:0a",
        ),
        (args.clone(), "", "02:00:00:00:00:0b"),
        (runtime, "", "02:00:00:00:00:0c"),
        (
            args,
            "IgnoreUnknown=1;MAC=02:00:00:00:00:0a",
            "02:00:00:00:00:0b",
        ),
        (
            both,
            "IgnoreUnknown=1;MAC=02:00:00:00:00:0a",
            "02:00:00:00:00:0c",
        ),
    ];
    for (more, args, expected) in sources {
        let host = Host::new();
        let pod = host.pod("pod");
        let network = with(plain(), more);
        let call = Call::of(&pod).args(args);
        let result = lab.plugin(&host, "bridge").add(&network, &call);
        assert_eq!(
            pod.link("eth0").expect("eth0")["address"],
            expected,
            "{network} {args}"
        );
        assert_eq!(sandbox_interface(&result)["mac"], expected, "{result:#}");
    }
}

fn dual_stack_is_usable_the_moment_add_returns(lab: &Lab) {
    for _ in 0..5 {
        let host = Host::new();
        let (a, b) = (host.pod("a"), host.pod("b"));
        let plugin = lab.plugin(&host, "bridge");
        plugin.add(&dual(), &Call::of(&a));
        // The first packets ever: the gateway's own address, then a container's.
        let server = host.serve(Protocol::Tcp, ip("fd00:1::1"), 80);
        assert_eq!(
            a.ask(Protocol::Tcp, server.address).expect("the gateway"),
            ip("fd00:1::2")
        );
        plugin.add(&dual(), &Call::of(&b));
        for protocol in Protocol::BOTH {
            let server = b.serve(protocol, ip("fd00:1::3"), 80);
            assert_eq!(
                a.ask(protocol, server.address).expect("b over IPv6"),
                ip("fd00:1::2")
            );
            let server = b.serve(protocol, ip("10.1.0.3"), 80);
            assert_eq!(
                a.ask(protocol, server.address).expect("b over IPv4"),
                ip("10.1.0.2")
            );
        }
        let shown = host.ip_json("-6 addr show");
        assert!(
            !shown.to_string().contains("tentative"),
            "no address is tentative: {shown}"
        );
    }
}

fn ipv6_works_where_it_is_disabled_by_default(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    pod.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    pod.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    lab.plugin(&host, "bridge").add(&dual(), &Call::of(&pod));
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/24", "fd00:1::2/64"]);
}

fn ipv4_works_on_a_host_without_ipv6(lab: &Lab) {
    let host = Host::new();
    host.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    host.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    let pod = host.pod("pod");
    lab.plugin(&host, "bridge").add(&plain(), &Call::of(&pod));
    assert!(pod.pings(GATEWAY.into()));
}

fn a_default_route_asked_for_twice_is_one(lab: &Lab) {
    let network = with(
        dual(),
        json!({"isDefaultGateway": true,
               "ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "0.0.0.0/0"}]}}),
    );
    let it = Attached::new(lab, &network);
    for family in ["-4", "-6"] {
        let routes = it.pod.ip_json(&format!("{family} route show default"));
        assert_eq!(routes.as_array().map(Vec::len), Some(1), "{routes}");
    }
    let call = Call::of(&it.pod);
    lab.plugin(&it.host, "bridge")
        .check(&network, &it.result, &call)
        .succeeded();
}

fn routes_have_their_attributes(lab: &Lab) {
    let routes = json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "192.0.2.0/24", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360},
        {"dst": "198.51.100.0/24", "gw": "10.1.0.9", "priority": 50},
        {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "table": 205}
    ]);
    let it = Attached::new(lab, &with(plain(), json!({"ipam": {"routes": routes}})));
    let shown = it.pod.ip_json("-4 route show table all");
    let route = |dst: &str| -> Value {
        let routes = shown.as_array().into_iter().flatten();
        let mut found: Vec<_> = routes
            .filter(|route| route["dst"] == dst)
            .cloned()
            .collect();
        found
            .pop()
            .unwrap_or_else(|| panic!("no route to {dst}: {shown:#}"))
    };
    assert_eq!(route("default")["gateway"], "10.1.0.1");
    assert_eq!(route("192.0.2.0/24")["gateway"], "10.1.0.1");
    let metrics = route("192.0.2.0/24")["metrics"].to_string();
    assert!(
        metrics.contains("1400") && metrics.contains("1360"),
        "mtu and advmss: {metrics}"
    );
    assert_eq!(route("198.51.100.0/24")["metric"], 50);
    assert_eq!(route("198.51.100.0/24")["gateway"], "10.1.0.9");
    let table = route("203.0.113.0/24")["table"].clone();
    assert!(table == "205" || table == 205, "{table}");
    let in_result = it.result["routes"].as_array().map(Vec::len);
    assert_eq!(in_result, Some(4), "{:#}", it.result);
    assert_eq!(it.result["routes"][1]["advmss"], 1360, "{:#}", it.result);
}

/// CVE-2020-10749: a container's router advertisement rerouted the host.
fn router_advertisements_are_not_listened_to_on_the_host(lab: &Lab) {
    for network in [plain(), dual(), layer2()] {
        let it = Attached::new(lab, &network);
        for interface in [it.veth().as_str(), "cni0"] {
            let name = format!("net/ipv6/conf/{interface}/accept_ra");
            assert_eq!(it.host.sysctl(&name), "0", "{name}");
        }
    }
}

fn router_advertisements_are_ignored_where_ipam_gave_an_ipv6_address(lab: &Lab) {
    let it = Attached::new(lab, &dual());
    assert_eq!(it.pod.sysctl("net.ipv6.conf.eth0.accept_ra"), "0");
}

fn layer_2_and_ipv4_attachments_keep_slaac(lab: &Lab) {
    for network in [plain(), layer2()] {
        let it = Attached::new(lab, &network);
        assert_eq!(it.pod.sysctl("net.ipv6.conf.eth0.accept_ra"), "1");
    }
}

/// With forwarding on, the kernel ignores advertisements unless accept_ra is 2, and the host would lose its
/// default route some minutes later.
fn an_uplink_with_router_advertisements_keeps_them(lab: &Lab) {
    let (host, world) = (Host::new(), Host::new());
    host.cable("up0", &world, "eth0");
    host.set_sysctl("net.ipv6.conf.all.forwarding", "0");
    host.set_sysctl("net.ipv6.conf.up0.accept_ra", "1");
    host.ip("-6 addr add 2001:db8::2/64 dev up0 nodad");
    host.ip("-6 route add default via fe80::1 dev up0 proto ra");
    let pod = host.pod("pod");
    lab.plugin(&host, "bridge").add(&dual(), &Call::of(&pod));
    assert_eq!(host.sysctl("net.ipv6.conf.all.forwarding"), "1");
    assert_eq!(host.sysctl("net.ipv6.conf.up0.accept_ra"), "2");
}

fn forwarding_is_switched_on_for_a_gateway_alone(lab: &Lab) {
    let ip_forward = "net.ipv4.ip_forward";
    let forwarding = "net.ipv6.conf.all.forwarding";
    let networks = [
        (dual(), ["1", "1"]),
        (plain(), ["1", "0"]),
        (with(dual(), json!({"isGateway": false})), ["0", "0"]),
    ];
    for (network, expected) in networks {
        let host = Host::new();
        host.set_sysctl(ip_forward, "0");
        host.set_sysctl(forwarding, "0");
        let pod = host.pod("pod");
        lab.plugin(&host, "bridge").add(&network, &Call::of(&pod));
        assert_eq!(
            [ip_forward, forwarding].map(|name| host.sysctl(name)),
            expected,
            "{network}"
        );
    }
}

fn mac(place: &conformance::Place, name: &str) -> String {
    let link = place.link(name).unwrap_or_else(|| panic!("no {name}"));
    link["address"].as_str().unwrap_or_default().to_owned()
}

/// So a neighbour's ARP cache is right when an address is used again.
fn the_mac_follows_from_the_ipv4_address(lab: &Lab) {
    let request = |address: &str| with(plain(), json!({"runtimeConfig": {"ips": [address]}}));
    let mac_of = |address: &str| mac(&Attached::new(lab, &request(address)).pod, "eth0");
    let (first, again, other) = (mac_of("10.1.0.9"), mac_of("10.1.0.9"), mac_of("10.1.0.10"));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let octet = u8::from_str_radix(&first[..2], 16).expect("a MAC");
    assert_eq!(
        octet & 3,
        2,
        "locally administered and no multicast: {first}"
    );
}

/// `NET_ADDR_SET`: what udev's `MACAddressPolicy=persistent` leaves alone.
fn macs_are_set_by_us_and_not_left_to_udev(lab: &Lab) {
    for network in [plain(), layer2()] {
        let it = Attached::new(lab, &network);
        for interface in ["cni0", it.veth().as_str()] {
            let file = format!("/sys/class/net/{interface}/addr_assign_type");
            assert_eq!(
                it.host.read(&file).as_deref().map(str::trim),
                Some("3"),
                "{file}"
            );
        }
        let inside = "mount -t sysfs sysfs /sys && cat /sys/class/net/eth0/addr_assign_type";
        let output = it
            .pod
            .run(Program::new("unshare").args(["--mount", "sh", "-c", inside]));
        assert_eq!(output.succeeded().text().trim(), "3", "the container's end");
    }
}

fn the_bridge_keeps_its_mac(lab: &Lab) {
    for network in [plain(), layer2()] {
        let host = Host::new();
        let plugin = lab.plugin(&host, "bridge");
        let pods: Vec<_> = (0..6)
            .map(|index| host.pod(&format!("pod{index}")))
            .collect();
        plugin.add(&network, &Call::of(&pods[0]));
        let first = mac(&host, "cni0");
        for pod in &pods[1..] {
            plugin.add(&network, &Call::of(pod));
            assert_eq!(mac(&host, "cni0"), first);
        }
        for pod in &pods {
            plugin.del(&network, &Call::of(pod));
            assert_eq!(mac(&host, "cni0"), first);
        }
    }
}

fn the_alias_says_whose_the_interface_is(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let link = it.host.link(&it.veth()).expect("the host's end");
    assert_eq!(link["ifalias"], "trestle:net/pod/eth0", "{link:#}");
    // The kernel allows 255 bytes; the longest names must not make ADD fail.
    let host = Host::new();
    let pod = host.pod("pod");
    let call = Call::named(&"c".repeat(200), Some(&pod.netns()));
    let network = with(plain(), json!({"name": "n".repeat(100)}));
    let result = lab.plugin(&host, "bridge").add(&network, &call);
    let name = result["interfaces"][1]["name"].as_str().unwrap_or_default();
    let alias = host.link(name).expect("the host's end")["ifalias"].clone();
    assert!(
        alias
            .as_str()
            .is_some_and(|alias| alias.starts_with("trestle:nnn")),
        "{alias}"
    );
    lab.plugin(&host, "bridge").del(&network, &call);
    assert!(host.link(name).is_none());
}

fn the_host_interface_has_the_known_pattern(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let name = it.veth();
    let digits = name.strip_prefix("veth").unwrap_or_default();
    assert!(
        digits.len() == 8 && digits.bytes().all(|it| it.is_ascii_hexdigit()),
        "{name}"
    );
    assert_eq!(
        it.host.link(&name).expect("the host's end")["master"],
        "cni0"
    );
}

fn mtu_is_set_on_all_three_interfaces(lab: &Lab) {
    for mtu in [1280, 1400, 9000] {
        let it = Attached::new(lab, &with(dual(), json!({"mtu": mtu})));
        assert_eq!(it.pod.link("eth0").expect("eth0")["mtu"], mtu);
        assert_eq!(
            it.host.link(&it.veth()).expect("the host's end")["mtu"],
            mtu
        );
        assert_eq!(it.host.link("cni0").expect("the bridge")["mtu"], mtu);
        let payload = (mtu - 28).to_string();
        let gateway = GATEWAY.map(|octet| octet.to_string()).join(".");
        let whole = ["-n", "-c1", "-W2", "-Mdo", "-s", &payload, &gateway];
        it.pod.run(Program::new("ping").args(whole)).succeeded();
    }
}

fn port_flags_are_set(lab: &Lab) {
    let flags = |more: Value| {
        let port = Attached::new(lab, &with(plain(), more)).port();
        (port["hairpin"].clone(), port["isolated"].clone())
    };
    assert_eq!(flags(json!({})), (json!(false), json!(false)));
    assert_eq!(
        flags(json!({"hairpinMode": true})),
        (json!(true), json!(false))
    );
    assert_eq!(
        flags(json!({"portIsolation": true})),
        (json!(false), json!(true))
    );
}

fn promiscuous_mode_is_set_on_the_bridge(lab: &Lab) {
    for promisc in [false, true] {
        let it = Attached::new(lab, &with(plain(), json!({"promiscMode": promisc})));
        let flags = it.host.link("cni0").expect("the bridge")["flags"].clone();
        let is = flags
            .as_array()
            .is_some_and(|flags| flags.contains(&json!("PROMISC")));
        assert_eq!(is, promisc, "{flags}");
    }
}

fn a_foreign_source_mac_is_dropped(lab: &Lab) {
    for guarded in [true, false] {
        let it = Attached::new(lab, &with(plain(), json!({"macspoofchk": guarded})));
        assert!(it.pod.pings(GATEWAY.into()), "its own MAC passes");
        it.pod.ip("link set eth0 down");
        it.pod.ip("link set eth0 address 02:00:00:00:00:99");
        it.pod.ip("link set eth0 up");
        assert_eq!(
            it.pod.pings(GATEWAY.into()),
            !guarded,
            "a foreign MAC; macspoofchk: {guarded}"
        );
    }
}

fn isolated_ports_reach_the_gateway_alone(lab: &Lab) {
    let network = with(plain(), json!({"portIsolation": true}));
    let it = Attached::new(lab, &network);
    let other = it.host.pod("other");
    lab.plugin(&it.host, "bridge")
        .add(&network, &Call::of(&other));
    assert!(other.pings(GATEWAY.into()));
    let server = it.pod.serve(Protocol::Udp, POD.into(), 80);
    assert!(other.cannot_reach(Protocol::Udp, server.address));
}

fn force_address_replaces_the_address(lab: &Lab) {
    let host = Host::new();
    host.ip("link add cni0 type bridge");
    host.ip("addr add 10.99.0.1/24 dev cni0");
    let pod = host.pod("pod");
    let network = with(plain(), json!({"forceAddress": true}));
    lab.plugin(&host, "bridge").add(&network, &Call::of(&pod));
    assert_eq!(host.addresses("cni0"), ["10.1.0.1/24"]);
    assert!(pod.pings(GATEWAY.into()));
}

fn a_bridge_that_exists_is_used_as_it_is(lab: &Lab) {
    let host = Host::new();
    host.ip("link add cni0 address 02:00:00:00:00:77 type bridge");
    host.ip("link add uplink type veth peer name far");
    host.ip("link set uplink master cni0 up");
    host.ip("addr add 10.1.0.1/24 dev cni0");
    let pod = host.pod("pod");
    lab.plugin(&host, "bridge").add(&plain(), &Call::of(&pod));
    assert_eq!(mac(&host, "cni0"), "02:00:00:00:00:77");
    assert_eq!(
        host.link("uplink").expect("the other port")["master"],
        "cni0"
    );
    assert_eq!(host.addresses("cni0"), ["10.1.0.1/24"]);
    assert!(pod.pings(GATEWAY.into()));
}

fn the_interface_can_stay_down(lab: &Lab) {
    let it = Attached::new(
        lab,
        &with(layer2(), json!({"disableContainerInterface": true})),
    );
    let flags = it.pod.link("eth0").expect("eth0")["flags"].clone();
    assert!(
        !flags
            .as_array()
            .is_some_and(|flags| flags.contains(&json!("UP"))),
        "{flags}"
    );
}

fn an_interface_that_stays_down_has_no_ipam(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let before = host.observe();
    let network = with(plain(), json!({"disableContainerInterface": true}));
    lab.plugin(&host, "bridge")
        .add_error(&network, &Call::of(&pod));
    if lab.subject == Subject::Trestle {
        host.assert_nothing_left(&before, &["pod"]);
    }
}

fn dns_of_the_configuration_wins(lab: &Lab) {
    let host = Host::new();
    host.write(
        "/run/resolv.conf",
        "nameserver 192.0.2.53\nsearch ipam.example\noptions ndots:5\n",
    );
    let network = with(plain(), json!({"ipam": {"resolvConf": "/run/resolv.conf"}}));
    let (a, b) = (host.pod("a"), host.pod("b"));
    let plugin = lab.plugin(&host, "bridge");
    let result = plugin.add(&network, &Call::of(&a));
    assert_eq!(
        result["dns"]["nameservers"],
        json!(["192.0.2.53"]),
        "{result:#}"
    );
    assert_eq!(
        result["dns"]["search"],
        json!(["ipam.example"]),
        "{result:#}"
    );
    assert_eq!(result["dns"]["options"], json!(["ndots:5"]), "{result:#}");
    let network = with(network, json!({"dns": {"nameservers": ["198.51.100.53"]}}));
    let result = plugin.add(&network, &Call::of(&b));
    assert_eq!(
        result["dns"]["nameservers"],
        json!(["198.51.100.53"]),
        "{result:#}"
    );
}

fn enabledad_leaves_detection_on(lab: &Lab) {
    for (enabled, expected) in [(false, "0"), (true, "1")] {
        let it = Attached::new(lab, &with(dual(), json!({"enabledad": enabled})));
        assert_eq!(
            it.pod.sysctl("net.ipv6.conf.eth0.accept_dad"),
            expected,
            "{enabled}"
        );
    }
}

fn result_lists_bridge_host_and_container_interface(lab: &Lab) {
    let it = Attached::new(lab, &dual());
    let interfaces = &it.result["interfaces"];
    assert_eq!(
        interfaces.as_array().map(Vec::len),
        Some(3),
        "{interfaces:#}"
    );
    assert_eq!(interfaces[0]["name"], "cni0");
    assert_eq!(interfaces[0]["mac"], mac(&it.host, "cni0"));
    assert_eq!(interfaces[1]["mac"], mac(&it.host, &it.veth()));
    assert_eq!(interfaces[2]["name"], "eth0");
    assert_eq!(interfaces[2]["mac"], mac(&it.pod, "eth0"));
    assert_eq!(interfaces[2]["sandbox"], "/run/netns/pod");
    assert_eq!(addresses(&it.result), [IpAddr::from(POD), ip("fd00:1::2")]);
    assert_eq!(it.result["ips"][0]["gateway"], "10.1.0.1");
    assert_eq!(it.result["ips"][1]["gateway"], "fd00:1::1");
}
