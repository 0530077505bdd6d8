//! What is wrong with lists, plugins and programs.

use conformance::{Case, Host, Lab, Need, Program, case};
use serde_json::{Value, json};

use super::{Node, bridge, list, with};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_list_that_is_no_json_is_told_with_its_place_and_the_rest_goes_on),
        case!(an_unknown_key_is_told_with_the_one_that_was_meant),
        case!(a_port_mapper_that_is_never_told_is_found),
        case!(a_list_newer_than_the_runtime_is_found),
        case!(of_two_lists_of_one_name_the_second_is_told),
        case!(plugins_in_the_networks_folder_belong_to_the_list),
        case!(a_plugin_that_is_not_there_is_found),
        case!(plugins_of_others_and_of_other_versions_are_told_apart).needs(Need::GoPlugins),
        case!(a_program_that_is_not_there_is_found),
        case!(a_directory_that_can_not_be_read_is_told_and_the_rest_goes_on),
        case!(lint_tells_file_line_and_column),
    ]
}

fn a_list_that_is_no_json_is_told_with_its_place_and_the_rest_goes_on(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.configure("20-broken.conflist", "{\n  \"name\": \"broken\",,\n}");
    node.configure("21-empty.conf", "");
    node.configure(
        "22-typed.conflist",
        r#"{"name": "t", "plugins": [{"type": "bridge", "mtu": "big"}]}"#,
    );
    let _one = node.join("one");
    node.set_sysctl("net.ipv4.ip_forward", "0");
    node.finds("list-invalid", "fail", &["20-broken.conflist:2:20"]);
    let report = node.findings();
    let text = report.to_string();
    for words in [
        "21-empty.conf",
        "22-typed.conflist:1:46",
        "mtu",
        "forwarding-off",
    ] {
        assert!(text.contains(words), "{words}: {report:#}");
    }
}

fn an_unknown_key_is_told_with_the_one_that_was_meant(lab: &Lab) {
    let plugin = with(bridge(), json!({"isDefaultGatway": true}));
    let node = Node::new(lab, &list(json!([plugin])));
    node.finds(
        "key-unknown",
        "warn",
        &["isDefaultGatway", "did you mean \\\"isDefaultGateway\\\"?"],
    );
}

fn a_port_mapper_that_is_never_told_is_found(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge(), {"type": "portmap"}])));
    node.finds("capability-missing", "warn", &["portMappings"]);
}

fn a_list_newer_than_the_runtime_is_found(lab: &Lab) {
    let newest = with(list(json!([bridge()])), json!({"cniVersion": "1.1.0"}));
    let node = Node::new(lab, &newest);
    let doctor = |says: &str| {
        node.script(
            "/run/bin/containerd",
            &format!("#!/bin/sh\necho 'containerd containerd.io {says} abc'\n"),
        );
        let bin = lab.bin().to_string_lossy().into_owned();
        let program = Program::new(lab.bin().join("trestle"))
            .args([
                "doctor",
                "--json",
                "--conf-dir",
                Host::NET_D,
                "--bin-dir",
                &bin,
            ])
            .env("PATH", "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let report: Value = node.run(program).json();
        report.to_string()
    };
    let old = doctor("1.7.24");
    assert!(
        old.contains("version-unsupported") && old.contains("1.7.24"),
        "{old}"
    );
    assert!(!doctor("2.0.1").contains("version-unsupported"));
    node.configure(
        "20-future.conflist",
        r#"{"cniVersion": "9.0.0", "name": "f", "plugins": [{"type": "bridge"}]}"#,
    );
    let future = doctor("2.0.1");
    assert!(
        future.contains("version-unsupported") && future.contains("9.0.0"),
        "{future}"
    );
}

fn of_two_lists_of_one_name_the_second_is_told(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.configure("05-net.conflist", &list(json!([bridge()])).to_string());
    node.finds(
        "list-shadowed",
        "warn",
        &["05-net.conflist comes first", "10-net.conflist is not used"],
    );
}

fn plugins_in_the_networks_folder_belong_to_the_list(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.configure("net/20-more.conf", r#"{"type": "nobody-has-this"}"#);
    node.finds("plugin-missing", "fail", &["nobody-has-this"]);
    let inlined = with(
        list(json!([bridge()])),
        json!({"loadOnlyInlinedPlugins": true}),
    );
    node.configure("10-net.conflist", &inlined.to_string());
    node.assert_healthy("the folder is not for this list");
}

fn a_plugin_that_is_not_there_is_found(lab: &Lab) {
    let plugin = with(
        bridge(),
        json!({"ipam": {"type": "whereabouts", "range": "10.1.0.0/24"}}),
    );
    let node = Node::new(lab, &list(json!([plugin])));
    node.finds(
        "plugin-missing",
        "fail",
        &["whereabouts", "another project's"],
    );
}

fn plugins_of_others_and_of_other_versions_are_told_apart(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge(), {"type": "firewall"}])));
    let bin = lab.bin().display().to_string();
    node.sh(&format!("cp -a {bin}/bridge {bin}/trestle /run/"));
    node.sh("mkdir /run/plugins");
    node.sh(&format!("cp -a {bin}/bridge /run/plugins/bridge"));
    node.sh(&format!(
        "cp -a {}/firewall /run/plugins/firewall",
        lab.go_plugins().display()
    ));
    node.sh("cp -a /run/bridge /run/plugins/host-local");
    // One byte more is another file.
    let mut other = std::fs::read(lab.bin().join("bridge")).expect("read the binary");
    other.push(0);
    node.write("/run/plugins/host-local", other);
    let program = Program::new(lab.bin().join("trestle")).args([
        "doctor",
        "--json",
        "--conf-dir",
        Host::NET_D,
        "--bin-dir",
        "/run/plugins",
    ]);
    let report: Value = node.run(program).json();
    let found = report["findings"].as_array().cloned().unwrap_or_default();
    let evidence: Vec<_> = found
        .iter()
        .filter(|it| it["id"] == "plugin-foreign")
        .map(|it| it["evidence"].clone())
        .collect();
    assert_eq!(
        evidence,
        [
            json!(["/run/plugins/host-local"]),
            json!(["/run/plugins/firewall"])
        ],
        "{report:#}"
    );
}

