//! The example plugin, run as a runtime runs it, and the page that explains it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Once;

use serde_json::{Value, json};

/// The example, which `cargo test` builds only together with all other targets.
fn label() -> PathBuf {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "cni-conf",
            "--example",
            "label",
        ]);
        assert!(cargo.status().unwrap().success());
    });
    // Beside the directory of the test executables.
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/label")
}

fn run(mut command: Command, conf: &Value) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(conf.to_string().as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// ADD without a namespace: what is refused before anything is done.
fn refused(conf: Value) -> Value {
    let mut command = Command::new(label());
    command.env_clear().envs([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/none"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]);
    let output = run(command, &conf);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_error_names_the_field_and_has_the_specifications_code() {
    let error = refused(json!({"cniVersion": "1.0.0", "name": "net", "type": "label", "text": 5}));
    assert_eq!(error["code"], 7, "{error}");
    assert!(
        error["msg"].as_str().unwrap().contains("\"text\""),
        "{error}"
    );
    let error =
        refused(json!({"cniVersion": "1.0.0", "name": "net", "type": "label", "text": "x"}));
    assert_eq!(error["code"], 7, "{error}");
    assert!(
        error["msg"].as_str().unwrap().contains("prevResult"),
        "{error}"
    );
}

#[test]
fn an_alias_is_given_in_the_namespace_and_the_result_is_passed_on() {
    const SCENE: &str = r#"
        mount -t tmpfs none /run && ip netns add pod
        ip -n pod link add eth0 type veth peer name other
        CNI_NETNS=/run/netns/pod "$LABEL" && ip -n pod -json link show eth0"#;
    if !is_root() {
        println!("skipped: making a network namespace takes root");
        return;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--net", "sh", "-ec", SCENE])
        .envs([
            ("LABEL", label().to_str().unwrap()),
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ]);
    let conf = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "label", "text": "web server",
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod"}]},
    });
    let output = run(command, &conf);
    assert!(output.status.success(), "{output:?}");
    let mut answers = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let (result, links) = (
        answers.next().unwrap().unwrap(),
        answers.next().unwrap().unwrap(),
    );
    assert_eq!(result["interfaces"][0]["name"], "eth0");
    assert_eq!(links[0]["ifalias"], "web server", "{links}");
}

/// Whether this process may make namespaces.
fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

#[test]
fn the_page_shows_the_plugin_as_it_is() {
    let page = include_str!("../../docs/write-a-plugin.md");
    let code = page
        .split("```rust\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert_eq!(code, include_str!("../examples/label.rs"));
}
