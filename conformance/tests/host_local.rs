//! host-local: which addresses are handed out, how that is kept on disk, and that the Go plugin can take over.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use conformance::{Call, Host, Lab, Need, Plugin, addresses, case, host_local, ipam_network, with};
use serde_json::{Value, json};

fn main() -> ExitCode {
    conformance::run(vec![
        case!(addresses_are_handed_out_in_turn),
        case!(addresses_come_back_after_a_round),
        case!(every_range_set_gives_one_address),
        case!(a_range_set_is_filled_range_by_range),
        case!(range_limits_and_the_gateway_are_respected),
        case!(a_file_per_address_names_its_owner),
        case!(the_state_directory_can_be_chosen),
        case!(an_exhausted_pool_fails_and_takes_nothing),
        case!(an_exhausted_pool_says_how_full_it_is).ours(),
        case!(a_large_ipv6_subnet_is_not_walked),
        case!(a_second_add_for_the_same_interface_fails),
        case!(del_releases_what_the_container_holds_and_no_more),
        case!(del_of_nothing_succeeds),
        case!(files_of_old_releases_are_released),
        case!(an_empty_address_file_is_free).ours(),
        case!(requested_addresses_of_all_sources_are_given),
        case!(a_request_that_cannot_be_met_gives_everything_back),
        case!(runtime_ranges_go_in_front),
        case!(routes_and_dns_are_passed_on),
        case!(invalid_ranges_are_refused),
        case!(check_wants_the_address_to_be_held),
        case!(gc_keeps_what_is_valid).ours(),
        case!(sixty_four_at_once_get_different_addresses),
        case!(adds_and_dels_at_once_lose_nothing),
        case!(addresses_of_the_go_plugin_are_respected_and_released).needs(Need::GoPlugins),
        case!(the_go_plugin_respects_and_releases_our_addresses).needs(Need::GoPlugins),
        case!(both_implementations_take_turns).needs(Need::GoPlugins),
        case!(both_implementations_at_once).needs(Need::GoPlugins),
        case!(the_oldest_supported_go_release_interoperates).needs(Need::OldGoPlugins),
    ])
}

const DIR: &str = "/var/lib/cni/networks/net";

fn network(subnets: &[&str]) -> Value {
    ipam_network(host_local(subnets))
}

fn ranges(ranges: Value) -> Value {
    ipam_network(json!({"type": "host-local", "ranges": ranges}))
}

/// host-local never looks into the namespace, so one serves all containers.
fn host() -> Host {
    let host = Host::new();
    host.pod("any");
    host
}

fn call(container: &str) -> Call {
    Call::named(container, Some("/run/netns/any"))
}

/// ADD; the addresses without their prefix lengths.
#[track_caller]
fn add(plugin: &Plugin<'_>, network: &Value, container: &str) -> Vec<String> {
    let result = plugin.add(network, &call(container));
    addresses(&result).iter().map(ToString::to_string).collect()
}

/// The addresses that are held, by their files.
fn held(host: &Host) -> BTreeSet<String> {
    let names = host.list(DIR).into_iter();
    names
        .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
        .collect()
}

fn addresses_are_handed_out_in_turn(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24"]);
    assert_eq!(add(&plugin, &network, "a"), ["10.1.0.2"]);
    assert_eq!(add(&plugin, &network, "b"), ["10.1.0.3"]);
    plugin.del(&network, &call("a"));
    // Round-robin: an address that was released rests for a round.
    assert_eq!(add(&plugin, &network, "c"), ["10.1.0.4"]);
}

fn addresses_come_back_after_a_round(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/29"]);
    for index in 2..=6 {
        assert_eq!(
            add(&plugin, &network, &format!("c{index}")),
            [format!("10.1.0.{index}")]
        );
    }
    plugin.del(&network, &call("c4"));
    assert_eq!(add(&plugin, &network, "again"), ["10.1.0.4"]);
}

fn every_range_set_gives_one_address(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24", "10.2.0.0/16", "fd00:1::/64"]);
    assert_eq!(
        add(&plugin, &network, "a"),
        ["10.1.0.2", "10.2.0.2", "fd00:1::2"]
    );
    assert_eq!(
        add(&plugin, &network, "b"),
        ["10.1.0.3", "10.2.0.3", "fd00:1::3"]
    );
    assert_eq!(held(&host).len(), 6);
}

