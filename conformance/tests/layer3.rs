//! Addresses, routes, forwarding and router advertisements of a bridge network.

use conformance::{Call, Case, Host, Lab, Need, Protocol, Subject, case, layer2, with};
use serde_json::{Value, json};

use crate::common::{Attached, GATEWAY, dual, ip, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_requested_address_comes_from_all_three_sources),
        case!(dual_stack_is_usable_the_moment_add_returns).ours(),
        case!(ipv6_works_where_it_is_disabled_by_default),
        case!(ipv4_works_on_a_host_without_ipv6),
        case!(ipv4_works_where_proc_sys_is_read_only),
        case!(ipv6_where_proc_sys_is_read_only_names_a_key_that_exists).ours(),
        case!(a_default_route_asked_for_twice_is_one).ours(),
        case!(routes_have_their_attributes),
        case!(cve_2020_10749_router_advertisements_are_not_listened_to_on_the_host).ours(),
        case!(router_advertisements_are_ignored_where_ipam_gave_an_ipv6_address).ours(),
        case!(sysctls_are_set_where_procfs_must_not_be_mounted)
            .ours()
            .needs(Need::Strace),
        case!(layer_2_and_ipv4_attachments_keep_slaac),
        case!(an_uplink_with_router_advertisements_keeps_them).ours(),
        case!(forwarding_is_switched_on_for_a_gateway_alone),
        case!(force_address_replaces_the_address),
        case!(dns_of_the_configuration_wins),
        case!(an_empty_list_in_dns_takes_the_place_of_ipams),
        case!(enabledad_leaves_detection_on),
    ]
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
        let shown = host.sh("ip -6 addr show scope global");
        assert!(
            !shown.contains("tentative"),
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

/// The host's /proc/sys as in a container: it can be read.
fn make_proc_sys_read_only(host: &Host) {
    host.sh("mount -o bind,ro /proc/sys /proc/sys");
}

fn ipv4_works_where_proc_sys_is_read_only(lab: &Lab) {
    for plugin in ["bridge", "ptp"] {
        let host = Host::new();
        host.set_sysctl("net.ipv4.ip_forward", "1");
        make_proc_sys_read_only(&host);
        let pod = host.pod("pod");
        let network = with(plain(), json!({"type": plugin}));
        let (plugin, call) = (lab.plugin(&host, plugin), Call::of(&pod));
        let output = plugin.call("ADD", &network, &call).succeeded();
        assert!(pod.pings(GATEWAY.into()), "{network}");
        if lab.subject == Subject::Trestle {
            let says = |what| output.stderr.contains(what);
            assert!(
                says("CVE-2020-10749") && says("net.ipv6.conf.default.accept_ra"),
                "{}",
                output.stderr
            );
        }
        plugin.del(&network, &call);
    }
}

fn ipv6_where_proc_sys_is_read_only_names_a_key_that_exists(lab: &Lab) {
    let default = |key: &str| format!("net.ipv6.conf.default.{key}");
    for plugin in ["bridge", "ptp"] {
        for (forwarding, key, value, named) in [
            ("0", "accept_ra", "1", "net.ipv6.conf.all.forwarding"),
            ("1", "accept_ra", "2", &*default("accept_ra")),
            ("1", "disable_ipv6", "1", &*default("disable_ipv6")),
            // A host that forwards ignores advertisements of itself.
            ("1", "accept_ra", "1", ""),
            ("1", "accept_ra", "0", ""),
        ] {
            let host = Host::new();
            let pod = host.pod("pod");
            host.set_sysctl("net.ipv4.ip_forward", "1");
            host.set_sysctl("net.ipv6.conf.all.forwarding", forwarding);
            host.set_sysctl(&default(key), value);
            make_proc_sys_read_only(&host);
            let network = with(dual(), json!({"type": plugin}));
            let (plugin, call) = (lab.plugin(&host, plugin), Call::of(&pod));
            if named.is_empty() {
                let result = plugin.add(&network, &call);
                assert!(pod.pings(ip("fd00:1::1")), "{result:#}");
                continue;
            }
            let error = plugin.add_error(&network, &call).to_string();
            assert!(error.contains(named), "{key} {value}: {error}");
            assert!(pod.link("eth0").is_none(), "nothing stays");
            host.sysctl(named);
        }
    }
}

fn a_default_route_asked_for_twice_is_one(lab: &Lab) {
    let network = with(
        dual(),
        json!({"isDefaultGateway": true,
               "ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}),
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
    // The Go plugin lists both in its result and gives neither to the kernel.
    if lab.subject == Subject::Trestle {
        let metrics = route("192.0.2.0/24")["metrics"].to_string();
        assert!(
            metrics.contains("1400") && metrics.contains("1360"),
            "mtu and advmss: {metrics}"
        );
    }
    assert_eq!(route("198.51.100.0/24")["metric"], 50);
    assert_eq!(route("198.51.100.0/24")["gateway"], "10.1.0.9");
    let table = route("203.0.113.0/24")["table"].clone();
    assert!(table == "205" || table == 205, "{table}");
    let in_result = it.result["routes"].as_array().map(Vec::len);
    assert_eq!(in_result, Some(4), "{:#}", it.result);
    assert_eq!(it.result["routes"][1]["advmss"], 1360, "{:#}", it.result);
}

/// CVE-2020-10749: a container's router advertisement rerouted the host.
fn cve_2020_10749_router_advertisements_are_not_listened_to_on_the_host(lab: &Lab) {
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

/// As where a filter of system calls forbids it, or before Linux 5.2.
fn sysctls_are_set_where_procfs_must_not_be_mounted(lab: &Lab) {
    for fault in ["fsopen:error=ENOSYS", "fsmount:error=EPERM"] {
        let host = Host::new();
        let pod = host.pod("pod");
        let plugin = lab.plugin(&host, "bridge");
        plugin
            .call_with_fault(fault, "ADD", &dual(), &Call::of(&pod))
            .succeeded();
        let log = host.read("/run/strace").unwrap_or_default();
        assert!(log.contains("INJECTED"), "{fault}: {log}");
        for key in ["accept_ra", "accept_dad"] {
            assert_eq!(pod.sysctl(&format!("net.ipv6.conf.eth0.{key}")), "0");
        }
    }
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

/// As an empty `nameservers` says: there are none.
fn an_empty_list_in_dns_takes_the_place_of_ipams(lab: &Lab) {
    for plugin in ["bridge", "ptp"] {
        for (dns, nameservers) in [
            (json!({"nameservers": []}), json!(null)),
            (json!({"search": []}), json!(null)),
            (json!({"domain": "example.org"}), json!(null)),
            (json!({"domain": ""}), json!(["192.0.2.53"])),
            (json!({}), json!(["192.0.2.53"])),
        ] {
            let host = Host::new();
            host.write("/run/resolv.conf", "nameserver 192.0.2.53\n");
            let pod = host.pod("pod");
            let network = with(
                plain(),
                json!({"type": plugin, "dns": dns, "ipam": {"resolvConf": "/run/resolv.conf"}}),
            );
            let result = lab.plugin(&host, plugin).add(&network, &Call::of(&pod));
            assert_eq!(
                result["dns"]["nameservers"], nameservers,
                "{plugin} {dns}: {result:#}"
            );
        }
    }
}
