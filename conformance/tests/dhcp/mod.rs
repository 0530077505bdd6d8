//! Addresses of DHCP servers: real ones, one that lies, and none.

mod go;
mod lies;
mod many;

mod restart;

use conformance::differential::chained;
use conformance::{Background, Call, Case, Host, Lab, Need, Pod, case, with};
use serde_json::{Value, json};

use crate::common::{code, wait_until};

pub(crate) use go::DIFFERENCES;

pub(crate) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(lease_has_routes_and_resolver_settings),
        case!(options_are_sent_and_asked_for),
        case!(lease_is_extended_and_given_back),
        case!(lease_that_nobody_extends_takes_the_interface_down),
        case!(another_server_takes_over),
        case!(gc_gives_back_what_the_dead_hold),
        case!(every_version_gets_its_result),
        case!(without_a_daemon_there_is_a_remedy),
        case!(replaced_interface_loses_its_lease),
        case!(stays_with_a_server_that_forgot),
        case!(port_of_a_bridge_gets_a_lease),
    ];
    let mut cases: Vec<Case> = cases
        .into_iter()
        .map(|case| case.needs(Need::DhcpServers))
        .collect();
    cases.extend(lies::cases());
    cases.extend(many::cases());
    cases.extend(restart::cases());
    let cases = cases
        .into_iter()
        .map(|case| case.needs(Need::LinkKind("macvlan")).ours());
    let mut cases: Vec<Case> = cases.collect();
    cases.extend(go::cases());
    cases
}

/// A network of macvlans on the cable, with these keys in `ipam`.
pub(super) fn network(ipam: Value) -> Value {
    let ipam = with(json!({"type": "dhcp"}), ipam);
    chained("macvlan", json!({"master": "up0", "ipam": ipam}))
}

/// A host, and a machine at the other end of the cable with an address.
pub(super) struct Scene {
    pub(super) host: Host,
    pub(super) outside: Host,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (host, outside) = (Host::new(), Host::new());
        host.cable("up0", &outside, "eth0");
        outside.ip("addr add 10.94.0.1/24 dev eth0");
        Self { host, outside }
    }

    #[track_caller]
    pub(super) fn dnsmasq(&self, lab: &Lab, more: &[&str]) -> Background<'_> {
        lab.dnsmasq(&self.outside, "eth0", "10.94.0.50,10.94.0.99,10m", more)
    }

    /// A server whose leases last for so many seconds, from `first` on.
    #[track_caller]
    pub(super) fn dhcpd(&self, lab: &Lab, seconds: u32, first: u8) -> Background<'_> {
        let conf = format!(
            "authoritative; ping-check false; min-lease-time {seconds}; default-lease-time {seconds}; \
             max-lease-time {seconds}; subnet 10.94.0.0 netmask 255.255.255.0 {{ range 10.94.0.{first} \
             10.94.0.{}; option routers 10.94.0.1; }}",
            first + 9
        );
        lab.dhcpd(&self.outside, "eth0", &conf)
    }

    #[track_caller]
    pub(super) fn daemon(&self, lab: &Lab) -> Background<'_> {
        lab.dhcp_daemon(&self.host, lab.bin(), &["-resendtimeout", "8s"])
    }

    /// The files of leases.
    pub(super) fn leases(&self) -> Vec<String> {
        let mut names = self.host.list("/var/lib/cni/dhcp");
        names.retain(|name| name.starts_with("lease:"));
        names
    }
}

/// Whether the pod's interface is up.
pub(super) fn is_up(pod: &Pod) -> bool {
    let link = pod.link("eth0").expect("eth0");
    link["flags"].to_string().contains("\"UP\"")
}

