//! host-local's state on disk: its form, concurrency, and taking turns with the Go plugin.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::at_once;
use crate::host_local::{DIR, add, call, held, host, network, ranges};
use conformance::{Call, Case, Host, Lab, Need, Plugin, case, with};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_file_per_address_names_its_owner),
        case!(the_state_directory_can_be_chosen),
        case!(files_of_old_releases_are_released),
        case!(an_empty_address_file_is_free).ours(),
        case!(check_wants_the_address_to_be_held),
        case!(gc_keeps_what_is_valid).ours(),
        case!(sixty_four_at_once_get_different_addresses),
        case!(adds_and_dels_at_once_lose_nothing),
        case!(addresses_of_the_go_plugin_are_respected_and_released).needs(Need::GoPlugins),
        case!(the_go_plugin_respects_and_releases_our_addresses).needs(Need::GoPlugins),
        case!(both_implementations_take_turns).needs(Need::GoPlugins),
        case!(both_implementations_at_once).needs(Need::GoPlugins),
        case!(the_oldest_supported_go_release_interoperates).needs(Need::OldGoPlugins),
    ]
}

fn a_file_per_address_names_its_owner(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24", "fd00:1::/64"]);
    plugin.add(&network, &call("container").ifname("net1"));
    let owner = Some("container\r\nnet1".to_owned());
    assert_eq!(host.read(&format!("{DIR}/10.1.0.2")), owner);
    assert_eq!(host.read(&format!("{DIR}/fd00:1::2")), owner);
    assert_eq!(
        host.read(&format!("{DIR}/last_reserved_ip.0")).as_deref(),
        Some("10.1.0.2")
    );
    assert_eq!(
        host.read(&format!("{DIR}/last_reserved_ip.1")).as_deref(),
        Some("fd00:1::2")
    );
    assert_eq!(host.read(&format!("{DIR}/lock")).as_deref(), Some(""));
    // The Go plugin walks the directory and takes whatever is in it for an address.
    assert_eq!(host.list(DIR).len(), 5, "{:?}", host.list(DIR));
    let modes = host.sh(&format!("stat -c %a {DIR} {DIR}/10.1.0.2"));
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["755", "600"]);
}

fn the_state_directory_can_be_chosen(lab: &Lab) {
    let host = host();
    let network = with(
        network(&["10.1.0.0/24"]),
        json!({"ipam": {"dataDir": "/run/elsewhere"}}),
    );
    add(&lab.plugin(&host, "host-local"), &network, "a");
    assert!(
        host.list("/run/elsewhere/net")
            .contains(&"10.1.0.2".to_owned())
    );
    assert!(host.list(DIR).is_empty());
}

/// The first releases wrote the container's ID alone; white space around it doesn't matter.
fn files_of_old_releases_are_released(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24"]);
    host.write(&format!("{DIR}/10.1.0.2"), "a");
    host.write(&format!("{DIR}/10.1.0.3"), "b\n");
    host.write(&format!("{DIR}/10.1.0.4"), " c\r\neth0\n");
    assert_eq!(add(&plugin, &network, "new"), ["10.1.0.5"]);
    for name in ["a", "b", "c"] {
        plugin.del(&network, &call(name));
    }
    assert_eq!(held(&host).into_iter().collect::<Vec<_>>(), ["10.1.0.5"]);
}

/// What a crash of a careless writer leaves behind.
fn an_empty_address_file_is_free(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    host.write(&format!("{DIR}/10.1.0.2"), "");
    let network = network(&["10.1.0.0/30"]);
    assert_eq!(add(&plugin, &network, "a"), ["10.1.0.2"]);
    assert_eq!(
        host.read(&format!("{DIR}/10.1.0.2")).as_deref(),
        Some("a\r\neth0")
    );
}

fn check_wants_the_address_to_be_held(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24"]);
    let result = plugin.add(&network, &call("a"));
    plugin.check(&network, &result, &call("a")).succeeded();
    plugin.check(&network, &result, &call("b")).error();
    host.sh(&format!("rm {DIR}/10.1.0.2"));
    plugin.check(&network, &result, &call("a")).error();
}

fn gc_keeps_what_is_valid(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24"]);
    for name in ["a", "b", "c"] {
        add(&plugin, &network, name);
    }
    plugin.add(&network, &call("a").ifname("eth1"));
    plugin.call("GC", &network, &Call::default()).succeeded();
    assert_eq!(held(&host).len(), 4, "without the key nothing is known");
    let valid =
        json!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth0"}]);
    let some = with(network.clone(), json!({"cni.dev/valid-attachments": valid}));
    plugin.call("GC", &some, &Call::default()).succeeded();
    assert_eq!(
        held(&host).into_iter().collect::<Vec<_>>(),
        ["10.1.0.2", "10.1.0.4"]
    );
    let none = with(network, json!({"cni.dev/valid-attachments": []}));
    plugin.call("GC", &none, &Call::default()).succeeded();
    assert!(held(&host).is_empty());
}

