//! Gateways: bridges that others made or that are full, several subnets, and gateways elsewhere.

use conformance::{Call, Case, Host, Lab, Subject, addresses, case, layer2, with};
use serde_json::{Value, json};

use crate::common::{ip, mac, plain, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_gateway_that_others_made_keeps_its_mac),
        case!(a_full_bridge_says_so_and_keeps_no_address).ours(),
        case!(subnets_of_one_range_set_have_a_gateway_each).ours(),
        case!(a_gateway_outside_the_subnet_is_reached_first).ours(),
    ]
}

/// A bridge without an address of its own takes the lowest one of its ports.
fn a_gateway_that_others_made_keeps_its_mac(lab: &Lab) {
    for with_port in [false, true] {
        let host = Host::new();
        host.ip("link add cni0 type bridge");
        host.ip("link set cni0 up");
        if with_port {
            host.ip("link add uplink address fe:ff:ff:ff:ff:fe type veth peer name far");
            host.ip("link set uplink master cni0 up");
        }
        let mut before = with_port.then(|| mac(&host, "cni0"));
        let plugin = lab.plugin(&host, "bridge");
        let pods: Vec<_> = (0..6)
            .map(|index| host.pod(&format!("pod{index}")))
            .collect();
        for pod in &pods {
            let result = plugin.add(&plain(), &Call::of(pod));
            let now = mac(&host, "cni0");
            if lab.subject == Subject::Trestle {
                // Without ports nobody knows it yet.
                assert_eq!(&now, before.get_or_insert_with(|| now.clone()));
                assert_eq!(result["interfaces"][0]["mac"], now, "{result:#}");
            }
        }
        let first = mac(&host, "cni0");
        for pod in &pods {
            plugin.del(&plain(), &Call::of(pod));
            assert_eq!(mac(&host, "cni0"), first);
        }
    }
    // One that is no gateway is none of our business.
    let host = Host::new();
    host.ip("link add cni0 type bridge");
    lab.plugin(&host, "bridge")
        .add(&layer2(), &Call::of(&host.pod("pod")));
    let file = "/sys/class/net/cni0/addr_assign_type";
    assert_ne!(host.read(file).as_deref().map(str::trim), Some("3"));
}

fn a_full_bridge_says_so_and_keeps_no_address(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let plugin = lab.plugin(&host, "bridge");
    plugin.add(&plain(), &Call::of(&host.pod("first")));
    let mut commands = String::new();
    for pair in 0..511 {
        commands += &format!("link add a{pair} master cni0 type veth peer name b{pair}\n");
        commands += &format!("link set b{pair} master cni0\n");
    }
    host.write("/run/ports", &commands);
    host.sh("ip -batch /run/ports");
    let before = host.observe();
    let error = plugin.add_error(&plain(), &Call::of(&pod));
    let message = error["msg"].as_str().unwrap_or_default();
    assert!(
        message.contains("cni0") && message.contains("1023 ports"),
        "{error:#}"
    );
    let details = error["details"].as_str().unwrap_or_default();
    assert!(
        details.contains("ptp") && details.contains("\"bridge\""),
        "{error:#}"
    );
    host.assert_nothing_left(&before, &["pod"]);
    host.ip("link del a0");
    let result = plugin.add(&plain(), &Call::of(&pod));
    assert_eq!(addresses(&result).len(), 1, "{result:#}");
}

fn subnets_of_one_range_set_have_a_gateway_each(lab: &Lab) {
    for family in [4, 6] {
        let host = Host::new();
        let (subnets, gateways) = if family == 4 {
            (["10.1.0.0/30", "10.2.0.0/29"], ["10.1.0.1", "10.2.0.1"])
        } else {
            (["fd00:1::/126", "fd00:2::/125"], ["fd00:1::1", "fd00:2::1"])
        };
        let set: Vec<Value> = subnets
            .iter()
            .map(|subnet| json!({"subnet": subnet}))
            .collect();
        let network = with(
            plain(),
            json!({"isDefaultGateway": true, "ipam": {"ranges": [set]}}),
        );
        let plugin = lab.plugin(&host, "bridge");
        let pods: Vec<_> = (0..4).map(|i| host.pod(&format!("pod{i}"))).collect();
        let mut used = Vec::new();
        for pod in &pods {
            let result = plugin.add(&network, &Call::of(pod));
            let gateway = result["ips"][0]["gateway"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(pod.pings(ip(&gateway)), "{result:#}");
            plugin.check(&network, &result, &Call::of(pod)).succeeded();
            used.push(gateway);
        }
        assert!(
            gateways
                .iter()
                .all(|gateway| used.iter().any(|it| it == gateway)),
            "{used:?}"
        );
        // An address that is not of this network's subnets is still in the way.
        if family == 4 {
            host.ip("addr add 10.9.0.1/24 dev cni0");
            host.ip("addr del 10.2.0.1/29 dev cni0");
            plugin.del(&network, &Call::of(&pods[3]));
            let error = plugin.add_error(&network, &Call::of(&pods[3]));
            assert!(
                error["msg"]
                    .as_str()
                    .is_some_and(|it| it.contains("10.9.0.1/24")),
                "{error:#}"
            );
        }
    }
}

fn a_gateway_outside_the_subnet_is_reached_first(lab: &Lab) {
    for (subnet, gateway, address) in [
        ("203.0.113.7/32", "169.254.1.1", "203.0.113.7"),
        ("10.1.5.0/24", "10.9.0.1", "10.1.5.1"),
        ("2001:db8::7/128", "fd00:9::1", "2001:db8::7"),
        ("2001:db8::7/128", "fe80::1", "2001:db8::7"),
    ] {
        for known in [true, false] {
            let host = Host::new();
            let pod = host.pod("pod");
            let ipam = if subnet.contains("/24") {
                json!({"type": "host-local", "ranges": [[{"subnet": subnet, "gateway": gateway}]]})
            } else {
                json!({"type": "static", "addresses": [{"address": subnet, "gateway": gateway}]})
            };
            let network = with(plain(), json!({"isDefaultGateway": true, "ipam": null}));
            let network = with(network, json!({"ipam": ipam}));
            let plugin = lab.plugin(&host, "bridge");
            let call = Call::of(&pod);
            let result = plugin.add(&network, &call);
            // From the host to the container and back, and to where only the gateway leads.
            assert!(host.pings(ip(address)), "{network} {result:#}");
            let far = if ip(address).is_ipv4() {
                "192.0.2.1/32"
            } else {
                "2001:db8:2::1/128"
            };
            host.ip("link set lo up");
            host.ip(&format!("addr add {far} dev lo"));
            let (far, _) = far.split_once('/').expect("a prefix");
            // The host's own new address needs a moment.
            wait_until(
                "the container reaches what only the gateway leads to",
                || pod.pings(ip(far)),
            );
            plugin.check(&network, &result, &call).succeeded();
            let with_result = conformance::with_prev_result(&network, &result);
            let last = if known { &with_result } else { &network };
            plugin.del(last, &call);
            let routes = host.sh("ip route show") + &host.sh("ip -6 route show");
            // Without a word of it static can't tell which address it was.
            if known || subnet.contains("/24") {
                assert!(!routes.contains(address), "{network} {routes}");
            }
        }
    }
}
