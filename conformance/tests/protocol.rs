//! The protocol between a runtime and a plugin: environment, standard input, results and errors.

use std::process::ExitCode;

use conformance::{
    Call, Host, Lab, Output, Place, Program, Subject, address, bridge, case, host_local, with,
    with_prev_result,
};
use serde_json::{Value, json};

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

const PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

fn main() -> ExitCode {
    conformance::run(vec![
        case!(version_lists_every_version_of_the_specification),
        case!(without_a_command_a_plugin_explains_itself),
        case!(the_result_has_the_shape_of_the_version_asked_for),
        case!(a_missing_version_is_the_first_one),
        case!(an_unknown_version_is_refused_as_incompatible),
        case!(a_result_of_any_version_can_be_handed_back),
        case!(an_unknown_verb_is_an_error_of_the_environment),
        case!(check_gc_and_status_need_a_version_that_has_them),
        case!(a_missing_variable_is_named),
        case!(invalid_names_are_refused_before_anything_happens),
        case!(input_that_is_not_one_object_is_a_decoding_error).ours(),
        case!(input_of_a_wrong_type_is_refused).ours(),
        case!(an_error_is_an_object_of_the_specification).ours(),
        case!(keys_are_matched_without_regard_to_case),
        case!(unknown_keys_are_ignored),
        case!(cni_args_come_in_any_order),
        case!(a_plugin_type_is_a_name_and_never_a_path),
        case!(loopback_passes_the_previous_result_on),
        case!(loopback_comes_up_and_goes_down),
        case!(loopback_is_checked),
    ])
}

fn plain() -> Value {
    bridge(host_local(&["10.1.0.0/24"]))
}

/// Each test needs a host with one pod, called `pod`.
fn attachment(host: &Host) -> Call {
    Call::of(&host.pod("pod"))
}

fn code(output: &Output) -> u64 {
    output.error()["code"].as_u64().unwrap_or_default()
}

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

fn invalid_names_are_refused_before_anything_happens(lab: &Lab) {
    let host = Host::new();
    let good = attachment(&host);
    let before = host.observe();
    let plugin = lab.plugin(&host, "bridge");
    for container in [
        "-leading",
        "../up",
        "with space",
        "with/slash",
        ".",
        "ümlaut",
    ] {
        let call = Call {
            container: Some(container.to_owned()),
            ..good.clone()
        };
        assert_eq!(
            code(&plugin.call("ADD", &plain(), &call)),
            4,
            "container ID {container:?}"
        );
    }
    for ifname in [
        "sixteen-bytes-ab",
        ".",
        "..",
        "with/slash",
        "with:colon",
        "with space",
    ] {
        let output = plugin.call("ADD", &plain(), &good.clone().ifname(ifname));
        assert_eq!(code(&output), 4, "interface name {ifname:?}");
    }
    for name in ["-leading", "../up", "with space", "with/slash", ""] {
        let output = plugin.call("ADD", &with(plain(), json!({"name": name})), &good);
        assert_eq!(code(&output), 7, "network name {name:?}: {output}");
    }
    assert_eq!(host.observe().since(&before), "");
}

fn input_that_is_not_one_object_is_a_decoding_error(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    let before = host.observe();
    let text = plain().to_string();
    let padded = format!("{{\"padding\": \"{}\", {}", "x".repeat(1 << 20), &text[1..]);
    let inputs: [(&str, Vec<u8>); 12] = [
        ("nothing", Vec::new()),
        ("white space", b" \n\t ".to_vec()),
        ("no JSON", b"name = net".to_vec()),
        ("a list", format!("[{text}]").into_bytes()),
        ("a string", b"\"net\"".to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"7".to_vec()),
        ("half an object", text.as_bytes()[..text.len() / 2].to_vec()),
        (
            "something after the object",
            format!("{text} x").into_bytes(),
        ),
        ("two objects", format!("{text}{text}").into_bytes()),
        ("more than a mebibyte", padded.into_bytes()),
        ("lists without an end", "[".repeat(500_000).into_bytes()),
    ];
    for name in PLUGINS {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            for (what, input) in &inputs {
                let output = lab.plugin(&host, name).call_raw(verb, input.clone(), &call);
                assert_eq!(code(&output), 6, "{name} {verb} of {what}: {output}");
                assert!(
                    !output.stderr.contains("panicked"),
                    "{name} {verb} of {what}: {output}"
                );
            }
        }
        let bytes = [text.as_bytes(), b"\xff\xfe"].concat();
        let output = lab.plugin(&host, name).call_raw("ADD", bytes, &call);
        assert_eq!(code(&output), 6, "{name}: bytes that are no text: {output}");
    }
    assert_eq!(host.observe().since(&before), "");
}

