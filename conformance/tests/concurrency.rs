//! Many containers that come and go at the same time, while others interfere.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::{Call, Case, Host, Lab, Need, Plugin, Pod, bridge, case, host_local, with};
use serde_json::{Value, json};

use crate::common::{at_once, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_storm_beside_another_network_and_the_go_plugin)
            .ours()
            .needs(Need::GoPlugins),
        case!(simultaneous_first_adds_make_one_bridge).ours(),
        case!(rules_that_are_flushed_in_the_middle_come_back).ours(),
        case!(a_bridge_that_is_deleted_in_the_middle_comes_back).ours(),
    ]
}

/// Processes that work at the same time.
const WORKERS: usize = 32;

/// ADDs in a storm.
const ROUNDS: usize = 500;

/// The addresses that are given at one moment; nobody may be given one of them.
#[derive(Default)]
struct Given(Mutex<BTreeSet<String>>);

impl Given {
    #[track_caller]
    fn take(&self, who: &str, result: &Value) -> String {
        let address = result["ips"][0]["address"].as_str().expect("an address");
        let fresh = self.0.lock().expect("no panic").insert(address.to_owned());
        assert!(fresh, "{who} got {address}, which another holds");
        address.to_owned()
    }

    fn give_back(&self, address: &str) {
        self.0.lock().expect("no panic").remove(address);
    }
}

/// ADD and DEL of one attachment, again and again until `rounds` is used up.
fn come_and_go(
    plugin: &Plugin<'_>,
    network: &Value,
    pod: &Pod,
    given: &Given,
    rounds: &AtomicUsize,
) {
    loop {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        if round >= ROUNDS {
            return;
        }
        let name = format!("{}-{round}", pod.name);
        let call = Call::named(&name, Some(&pod.netns()));
        let address = given.take(&name, &plugin.add(network, &call));
        // Once it is given back, another may have it before this process is heard of again.
        given.give_back(&address);
        plugin.del(network, &call);
    }
}

fn a_storm_beside_another_network_and_the_go_plugin(lab: &Lab) {
    let host = Host::new();
    let stormy = with(
        bridge(host_local(&["10.1.0.0/24"])),
        json!({"ipMasq": true}),
    );
    let calm = with(
        bridge(host_local(&["10.2.0.0/24"])),
        json!({"name": "calm", "bridge": "cni1"}),
    );
    let direct = with(stormy.clone(), json!({"type": "host-local"}));
    let pods: Vec<_> = (0..WORKERS)
        .map(|index| host.pod(&format!("pod{index}")))
        .collect();
    let before = host.observe();
    let resident = host.pod("resident");
    let bridge = lab.plugin(&host, "bridge");
    let go = lab.plugin_in(&host, "host-local", &lab.go_plugins(), &[]);
    let given = Given::default();
    let result = bridge.add(&stormy, &Call::of(&resident));
    given.take("resident", &result);
    let rounds = AtomicUsize::new(0);
    at_once(WORKERS, |index| match index {
        0 => calm_life(&bridge, &calm, &pods[0], &rounds),
        1 => come_and_go(&go, &direct, &pods[1], &given, &rounds),
        _ => come_and_go(&bridge, &stormy, &pods[index], &given, &rounds),
    });
    bridge
        .check(&stormy, &result, &Call::of(&resident))
        .succeeded();
    assert!(resident.pings([10, 1, 0, 1].into()));
    bridge.del(&stormy, &Call::of(&resident));
    host.assert_nothing_left(&before, &["/pod", "/resident", "pod0-", "pod1-"]);
}

/// Another network, whose containers get the same address again and again because nobody else asks.
fn calm_life(plugin: &Plugin<'_>, network: &Value, pod: &Pod, rounds: &AtomicUsize) {
    let mut last = 1;
    while rounds.load(Ordering::Relaxed) < ROUNDS {
        let result = plugin.add(network, &Call::of(pod));
        last = if last == 254 { 2 } else { last + 1 };
        assert_eq!(result["ips"][0]["address"], format!("10.2.0.{last}/24"));
        assert!(pod.pings([10, 2, 0, 1].into()));
        plugin.del(network, &Call::of(pod));
    }
}