fn lease_has_routes_and_resolver_settings(lab: &Lab) {
    let scene = Scene::new();
    let options = [
        "-O",
        "3,10.94.0.1",
        "-O",
        "6,10.94.0.53",
        "-O",
        "15,example.org",
        "-O",
        "119,a.example.org,b.example.org",
        "-O",
        "121,10.9.0.0/16,10.94.0.2,0.0.0.0/0,10.94.0.3",
    ];
    let server = scene.dnsmasq(lab, &options);
    let _daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let network = network(json!({"priority": 77}));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let result = plugin.add(&network, &Call::of(&pod));
    let address = result["ips"][0]["address"].as_str().expect("an address");
    assert!(
        address.starts_with("10.94.0.") && address.ends_with("/24"),
        "{result}"
    );
    assert_eq!(result["ips"][0]["gateway"], "10.94.0.1");
    assert_eq!(
        result["routes"],
        json!([
            {"dst": "10.9.0.0/16", "gw": "10.94.0.2", "priority": 77},
            {"dst": "0.0.0.0/0", "gw": "10.94.0.3", "priority": 77}
        ])
    );
    assert_eq!(
        result["dns"],
        json!({"nameservers": ["10.94.0.53"], "domain": "example.org", "search": ["a.example.org", "b.example.org"]})
    );
    assert_eq!(pod.addresses("eth0"), [address]);
    assert!(pod.pings([10, 94, 0, 1].into()), "the address works");
    assert!(plugin.check(&network, &result, &Call::of(&pod)).ok());
    let listed = scene
        .host
        .run(conformance::Program::new(lab.bin().join("dhcp")).args(["list"]));
    assert!(listed.succeeded().text().contains(address));
    plugin.del(&network, &Call::of(&pod));
    assert_eq!(server.count("DHCPRELEASE"), 1, "{}", server.log());
    assert!(scene.leases().is_empty());
    plugin.del(&network, &Call::of(&pod));
}

fn options_are_sent_and_asked_for(lab: &Lab) {
    let scene = Scene::new();
    let server = scene.dnsmasq(lab, &["-O", "42,10.94.0.9"]);
    let _daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let ipam = json!({
        "provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}, {"option": "60", "value": "of-trestle"}],
        "request": [{"skipDefault": true}, {"option": "subnet-mask"}, {"option": "42"}],
    });
    let call = Call::of(&pod).args("IgnoreUnknown=1;K8S_POD_NAME=web-0");
    lab.plugin(&scene.host, "macvlan")
        .add(&network(ipam), &call);
    let log = server.log();
    assert!(log.contains("client provides name: web-0"), "{log}");
    assert!(log.contains("vendor class: of-trestle"), "{log}");
    assert!(
        log.contains("requested options: 1:netmask, 42:ntp-server"),
        "{log}"
    );
    assert!(!log.contains("requested options: 3:router"), "{log}");
    // The Go plugin's identifier: 0, then pod/net/eth0.
    assert!(
        scene
            .outside
            .read("/run/dnsmasq.leases")
            .is_some_and(|text| { text.contains("00:70:6f:64:2f:6e:65:74:2f:65:74:68:30") })
    );
}

fn lease_is_extended_and_given_back(lab: &Lab) {
    let scene = Scene::new();
    let mut server = scene.dhcpd(lab, 4, 50);
    let _daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let (network, call) = (network(json!({})), Call::of(&pod));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let result = plugin.add(&network, &call);
    // One to begin with, and three more: without those the lease would be over by then.
    server.wait_for("DHCPACK on 10.94.0.", 4);
    assert!(is_up(&pod));
    assert!(plugin.check(&network, &result, &call).ok());
    assert_eq!(server.count("DHCPDISCOVER"), 1, "{}", server.log());
    plugin.del(&network, &call);
    server.wait_for("DHCPRELEASE of 10.94.0.", 1);
    assert_eq!(server.count("(not found)"), 0, "{}", server.log());
}

fn lease_that_nobody_extends_takes_the_interface_down(lab: &Lab) {
    let scene = Scene::new();
    let server = scene.dhcpd(lab, 4, 50);
    let mut daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let (network, call) = (network(json!({})), Call::of(&pod));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let result = plugin.add(&network, &call);
    server.kill();
    daemon.wait_for("eth0 is down", 1);
    assert!(!is_up(&pod));
    let error = plugin.check(&network, &result, &call).error();
    let msg = error["msg"].as_str().unwrap_or_default();
    assert!(
        msg.contains("is lost: it ended") && error["code"] == 103,
        "{error}"
    );
    // So it says after a restart, too.
    daemon.kill();
    let _daemon = scene.daemon(lab);
    let error = plugin.check(&network, &result, &call).error();
    assert!(
        error["msg"]
            .as_str()
            .is_some_and(|msg| msg.contains("it ended")),
        "{error}"
    );
    plugin.del(&network, &call);
    assert!(scene.leases().is_empty());
}

