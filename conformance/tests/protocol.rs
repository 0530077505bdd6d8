//! The protocol between a runtime and a plugin: verbs, versions, results and errors.

use cni_conformance::{Finding, Outcome, check_directory};
use conformance::{
    Call, Case, Host, Lab, Need, Program, bridge, case, host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::common::{PLUGINS, attachment, code, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(version_lists_every_version_of_the_specification),
        case!(without_a_command_a_plugin_explains_itself),
        case!(the_result_has_the_shape_of_the_version_asked_for),
        case!(a_missing_version_is_the_first_one),
        case!(an_unknown_version_is_refused_as_incompatible),
        case!(a_result_of_any_version_can_be_handed_back),
        case!(an_unknown_verb_is_an_error_of_the_environment),
        case!(check_gc_and_status_need_a_version_that_has_them),
        case!(a_missing_variable_is_named),
        case!(an_error_is_an_object_of_the_specification).ours(),
        case!(every_plugin_passes_the_checks_for_any_plugin).ours(),
        case!(the_go_plugin_fails_the_checks_that_it_is_known_to)
            .ours()
            .needs(Need::GoPlugins),
    ]
}

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

fn version_lists_every_version_of_the_specification(lab: &Lab) {
    let host = Host::new();
    for name in PLUGINS {
        let plugin = lab.plugin(&host, name);
        for stdin in [
            r#"{"cniVersion": "1.1.0"}"#,
            r#"{"cniVersion": "0.4.0"}"#,
            "{}",
        ] {
            let answer = plugin
                .call_raw("VERSION", stdin, &Call::default())
                .succeeded()
                .json();
            let supported = answer["supportedVersions"]
                .as_array()
                .expect("a list of versions");
            for version in VERSIONS {
                assert!(
                    supported.contains(&json!(version)),
                    "{name} knows {version}: {answer}"
                );
            }
            assert!(answer["cniVersion"].is_string(), "{answer}");
        }
    }
}

fn without_a_command_a_plugin_explains_itself(lab: &Lab) {
    let host = Host::new();
    for name in PLUGINS {
        let output = host.run(Program::new(lab.bin().join(name)));
        assert!(output.stdout.is_empty(), "nothing on stdout: {output}");
        assert!(
            output.stderr.contains("1.1.0"),
            "the versions on stderr: {output}"
        );
    }
}

fn the_result_has_the_shape_of_the_version_asked_for(lab: &Lab) {
    for version in VERSIONS {
        let host = Host::new();
        let call = attachment(&host);
        let ipam = with(
            host_local(&["10.1.0.0/24", "fd00:1::/64"]),
            json!({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "2001:db8::/32", "gw": "fd00:1::1"}]}),
        );
        let network = with(bridge(ipam), json!({"cniVersion": version}));
        let result = lab.plugin(&host, "bridge").add(&network, &call);
        assert_eq!(result["cniVersion"], version, "{result:#}");
        if version < "0.3.0" {
            assert_eq!(result["ip4"]["ip"], "10.1.0.2/24", "{result:#}");
            assert_eq!(result["ip4"]["gateway"], "10.1.0.1", "{result:#}");
            assert_eq!(result["ip4"]["routes"][0]["dst"], "0.0.0.0/0", "{result:#}");
            assert_eq!(result["ip6"]["ip"], "fd00:1::2/64", "{result:#}");
            assert_eq!(result["ip6"]["routes"][0]["gw"], "fd00:1::1", "{result:#}");
            assert!(
                result["ips"].is_null() && result["interfaces"].is_null(),
                "{result:#}"
            );
            continue;
        }
        let ips = &result["ips"];
        assert_eq!(
            (&ips[0]["address"], &ips[1]["address"]),
            (&json!("10.1.0.2/24"), &json!("fd00:1::2/64"))
        );
        assert_eq!(
            (&ips[0]["interface"], &ips[1]["interface"]),
            (&json!(2), &json!(2))
        );
        let old = version < "1.0.0";
        assert_eq!(
            ips[0]["version"],
            if old { json!("4") } else { Value::Null },
            "{result:#}"
        );
        assert_eq!(
            ips[1]["version"],
            if old { json!("6") } else { Value::Null },
            "{result:#}"
        );
        let names = ["cni0", "eth0"].map(|name| {
            let interfaces = result["interfaces"].as_array().into_iter().flatten();
            interfaces
                .filter(|interface| interface["name"] == name)
                .count()
        });
        assert_eq!(names, [1, 1], "{result:#}");
        assert_eq!(
            result["interfaces"][2]["sandbox"], "/run/netns/pod",
            "{result:#}"
        );
        assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0", "{result:#}");
    }
}

fn a_missing_version_is_the_first_one(lab: &Lab) {
    let host = Host::new();
    let mut network = plain();
    network
        .as_object_mut()
        .expect("an object")
        .remove("cniVersion");
    let result = lab
        .plugin(&host, "bridge")
        .add(&network, &attachment(&host));
    assert_eq!(result["cniVersion"], "0.1.0", "{result:#}");
    assert_eq!(result["ip4"]["ip"], "10.1.0.2/24", "{result:#}");
}

fn an_unknown_version_is_refused_as_incompatible(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    let before = host.observe();
    for name in PLUGINS {
        let network = with(plain(), json!({"cniVersion": "9.9.9", "type": name}));
        let output = lab.plugin(&host, name).call("ADD", &network, &call);
        assert_eq!(code(&output), 1, "{output}");
    }
    assert_eq!(host.observe().since(&before), "");
}