fn a_range_set_is_filled_range_by_range(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = ranges(
        json!([[{"subnet": "10.1.0.0/30"}, {"subnet": "10.1.1.0/24", "rangeStart": "10.1.1.9"}]]),
    );
    let results = ["a", "b", "c"].map(|name| plugin.add(&network, &call(name))["ips"][0].clone());
    assert_eq!(
        results[0],
        json!({"address": "10.1.0.2/30", "gateway": "10.1.0.1"})
    );
    assert_eq!(
        results[1],
        json!({"address": "10.1.1.9/24", "gateway": "10.1.1.1"})
    );
    assert_eq!(
        results[2],
        json!({"address": "10.1.1.10/24", "gateway": "10.1.1.1"})
    );
}

fn range_limits_and_the_gateway_are_respected(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = ranges(
        json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.13",
                                  "gateway": "10.1.0.12"}]]),
    );
    let given: Vec<_> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| add(&plugin, &network, name))
        .collect();
    assert_eq!(given, ["10.1.0.10", "10.1.0.11", "10.1.0.13"]);
    plugin.add_error(&network, &call("d"));
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
    // The reference walks the directory and takes whatever is in it for an address.
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

fn an_exhausted_pool_fails_and_takes_nothing(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.2.0.0/24", "10.1.0.0/30"]);
    add(&plugin, &network, "a");
    let before = held(&host);
    plugin.add_error(&network, &call("b"));
    assert_eq!(
        held(&host),
        before,
        "the address of the other range set is given back"
    );
    plugin.del(&network, &call("a"));
    assert_eq!(add(&plugin, &network, "c")[1], "10.1.0.2");
}

fn an_exhausted_pool_says_how_full_it_is(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/29"]);
    for index in 0..5 {
        add(&plugin, &network, &format!("c{index}"));
    }
    for (verb, call) in [("ADD", call("one-more")), ("STATUS", Call::default())] {
        let error = plugin.call(verb, &network, &call).error();
        let said = format!("{} {}", error["msg"], error["details"]);
        assert!(
            said.contains("5/5") || said.contains("5 of 5"),
            "used and total: {verb}: {error}"
        );
        assert!(said.contains(DIR), "the state directory: {verb}: {error}");
        if verb == "STATUS" {
            assert_eq!(error["code"], 50, "{error}");
        }
    }
}