fn another_server_takes_over(lab: &Lab) {
    let scene = Scene::new();
    let server = scene.dhcpd(lab, 6, 50);
    let _daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let (network, call) = (network(json!({})), Call::of(&pod));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let result = plugin.add(&network, &call);
    server.kill();
    // Another one, by another address, that has the same leases.
    scene.outside.ip("addr del 10.94.0.1/24 dev eth0");
    scene.outside.ip("addr add 10.94.0.2/24 dev eth0");
    let mut server = scene.dhcpd(lab, 6, 50);
    server.wait_for("DHCPACK on 10.94.0.", 2);
    assert!(plugin.check(&network, &result, &call).ok());
    assert!(is_up(&pod));
    let lease = scene
        .host
        .read(&format!("/var/lib/cni/dhcp/{}", scene.leases()[0]));
    assert!(lease.is_some_and(|text| text.contains("\"server\":\"10.94.0.2\"")));
}

fn stays_with_a_server_that_forgot(lab: &Lab) {
    let scene = Scene::new();
    let server = scene.dhcpd(lab, 8, 50);
    let _daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let (network, call) = (network(json!({})), Call::of(&pod));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let result = plugin.add(&network, &call);
    server.kill();
    scene.outside.write("/run/dhcpd.leases", "");
    let mut server = scene.dhcpd(lab, 8, 50);
    server.wait_for("DHCPACK on 10.94.0.", 2);
    assert!(is_up(&pod) && plugin.check(&network, &result, &call).ok());
}

fn gc_gives_back_what_the_dead_hold(lab: &Lab) {
    let scene = Scene::new();
    let server = scene.dnsmasq(lab, &[]);
    let _daemon = scene.daemon(lab);
    let plugin = lab.plugin(&scene.host, "macvlan");
    let pods = ["a", "b"].map(|name| scene.host.pod(name));
    let results = pods
        .each_ref()
        .map(|pod| plugin.add(&network(json!({})), &Call::of(pod)));
    let other = with(network(json!({})), json!({"name": "other"}));
    plugin.add(&other, &Call::of(&pods[1]).ifname("eth1"));
    let valid = json!([{"containerID": "a", "ifname": "eth0"}]);
    let gc = with(
        network(json!({})),
        json!({"cni.dev/valid-attachments": valid}),
    );
    plugin.call("GC", &gc, &Call::default()).succeeded();
    assert_eq!(server.count("DHCPRELEASE"), 1, "{}", server.log());
    assert_eq!(scene.leases(), ["lease:net:a:eth0", "lease:other:b:eth1"]);
    let check = |index: usize| {
        plugin.check(
            &network(json!({})),
            &results[index],
            &Call::of(&pods[index]),
        )
    };
    assert!(check(0).ok());
    assert_eq!(code(&check(1)), 103);
    plugin
        .call("STATUS", &network(json!({})), &Call::default())
        .succeeded();
}

fn every_version_gets_its_result(lab: &Lab) {
    let scene = Scene::new();
    let on_link = "121,169.254.0.0/16,0.0.0.0,0.0.0.0/0,10.94.0.1";
    let _server = scene.dnsmasq(lab, &["-O", "3,10.94.0.1", "-O", on_link]);
    let _daemon = scene.daemon(lab);
    let plugin = lab.plugin(&scene.host, "macvlan");
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let pod = scene.host.pod(&format!("pod{}", version.replace('.', "")));
        let network = with(network(json!({})), json!({"cniVersion": version}));
        let result = plugin.add(&network, &Call::of(&pod));
        assert_eq!(result["cniVersion"], version);
        let old = version.starts_with("0.1") || version.starts_with("0.2");
        let ip = if old {
            &result["ip4"]["ip"]
        } else {
            &result["ips"][0]["address"]
        };
        assert_eq!(
            pod.addresses("eth0"),
            [ip.as_str().expect("an address")],
            "{result}"
        );
        let routes = pod.ip_json("route show");
        let on_link = routes
            .as_array()
            .into_iter()
            .flatten()
            .find(|it| it["dst"] == "169.254.0.0/16");
        assert!(
            on_link.is_some_and(|it| it["gateway"].is_null()),
            "{version}: {routes}"
        );
        if !old && !version.starts_with("0.3") {
            plugin.check(&network, &result, &Call::of(&pod)).succeeded();
        }
        plugin.del(&network, &Call::of(&pod));
    }
}

