//! ADD and DEL of containers on a bridge, in the order that runtimes and accidents bring about.

use conformance::{
    Call, Case, Host, Lab, Need, Protocol, address, bridge, case, host_local, layer2, with,
    with_prev_result,
};
use serde_json::json;

use crate::common::{Attached, list, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(two_pods_talk_over_a_bridge).needs(Need::Cnitool),
        case!(del_is_done_twice),
        case!(del_of_what_was_never_added_succeeds),
        case!(del_succeeds_without_a_previous_result),
        case!(del_without_a_netns_gives_everything_back).ours(),
        case!(del_succeeds_when_the_netns_is_gone),
        case!(del_succeeds_when_the_interface_is_gone),
        case!(del_succeeds_when_the_state_is_gone),
        case!(del_succeeds_when_the_bridge_is_gone),
        case!(del_succeeds_after_ipam_alone),
        case!(del_leaves_the_other_interface_alone),
        case!(a_pod_joins_two_networks),
        case!(a_second_network_may_bring_a_default_route_too),
        case!(a_pod_of_other_users_is_like_any).needs(Need::Plugin("tuning")),
        case!(eight_pods_at_once).needs(Need::Cnitool),
    ]
}

fn two_pods_talk_over_a_bridge(lab: &Lab) {
    let host = Host::new();
    host.configure("10-net.conflist", &list(&plain()));
    let cnitool = lab.cnitool(&host);
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.observe();

    let first = address(&cnitool.add("net", &a), 0);
    let second = address(&cnitool.add("net", &b), 0);
    assert!(a.pings(second), "a reaches b");
    assert!(b.pings(first), "b reaches a");
    for protocol in Protocol::BOTH {
        let server = b.serve(protocol, second, 80);
        assert_eq!(a.ask(protocol, server.address).expect("an answer"), first);
        let server = host.serve(protocol, [10, 1, 0, 1].into(), 81);
        assert_eq!(
            a.ask(protocol, server.address)
                .expect("an answer of the host"),
            first
        );
    }
    cnitool.check("net", &a);
    cnitool.check("net", &b);
    cnitool.del("net", &a);
    cnitool.del("net", &b);
    host.assert_nothing_left(&before, &[]);
}

fn del_is_done_twice(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let network = with_prev_result(&plain(), &it.result);
    it.plugin(lab).del(&network, &Call::of(&it.pod));
    it.plugin(lab).del(&network, &Call::of(&it.pod));
    it.assert_nothing_left();
}

fn del_of_what_was_never_added_succeeds(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let before = host.observe();
    lab.plugin(&host, "bridge").del(&plain(), &Call::of(&pod));
    lab.plugin(&host, "bridge").del(&layer2(), &Call::of(&pod));
    host.assert_nothing_left(&before, &["pod"]);
}

fn del_succeeds_without_a_previous_result(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    it.plugin(lab).del(&plain(), &Call::of(&it.pod));
    it.assert_nothing_left();
}

fn del_without_a_netns_gives_everything_back(lab: &Lab) {
    for netns in [None, Some("")] {
        let it = Attached::new(lab, &plain());
        it.plugin(lab).del(&plain(), &Call::named("pod", netns));
        it.assert_nothing_left();
    }
}

