//! Every plugin in every version of the specification, through every verb, with what it does to the kernel.

use std::net::SocketAddr;

use conformance::{
    Call, Case, Host, Lab, Plugin, Pod, Program, Protocol, host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::common::code;

pub(crate) fn cases() -> Vec<Case> {
    let case = |row: Row| {
        let name = format!("versions::{}_in_every_version", row.plugin);
        Case::new(name, move |lab| {
            VERSIONS
                .iter()
                .for_each(|version| all_verbs(lab, &row, version));
        })
    };
    // The Go plugins have no bandwidth before 0.3.0, and codes of its own for errors.
    rows().into_iter().map(case).map(Case::ours).collect()
}

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// Verbs that came later, and with which version.
const LATER: [(&str, &str); 3] = [("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")];

/// Addresses on the cable to the machine outside, and of the container.
const HOST: [u8; 4] = [192, 0, 2, 1];
const OUTSIDE: [u8; 4] = [192, 0, 2, 2];
const POD: [u8; 4] = [10, 1, 0, 2];
const GATEWAY: [u8; 4] = [10, 1, 0, 1];

/// A MAC address for tuning to set.
const MAC: &str = "02:00:00:00:05:13";

/// What becomes of a plugin's work when GC finds it invalid.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gc {
    /// It is taken away.
    Removes,
    /// It is in the container alone and goes with it.
    Leaves,
}

/// A plugin, and how its work is seen.
struct Row {
    plugin: &'static str,
    /// What its configuration has beside name, version and type.
    conf: Value,
    /// Whether it stands behind a plugin that made the interface.
    chained: bool,
    /// Rules of nftables that the host has, so that there is something to do.
    rules: &'static str,
    /// Whether its work is done, seen from outside; none where it has none to do.
    done: Option<fn(&Scene) -> bool>,
    /// Changes a previous result into the one it should give, looking up in that what only it can know.
    owns: fn(&Scene, &str, &mut Value, &Value),
    gc: Gc,
}

impl Row {
    /// One that gives addresses or makes interfaces.
    fn first(plugin: &'static str, conf: Value, done: Option<fn(&Scene) -> bool>, gc: Gc) -> Self {
        Self {
            plugin,
            conf,
            chained: false,
            rules: "",
            done,
            owns: |_, _, _, _| {},
            gc,
        }
    }

    /// One behind ptp.
    fn chained(plugin: &'static str, conf: Value, done: fn(&Scene) -> bool) -> Self {
        Self {
            chained: true,
            ..Self::first(plugin, conf, Some(done), Gc::Removes)
        }
    }
}

