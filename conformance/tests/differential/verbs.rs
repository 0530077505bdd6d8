//! GC and STATUS, put to both makers: attachments that are valid keep what they have, the others lose it.

use conformance::differential::{Implementation, Side, chained, compare};
use conformance::{
    Call, Case, Lab, Need, Program, Protocol, host_local, ipam_network, layer2, with,
};
use serde_json::{Value, json};

use super::INDEX;
use crate::common::{ip, plain};

/// What the tests here expect beside what scenarios do.
pub(super) const DIFFERENCES: [&str; 4] = [
    COLLECTS,
    "status-of-a-full-pool",
    "nobody-hears-the-result",
    "empty-entries-of-cni-path",
];

/// GC of the Go plugins hands the list on to the IPAM plugin, whose GC does nothing.
const COLLECTS: &str = "gc-collects";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, chain, differences) in networks() {
        let case = Case::new(format!("differential::gc::{name}"), move |lab| {
            gc(lab, &chain, &differences);
        });
        cases.push(case.needs(Need::GoPlugins).ours());
    }
    cases.push(Case::new("differential::status", status).needs(Need::GoPlugins));
    let case = Case::new("differential::status_of_a_full_pool", full_pool);
    cases.push(case.needs(Need::GoPlugins));
    let case = Case::new("differential::result_that_nobody_hears", unheard);
    cases.push(case.needs(Need::GoPlugins));
    let case = Case::new("differential::empty_entry_of_cni_path", empty_entry);
    cases.push(case.needs(Need::GoPlugins));
    cases
}

/// Networks, and the differences that they show.
fn networks() -> Vec<(&'static str, Vec<Value>, Vec<&'static str>)> {
    const OF_NFT: &str = "del-with-nftables";
    let shown = |more: &[&'static str]| [&["mtu-in-results", INDEX, COLLECTS], more].concat();
    let masq = |backend| {
        let keys = json!({"isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": backend});
        with(plain(), keys)
    };
    let ptp = chained("ptp", json!({"ipam": host_local(&["10.1.0.0/24"])}));
    let behind = |last: &str, more| vec![plain(), chained(last, more)];
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000});
    vec![
        ("bridge", vec![plain()], shown(&[])),
        ("masquerade_iptables", vec![masq("iptables")], shown(&[])),
        (
            "masquerade_nftables",
            vec![masq("nftables")],
            shown(&[OF_NFT]),
        ),
        ("ptp", vec![ptp], shown(&[])),
        ("firewall", behind("firewall", json!({})), shown(&[])),
        ("tuning", behind("tuning", json!({"mtu": 1400})), shown(&[])),
        ("bandwidth", behind("bandwidth", limits), shown(&[])),
        ("portmap", behind("portmap", ports), shown(&[])),
    ]
}

/// Three containers, of which the second is valid.
fn gc(lab: &Lab, chain: &[Value], differences: &[&str]) {
    compare(lab, differences, &[], |side| {
        let pods = ["one", "kept", "three"].map(|name| side.pod(name));
        side.start();
        side.step("add");
        let results = pods.each_ref().map(|pod| {
            let result = side.add(&chain_of(chain, &pod.name), &Call::of(pod));
            result.expect("ADD succeeds")
        });
        side.start();
        for (step, valid) in [
            ("gc, all are valid", ["one", "kept", "three"].as_slice()),
            ("gc, one is valid", &["kept"]),
            ("gc, once more", &["kept"]),
        ] {
            side.step(step);
            side.gc(chain, &attachments(valid));
            side.observe();
            if side.maker == Implementation::Ours {
                let attached = pods.each_ref().map(|pod| pod.link("eth0").is_some());
                let expected = ["one", "kept", "three"].map(|name| valid.contains(&name));
                assert_eq!(attached, expected, "{step}");
            }
            side.check(&chain_of(chain, "kept"), &results[1], &Call::of(&pods[1]));
            let _server = pods[1].serve(Protocol::Tcp, ip("10.1.0.3"), 80);
            let to = ([10, 1, 0, 3], 80).into();
            side.probe("to the valid one", &side.host, Protocol::Tcp, to);
        }
        side.step("gc, none is valid");
        side.gc(chain, &attachments(&[]));
        side.observe();
        side.step("del");
        for (pod, result) in pods.iter().zip(&results) {
            side.del(&chain_of(chain, &pod.name), result, &Call::of(pod));
        }
        side.observe();
    });
}