fn del_succeeds_when_the_netns_is_gone(lab: &Lab) {
    let Attached {
        host,
        pod,
        before,
        result,
    } = Attached::new(lab, &plain());
    let path = pod.vanish();
    let network = with_prev_result(&plain(), &result);
    lab.plugin(&host, "bridge")
        .del(&network, &Call::named("pod", Some(&path)));
    // The kernel takes the interfaces of a namespace away in its own time.
    for _ in 0..100 {
        if host.observe().leftovers(&before).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    host.assert_nothing_left(&before, &["pod"]);
}

fn del_succeeds_when_the_interface_is_gone(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    it.pod.ip("link del eth0");
    it.plugin(lab).del(&plain(), &Call::of(&it.pod));
    it.assert_nothing_left();
}

fn del_succeeds_when_the_state_is_gone(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    it.host.sh("rm -r /var/lib/cni/networks");
    it.plugin(lab)
        .del(&with_prev_result(&plain(), &it.result), &Call::of(&it.pod));
    it.assert_nothing_left();
}

fn del_succeeds_when_the_bridge_is_gone(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    it.host.ip("link del cni0");
    it.plugin(lab)
        .del(&with_prev_result(&plain(), &it.result), &Call::of(&it.pod));
    it.assert_nothing_left();
}

/// The machine stopped between the address and the interface.
fn del_succeeds_after_ipam_alone(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let before = host.observe();
    lab.plugin(&host, "host-local")
        .add(&plain(), &Call::of(&pod));
    assert!(
        !host.observe().leftovers(&before).is_empty(),
        "an address is held"
    );
    lab.plugin(&host, "bridge").del(&plain(), &Call::of(&pod));
    host.assert_nothing_left(&before, &["pod"]);
}

fn del_leaves_the_other_interface_alone(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let second = Call::of(&it.pod).ifname("eth1");
    let with_first = it.host.observe();
    it.plugin(lab).add(&plain(), &second);
    it.plugin(lab).del(&plain(), &second);
    let left = it.host.observe().leftovers(&with_first);
    assert!(
        left.is_empty(),
        "the first attachment is as it was:\n{}",
        left.join("\n")
    );
    assert_eq!(it.pod.addresses("eth0"), ["10.1.0.2/24"]);
    it.plugin(lab)
        .check(&plain(), &it.result, &Call::of(&it.pod))
        .succeeded();
}

fn a_pod_joins_two_networks(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let ipam = host_local(&["10.2.0.0/24"]);
    let other = with(bridge(ipam), json!({"name": "other", "bridge": "cni1"}));
    let call = Call::of(&it.pod).ifname("net1");
    let result = it.plugin(lab).add(&other, &call);
    assert_eq!(it.pod.addresses("net1"), ["10.2.0.2/24"]);
    it.plugin(lab).check(&other, &result, &call).succeeded();
    it.plugin(lab)
        .check(&plain(), &it.result, &Call::of(&it.pod))
        .succeeded();
    it.plugin(lab).del(&other, &call);
    assert_eq!(it.pod.addresses("eth0"), ["10.1.0.2/24"]);
    it.plugin(lab).del(&plain(), &Call::of(&it.pod));
    it.assert_nothing_left();
}

fn a_second_network_may_bring_a_default_route_too(lab: &Lab) {
    let routes = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}});
    let networks = [
        ("10.1.0.0/24", "fd00:1::/64", "one"),
        ("10.2.0.0/24", "fd00:2::/64", "two"),
    ];
    let host = Host::new();
    let pod = host.pod("pod");
    for (index, (v4, v6, name)) in networks.into_iter().enumerate() {
        let network = with(
            with(
                bridge(host_local(&[v4, v6])),
                json!({"name": name, "bridge": format!("cni{index}")}),
            ),
            routes.clone(),
        );
        let call = Call::of(&pod).ifname(&format!("eth{index}"));
        lab.plugin(&host, "bridge").add(&network, &call);
    }
    // The Go plugin does the same, and `podman network connect` and Multus rely on it.
    let routes = pod.ip_json("-4 route show default");
    assert_eq!(routes.as_array().map(Vec::len), Some(2), "{routes}");
    assert!(
        pod.ip_json("-6 route show default")
            .to_string()
            .contains("fd00:2::1")
    );
}

/// Pods with users of their own (`hostUsers: false`) have network namespaces that the host's root doesn't own.
fn a_pod_of_other_users_is_like_any(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod_with_own_users("pod");
    let before = host.observe();
    let call = Call::of(&pod);
    let lo = json!({"cniVersion": "1.1.0", "name": "lo", "type": "loopback"});
    lab.plugin(&host, "loopback")
        .add(&lo, &call.clone().ifname("lo"));
    let network = bridge(host_local(&["10.1.0.0/24", "fd00:1::/64"]));
    let result = lab.plugin(&host, "bridge").add(&network, &call);
    let sysctl = json!({"net.ipv4.ip_local_port_range": "20000 30000"});
    let tuning = json!({"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mtu": 1400, "sysctl": sysctl});
    let tuning = with_prev_result(&tuning, &result);
    let result = lab.plugin(&host, "tuning").add(&tuning, &call);

    for index in 0..2 {
        assert!(host.pings(address(&result, index)), "{result}");
    }
    assert!(pod.pings([127, 0, 0, 1].into()), "lo is up");
    let range = pod.sysctl("net.ipv4.ip_local_port_range");
    assert_eq!(
        range.split_whitespace().collect::<Vec<_>>(),
        ["20000", "30000"]
    );
    lab.plugin(&host, "bridge")
        .check(&network, &result, &call)
        .succeeded();
    lab.plugin(&host, "tuning")
        .del(&with_prev_result(&tuning, &result), &call);
    lab.plugin(&host, "bridge").del(&network, &call);
    host.assert_nothing_left(&before, &["pod"]);
}

fn eight_pods_at_once(lab: &Lab) {
    let host = Host::new();
    host.configure("10-net.conflist", &list(&plain()));
    let before = host.observe();
    let pods: Vec<_> = (0..8)
        .map(|index| host.pod(&format!("pod{index}")))
        .collect();
    let cnitool = lab.cnitool(&host);
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| cnitool.add("net", pod));
        }
    });
    let mut addresses: Vec<_> = pods.iter().flat_map(|pod| pod.addresses("eth0")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 8, "{addresses:?}");
    assert!(
        pods.iter().all(|pod| pod.pings([10, 1, 0, 1].into())),
        "all reach the gateway"
    );
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| cnitool.del("net", pod));
        }
    });
    host.assert_nothing_left(&before, &[]);
}