fn input_of_a_wrong_type_is_refused(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    let before = host.observe();
    let wrong = [
        json!({"cniVersion": 1}),
        json!({"name": 7}),
        json!({"bridge": ["cni0"]}),
        json!({"isGateway": "yes"}),
        json!({"mtu": "large"}),
        json!({"vlan": 4095}),
        json!({"vlan": -1}),
        json!({"hairpinMode": true, "promiscMode": true}),
        json!({"ipam": {"ranges": "10.0.0.0/8"}}),
        json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0"}]]}}),
        json!({"ipam": {"routes": [{"dst": "everywhere"}]}}),
        json!({"ipam": 7}),
        json!({"runtimeConfig": {"mac": "not a MAC"}}),
        json!({"dns": []}),
    ];
    for more in wrong {
        let output = lab
            .plugin(&host, "bridge")
            .call("ADD", &with(plain(), more.clone()), &call);
        output.error();
        assert!(!output.stderr.contains("panicked"), "{more}: {output}");
        let left = host.observe().leftovers(&before);
        assert!(left.is_empty(), "{more} left\n{}", left.join("\n"));
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

fn keys_are_matched_without_regard_to_case(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    let network = json!({
        "CNIVersion": "1.1.0", "NAME": "net", "Type": "bridge", "BRIDGE": "cni7", "IsGateway": true, "Mtu": 1400,
        "IPAM": {"TYPE": "host-local", "Ranges": [[{"Subnet": "10.1.0.0/24", "rangestart": "10.1.0.9"}]],
                 "Routes": [{"DST": "0.0.0.0/0"}]},
        "RuntimeConfig": {"MAC": "02:00:00:00:00:07"}
    });
    let result = lab.plugin(&host, "bridge").add(&network, &call);
    assert_eq!(result["ips"][0]["address"], "10.1.0.9/24", "{result:#}");
    assert_eq!(result["interfaces"][0]["name"], "cni7", "{result:#}");
    assert_eq!(
        result["interfaces"][2]["mac"], "02:00:00:00:00:07",
        "{result:#}"
    );
    assert_eq!(host.link("cni7").expect("the bridge")["mtu"], 1400);
    assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0", "{result:#}");
}

fn unknown_keys_are_ignored(lab: &Lab) {
    let host = Host::new();
    let more = json!({"cni.dev/other": [1], "capabilities": {"mac": true}, "bandwidth": {"x": null},
                      "ipam": {"unheardOf": {}}, "args": {"cni": {"labels": []}, "org.other": 1}});
    let result = lab
        .plugin(&host, "bridge")
        .add(&with(plain(), more), &attachment(&host));
    assert_eq!(address(&result, 0).to_string(), "10.1.0.2");
}

fn cni_args_come_in_any_order(lab: &Lab) {
    let all = [
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;IP=10.1.0.77",
        "K8S_POD_NAME=web-0;IP=10.1.0.77;IgnoreUnknown=1;K8S_POD_NAMESPACE=default",
        "IP=10.1.0.77;K8S_POD_UID=;IgnoreUnknown=true",
    ];
    for args in all {
        let host = Host::new();
        let result = lab
            .plugin(&host, "bridge")
            .add(&plain(), &attachment(&host).args(args));
        assert_eq!(address(&result, 0).to_string(), "10.1.0.77", "{args}");
    }
}

/// CVE-2021-20206: a type with `../` ran any program of the host.
fn a_plugin_type_is_a_name_and_never_a_path(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    host.script("/run/evil/ipam", "#!/bin/sh\n: >/run/evil/ran\n");
    let before = host.observe();
    for path in [
        "/run/evil/ipam",
        "../../../../../../../../../run/evil/ipam",
        "./host-local",
        "..",
        ".",
    ] {
        let network = bridge(json!({"type": path}));
        lab.plugin(&host, "bridge")
            .call("ADD", &network, &call)
            .error();
        assert!(host.read("/run/evil/ran").is_none(), "{path} was run");
    }
    // The reference leaves the veth of a failed ADD behind.
    if lab.subject == Subject::Trestle {
        host.assert_nothing_left(&before, &["pod"]);
    }
}

fn loopback() -> Value {
    json!({"cniVersion": "1.1.0", "name": "lo", "type": "loopback"})
}

fn loopback_passes_the_previous_result_on(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let earlier = lab.plugin(&host, "bridge").add(&plain(), &Call::of(&pod));
    let chained = with_prev_result(&loopback(), &earlier);
    let result = lab.plugin(&host, "loopback").add(&chained, &Call::of(&pod));
    assert_eq!(result, earlier);
}

fn is_up(place: &Place) -> bool {
    let flags = place.link("lo").expect("lo")["flags"].clone();
    flags
        .as_array()
        .is_some_and(|flags| flags.contains(&json!("UP")))
}

fn loopback_comes_up_and_goes_down(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let plugin = lab.plugin(&host, "loopback");
    let call = Call::of(&pod).ifname("lo");
    let result = plugin.add(&loopback(), &call);
    assert!(is_up(&pod));
    assert!(pod.pings([127, 0, 0, 1].into()) && pod.pings("::1".parse().expect("an address")));
    assert_eq!(result["interfaces"][0]["name"], "lo", "{result:#}");
    assert_eq!(
        result["interfaces"][0]["sandbox"], "/run/netns/pod",
        "{result:#}"
    );
    let addresses: Vec<_> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|ip| &ip["address"])
        .collect();
    assert!(addresses.contains(&&json!("127.0.0.1/8")), "{result:#}");
    assert!(addresses.contains(&&json!("::1/128")), "{result:#}");
    plugin.del(&with_prev_result(&loopback(), &result), &call);
    assert!(!is_up(&pod));
    plugin.del(&loopback(), &call);
    plugin.del(
        &loopback(),
        &Call::named(&pod.name.clone(), Some(&pod.vanish())).ifname("lo"),
    );
}

fn loopback_is_checked(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let plugin = lab.plugin(&host, "loopback");
    let call = Call::of(&pod).ifname("lo");
    let result = plugin.add(&loopback(), &call);
    plugin.check(&loopback(), &result, &call).succeeded();
    pod.ip("link set lo down");
    plugin.check(&loopback(), &result, &call).error();
}