fn rows() -> Vec<Row> {
    let ipam = || json!({"ipam": host_local(&["10.1.0.0/24"])});
    let fixed = json!({"ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}});
    let mappings = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let limits = json!({
        "ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000
    });
    vec![
        Row::first(
            "bridge",
            with(ipam(), json!({"isGateway": true})),
            Some(gateway_answers),
            Gc::Removes,
        ),
        Row::first("ptp", ipam(), Some(gateway_answers), Gc::Removes),
        Row::first("loopback", json!({}), Some(loopback_is_up), Gc::Leaves),
        Row::first("host-local", ipam(), Some(address_is_held), Gc::Removes),
        Row::first("static", fixed, None, Gc::Leaves),
        Row::chained(
            "portmap",
            json!({"capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mappings}}),
            host_port_answers,
        ),
        Row {
            rules:
                "add table inet filter
                add chain inet filter forward { type filter hook forward priority 0; policy drop; }",
            ..Row::chained("firewall", json!({}), outside_answers)
        },
        Row {
            owns: tuning_owns,
            gc: Gc::Leaves,
            ..Row::chained(
                "tuning",
                json!({"mac": MAC, "mtu": 1400}),
                interface_is_tuned,
            )
        },
        Row {
            owns: bandwidth_owns,
            ..Row::chained("bandwidth", limits, host_end_is_limited)
        },
    ]
}

fn gateway_answers(scene: &Scene) -> bool {
    scene.pod.pings(GATEWAY.into())
}

fn loopback_is_up(scene: &Scene) -> bool {
    let lo = scene.pod.link("lo").expect("lo");
    lo["flags"].to_string().contains("\"UP\"")
}

fn address_is_held(scene: &Scene) -> bool {
    let held = scene.host.list("/var/lib/cni/networks/net");
    held.iter().any(|name| name.starts_with("10.1.0."))
}

fn host_port_answers(scene: &Scene) -> bool {
    let _server = scene.pod.serve(Protocol::Tcp, POD.into(), 80);
    !scene
        .outside
        .cannot_reach(Protocol::Tcp, SocketAddr::from((HOST, 8080)))
}

fn outside_answers(scene: &Scene) -> bool {
    let server = scene.outside.serve(Protocol::Tcp, OUTSIDE.into(), 7000);
    !scene.pod.cannot_reach(Protocol::Tcp, server.address)
}

fn interface_is_tuned(scene: &Scene) -> bool {
    let eth0 = scene.pod.link("eth0").expect("eth0");
    eth0["mtu"] == 1400 && eth0["address"] == MAC
}

fn host_end_is_limited(scene: &Scene) -> bool {
    let queues = scene.host.sh("tc qdisc show");
    queues.contains("tbf") && queues.contains("ingress")
}

fn tuning_owns(_: &Scene, version: &str, expected: &mut Value, _: &Value) {
    if version >= "0.3.0" {
        expected["interfaces"][1]["mac"] = MAC.into();
    }
    if version >= "1.1.0" {
        expected["interfaces"][1]["mtu"] = 1400.into();
    }
}

/// The device in which what the container sends waits.
fn bandwidth_owns(scene: &Scene, version: &str, expected: &mut Value, result: &Value) {
    if version >= "0.3.0" {
        let device = &result["interfaces"][2];
        let name = device["name"].as_str().expect("a third interface");
        assert!(scene.host.link(name).is_some(), "{name} is on the host");
        let interfaces = expected["interfaces"].as_array_mut();
        interfaces.expect("interfaces").push(device.clone());
    }
}

/// A host with a container, and a machine outside that has a route to it.
struct Scene {
    host: Host,
    outside: Host,
    pod: Pod,
}

impl Scene {
    fn new(rules: &str) -> Self {
        let (host, outside) = (Host::new(), Host::new());
        // What IPv6 adds to interfaces in its own time would be taken for something left behind.
        host.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1");
        host.cable("up0", &outside, "eth0");
        host.ip("addr add 192.0.2.1/24 dev up0");
        outside.ip("addr add 192.0.2.2/24 dev eth0");
        outside.ip("route add 10.1.0.0/24 via 192.0.2.1");
        let load = Program::new("nft").args(["-f", "-"]);
        host.run(load.stdin(format!("{rules}\n"))).succeeded();
        let pod = host.pod("pod");
        Self { host, outside, pod }
    }

    #[track_caller]
    fn assert_done(&self, row: &Row, version: &str, done: bool, when: &str) {
        if let Some(look) = row.done {
            assert_eq!(look(self), done, "{} {version}: {when}", row.plugin);
        }
    }
}

/// One plugin in one version, from the first look at it to what is left.
fn all_verbs(lab: &Lab, row: &Row, version: &str) {
    let scene = Scene::new(row.rules);
    let (host, call) = (&scene.host, Call::of(&scene.pod));
    let plugin = lab.plugin(host, row.plugin);
    let named = |kind: &str| json!({"cniVersion": version, "name": "net", "type": kind});
    let alone = with(named(row.plugin), row.conf.clone());
    let previous = row.chained.then(|| {
        let ptp = with(
            named("ptp"),
            json!({"ipam": host_local(&["10.1.0.0/24"]), "dns": {"nameservers": ["192.0.2.53"]}}),
        );
        let routed = with(ptp, json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}));
        lab.plugin(host, "ptp").add(&routed, &call)
    });
    let conf = match &previous {
        Some(previous) => with_prev_result(&alone, previous),
        None => alone.clone(),
    };
    let before = host.observe();
    scene.assert_done(row, version, false, "before ADD");

    assert_lists_itself(&plugin, version);
    assert_later_verbs_are_refused(&plugin, version, &conf, &call);
    if row.chained {
        let error = plugin.add_error(&alone, &call);
        assert_eq!(
            (&error["code"], &error["cniVersion"]),
            (&json!(7), &json!(version)),
            "{error}"
        );
        assert!(error["msg"].to_string().contains("prevResult"), "{error}");
        assert!(error["details"].to_string().contains("plugins"), "{error}");
    }
    assert_eq!(
        host.observe().since(&before),
        "",
        "{} {version}",
        row.plugin
    );

    let result = plugin.add(&conf, &call);
    assert_eq!(result["cniVersion"], version, "{result}");
    scene.assert_done(row, version, true, "after ADD");
    if let Some(mut expected) = previous {
        (row.owns)(&scene, version, &mut expected, &result);
        assert_eq!(
            result, expected,
            "{} {version}: what passes through",
            row.plugin
        );
    } else if row.plugin != "loopback" {
        let old = &result["ip4"]["ip"];
        let address = if version < "0.3.0" {
            old
        } else {
            &result["ips"][0]["address"]
        };
        assert_eq!(address, "10.1.0.2/24", "{result}");
    }

    let done = with_prev_result(&alone, &result);
    if version >= "0.4.0" {
        plugin.call("CHECK", &done, &call).succeeded();
    }
    if version >= "1.1.0" {
        status_and_gc(&scene, row, &plugin, &conf, &done);
    }
    for time in ["DEL", "a second DEL"] {
        plugin.del(&done, &call);
        scene.assert_done(row, version, false, time);
    }
    host.assert_nothing_left(&before, &[]);
}

#[track_caller]
fn assert_lists_itself(plugin: &Plugin, version: &str) {
    let asked = json!({"cniVersion": version});
    let answer = plugin.call("VERSION", &asked, &Call::default());
    let answer = answer.succeeded().json();
    assert_eq!(answer["cniVersion"], version, "{answer}");
    assert_eq!(answer["supportedVersions"], json!(VERSIONS), "{answer}");
}

#[track_caller]
fn assert_later_verbs_are_refused(plugin: &Plugin, version: &str, conf: &Value, call: &Call) {
    for (verb, since) in LATER.iter().filter(|(_, since)| version < *since) {
        let conf = with(conf.clone(), json!({"cni.dev/valid-attachments": []}));
        let refused = plugin.call(verb, &conf, call);
        assert_eq!(code(&refused), 1, "{verb} of {version}: {refused}");
        let said = refused.error().to_string();
        let clear = [verb, since, version]
            .iter()
            .all(|word| said.contains(*word));
        assert!(clear, "{verb} of {version}: {said}");
    }
}

/// STATUS, and GC of a valid and of an invalid attachment, which ADD then makes again.
fn status_and_gc(scene: &Scene, row: &Row, plugin: &Plugin, conf: &Value, done: &Value) {
    let (call, version) = (Call::of(&scene.pod), "1.1.0");
    let outside = Call::default();
    let network = with(done.clone(), json!({"prevResult": null}));
    plugin.call("STATUS", &network, &outside).succeeded();
    let gc = |valid: Value| {
        let conf = with(network.clone(), json!({"cni.dev/valid-attachments": valid}));
        plugin.call("GC", &conf, &outside).succeeded();
    };
    gc(json!([{"containerID": "pod", "ifname": "eth0"}]));
    scene.assert_done(row, version, true, "GC of others");
    plugin.call("CHECK", done, &call).succeeded();
    if row.gc == Gc::Leaves {
        return;
    }
    gc(json!([]));
    scene.assert_done(row, version, false, "GC");
    plugin.call("CHECK", done, &call).error();
    plugin.add(conf, &call);
    scene.assert_done(row, version, true, "ADD after GC");
}