fn a_large_ipv6_subnet_is_not_walked(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network =
        ranges(json!([[{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::ffff:ffff:ffff:fff0"}]]));
    assert_eq!(add(&plugin, &network, "a"), ["fd00:1::ffff:ffff:ffff:fff0"]);
    let whole = with(self::network(&["fd00:2::/64"]), json!({"name": "whole"}));
    assert_eq!(add(&plugin, &whole, "a"), ["fd00:2::2"]);
    plugin.call("STATUS", &whole, &Call::default()).succeeded();
    plugin.del(&whole, &call("a"));
}

fn a_second_add_for_the_same_interface_fails(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24"]);
    add(&plugin, &network, "a");
    plugin.add_error(&network, &call("a"));
    assert_eq!(held(&host).len(), 1);
    plugin.add(&network, &call("a").ifname("eth1"));
    assert_eq!(held(&host).len(), 2);
}

fn del_releases_what_the_container_holds_and_no_more(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24", "fd00:1::/64"]);
    for name in ["a", "b", "ab"] {
        add(&plugin, &network, name);
    }
    plugin.add(&network, &call("a").ifname("eth1"));
    plugin.del(&network, &call("a"));
    let left: Vec<_> = held(&host).into_iter().collect();
    let expected = [
        "10.1.0.3",
        "10.1.0.4",
        "10.1.0.5",
        "fd00:1::3",
        "fd00:1::4",
        "fd00:1::5",
    ];
    assert_eq!(left, expected);
}

fn del_of_nothing_succeeds(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    plugin.del(&network(&["10.1.0.0/24"]), &call("a"));
    plugin.del(&network(&["10.1.0.0/24"]), &Call::named("a", None));
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

fn requested_addresses_of_all_sources_are_given(lab: &Lab) {
    let base = network(&["10.1.0.0/24", "fd00:1::/64"]);
    let sources = [
        (
            json!({}),
            "IgnoreUnknown=1;IP=10.1.0.33",
            ["10.1.0.33", "fd00:1::2"],
        ),
        (
            json!({"args": {"cni": {"ips": ["10.1.0.33", "fd00:1::33"]}}}),
            "",
            ["10.1.0.33", "fd00:1::33"],
        ),
        (
            json!({"runtimeConfig": {"ips": ["10.1.0.33/24", "fd00:1::33/64"]}}),
            "",
            ["10.1.0.33", "fd00:1::33"],
        ),
        (
            json!({"runtimeConfig": {"ips": ["fd00:1::33"]}}),
            "IgnoreUnknown=1;IP=10.1.0.33",
            ["10.1.0.33", "fd00:1::33"],
        ),
    ];
    for (more, args, expected) in sources {
        let host = host();
        let network = with(base.clone(), more);
        let result = lab
            .plugin(&host, "host-local")
            .add(&network, &call("a").args(args));
        let given: Vec<_> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(given, expected, "{network} {args}");
    }
}

fn a_request_that_cannot_be_met_gives_everything_back(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/24", "10.2.0.0/24"]);
    add(&plugin, &network, "a");
    let before = held(&host);
    for wanted in [
        json!(["10.9.9.9"]),
        json!(["10.1.0.2"]),
        json!(["10.1.0.1"]),
        json!(["10.1.0.7", "10.1.0.8"]),
        json!(["nonsense"]),
    ] {
        let network = with(network.clone(), json!({"runtimeConfig": {"ips": wanted}}));
        plugin.add_error(&network, &call("b"));
        assert_eq!(held(&host), before, "{wanted}");
    }
}

fn runtime_ranges_go_in_front(lab: &Lab) {
    let host = host();
    let more = json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}});
    let network = with(network(&["10.1.0.0/24"]), more);
    assert_eq!(
        add(&lab.plugin(&host, "host-local"), &network, "a"),
        ["10.9.0.2", "10.1.0.2"]
    );
}

fn routes_and_dns_are_passed_on(lab: &Lab) {
    let host = host();
    host.write("/run/resolv.conf", "# a comment\nnameserver 192.0.2.53\nnameserver 2001:db8::53\ndomain corp.example\nsearch a.example b.example\noptions ndots:5 timeout:1\n");
    let more = json!({"ipam": {"resolvConf": "/run/resolv.conf",
                               "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.9"}]}});
    let result = lab
        .plugin(&host, "host-local")
        .add(&with(network(&["10.1.0.0/24"]), more), &call("a"));
    assert_eq!(
        result["routes"],
        json!([{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.9"}])
    );
    assert_eq!(
        result["dns"],
        json!({"nameservers": ["192.0.2.53", "2001:db8::53"], "domain": "corp.example",
               "search": ["a.example", "b.example"], "options": ["ndots:5", "timeout:1"]})
    );
}

fn invalid_ranges_are_refused(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let invalid = [
        ("host bits", json!([[{"subnet": "10.1.0.1/24"}]])),
        ("too small", json!([[{"subnet": "10.1.0.0/31"}]])),
        ("too small for IPv6", json!([[{"subnet": "fd00:1::/127"}]])),
        ("no subnet", json!([[{}]])),
        ("no range", json!([[]])),
        (
            "start outside",
            json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.1.2"}]]),
        ),
        (
            "end outside",
            json!([[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.1.2"}]]),
        ),
        (
            "end before start",
            json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]]),
        ),
        (
            "overlap in a set",
            json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]]),
        ),
        (
            "overlap of sets",
            json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]),
        ),
        (
            "two families in a set",
            json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00:1::/64"}]]),
        ),
        ("not a list", json!({"subnet": "10.1.0.0/24"})),
    ];
    for (what, value) in invalid {
        let output = plugin.call("ADD", &ranges(value), &call("a"));
        assert!(!output.ok(), "{what}: {output}");
        output.error();
        assert!(held(&host).is_empty(), "{what}");
    }
    let none = ipam_network(json!({"type": "host-local"}));
    plugin.add_error(&none, &call("a"));
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

/// Run something for many containers, all at the same time.
fn at_once<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count)
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
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
