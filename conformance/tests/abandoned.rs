//! GC of pairs whose ADD was killed before it could write down whose they are.
//!
//! The kernel takes no alias in the message that makes a link; it comes with the next one. `strace` kills ADD in between, or
//! holds it there.

use conformance::{Call, Case, Host, Lab, Need, Output, Plugin, case, layer2, with};
use serde_json::{Value, json};

use crate::common::{at_once, plain, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    [
        case!(gc_finds_a_pair_without_an_alias),
        case!(gc_leaves_an_add_alone_that_is_between_pair_and_alias),
        case!(gc_leaves_pairs_of_others_alone),
    ]
    .into_iter()
    .map(|case| case.ours().needs(Need::Strace))
    .collect()
}

/// More messages than any ADD sends.
const LIMIT: usize = 200;

fn networks() -> [(&'static str, Value); 3] {
    let ptp = with(plain(), json!({"type": "ptp", "ipMasq": true}));
    [("bridge", plain()), ("bridge", layer2()), ("ptp", ptp)]
}

fn pod() -> Call {
    Call::named("pod", Some("/run/netns/pod"))
}

/// A pair's end on the host that has no alias.
fn nameless(host: &Host) -> Option<String> {
    let links = host.ip_json("link show");
    let mut links = links.as_array().into_iter().flatten();
    let found = links.find(|link| {
        link["linkinfo"]["info_kind"] == "veth"
            && link["ifalias"].is_null()
            && link["operstate"] == "DOWN"
    });
    found.and_then(|link| Some(link["ifname"].as_str()?.to_owned()))
}

/// Kill ADD at the message that would bring the alias. Returns which message of an ADD that is not the first one that is.
fn kill_before_the_alias(plugin: &Plugin<'_>, network: &Value) -> usize {
    plugin.add(network, &pod());
    plugin.del(network, &pod());
    for n in 1..LIMIT {
        let fault = format!("sendto:signal=KILL:when={n}");
        plugin.call_with_fault(&fault, "ADD", network, &pod());
        if nameless(plugin.host).is_some() {
            return n;
        }
        plugin.del(network, &pod());
    }
    panic!("no message of ADD leaves a pair without an alias");
}

fn gc(plugin: &Plugin<'_>, network: &Value, valid: &[&str]) -> Output {
    let valid: Vec<_> = valid
        .iter()
        .map(|name| json!({"containerID": name, "ifname": "eth0"}))
        .collect();
    let network = with(network.clone(), json!({"cni.dev/valid-attachments": valid}));
    plugin.call("GC", &network, &Call::default()).succeeded()
}

fn gc_finds_a_pair_without_an_alias(lab: &Lab) {
    for (name, network) in networks() {
        let host = Host::new();
        host.pod("pod");
        let neighbour = host.pod("neighbour");
        let plugin = lab.plugin(&host, name);
        let result = plugin.add(&network, &Call::of(&neighbour));
        let before = host.observe();
        kill_before_the_alias(&plugin, &network);
        gc(&plugin, &network, &["neighbour", "pod"]);
        assert!(nameless(&host).is_some(), "{name}: valid, so it stays");
        gc(&plugin, &network, &["neighbour"]);
        host.assert_nothing_left(&before, &["\"pod", "/pod/"]);
        plugin
            .check(&network, &result, &Call::of(&neighbour))
            .succeeded();
        plugin.add(&network, &pod());
    }
}

/// The network that collects is another one on the same bridge: of its own, a runtime makes no attachment meanwhile.
fn gc_leaves_an_add_alone_that_is_between_pair_and_alias(lab: &Lab) {
    for (name, network) in networks() {
        let rehearsal = Host::new();
        rehearsal.pod("pod");
        let n = kill_before_the_alias(&lab.plugin(&rehearsal, name), &network);
        let host = Host::new();
        host.pod("pod");
        let plugin = lab.plugin(&host, name);
        plugin.add(&network, &pod());
        plugin.del(&network, &pod());
        let other = with(network.clone(), json!({"name": "other"}));
        at_once(2, |index| {
            if index == 0 {
                let fault = format!("sendto:delay_enter=1000000:when={n}");
                plugin
                    .call_with_fault(&fault, "ADD", &network, &pod())
                    .succeeded();
            } else {
                wait_until("the pair", || nameless(&host).is_some());
                gc(&plugin, &other, &[]);
            }
        });
        assert!(nameless(&host).is_none(), "{name}: ADD had more to do");
        plugin.del(&network, &pod());
    }
}

/// Pairs without an alias that our ADD did not make: other names, other addresses, up, another bridge's.
fn gc_leaves_pairs_of_others_alone(lab: &Lab) {
    let host = Host::new();
    host.pod("pod");
    let plugin = lab.plugin(&host, "bridge");
    let elsewhere = with(plain(), json!({"bridge": "cni9"}));
    kill_before_the_alias(&plugin, &elsewhere);
    let abandoned = nameless(&host).expect("a pair");
    let link = host.link(&abandoned).expect("its host end");
    let mac = link["address"].as_str().expect("an address");
    host.ip("link add cni0 type bridge");
    host.pod("other");
    let mut others = Vec::new();
    for (index, (end, mac)) in [
        ("vethdeadbeef", "fe:00:00:00:00:01"),
        ("calif00", mac),
        ("veth0", mac),
    ]
    .iter()
    .enumerate()
    {
        let peer = format!("peer name eth{index} netns other");
        host.ip(&format!("link add {end} address {mac} type veth {peer}"));
        others.push((*end).to_owned());
    }
    gc(&plugin, &plain(), &[]);
    others.push(abandoned.clone());
    for end in &others {
        assert!(host.link(end).is_some(), "{end} is gone");
    }
    // The same pair goes with the network whose bridge it is a port of, unless it is up.
    host.ip(&format!("link set {abandoned} up"));
    gc(&plugin, &elsewhere, &[]);
    assert!(host.link(&abandoned).is_some(), "one that is up");
    host.ip(&format!("link set {abandoned} down"));
    gc(&plugin, &elsewhere, &[]);
    assert!(host.link(&abandoned).is_none());
}
