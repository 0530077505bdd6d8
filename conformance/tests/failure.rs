//! ADD that fails leaves nothing and says why.

use conformance::{Call, Case, Host, Lab, Pod, Snapshot, Subject, case, with};
use serde_json::{Value, json};

use crate::common::{Attached, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_failed_add_leaves_nothing).ours(),
        case!(a_failed_add_gives_its_address_back),
        case!(a_second_add_fails_and_harms_nothing),
    ]
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
        let (before, inside) = (host.observe(), Snapshot::of(&pod));
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
        let changed = Snapshot::of(&pod).since(&inside);
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
        // And the DEL that follows has nothing to complain about, unless nobody can be asked to release.
        if failure.says != "nonesuch" {
            lab.plugin(&host, "bridge").del(&failure.network, &call);
        }
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
    // The Go plugin may leave a second veth, but it doesn't touch the first attachment either.
    if lab.subject == Subject::Trestle {
        assert_eq!(it.host.observe().since(&before), "");
    }
    it.plugin(lab)
        .check(&plain(), &it.result, &Call::of(&it.pod))
        .succeeded();
    assert!(it.pod.pings([10, 1, 0, 1].into()));
}
