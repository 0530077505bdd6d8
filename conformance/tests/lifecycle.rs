//! ADD, CHECK, DEL, GC and STATUS of containers on a bridge, in the order that runtimes and accidents bring about.

use std::process::ExitCode;

use conformance::{
    Call, Host, Lab, Need, Plugin, Pod, Protocol, Snapshot, Subject, address, bridge, case,
    host_local, layer2, with, with_prev_result,
};
use serde_json::{Value, json};

fn main() -> ExitCode {
    conformance::run(vec![
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
        case!(a_failed_add_leaves_nothing).ours(),
        case!(a_failed_add_gives_its_address_back),
        case!(a_second_add_fails_and_harms_nothing),
        case!(a_pod_joins_two_networks),
        case!(check_notices_what_was_changed),
        case!(check_accepts_layer_2).ours(),
        case!(gc_removes_what_is_not_valid).ours(),
        case!(gc_without_attachments_does_nothing).ours(),
        case!(gc_by_cnitool_collects_everything)
            .needs(Need::NewCnitool)
            .ours(),
        case!(status_is_fine_when_there_is_room),
        case!(status_tells_of_an_exhausted_pool).ours(),
        case!(status_by_cnitool).needs(Need::NewCnitool),
        case!(eight_pods_at_once).needs(Need::Cnitool),
    ])
}

fn plain() -> Value {
    bridge(host_local(&["10.1.0.0/24"]))
}

/// The list that cnitool gets.
fn list(network: &Value) -> String {
    let plugin = with(network.clone(), json!({"cniVersion": null, "name": null}));
    json!({"cniVersion": "1.1.0", "name": "net", "plugins": [plugin]}).to_string()
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

/// A host with one attached pod.
struct Attached {
    host: Host,
    pod: Pod,
    before: Snapshot,
    result: Value,
}

impl Attached {
    fn new(lab: &Lab, network: &Value) -> Self {
        let host = Host::new();
        let pod = host.pod("pod");
        let before = host.observe();
        let result = lab.plugin(&host, "bridge").add(network, &Call::of(&pod));
        Self {
            host,
            pod,
            before,
            result,
        }
    }

    fn plugin(&self, lab: &Lab) -> Plugin<'_> {
        lab.plugin(&self.host, "bridge")
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        self.host.assert_nothing_left(&self.before, &["pod"]);
        assert!(
            self.pod.link("eth0").is_none(),
            "the container's interface is gone"
        );
    }
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
    assert_eq!(
        host.observe().leftovers(&before).len(),
        1,
        "an address file"
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

/// One way for ADD to fail: what is prepared on the host, the configuration and the call.
struct Failure {
    what: &'static str,
    prepare: fn(&Host, &Pod),
    network: Value,
    netns: &'static str,
    says: &'static str,
}

fn failures() -> Vec<Failure> {
    let nothing: fn(&Host, &Pod) = |_, _| {};
    let pod = "/run/netns/pod";
    let failure = |what, prepare, more, netns, says| Failure {
        what,
        prepare,
        network: with(plain(), more),
        netns,
        says,
    };
    let route = json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]}});
    let far_gateway = json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0", "gw": "198.51.100.7"}]}});
    vec![
        failure(
            "an interface of that name",
            |_, pod| pod.ip("link add eth0 type veth peer name other"),
            json!({}),
            pod,
            "eth0",
        ),
        failure(
            "no netns there",
            nothing,
            json!({}),
            "/run/netns/nowhere",
            "/run/netns/nowhere",
        ),
        failure(
            "a file that is no netns",
            |host, _| host.write("/run/netns/file", ""),
            json!({}),
            "/run/netns/file",
            "/run/netns/file",
        ),
        failure(
            "a directory as netns",
            nothing,
            json!({}),
            "/run/netns",
            "/run/netns",
        ),
        failure(
            "the host itself",
            nothing,
            json!({}),
            "/proc/self/ns/net",
            "/proc/self/ns/net",
        ),
        failure(
            "another kind of namespace",
            nothing,
            json!({}),
            "/proc/self/ns/mnt",
            "/proc/self/ns/mnt",
        ),
        failure(
            "a bridge that is no bridge",
            |host, _| host.ip("link add cni0 type veth peer name other"),
            json!({}),
            pod,
            "cni0",
        ),
        failure(
            "a bridge name over 15 bytes",
            nothing,
            json!({"bridge": "a-name-of-16-byte"}),
            pod,
            "a-name-of-16-byte",
        ),
        failure(
            "another address on the bridge",
            |host, _| {
                host.ip("link add cni0 type bridge");
                host.ip("addr add 10.99.0.1/24 dev cni0");
            },
            json!({}),
            pod,
            "10.99.0.1",
        ),
        failure(
            "a route by an unreachable gateway",
            nothing,
            route,
            pod,
            "203.0.113.1",
        ),
        failure(
            "a default route by an unreachable gateway",
            nothing,
            far_gateway,
            pod,
            "198.51.100.7",
        ),
        failure(
            "an IPAM plugin that doesn't exist",
            nothing,
            json!({"ipam": {"type": "nonesuch"}}),
            pod,
            "nonesuch",
        ),
        failure(
            "an address out of range",
            nothing,
            json!({"runtimeConfig": {"ips": ["10.9.9.9/24"]}}),
            pod,
            "10.9.9.9",
        ),
        failure(
            "a MAC that is none",
            nothing,
            json!({"runtimeConfig": {"mac": "02:00:zz"}}),
            pod,
            "02:00:zz",
        ),
        failure(
            "a multicast MAC",
            nothing,
            json!({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}),
            pod,
            "01:00:5e:00:00:01",
        ),
        failure(
            "an MTU that is too large",
            nothing,
            json!({"mtu": 1_000_000}),
            pod,
            "1000000",
        ),
    ]
}