fn simultaneous_first_adds_make_one_bridge(lab: &Lab) {
    for _ in 0..3 {
        let host = Host::new();
        let network = with(plain(), json!({"ipMasq": true}));
        let pods: Vec<_> = (0..WORKERS)
            .map(|index| host.pod(&format!("pod{index}")))
            .collect();
        let before = host.observe();
        let plugin = lab.plugin(&host, "bridge");
        let results = at_once(WORKERS, |index| {
            plugin.add(&network, &Call::of(&pods[index]))
        });
        let macs: BTreeSet<_> = results
            .iter()
            .map(|result| result["interfaces"][0]["mac"].to_string())
            .collect();
        assert_eq!(macs.len(), 1, "everybody saw the same bridge: {macs:?}");
        for (pod, result) in pods.iter().zip(&results) {
            plugin.check(&network, result, &Call::of(pod)).succeeded();
            assert!(pod.pings([10, 1, 0, 1].into()));
        }
        at_once(WORKERS, |index| {
            plugin.del(&network, &Call::of(&pods[index]))
        });
        host.assert_nothing_left(&before, &["/pod"]);
    }
}

/// Containers that come while `interfere` is done again and again; everybody who was told of success is attached at
/// the end, or the next ADD of somebody makes it so; everybody who wasn't has nothing.
fn attach_while(lab: &Lab, network: &Value, interfere: impl Fn(&Host) + Sync) {
    let host = Host::new();
    let pods: Vec<_> = (0..WORKERS)
        .map(|index| host.pod(&format!("pod{index}")))
        .collect();
    let before = host.observe();
    let plugin = lab.plugin(&host, "bridge");
    let busy = AtomicUsize::new(WORKERS);
    let outputs = at_once(WORKERS + 1, |index| {
        let Some(pod) = pods.get(index) else {
            while busy.load(Ordering::Relaxed) > 0 {
                interfere(&host);
            }
            return Vec::new();
        };
        let outputs = (0..3).map(|_| {
            let output = plugin.call("ADD", network, &Call::of(pod));
            if !output.ok() {
                output.error();
            }
            plugin.del(network, &Call::of(pod));
            output
        });
        let outputs: Vec<_> = outputs.collect();
        busy.fetch_sub(1, Ordering::Relaxed);
        outputs
    });
    let outputs: Vec<_> = outputs.into_iter().flatten().collect();
    let failed: Vec<_> = outputs.iter().filter(|output| !output.ok()).collect();
    // How many are in the middle each time hangs on the machine.
    assert!(
        failed.len() < outputs.len() / 2,
        "most succeed nevertheless: {} failed, such as {}",
        failed.len(),
        failed[0]
    );
    host.assert_nothing_left(&before, &["/pod"]);
    // And now in peace.
    let results = at_once(8, |index| plugin.add(network, &Call::of(&pods[index])));
    for (pod, result) in pods.iter().zip(&results) {
        plugin.check(network, result, &Call::of(pod)).succeeded();
        assert!(pod.pings([10, 1, 0, 1].into()));
    }
    at_once(8, |index| plugin.del(network, &Call::of(&pods[index])));
    host.assert_nothing_left(&before, &["/pod"]);
}

fn rules_that_are_flushed_in_the_middle_come_back(lab: &Lab) {
    let network = with(plain(), json!({"ipMasq": true}));
    attach_while(lab, &network, |host| {
        host.sh("nft flush ruleset");
    });
    // Those who live through it are masqueraded again as soon as somebody comes.
    let host = Host::new();
    let plugin = lab.plugin(&host, "bridge");
    let pods: Vec<_> = (0..8)
        .map(|index| host.pod(&format!("pod{index}")))
        .collect();
    let results: Vec<_> = pods
        .iter()
        .map(|pod| plugin.add(&network, &Call::of(pod)))
        .collect();
    host.sh("nft flush ruleset");
    let late = host.pod("late");
    plugin.add(&network, &Call::of(&late));
    for (pod, result) in pods.iter().zip(&results) {
        plugin.check(&network, result, &Call::of(pod)).succeeded();
    }
}

fn a_bridge_that_is_deleted_in_the_middle_comes_back(lab: &Lab) {
    attach_while(lab, &plain(), |host| {
        let _ = host.run(conformance::Program::new("ip").args(["link", "del", "cni0"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
    });
}