fn a_program_that_is_not_there_is_found(lab: &Lab) {
    let plugin = with(bridge(), json!({"ipMasqBackend": "iptables"}));
    let node = Node::new(lab, &list(json!([plugin])));
    node.assert_healthy("it is there");
    // Nobody finds a program that is no file.
    for program in ["/usr/sbin/iptables", "/sbin/iptables"] {
        if node.run(Program::new("test").args(["-e", program])).ok() {
            node.sh(&format!(
                "mount --bind /run/net.d/10-net.conflist {program}"
            ));
        }
    }
    node.finds("program-missing", "fail", &["iptables", "ipMasqBackend"]);
}

fn a_directory_that_can_not_be_read_is_told_and_the_rest_goes_on(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.write("/run/file", "");
    let program = Program::new(lab.bin().join("trestle")).args([
        "doctor",
        "--json",
        "--conf-dir",
        "/run/missing",
        "--bin-dir",
        "/run/missing",
        "--cache-dir",
        "/run/file",
    ]);
    let output = node.run(program);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(3), "{report:#}");
    let skipped = report["skipped"].as_array().cloned().unwrap_or_default();
    let skipped: Vec<_> = skipped
        .iter()
        .filter_map(|it| it["check"].as_str())
        .collect();
    for check in ["list-invalid", "plugin-missing", "state-unreadable"] {
        assert!(skipped.contains(&check), "{report:#}");
    }
    assert!(!skipped.contains(&"next-hop-unreachable"), "{report:#}");
}

fn lint_tells_file_line_and_column(lab: &Lab) {
    let node = Node::new(lab, &list(json!([bridge()])));
    node.write("/run/a.conflist", "{\"cniVersion\": \"1.0.0\", \"name\": \"a\", \"plugins\": [\n  {\"type\": \"bridge\", \"hairpin\": true}\n]}");
    node.write("/run/b.conflist", "nonsense");
    let lint = |arguments: &[&str]| {
        node.run(
            Program::new(lab.bin().join("trestle"))
                .args(["lint"])
                .args(arguments),
        )
    };
    let (warned, failed) = (
        lint(&["/run/a.conflist"]),
        lint(&["/run/a.conflist", "/run/b.conflist"]),
    );
    assert_eq!(
        (warned.status.code(), failed.status.code()),
        (Some(1), Some(2))
    );
    assert!(
        warned
            .text()
            .starts_with("/run/a.conflist:2:22: warn: key \"hairpin\""),
        "{}",
        warned.text()
    );
    assert!(
        failed
            .text()
            .contains("/run/b.conflist:1:2: fail: this is no JSON"),
        "{}",
        failed.text()
    );
    let good = format!("{}/10-net.conflist", Host::NET_D);
    assert_eq!(lint(&[&good]).status.code(), Some(0));
    assert_eq!(lint(&["/run/missing"]).status.code(), Some(3));
    assert_eq!(lint(&[]).status.code(), Some(2), "wrong usage");
    let report: Value = lint(&["--json", "/run/a.conflist"]).json();
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["line"], &finding["column"], &finding["id"]),
        (&json!(2), &json!(22), &json!("key-unknown"))
    );
}