fn a_failed_add_leaves_nothing(lab: &Lab) {
    for failure in failures() {
        let host = Host::new();
        let pod = host.pod("pod");
        (failure.prepare)(&host, &pod);
        let (before, inside) = (host.observe(), Snapshot::of(&*pod));
        let call = Call::named("pod", Some(failure.netns));
        let output = lab
            .plugin(&host, "bridge")
            .call("ADD", &failure.network, &call);
        assert!(!output.ok(), "{}: should fail: {output}", failure.what);
        let error = output.error();
        let said = format!("{} {}", error["msg"], error["details"]);
        assert!(
            said.contains(failure.says),
            "{}: the error names {}: {error}",
            failure.what,
            failure.says
        );
        let left = host.observe().leftovers(&before);
        assert!(
            left.is_empty(),
            "{} left:\n{}",
            failure.what,
            left.join("\n")
        );
        let changed = Snapshot::of(&*pod).since(&inside);
        assert!(
            !changed.contains("link ") && !changed.contains("addr "),
            "{}: inside:\n{changed}",
            failure.what
        );
        assert!(
            host.observe().mentioning("\"pod").is_empty(),
            "{}: an address is kept",
            failure.what
        );
        // And the DEL that follows has nothing to complain about.
        lab.plugin(&host, "bridge").del(&failure.network, &call);
    }
}

fn a_failed_add_gives_its_address_back(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let network = with(
        plain(),
        json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]}}),
    );
    lab.plugin(&host, "bridge")
        .add_error(&network, &Call::of(&pod));
    let files = host.list("/var/lib/cni/networks/net");
    assert!(!files.contains(&"10.1.0.2".to_owned()), "{files:?}");
}

fn a_second_add_fails_and_harms_nothing(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let before = it.host.observe();
    it.plugin(lab).add_error(&plain(), &Call::of(&it.pod));
    // The reference may leave a second veth, but it doesn't touch the first attachment either.
    if lab.subject == Subject::Trestle {
        assert_eq!(it.host.observe().since(&before), "");
    }
    it.plugin(lab)
        .check(&plain(), &it.result, &Call::of(&it.pod))
        .succeeded();
    assert!(it.pod.pings([10, 1, 0, 1].into()));
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

fn check_notices_what_was_changed(lab: &Lab) {
    let routed = with(plain(), json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}));
    let harms: [(&str, fn(&Attached)); 6] = [
        ("the address went", |it| it.pod.ip("addr flush dev eth0")),
        ("the interface went", |it| it.pod.ip("link del eth0")),
        ("the route went", |it| it.pod.ip("route del default")),
        ("the bridge went", |it| it.host.ip("link del cni0")),
        ("the container's MAC changed", |it| {
            it.pod.ip("link set eth0 down");
            it.pod.ip("link set eth0 address 02:00:00:00:00:99");
            it.pod.ip("link set eth0 up");
            it.pod.ip("route add default via 10.1.0.1");
        }),
        ("the address was given away", |it| {
            it.host.sh("rm /var/lib/cni/networks/net/10.1.0.2");
        }),
    ];
    for (what, harm) in harms {
        let it = Attached::new(lab, &routed);
        let call = Call::of(&it.pod);
        it.plugin(lab).check(&routed, &it.result, &call).succeeded();
        harm(&it);
        let output = it.plugin(lab).check(&routed, &it.result, &call);
        assert!(!output.ok(), "{what}, and CHECK says nothing");
        output.error();
    }
}

