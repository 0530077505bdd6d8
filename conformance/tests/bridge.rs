//! The bridge and its ports: what each key does to the interfaces, judged by the kernel and by traffic.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use conformance::{
    Call, Case, Host, Lab, Program, Protocol, Subject, addresses, case, layer2, sandbox_interface,
    with,
};
use serde_json::{Value, json};

use crate::common::{Attached, GATEWAY, POD, dual, ip, mac, plain, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_requested_mac_comes_from_all_three_sources),
        case!(the_mac_follows_from_the_ipv4_address).ours(),
        case!(neighbours_are_told_of_an_address_that_moved_to_a_mac_of_its_own),
        case!(macs_are_set_by_us_and_not_left_to_udev).ours(),
        case!(the_bridge_keeps_its_mac).ours(),
        case!(the_alias_says_whose_the_interface_is).ours(),
        case!(the_host_interface_has_the_known_pattern),
        case!(mtu_is_set_on_all_three_interfaces),
        case!(port_flags_are_set),
        case!(promiscuous_mode_is_set_on_the_bridge),
        case!(a_foreign_source_mac_is_dropped),
        case!(isolated_ports_reach_the_gateway_alone),
        case!(a_bridge_that_exists_is_used_as_it_is),
        case!(a_bridge_that_is_made_snoops_multicast_only_if_asked).ours(),
        case!(multicast_reaches_who_joined),
        case!(the_interface_can_stay_down),
        case!(an_interface_that_stays_down_has_no_ipam),
        case!(result_lists_bridge_host_and_container_interface),
    ]
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

/// By a gratuitous ARP, which brings up to date what a neighbour remembers from whoever had the address before.
fn neighbours_are_told_of_an_address_that_moved_to_a_mac_of_its_own(lab: &Lab) {
    const STALE: &str = "02:00:00:00:00:99";
    for network in [plain(), layer2_with_addresses()] {
        let host = Host::new();
        let (a, b) = (host.pod("a"), host.pod("b"));
        let plugin = lab.plugin(&host, "bridge");
        plugin.add(&network, &Call::of(&a));
        a.ip(&format!(
            "neigh add 10.1.0.3 lladdr {STALE} nud stale dev eth0"
        ));
        let own = with(
            network.clone(),
            json!({"runtimeConfig": {"mac": "02:00:00:00:00:0b"}}),
        );
        let result = plugin.add(&own, &Call::of(&b));
        assert_eq!(addresses(&result), [ip("10.1.0.3")], "{result:#}");
        wait_until("the neighbour's entry is up to date", || {
            a.ip_json("neigh show 10.1.0.3")[0]["lladdr"] == "02:00:00:00:00:0b"
        });
        // From the next time on every interface tells.
        for pod in [&a, &b] {
            assert_eq!(pod.sysctl("net.ipv4.conf.eth0.arp_notify"), "1");
        }
    }
}

/// A network whose gateway is somewhere else: it may reach beyond this machine.
fn layer2_with_addresses() -> Value {
    with(
        plain(),
        json!({"isGateway": false, "isDefaultGateway": false}),
    )
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
            .is_some_and(|alias| alias.starts_with("trestle:")),
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

fn a_bridge_that_is_made_snoops_multicast_only_if_asked(lab: &Lab) {
    let snoops = |host: &Host| {
        let bridge = host.link("cni0").expect("the bridge");
        bridge["linkinfo"]["info_data"]["mcast_snooping"].clone()
    };
    for (more, expected) in [
        (json!({}), 0),
        (json!({"multicastSnooping": false}), 0),
        (json!({"multicastSnooping": true}), 1),
    ] {
        let it = Attached::new(lab, &with(plain(), more));
        assert_eq!(snoops(&it.host), expected);
    }
    let host = Host::new();
    host.ip("link add cni0 type bridge mcast_snooping 1");
    let pod = host.pod("pod");
    lab.plugin(&host, "bridge").add(&plain(), &Call::of(&pod));
    assert_eq!(snoops(&host), 1, "a bridge that was there keeps it");
}

fn multicast_reaches_who_joined(lab: &Lab) {
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
    for snooping in [false, true] {
        let keys = json!({"isDefaultGateway": true, "multicastSnooping": snooping});
        let network = with(plain(), keys);
        let it = Attached::new(lab, &network);
        let other = it.host.pod("other");
        lab.plugin(&it.host, "bridge")
            .add(&network, &Call::of(&other));
        let member = it.pod.enter(|| {
            let member = UdpSocket::bind((GROUP, 7000)).expect("bind the group's address");
            member.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
            member.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok::<_, io::Error>(member)
        });
        let member = member.expect("join the group");
        let sender = other.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let sender = sender.expect("a socket");
        wait_until("the member hears the sender", || {
            sender.send_to(b"news", (GROUP, 7000)).expect("send");
            member.recv(&mut [0; 16]).is_ok()
        });
    }
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
