//! What neighbours remember when an address is used again: the other containers, the host, and a LAN.

use std::net::IpAddr;

use conformance::{Call, Case, Host, Lab, case, host_local, with, with_prev_result};
use serde_json::{Value, json};

use crate::common::{GATEWAY, dual, ip, mac, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(an_address_is_reached_at_once_after_a_holder_with_a_mac_of_its_own).ours(),
        case!(an_address_is_reached_at_once_on_a_bridge_that_others_made).ours(),
        case!(an_ipv6_address_has_one_mac_for_all_its_holders).ours(),
        case!(a_lan_reaches_an_address_at_once_that_is_used_again).ours(),
        case!(nobody_is_told_what_everybody_knows).ours(),
        case!(macspoofchk_follows_the_mac_that_tuning_gives).ours(),
    ]
}

const ASKED_FOR: &str = "02:00:00:00:00:0b";

/// The same network, for a container with this address and perhaps a MAC address.
fn for_one(network: &Value, addresses: &[&str], mac: Option<&str>) -> Value {
    let conf = with(
        network.clone(),
        json!({"runtimeConfig": {"ips": addresses}}),
    );
    match mac {
        Some(mac) => with(conf, json!({"runtimeConfig": {"mac": mac}})),
        None => conf,
    }
}

fn ipv6() -> Value {
    conformance::bridge(host_local(&["fd00:1::/64"]))
}

/// A container with a MAC address of its own is talked to, goes, and another one takes its address.
fn is_reached_at_once(lab: &Lab, host: &Host, network: &Value, addresses: &[&str]) {
    let plugin = lab.plugin(host, "bridge");
    let (neighbour, before, after) = (host.pod("neighbour"), host.pod("before"), host.pod("after"));
    plugin.add(network, &Call::of(&neighbour));
    let own = for_one(network, addresses, Some(ASKED_FOR));
    let result = plugin.add(&own, &Call::of(&before));
    for address in addresses {
        assert!(neighbour.pings(ip(address)) && host.pings(ip(address)));
        let known = neighbour.ip_json(&format!("neigh show {address}"));
        assert_eq!(known[0]["lladdr"], ASKED_FOR, "{address}");
    }
    plugin.del(&with_prev_result(&own, &result), &Call::of(&before));
    for address in addresses {
        let known = host.ip_json(&format!("neigh show {address}"));
        assert_ne!(known[0]["lladdr"], ASKED_FOR, "the host has forgotten");
    }
    plugin.add(&for_one(network, addresses, None), &Call::of(&after));
    let now = mac(&after, "eth0");
    assert_ne!(now, ASKED_FOR);
    for address in addresses {
        assert!(
            neighbour.pings(ip(address)),
            "the neighbour reaches {address}"
        );
        assert!(host.pings(ip(address)), "the host reaches {address}");
        let known = neighbour.ip_json(&format!("neigh show {address}"));
        assert_eq!(known[0]["lladdr"], now, "{address}");
    }
    for pod in [&neighbour, &after] {
        plugin.del(network, &Call::of(pod));
    }
}

fn an_address_is_reached_at_once_after_a_holder_with_a_mac_of_its_own(lab: &Lab) {
    for (network, addresses) in [
        (plain(), &["10.1.0.9"][..]),
        (dual(), &["10.1.0.9", "fd00:1::9"]),
        (ipv6(), &["fd00:1::9"]),
    ] {
        is_reached_at_once(lab, &Host::new(), &network, addresses);
    }
}

/// As after changing over from another implementation, whose containers had random MAC addresses.
fn an_address_is_reached_at_once_on_a_bridge_that_others_made(lab: &Lab) {
    for (network, addresses) in [(plain(), &["10.1.0.9"][..]), (ipv6(), &["fd00:1::9"])] {
        let host = Host::new();
        host.ip("link add cni0 type bridge");
        is_reached_at_once(lab, &host, &network, addresses);
    }
}