fn a_result_of_any_version_can_be_handed_back(lab: &Lab) {
    for version in VERSIONS {
        let host = Host::new();
        let (pod, bare) = (host.pod("pod"), host.observe());
        let plugin = lab.plugin(&host, "bridge");
        let network = with(plain(), json!({"cniVersion": version}));
        let result = plugin.add(&network, &Call::of(&pod));
        if version >= "0.4.0" {
            plugin.check(&network, &result, &Call::of(&pod)).succeeded();
        }
        plugin.del(&with_prev_result(&network, &result), &Call::of(&pod));
        host.assert_nothing_left(&bare, &["pod"]);
    }
}

fn an_unknown_verb_is_an_error_of_the_environment(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    for name in PLUGINS {
        for verb in ["NONSENSE", "add", "ADD "] {
            let output = lab.plugin(&host, name).call(verb, &plain(), &call);
            assert_eq!(code(&output), 4, "{output}");
        }
    }
}

fn check_gc_and_status_need_a_version_that_has_them(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let network = with(plain(), json!({"cniVersion": version}));
        let output = lab.plugin(&host, "bridge").call(verb, &network, &call);
        assert_eq!(code(&output), 1, "{verb} of {version}: {output}");
    }
}

fn a_missing_variable_is_named(lab: &Lab) {
    let host = Host::new();
    let whole = attachment(&host);
    let (container, netns, ifname) = (whole.container, whole.netns, whole.ifname);
    let calls = [
        (
            "CNI_CONTAINERID",
            Call {
                container: None,
                netns: netns.clone(),
                ifname: ifname.clone(),
                args: None,
            },
        ),
        (
            "CNI_NETNS",
            Call {
                container: container.clone(),
                netns: None,
                ifname: ifname.clone(),
                args: None,
            },
        ),
        (
            "CNI_IFNAME",
            Call {
                container,
                netns,
                ifname: None,
                args: None,
            },
        ),
    ];
    for (name, call) in &calls {
        for verb in ["ADD", "CHECK", "DEL"] {
            // A runtime whose namespace is gone has none to name.
            if (verb, *name) == ("DEL", "CNI_NETNS") {
                continue;
            }
            let error = lab
                .plugin(&host, "bridge")
                .call(verb, &plain(), call)
                .error();
            assert_eq!(error["code"], 4, "{verb} without {name}: {error}");
            let said = format!("{}{}", error["msg"], error["details"]);
            assert!(said.contains(name), "{verb} without {name}: {error}");
        }
    }
}

fn an_error_is_an_object_of_the_specification(lab: &Lab) {
    let host = Host::new();
    let call = Call::named("pod", Some("/run/netns/nowhere"));
    for version in VERSIONS {
        let network = with(plain(), json!({"cniVersion": version}));
        let error = lab.plugin(&host, "bridge").add_error(&network, &call);
        assert_eq!(error["cniVersion"], version, "{error}");
        let said = error["msg"].as_str().unwrap_or_default();
        assert!(
            said.contains("/run/netns/nowhere"),
            "the message names its object: {error}"
        );
        let keys: Vec<_> = error.as_object().expect("an object").keys().collect();
        let known = ["cniVersion", "code", "msg", "details"];
        assert!(
            keys.iter().all(|key| known.contains(&key.as_str())),
            "{error}"
        );
    }
}

fn every_plugin_passes_the_checks_for_any_plugin(lab: &Lab) {
    let report = check_directory(lab.bin()).expect("look for plugins");
    assert!(report.passed(), "{report}");
    let passed = |finding: &&Finding| finding.outcome == Outcome::Passed;
    for plugin in &report.plugins {
        // What this kernel has no links for, or needs a daemon, is skipped; no other is.
        let judged = plugin.findings.iter().filter(passed).count();
        let all = !["dhcp", "dummy", "ipvlan", "macvlan", "vlan", "vrf"].contains(&&*plugin.name);
        assert!(judged >= if all { 25 } else { 12 }, "{report}");
    }
}

/// Checks that the Go plugins fail beside `error/version`, which all of them do: they leave the version out of errors.
const REFERENCE_FAILS: [&str; 8] = [
    // Has no GC of interfaces: only the IPAM plugin's addresses go.
    "bridge/gc/removes",
    "ptp/gc/removes",
    "host-device/gc/removes",
    // Looks for the device in the container before it asks whether there is anything to do.
    "host-device/del/twice",
    "host-device/del/never-added",
    "host-device/del/namespace-gone",
    // Answers 0.1.0 and 0.2.0 with a result of 1.0.0.
    "loopback/add/result",
    // Opens the namespace first.
    "sbr/del/namespace-gone",
];

fn the_go_plugin_fails_the_checks_that_it_is_known_to(lab: &Lab) {
    let report = check_directory(&lab.go_plugins()).expect("look for plugins");
    for plugin in &report.plugins {
        let mut failures = plugin.failures();
        let known = failures.any(|(finding, _)| finding.check == "error/version");
        assert!(known, "{}: errors carry no version", plugin.name);
    }
    let mut found: Vec<String> = report.failures().map(|(name, _)| name).collect();
    found.retain(|name| !name.ends_with("/error/version"));
    // Where the kernel lacks a kind of links, the plugin that makes them can't be judged.
    let judged = |name: &&&str| {
        report.plugins.iter().any(|plugin| {
            let own = name.strip_prefix(&format!("{}/", plugin.name));
            let mut findings = plugin.findings.iter();
            own.is_some_and(|own| {
                findings.any(|finding| {
                    finding.check == own && !matches!(finding.outcome, Outcome::Skipped(_))
                })
            })
        })
    };
    let mut expected: Vec<&str> = REFERENCE_FAILS.iter().filter(judged).copied().collect();
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected, "{report}");
}