fn without_a_daemon_there_is_a_remedy(lab: &Lab) {
    let scene = Scene::new();
    let pod = scene.host.pod("pod");
    let (network, call) = (network(json!({})), Call::of(&pod));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let before = scene.host.observe();
    let error = plugin.add_error(&network, &call);
    assert!(
        error["msg"]
            .as_str()
            .is_some_and(|msg| msg.contains("/run/cni/dhcp.sock")),
        "{error}"
    );
    assert!(
        error["details"]
            .as_str()
            .is_some_and(|it| it.contains("trestle-dhcp.socket")),
        "{error}"
    );
    assert_eq!(code(&plugin.call("STATUS", &network, &Call::default())), 50);
    plugin.del(&network, &call);
    scene.host.assert_nothing_left(&before, &["pod"]);
    assert!(pod.link("eth0").is_none());
}

fn replaced_interface_loses_its_lease(lab: &Lab) {
    let scene = Scene::new();
    let _server = scene.dhcpd(lab, 4, 50);
    let mut daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let (network, call) = (network(json!({})), Call::of(&pod));
    let plugin = lab.plugin(&scene.host, "macvlan");
    plugin.add(&network, &call);
    pod.ip("link del eth0");
    pod.ip("link add eth0 type veth peer name other");
    pod.ip("link set eth0 up");
    daemon.wait_for("is another one", 1);
    assert!(is_up(&pod), "what is the container's own is left alone");
    plugin.call("DEL", &network, &call).succeeded();
    assert!(pod.link("eth0").is_some() && scene.leases().is_empty());
    // A container that goes without a word is forgotten.
    let gone = scene.host.pod("gone");
    plugin.add(&network, &Call::of(&gone));
    assert_eq!(scene.leases().len(), 1);
    gone.vanish();
    wait_until("the lease is forgotten", || scene.leases().is_empty());
}

fn port_of_a_bridge_gets_a_lease(lab: &Lab) {
    let scene = Scene::new();
    let server = scene.dnsmasq(lab, &["-O", "3,10.94.0.1"]);
    let _daemon = scene.daemon(lab);
    scene.host.ip("link add br0 type bridge");
    scene.host.ip("link set br0 up");
    scene.host.ip("link set up0 master br0");
    let pod = scene.host.pod("pod");
    let call = Call::of(&pod);
    let before = scene.host.observe();
    let keys = json!({"bridge": "br0", "macspoofchk": false, "ipam": {"type": "dhcp"}});
    let network = chained("bridge", keys);
    let plugin = lab.plugin(&scene.host, "bridge");
    let result = plugin.add(&network, &call);
    let address = result["ips"][0]["address"].as_str().expect("an address");
    assert_eq!(pod.addresses("eth0"), [address]);
    assert!(pod.pings([10, 94, 0, 1].into()));
    plugin.check(&network, &result, &call).succeeded();
    plugin.del(&network, &call);
    assert_eq!(server.count("DHCPRELEASE"), 1, "{}", server.log());
    scene.host.assert_nothing_left(&before, &["pod"]);
    // Where no lease can be had nothing is left either.
    drop(server);
    let quick = with(
        network,
        json!({"ipam": {"daemonSocketPath": "/run/nobody"}}),
    );
    plugin.add_error(&quick, &call);
    scene.host.assert_nothing_left(&before, &["pod"]);
    assert!(pod.link("eth0").is_none());
}