/// The network for one container: each maps another port of the host.
fn chain_of(chain: &[Value], container: &str) -> Vec<Value> {
    let mut chain = chain.to_vec();
    for mapping in chain
        .iter_mut()
        .filter_map(|plugin| plugin.pointer_mut("/runtimeConfig/portMappings/0/hostPort"))
    {
        *mapping = json!(8000 + container.len());
    }
    chain
}

/// The list that a runtime hands to GC.
fn attachments(containers: &[&str]) -> Value {
    let attachment = |name: &&str| json!({"containerID": name, "ifname": "eth0"});
    containers.iter().map(attachment).collect()
}

/// STATUS of each plugin, also where ADD would fail.
fn status(lab: &Lab) {
    let masq = |backend| with(plain(), json!({"ipMasq": true, "ipMasqBackend": backend}));
    let fixed = json!({"type": "static", "addresses": [{"address": "10.1.0.2/24"}]});
    let configurations = [
        ("bridge", plain()),
        ("layer 2", layer2()),
        ("masquerading by iptables", masq("iptables")),
        ("masquerading by nftables", masq("nftables")),
        ("static addresses", with(layer2(), json!({"ipam": fixed}))),
        (
            "ptp",
            chained("ptp", json!({"ipam": host_local(&["10.1.0.0/24"])})),
        ),
        (
            "host-local",
            chained("host-local", json!({"ipam": host_local(&["10.1.0.0/24"])})),
        ),
        ("static", chained("static", json!({"ipam": fixed}))),
        ("loopback", chained("loopback", json!({}))),
        ("portmap", chained("portmap", json!({}))),
        ("firewall", chained("firewall", json!({}))),
        ("tuning", chained("tuning", json!({"mtu": 1400}))),
        ("bandwidth", chained("bandwidth", json!({}))),
    ];
    compare(lab, &[], &[], |side| {
        for (name, configuration) in &configurations {
            side.step(*name);
            side.call("STATUS", configuration, &Call::default());
            side.observe();
        }
    });
}

fn full_pool(lab: &Lab) {
    let not_ready = json!({"statusWhenFull": "notReady"});
    let network = with(
        ipam_network(host_local(&["10.1.0.0/30"])),
        json!({"ipam": not_ready}),
    );
    let differences = [INDEX, "status-of-a-full-pool"];
    compare(lab, &differences, &[], |side| {
        let pod = side.pod("pod");
        side.start();
        side.step("before");
        side.call("STATUS", &network, &Call::default());
        side.life(std::slice::from_ref(&network), &Call::of(&pod), |side| {
            side.step("full");
            side.call("STATUS", &network, &Call::default());
        });
        side.step("after");
        side.call("STATUS", &network, &Call::default());
    });
}

/// ADD whose standard output is full.
fn unheard(lab: &Lab) {
    compare(lab, &["nobody-hears-the-result"], &[], |side| {
        let pod = side.pod("pod");
        add_by_shell(side, "exec PLUGIN >/dev/full", None);
        let stands = pod.link("eth0").is_some();
        side.note("pod", format!("eth0 is there: {stands}"));
    });
}

/// ADD in the directory of the plugins, to which an empty entry leads a shell.
fn empty_entry(lab: &Lab) {
    compare(lab, &["empty-entries-of-cni-path"], &[], |side| {
        let _pod = side.pod("pod");
        let path = format!(":{}", side.plugin("bridge").path);
        let status = add_by_shell(side, "cd DIRECTORY && exec PLUGIN", Some(&path));
        side.note("answer", format!("status {status:?}"));
    });
}

fn add_by_shell(side: &Side, script: &str, path: Option<&str>) -> Option<i32> {
    let plugin = side.plugin("bridge");
    let program = plugin.program.display().to_string();
    let script = script
        .replace("PLUGIN", &program)
        .replace("DIRECTORY", &plugin.path);
    let program = Program::new("sh")
        .args(["-c", &script])
        .env("CNI_COMMAND", "ADD")
        .env("CNI_PATH", path.unwrap_or(&plugin.path))
        .env("CNI_CONTAINERID", "pod")
        .env("CNI_NETNS", "/run/netns/pod")
        .env("CNI_IFNAME", "eth0")
        .stdin(plain().to_string());
    side.host.run(program).status.code()
}
