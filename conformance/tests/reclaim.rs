//! Addresses of containers that are gone without DEL: after a restart of the machine, and after a crash.
//!
//! A restart is simulated on the disk: records and index get the ID of another boot, and the interfaces go.

use conformance::{Call, Case, Host, Lab, Need, Pod, bridge, case, host_local, with};
use serde_json::{Value, json};

use crate::common::{code, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(addresses_of_an_earlier_boot_are_free_at_the_first_add).ours(),
        case!(an_address_of_an_earlier_boot_stays_while_its_veth_stands).ours(),
        case!(an_address_is_taken_back_when_its_namespace_is_gone_and_the_pool_exhausted).ours(),
        case!(an_address_is_not_taken_back_while_others_are_free).ours(),
        case!(a_new_namespace_at_the_old_path_does_not_keep_the_address).ours(),
        case!(a_late_del_of_a_container_that_lost_its_address_harms_nobody).ours(),
        case!(reclaim_can_be_switched_off).ours(),
        case!(nothing_is_guessed_about_what_the_go_plugin_gave)
            .ours()
            .needs(Need::GoPlugins),
        case!(nothing_is_guessed_when_the_record_is_lost).ours(),
    ]
}

const STATE: &str = "/var/lib/cni/networks/net";
const OWN: &str = "/var/lib/cni/networks/.trestle/net";

/// A network with room for exactly one container.
fn tight() -> Value {
    bridge(host_local(&["10.1.0.0/30"]))
}

fn owner(host: &Host, address: &str) -> Option<String> {
    let text = host.read(&format!("{STATE}/{address}"))?;
    text.split("\r\n").next().map(str::to_owned)
}

/// Give what is remembered of a container, and the index, to another boot.
fn restart(host: &Host, container: &str) {
    let boot = host.sh("cat /proc/sys/kernel/random/boot_id");
    for path in [format!("{OWN}/{container}:eth0"), format!("{OWN}/index")] {
        let text = host.read(&path).expect("a state file of ours");
        let other = "00000000-1111-2222-3333-444444444444";
        host.write(&path, text.replace(boot.trim(), other));
    }
}

/// A container that vanishes without DEL, its interfaces too.
fn attach_and_vanish(lab: &Lab, host: &Host, network: &Value, name: &str) {
    let pod = host.pod(name);
    let result = lab.plugin(host, "bridge").add(network, &Call::of(&pod));
    let veth = result["interfaces"][1]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    pod.vanish();
    wait_until("the veth goes with its namespace", || {
        host.link(&veth).is_none()
    });
}

fn add(lab: &Lab, pod: &Pod, host: &Host, network: &Value) -> Value {
    lab.plugin(host, "bridge").add(network, &Call::of(pod))
}

fn addresses_of_an_earlier_boot_are_free_at_the_first_add(lab: &Lab) {
    let host = Host::new();
    let network = bridge(host_local(&["10.1.0.0/24"]));
    let pod = host.pod("old");
    let result = add(lab, &pod, &host, &network);
    let veth = result["interfaces"][1]["name"].as_str().expect("a name");
    host.ip(&format!("link del {veth}"));
    restart(&host, "old");
    add(lab, &host.pod("new"), &host, &network);
    assert_eq!(
        owner(&host, "10.1.0.2"),
        None,
        "free though the pool has room"
    );
    assert_eq!(owner(&host, "10.1.0.3").as_deref(), Some("new"));
    assert!(host.observe().mentioning("old:eth0").is_empty());
}

fn an_address_of_an_earlier_boot_stays_while_its_veth_stands(lab: &Lab) {
    let host = Host::new();
    let old = host.pod("old");
    add(lab, &old, &host, &tight());
    restart(&host, "old");
    let new = host.pod("new");
    let output = lab
        .plugin(&host, "bridge")
        .call("ADD", &tight(), &Call::of(&new));
    assert_eq!(code(&output), 101, "{output}");
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("old"));
    assert!(old.pings([10, 1, 0, 1].into()));
    lab.plugin(&host, "bridge").del(&tight(), &Call::of(&old));
    add(lab, &new, &host, &tight());
}

fn an_address_is_taken_back_when_its_namespace_is_gone_and_the_pool_exhausted(lab: &Lab) {
    let host = Host::new();
    for name in ["first", "second", "third"] {
        attach_and_vanish(lab, &host, &tight(), name);
        assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some(name));
    }
    let pod = host.pod("fourth");
    add(lab, &pod, &host, &tight());
    assert!(pod.pings([10, 1, 0, 1].into()));
}

fn an_address_is_not_taken_back_while_others_are_free(lab: &Lab) {
    let host = Host::new();
    let network = bridge(host_local(&["10.1.0.0/24"]));
    attach_and_vanish(lab, &host, &network, "gone");
    add(lab, &host.pod("new"), &host, &network);
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("gone"));
    assert_eq!(owner(&host, "10.1.0.3").as_deref(), Some("new"));
}

fn a_new_namespace_at_the_old_path_does_not_keep_the_address(lab: &Lab) {
    let host = Host::new();
    attach_and_vanish(lab, &host, &tight(), "pod");
    let reused = host.pod("pod");
    let call = Call::named("another", Some(&reused.netns()));
    lab.plugin(&host, "bridge").add(&tight(), &call);
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("another"));
}

fn a_late_del_of_a_container_that_lost_its_address_harms_nobody(lab: &Lab) {
    let host = Host::new();
    let network = with(tight(), json!({"ipMasq": true}));
    attach_and_vanish(lab, &host, &network, "old");
    let pod = host.pod("new");
    let result = add(lab, &pod, &host, &network);
    let plugin = lab.plugin(&host, "bridge");
    plugin.del(&network, &Call::named("old", Some("/run/netns/old")));
    plugin.check(&network, &result, &Call::of(&pod)).succeeded();
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("new"));
    assert!(
        host.observe().mentioning("net/new/eth0").len() >= 2,
        "veth and masquerade"
    );
    assert!(host.observe().mentioning("old").is_empty());
}

fn reclaim_can_be_switched_off(lab: &Lab) {
    let host = Host::new();
    let network = with(tight(), json!({"ipam": {"reclaim": false}}));
    attach_and_vanish(lab, &host, &network, "machine");
    restart(&host, "machine");
    let call = Call::of(&host.pod("new"));
    let output = lab.plugin(&host, "bridge").call("ADD", &network, &call);
    assert_eq!(code(&output), 101, "{output}");
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("machine"));
}

fn nothing_is_guessed_about_what_the_go_plugin_gave(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("go");
    let go = lab.plugin_in(&host, "host-local", &lab.go_plugins(), &[]);
    go.add(
        &with(tight(), json!({"type": "host-local"})),
        &Call::of(&pod),
    );
    pod.vanish();
    let call = Call::of(&host.pod("new"));
    for _ in 0..2 {
        let output = lab.plugin(&host, "bridge").call("ADD", &tight(), &call);
        assert_eq!(code(&output), 101, "{output}");
    }
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("go"));
}

fn nothing_is_guessed_when_the_record_is_lost(lab: &Lab) {
    let host = Host::new();
    attach_and_vanish(lab, &host, &tight(), "gone");
    host.sh(&format!("rm {OWN}/gone:eth0"));
    let call = Call::of(&host.pod("new"));
    let output = lab.plugin(&host, "bridge").call("ADD", &tight(), &call);
    assert_eq!(code(&output), 101, "{output}");
    assert_eq!(owner(&host, "10.1.0.2").as_deref(), Some("gone"));
}