fn sixty_four_at_once_get_different_addresses(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    // Room for exactly 64, so a lost one is noticed as well.
    let network = ranges(
        json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.73"}]]),
    );
    let given = at_once(64, |index| add(&plugin, &network, &format!("c{index}")));
    let distinct: BTreeSet<_> = given.iter().flatten().cloned().collect();
    assert_eq!(distinct.len(), 64, "all different");
    assert_eq!(distinct, held(&host));
    plugin.add_error(&network, &call("one-more"));
    at_once(64, |index| {
        plugin.del(&network, &call(&format!("c{index}")))
    });
    assert!(held(&host).is_empty(), "{:?}", held(&host));
}

fn adds_and_dels_at_once_lose_nothing(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/27"]);
    at_once(24, |index| {
        for round in 0..4 {
            let name = format!("c{index}-{round}");
            let given = add(&plugin, &network, &name);
            let file = host.read(&format!("{DIR}/{}", given[0]));
            assert_eq!(file, Some(format!("{name}\r\neth0")));
            plugin.del(&network, &call(&name));
        }
    });
    assert!(held(&host).is_empty(), "{:?}", held(&host));
}

/// The subject's host-local and the Go plugin's of that directory on one host.
fn pair<'h>(lab: &Lab, host: &'h Host, go: &Path) -> (Plugin<'h>, Plugin<'h>) {
    (
        lab.plugin(host, "host-local"),
        lab.plugin_in(host, "host-local", go, &[]),
    )
}

fn addresses_of_the_go_plugin_are_respected_and_released(lab: &Lab) {
    let host = host();
    let (ours, go) = pair(lab, &host, &lab.go_plugins());
    let network = network(&["10.1.0.0/24", "fd00:1::/64"]);
    let result = go.add(&network, &call("a"));
    assert_eq!(
        add(&ours, &network, "b"),
        ["10.1.0.3", "fd00:1::3"],
        "after Go's last address"
    );
    ours.check(&network, &result, &call("a")).succeeded();
    ours.add_error(&network, &call("a"));
    ours.del(&network, &call("a"));
    assert_eq!(
        held(&host).into_iter().collect::<Vec<_>>(),
        ["10.1.0.3", "fd00:1::3"]
    );
}

fn the_go_plugin_respects_and_releases_our_addresses(lab: &Lab) {
    let host = host();
    let (ours, go) = pair(lab, &host, &lab.go_plugins());
    let network = network(&["10.1.0.0/24", "fd00:1::/64"]);
    let result = ours.add(&network, &call("a"));
    assert_eq!(
        add(&go, &network, "b"),
        ["10.1.0.3", "fd00:1::3"],
        "after our last address"
    );
    go.check(&network, &result, &call("a")).succeeded();
    go.add_error(&network, &call("a"));
    go.del(&network, &call("a"));
    assert_eq!(
        held(&host).into_iter().collect::<Vec<_>>(),
        ["10.1.0.3", "fd00:1::3"]
    );
    // And what was released behind our back is known to be free.
    ours.add(&network, &call("a"));
    assert_eq!(held(&host).len(), 4);
}

fn take_turns(lab: &Lab, go: &Path) {
    let host = host();
    let (ours, go) = pair(lab, &host, go);
    // 1.1.1 doesn't know 1.1.0.
    let network = with(network(&["10.1.0.0/28"]), json!({"cniVersion": "1.0.0"}));
    let mut expected = BTreeSet::new();
    for round in 0..40 {
        let (adds, dels) = if round % 2 == 0 {
            (&ours, &go)
        } else {
            (&go, &ours)
        };
        let given = add(adds, &network, &format!("c{round}"));
        assert!(expected.insert((round, given[0].clone())), "{given:?}");
        let now: BTreeSet<_> = expected
            .iter()
            .map(|(_, address)| address.clone())
            .collect();
        assert_eq!(now, held(&host), "round {round}");
        if expected.len() > 6 {
            // Every third from the front, so that the holes wander.
            let victim = expected.iter().nth(round % 3).cloned().expect("an address");
            dels.del(&network, &call(&format!("c{}", victim.0)));
            expected.remove(&victim);
        }
    }
    for (index, (round, _)) in expected.iter().enumerate() {
        let plugin = if index % 2 == 0 { &ours } else { &go };
        plugin.del(&network, &call(&format!("c{round}")));
    }
    assert!(held(&host).is_empty(), "{:?}", held(&host));
}

fn both_implementations_take_turns(lab: &Lab) {
    take_turns(lab, &lab.go_plugins());
}

fn the_oldest_supported_go_release_interoperates(lab: &Lab) {
    take_turns(lab, &lab.old_go_plugins());
}

fn both_implementations_at_once(lab: &Lab) {
    let host = host();
    let (ours, go) = pair(lab, &host, &lab.go_plugins());
    let network = ranges(
        json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.41"}]]),
    );
    let of = |index: usize| if index.is_multiple_of(2) { &ours } else { &go };
    let given = at_once(32, |index| add(of(index), &network, &format!("c{index}")));
    let distinct: BTreeSet<_> = given.into_iter().flatten().collect();
    assert_eq!(distinct.len(), 32, "all different");
    assert_eq!(distinct, held(&host));
    at_once(32, |index| {
        of(index + 1).del(&network, &call(&format!("c{index}")))
    });
    assert!(held(&host).is_empty(), "{:?}", held(&host));
}
