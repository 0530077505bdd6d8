//! What a process is started with, when that is not what runtimes do: where answers go, what may be written, where the
//! namespace and the plugins are.

use std::os::unix::net::UnixListener;

use conformance::{Call, Case, Host, Lab, Output, Plugin, Program, case, host_local, with};
use serde_json::{Value, json};

use crate::common::plain;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(del_is_total_whatever_stands_at_the_netns).ours(),
        case!(an_add_whose_result_nobody_hears_is_undone).ours(),
        case!(a_limit_for_the_size_of_files_is_an_error).ours(),
        case!(an_empty_entry_of_the_path_is_no_directory).ours(),
    ]
}

fn chained(kind: &str) -> Value {
    with(plain(), json!({"type": kind}))
}

/// DEL is called again until it succeeds, and meanwhile the container's remains are there.
fn del_is_total_whatever_stands_at_the_netns(lab: &Lab) {
    let host = Host::new();
    host.sh("mkfifo /run/fifo");
    host.sh("ln -s loop /run/loop");
    host.write("/run/file", "");
    host.write("/run/not-empty", "text");
    let _socket = host.enter(|| UnixListener::bind("/run/socket").expect("make a socket"));
    let long = format!("/run{}", "/a".repeat(2500));
    let paths = [
        "/run/fifo",
        "/run/loop",
        "/run/file",
        "/run/not-empty",
        "/run/file/below",
        "/run/socket",
        "/run",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/null",
        "/dev/zero",
        "/proc/self/ns/mnt",
        "relative",
        &long,
    ];
    let pod = host.pod("pod");
    let configurations = [
        plain(),
        chained("ptp"),
        chained("host-local"),
        chained("loopback"),
        chained("portmap"),
        chained("firewall"),
        chained("tuning"),
        chained("bandwidth"),
        with(chained("macvlan"), json!({"master": "lo"})),
    ];
    for conf in &configurations {
        let plugin = lab.plugin(&host, conf["type"].as_str().unwrap_or_default());
        for path in paths {
            let output = plugin.call("DEL", conf, &Call::named("pod", Some(path)));
            assert!(output.ok(), "{} with {path:.40}: {output}", conf["type"]);
        }
    }
    // The address goes, too.
    let plugin = lab.plugin(&host, "bridge");
    for path in ["/run/socket", &long] {
        plugin.add(&plain(), &Call::of(&pod));
        plugin.del(&plain(), &Call::named("pod", Some(path)));
        let held = host.list("/var/lib/cni/networks/net");
        assert!(!held.iter().any(|name| name.starts_with("10.")), "{held:?}");
        assert!(
            pod.link("eth0").is_none(),
            "the pair is found from the host"
        );
    }
}

/// ADD for a pod, by a shell that says what becomes of its output and what its limits are.
fn add_by_shell(plugin: &Plugin<'_>, conf: &Value, shell: &str) -> Output {
    let program = plugin.program.display().to_string();
    let script = shell.replace("PLUGIN", &program);
    let program = Program::new("sh")
        .args(["-c", &script])
        .env("CNI_COMMAND", "ADD")
        .env("CNI_PATH", &plugin.path)
        .env("CNI_CONTAINERID", "pod")
        .env("CNI_NETNS", "/run/netns/pod")
        .env("CNI_IFNAME", "eth0")
        .stdin(conf.to_string());
    plugin.host.run(program)
}

fn an_add_whose_result_nobody_hears_is_undone(lab: &Lab) {
    for (kind, conf) in [
        ("bridge", plain()),
        ("ptp", chained("ptp")),
        ("host-local", chained("host-local")),
    ] {
        for shell in ["exec PLUGIN >&-", "exec PLUGIN >/dev/full"] {
            let host = Host::new();
            let pod = host.pod("pod");
            let before = host.observe();
            let plugin = lab.plugin(&host, kind);
            let output = add_by_shell(&plugin, &conf, shell);
            assert_eq!(output.status.code(), Some(1), "{kind} {shell}: {output}");
            assert!(output.stderr.contains("stdout"), "{kind} {shell}: {output}");
            host.assert_nothing_left(&before, &["\"pod"]);
            assert!(pod.link("eth0").is_none(), "{kind} {shell}");
            plugin.add(&conf, &Call::of(&pod));
        }
    }
    // Who throws the result away on purpose may.
    let host = Host::new();
    host.pod("pod");
    let plugin = lab.plugin(&host, "bridge");
    add_by_shell(&plugin, &plain(), "exec PLUGIN >/dev/null").succeeded();
}

fn a_limit_for_the_size_of_files_is_an_error(lab: &Lab) {
    for kind in ["bridge", "host-local"] {
        let host = Host::new();
        host.pod("pod");
        let before = host.observe();
        let plugin = lab.plugin(&host, kind);
        let output = add_by_shell(&plugin, &chained(kind), "ulimit -f 0; exec PLUGIN");
        let error = output.error();
        assert_eq!(error["code"], 5, "{error}");
        let said = error["msg"].as_str().unwrap_or_default();
        assert!(said.contains("too large"), "{error}");
        host.assert_nothing_left(&before, &["\"pod"]);
    }
}

fn an_empty_entry_of_the_path_is_no_directory(lab: &Lab) {
    let host = Host::new();
    host.pod("pod");
    host.script("/run/here/leases", "#!/bin/sh\n: >/run/here/ran\n");
    let conf = with(plain(), json!({"ipam": {"type": "leases"}}));
    for path in [":", ":/nonexistent", "/nonexistent:", "/nonexistent::/none"] {
        let mut plugin = lab.plugin(&host, "bridge");
        path.clone_into(&mut plugin.path);
        let output = add_by_shell(&plugin, &conf, "cd /run/here && exec PLUGIN");
        assert_eq!(output.error()["code"], 104, "{path}: {output}");
        assert!(host.read("/run/here/ran").is_none(), "{path}");
    }
    let mut plugin = lab.plugin(&host, "bridge");
    plugin.path = format!(":{}:", plugin.path);
    let conf = with(plain(), json!({"ipam": host_local(&["10.1.0.0/24"])}));
    add_by_shell(&plugin, &conf, "cd /run/here && exec PLUGIN").succeeded();
}