fn an_ipv6_address_has_one_mac_for_all_its_holders(lab: &Lab) {
    for plugin in ["bridge", "ptp"] {
        let network = with(ipv6(), json!({"type": plugin}));
        let host = Host::new();
        let plugin = lab.plugin(&host, plugin);
        let mac_of = |name: &str, address: &str| {
            let pod = host.pod(name);
            let call = Call::of(&pod);
            let network = for_one(&network, &[address], None);
            plugin.add(&network, &call);
            let mac = mac(&pod, "eth0");
            plugin.del(&network, &call);
            mac
        };
        let first = mac_of("a", "fd00:1::9");
        assert_eq!(first, mac_of("b", "fd00:1::9"));
        assert_ne!(first, mac_of("c", "fd00:1::a"));
        let octet = u8::from_str_radix(&first[..2], 16).expect("a MAC");
        assert_eq!(octet & 3, 2, "locally administered, no multicast: {first}");
    }
}

/// A bridge that leads to a LAN, whose router is elsewhere or is the bridge.
fn a_lan_reaches_an_address_at_once_that_is_used_again(lab: &Lab) {
    for gateway in [false, true] {
        let (host, world) = (Host::new(), Host::new());
        host.cable("up0", &world, "eth0");
        host.ip("link add cni0 type bridge");
        host.ip("link set up0 master cni0");
        host.ip("link set cni0 up");
        world.ip("addr flush dev eth0");
        world.ip("addr add 10.1.0.200/24 dev eth0");
        world.ip("addr add fd00:1::200/64 dev eth0 nodad");
        let network = with(dual(), json!({"isGateway": gateway}));
        let plugin = lab.plugin(&host, "bridge");
        let (before, after) = (host.pod("before"), host.pod("after"));
        let addresses = ["10.1.0.9", "fd00:1::9"];
        let own = for_one(&network, &addresses, Some(ASKED_FOR));
        plugin.add(&own, &Call::of(&before));
        for address in addresses {
            assert!(world.pings(ip(address)), "{address}");
        }
        plugin.del(&own, &Call::of(&before));
        plugin.add(&for_one(&network, &addresses, None), &Call::of(&after));
        for address in addresses {
            assert!(
                world.pings(ip(address)),
                "{address} of a LAN, gateway: {gateway}"
            );
            let known = world.ip_json(&format!("neigh show {address}"));
            assert_eq!(known[0]["lladdr"], mac(&after, "eth0"), "{address}");
        }
    }
}

/// The news goes to every port of a bridge. Where all MAC addresses belong to IP addresses, it is none.
fn nobody_is_told_what_everybody_knows(lab: &Lab) {
    let host = Host::new();
    let plugin = lab.plugin(&host, "bridge");
    let label = || host.link("cni0").expect("the bridge")["ifalias"].clone();
    let told = |name: &str| {
        let pod = host.pod(name);
        plugin.add(&dual(), &Call::of(&pod));
        pod.sysctl("net.ipv6.conf.eth0.ndisc_notify") == "1"
    };
    assert!(!told("a") && !told("b"));
    assert_eq!(label(), "trestle: bridge");
    let own = with(dual(), json!({"runtimeConfig": {"mac": ASKED_FOR}}));
    plugin.add(&own, &Call::of(&host.pod("own")));
    assert_eq!(label(), "trestle: bridge, MAC addresses were asked for");
    assert!(told("c"));
}

fn macspoofchk_follows_the_mac_that_tuning_gives(lab: &Lab) {
    let network = with(dual(), json!({"macspoofchk": true}));
    let host = Host::new();
    let pod = host.pod("pod");
    let call = Call::of(&pod);
    let result = lab.plugin(&host, "bridge").add(&network, &call);
    let first = mac(&pod, "eth0");
    let tuning = json!({"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mac": ASKED_FOR});
    let tuned = with_prev_result(&tuning, &result);
    let last = lab.plugin(&host, "tuning").add(&tuned, &call);
    let gateways: [IpAddr; 2] = [GATEWAY.into(), ip("fd00:1::1")];
    for gateway in gateways {
        assert!(pod.pings(gateway), "with the MAC that was asked for");
    }
    lab.plugin(&host, "bridge")
        .check(&network, &last, &call)
        .succeeded();
    let use_mac = |address: &str| {
        pod.ip("link set eth0 down");
        pod.ip(&format!("link set eth0 address {address}"));
        pod.ip("link set eth0 up");
    };
    use_mac(&first);
    assert!(!pod.pings(GATEWAY.into()), "the lock has one key");
    use_mac(ASKED_FOR);
    assert!(pod.pings(GATEWAY.into()));
}