fn check_accepts_layer_2(lab: &Lab) {
    let it = Attached::new(lab, &layer2());
    it.plugin(lab)
        .check(&layer2(), &it.result, &Call::of(&it.pod))
        .succeeded();
    it.plugin(lab).del(&layer2(), &Call::of(&it.pod));
    it.assert_nothing_left();
}

/// The configuration of GC, with the attachments that are still valid.
fn valid(names: &[&str]) -> Value {
    let list: Vec<_> = names
        .iter()
        .map(|name| json!({"containerID": name, "ifname": "eth0"}))
        .collect();
    with(
        plain(),
        json!({"cni.dev/valid-attachments": list, "cni.dev/attachments": list}),
    )
}

fn gc_removes_what_is_not_valid(lab: &Lab) {
    let host = Host::new();
    let plugin = lab.plugin(&host, "bridge");
    let before = host.observe();
    let (kept, lost, gone) = (host.pod("kept"), host.pod("lost"), host.pod("gone"));
    let result = plugin.add(&plain(), &Call::of(&kept));
    plugin.add(&plain(), &Call::of(&lost));
    plugin.add(&plain(), &Call::of(&gone));
    gone.vanish();
    plugin
        .call("GC", &valid(&["kept"]), &Call::default())
        .succeeded();
    plugin
        .check(&plain(), &result, &Call::of(&kept))
        .succeeded();
    let now = host.observe();
    for name in ["lost", "gone"] {
        assert!(
            now.mentioning(name).is_empty(),
            "{name} is still known: {:?}",
            now.mentioning(name)
        );
    }
    assert!(
        lost.link("eth0").is_none(),
        "the interface of a collected container is gone"
    );
    plugin.call("GC", &valid(&[]), &Call::default()).succeeded();
    host.assert_nothing_left(&before, &["kept", "lost", "gone"]);
}

fn gc_without_attachments_does_nothing(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let before = it.host.observe();
    it.plugin(lab)
        .call("GC", &plain(), &Call::default())
        .succeeded();
    assert_eq!(it.host.observe().since(&before), "");
}

fn gc_by_cnitool_collects_everything(lab: &Lab) {
    let host = Host::new();
    host.configure("10-net.conflist", &list(&plain()));
    let cnitool = lab.cnitool(&host);
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.observe();
    cnitool.add("net", &a);
    cnitool.add("net", &b);
    cnitool.call("gc", "net", &a.netns()).succeeded();
    host.assert_nothing_left(&before, &[]);
}

fn status_is_fine_when_there_is_room(lab: &Lab) {
    let host = Host::new();
    for network in [plain(), layer2()] {
        // The reference looks for an IPAM plugin even where there is none.
        if lab.subject == Subject::Go && network == layer2() {
            continue;
        }
        let output = lab
            .plugin(&host, "bridge")
            .call("STATUS", &network, &Call::default());
        assert!(output.succeeded().stdout.is_empty(), "STATUS has no result");
    }
}

fn status_tells_of_an_exhausted_pool(lab: &Lab) {
    let network = bridge(host_local(&["10.1.0.0/30"]));
    let it = Attached::new(lab, &network);
    let error = it
        .plugin(lab)
        .call("STATUS", &network, &Call::default())
        .error();
    assert_eq!(error["code"], 50, "{error}");
    let said = format!("{} {}", error["msg"], error["details"]);
    assert!(
        said.contains("1/1") || said.contains("1 of 1"),
        "used and total: {error}"
    );
    it.plugin(lab).del(&network, &Call::of(&it.pod));
    it.plugin(lab)
        .call("STATUS", &network, &Call::default())
        .succeeded();
}

fn status_by_cnitool(lab: &Lab) {
    let host = Host::new();
    host.configure("10-net.conflist", &list(&plain()));
    let pod = host.pod("pod");
    lab.cnitool(&host)
        .call("status", "net", &pod.netns())
        .succeeded();
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
