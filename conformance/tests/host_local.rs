//! host-local: which addresses are handed out, and what is refused.

use std::collections::BTreeSet;

use conformance::{
    Call, Case, Host, Lab, Plugin, Subject, addresses, case, host_local, ipam_network, with,
};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(addresses_are_handed_out_in_turn),
        case!(addresses_come_back_after_a_round),
        case!(every_range_set_gives_one_address),
        case!(a_range_set_is_filled_range_by_range),
        case!(range_limits_and_the_gateway_are_respected),
        case!(an_exhausted_pool_fails_and_takes_nothing),
        case!(a_full_pool_is_no_reason_for_status_to_fail).ours(),
        case!(status_does_not_wait_for_a_lock).ours(),
        case!(an_exhausted_pool_says_how_full_it_is).ours(),
        case!(a_large_ipv6_subnet_is_not_walked),
        case!(a_second_add_for_the_same_interface_fails),
        case!(del_releases_what_the_container_holds_and_no_more),
        case!(del_of_nothing_succeeds),
        case!(requested_addresses_of_all_sources_are_given),
        case!(a_request_that_cannot_be_met_gives_everything_back),
        case!(runtime_ranges_go_in_front),
        case!(routes_and_dns_are_passed_on),
        case!(invalid_ranges_are_refused),
    ]
}

pub(crate) const DIR: &str = "/var/lib/cni/networks/net";

pub(crate) fn network(subnets: &[&str]) -> Value {
    ipam_network(host_local(subnets))
}

pub(crate) fn ranges(ranges: Value) -> Value {
    ipam_network(json!({"type": "host-local", "ranges": ranges}))
}

/// host-local never looks into the namespace, so one serves all containers.
pub(crate) fn host() -> Host {
    let host = Host::new();
    host.pod("any");
    host
}

pub(crate) fn call(container: &str) -> Call {
    Call::named(container, Some("/run/netns/any"))
}

/// ADD; the addresses without their prefix lengths.
#[track_caller]
pub(crate) fn add(plugin: &Plugin<'_>, network: &Value, container: &str) -> Vec<String> {
    let result = plugin.add(network, &call(container));
    addresses(&result).iter().map(ToString::to_string).collect()
}

/// The addresses that are held, by their files.
pub(crate) fn held(host: &Host) -> BTreeSet<String> {
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
    let asked = with(
        network.clone(),
        json!({"ipam": {"statusWhenFull": "notReady"}}),
    );
    for (verb, conf, call) in [
        ("ADD", &network, call("one-more")),
        ("STATUS", &asked, Call::default()),
    ] {
        // The Go plugin's STATUS has no opinion.
        if verb == "STATUS" && lab.subject == Subject::Go {
            continue;
        }
        let error = plugin.call(verb, conf, &call).error();
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

/// A node that is not ready starts no container again, those included that have their addresses.
fn a_full_pool_is_no_reason_for_status_to_fail(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/30"]);
    add(&plugin, &network, "a");
    let output = plugin.call("STATUS", &network, &Call::default());
    let output = output.succeeded();
    assert!(output.stderr.contains("1 of 1"), "a warning: {output}");
    assert!(output.stderr.contains("widen the range"), "{output}");
}

/// Neither is a lock that somebody holds, who may be at work.
fn status_does_not_wait_for_a_lock(lab: &Lab) {
    let host = host();
    let plugin = lab.plugin(&host, "host-local");
    let network = network(&["10.1.0.0/30"]);
    add(&plugin, &network, "a");
    let script =
        format!("#!/bin/sh\nexec 9<{DIR}/lock\nflock -x 9\nsleep 300 <&- >&- 2>&- &\necho $!\n");
    host.script("/run/hold", &script);
    let holder = host.sh("/run/hold");
    let output = plugin
        .call("STATUS", &network, &Call::default())
        .succeeded();
    host.sh(&format!("kill {}", holder.trim()));
    assert!(output.stderr.contains("lock"), "a warning: {output}");
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
