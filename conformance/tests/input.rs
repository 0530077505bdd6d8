//! What comes from outside, in the environment and on standard input: accepted as it should be, refused before anything happens.

use conformance::{Call, Case, Host, Lab, Subject, address, bridge, case, with};
use serde_json::json;

use crate::common::{PLUGINS, attachment, code, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(invalid_names_are_refused_before_anything_happens),
        case!(input_that_is_not_one_object_is_a_decoding_error).ours(),
        case!(input_of_a_wrong_type_is_refused).ours(),
        case!(keys_are_matched_without_regard_to_case),
        case!(unknown_keys_are_ignored),
        case!(cni_args_come_in_any_order),
        case!(cve_2021_20206_a_plugin_type_is_a_name_and_never_a_path),
    ]
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
        assert!(!output.ok(), "{more} is accepted: {output}");
        output.error();
        assert!(!output.stderr.contains("panicked"), "{more}: {output}");
        let left = host.observe().leftovers(&before);
        assert!(left.is_empty(), "{more} left\n{}", left.join("\n"));
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
fn cve_2021_20206_a_plugin_type_is_a_name_and_never_a_path(lab: &Lab) {
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
    // The Go plugin leaves the veth of a failed ADD behind.
    if lab.subject == Subject::Trestle {
        host.assert_nothing_left(&before, &["pod"]);
    }
}
