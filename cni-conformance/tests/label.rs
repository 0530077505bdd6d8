//! The checks, put to the example plugin of cni-conf and to plugins that break one rule each.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

use cni_conformance::{Outcome, Report, Subject, check_directory, checks};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The example, built by whoever comes first.
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

/// Whether this process may make namespaces; says so if not.
fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    let root = output.stdout.trim_ascii() == b"0";
    if !root {
        eprintln!("skipped: making network namespaces takes root");
    }
    root
}

/// A plugin called `label` that a script of the shell makes of the real one, which is `$LABEL` to it.
fn made_of(script: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("label");
    let text = format!("#!/bin/sh\nLABEL={}\n{script}\n", label().display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, program)
}

fn check(program: &Path) -> Report {
    let subject = Subject::new(program);
    subject
        .conf(json!({"text": "web server"}))
        .chained()
        .check()
}

/// The names of the checks that a plugin made by this script fails.
fn failures(script: &str) -> Vec<&'static str> {
    let (_directory, program) = made_of(script);
    let report = check(&program);
    let failures = report.plugins[0].failures();
    failures.map(|(finding, _)| finding.check).collect()
}

#[test]
fn a_plugin_that_keeps_the_rules_passes() {
    if !is_root() {
        return;
    }
    let report = check(&label());
    assert!(report.passed(), "{report}");
    let findings = &report.plugins[0].findings;
    let names: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    let all: Vec<&str> = checks().iter().map(|check| check.name).collect();
    assert_eq!(names, all, "every check has a finding");
    let skipped: Vec<&str> = findings
        .iter()
        .filter(|finding| matches!(finding.outcome, Outcome::Skipped(_)))
        .map(|finding| finding.check)
        .collect();
    assert_eq!(
        skipped,
        ["add/interface", "check/interface-gone"],
        "it is chained"
    );
    // The wrapper of the tests below breaks nothing by itself.
    assert_eq!(failures("exec $LABEL"), [""; 0]);
}

#[test]
fn a_plugin_that_breaks_one_rule_fails_the_check_of_that_rule_alone() {
    if !is_root() {
        return;
    }
    let broken = [
        ("sed s/9.9.9/1.0.0/ | $LABEL", "refuse/unknown-version"),
        (
            "[ $CNI_COMMAND != DEL ] || [ -e \"$CNI_NETNS\" ] || exit 1\nexec $LABEL",
            "del/namespace-gone",
        ),
        (
            "$LABEL && { [ $CNI_COMMAND != STATUS ] || echo ready; }",
            "status/ready",
        ),
        (
            "[ \"$CNI_IFNAME\" != with:colon ] || export CNI_IFNAME=eth0\nexec $LABEL",
            "refuse/invalid-interface",
        ),
        (
            "[ \"$CNI_CONTAINERID\" != -leading ] || export CNI_CONTAINERID=c1\nexec $LABEL",
            "refuse/invalid-container",
        ),
        (
            "$LABEL && { [ $CNI_COMMAND != GC ] || ip netns del pod; }",
            "gc/keeps",
        ),
    ];
    for (script, expected) in broken {
        assert_eq!(failures(script), [expected], "{script}");
    }
}

#[test]
fn what_spoils_many_answers_is_found_by_many_checks() {
    if !is_root() {
        return;
    }
    let broken = [
        // Standard output is protocol.
        (
            "echo starting; exec $LABEL",
            &["version/answer", "error/object"][..],
        ),
        (
            "[ $CNI_COMMAND != ADD ] || echo starting\nexec $LABEL",
            &["add/result", "check/after-add", "del/twice"],
        ),
        ("$LABEL; exit 2", &["version/answer"]),
        (
            "answer=$($LABEL) && echo \"$answer\"",
            &["error/object", "error/version", "refuse/no-json"],
        ),
        ("kill -9 $$", &["version/answer", "error/object"]),
        ("$LABEL | sed s/.code.:/\\\"status\\\":/", &["error/object"]),
        (
            "$LABEL | sed s/.interfaces.:/\\\"links\\\":/",
            &["add/result", "add/previous-result"],
        ),
        (
            "[ $CNI_COMMAND != ADD ] || ip link add junk0 type veth peer name junk1\nexec $LABEL",
            &[
                "add/failure-leaves-nothing",
                "del/takes-away",
                "gc/removes",
                "refuse/no-json",
            ],
        ),
    ];
    for (script, expected) in broken {
        let found = failures(script);
        for check in expected {
            assert!(found.contains(check), "{check} of {script}: {found:?}");
        }
    }
}

#[test]
fn without_a_configuration_what_needs_none_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(label(), directory.path().join("label")).unwrap();
    fs::write(directory.path().join("LICENSE"), "text").unwrap();
    let report = check_directory(directory.path()).unwrap();
    assert!(report.passed(), "{report}");
    assert_eq!(report.plugins.len(), 1, "{report}");
    let passed = |name: &str| {
        let mut findings = report.plugins[0].findings.iter();
        findings.any(|finding| finding.check == name && finding.outcome == Outcome::Passed)
    };
    assert!(
        passed("version/answer") && passed("refuse/unknown-version"),
        "{report}"
    );
    assert!(!passed("add/result"), "{report}");
    let empty = tempfile::tempdir().unwrap();
    assert!(check_directory(empty.path()).is_err());
}

fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle-conformance"));
    command.args(arguments).output().unwrap()
}

#[test]
fn the_command_tells_by_its_status() {
    let conf = tempfile::NamedTempFile::new().unwrap();
    let text = json!({"type": "label", "text": "web server", "prevResult": {}});
    fs::write(conf.path(), text.to_string()).unwrap();
    let conf = conf.path().to_str().unwrap();
    let (_directory, program) = made_of("sed s/9.9.9/1.0.0/ | $LABEL");
    let directory = program.parent().unwrap().to_str().unwrap();

    let failed = command(&["--conf", conf, directory]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = String::from_utf8(failed.stdout).unwrap();
    assert!(said.contains("failed   refuse/unknown-version"), "{said}");

    let except = "label/refuse/unknown-version";
    let passed = command(&[
        "--json", "--plugin", "label", "--except", except, "--conf", conf, directory,
    ]);
    assert_eq!(passed.status.code(), Some(0), "{passed:?}");
    let report: Value = serde_json::from_slice(&passed.stdout).unwrap();
    assert_eq!(report["passed"], true);
    assert_eq!(report["plugins"][0]["name"], "label");

    for wrong in [
        &["/nonexistent"][..],
        &[],
        &["--no-such-option"],
        &["--conf"],
        &["a", "b"],
    ] {
        let output = command(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{wrong:?}: {output:?}"
        );
    }
}
