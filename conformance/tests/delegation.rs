//! Interface plugins and IPAM plugins of different makers, put together by `CNI_PATH`.

use conformance::{
    Call, Case, Host, Lab, Need, Output, Plugin, Pod, Program, address, bridge, case, with,
};
use serde_json::{Value, json};

use crate::common::plain;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(our_bridge_with_the_go_host_local).needs(Need::GoPlugins),
        case!(the_go_bridge_with_our_host_local).needs(Need::GoPlugins),
        case!(a_script_serves_as_ipam),
        case!(a_script_may_answer_in_an_older_version),
        case!(the_ipam_plugin_sees_the_call_as_it_came),
        case!(the_error_of_an_ipam_plugin_is_passed_on),
        case!(an_ipam_plugin_without_addresses_is_an_error),
        case!(an_ipam_plugin_that_answers_nonsense_is_an_error).ours(),
        case!(an_ipam_plugin_that_is_killed_is_an_error).ours(),
        case!(ipam_is_released_when_add_fails_later),
        case!(del_releases_ipam_without_a_netns),
        case!(the_first_directory_of_the_path_wins),
        case!(attachments_of_the_go_bridge_are_taken_over),
        case!(a_plugin_that_gives_no_addresses_is_refused_as_ipam).ours(),
        case!(delegation_that_comes_back_ends_soon).ours(),
    ]
}

/// Attach two pods, let them talk, check, detach, nothing left.
fn round_trip(plugin: &Plugin<'_>, host: &Host) {
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.observe();
    let network = with(plain(), json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}));
    let first = plugin.add(&network, &Call::of(&a));
    let second = plugin.add(&network, &Call::of(&b));
    assert!(a.pings(address(&second, 0)) && b.pings(address(&first, 0)));
    plugin.check(&network, &first, &Call::of(&a)).succeeded();
    plugin
        .call("STATUS", &network, &Call::default())
        .succeeded();
    plugin.del(&network, &Call::of(&a));
    plugin.del(&network, &Call::of(&b));
    host.assert_nothing_left(&before, &[]);
}

fn our_bridge_with_the_go_host_local(lab: &Lab) {
    let host = Host::new();
    let mut plugin = lab.plugin(&host, "bridge");
    plugin.path = lab.go_plugins().to_string_lossy().into_owned();
    round_trip(&plugin, &host);
}

fn the_go_bridge_with_our_host_local(lab: &Lab) {
    let host = Host::new();
    let mut plugin = lab.plugin_in(&host, "bridge", &lab.go_plugins(), &[]);
    plugin.path = lab.bin().to_string_lossy().into_owned();
    round_trip(&plugin, &host);
}

const SCRIPTS: &str = "/run/scripts";

/// An IPAM plugin in four lines of shell: it writes down each call and answers ADD as it was told.
fn script(host: &Host, name: &str, answer: &str) {
    let text = format!(
        "#!/bin/sh\n\
         env | grep ^CNI_ | sort >{SCRIPTS}/log.$CNI_COMMAND\n\
         cat >{SCRIPTS}/stdin.$CNI_COMMAND\n\
         case $CNI_COMMAND in ADD) {answer} ;; esac\n"
    );
    host.script(&format!("{SCRIPTS}/{name}"), &text);
}

fn scripted<'h>(lab: &Lab, host: &'h Host) -> Plugin<'h> {
    let mut plugin = lab.plugin(host, "bridge");
    plugin.path = format!("/nonexistent:{SCRIPTS}:{}", plugin.path);
    plugin
}

const ANSWER: &str = r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["192.0.2.53"]}}'"#;

fn with_script() -> Value {
    bridge(json!({"type": "leases", "server": "192.0.2.1", "Password": "x"}))
}

/// One pod, attached with the script.
fn attach(lab: &Lab, host: &Host, answer: &str) -> (Pod, Value) {
    let pod = host.pod("pod");
    script(host, "leases", answer);
    let result = scripted(lab, host).add(&with_script(), &Call::of(&pod));
    (pod, result)
}

fn a_script_serves_as_ipam(lab: &Lab) {
    let host = Host::new();
    let (pod, result) = attach(lab, &host, ANSWER);
    assert_eq!(pod.addresses("eth0"), ["10.7.0.5/24"]);
    assert!(
        pod.pings([10, 7, 0, 1].into()),
        "the bridge has the gateway's address"
    );
    assert_eq!(result["ips"][0]["interface"], 2, "{result:#}");
    assert_eq!(result["cniVersion"], "1.1.0", "{result:#}");
    assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53", "{result:#}");
    let plugin = scripted(lab, &host);
    plugin
        .check(&with_script(), &result, &Call::of(&pod))
        .succeeded();
    assert!(
        host.read(&format!("{SCRIPTS}/stdin.CHECK")).is_some(),
        "CHECK is passed on"
    );
    plugin.del(&with_script(), &Call::of(&pod));
    assert!(
        host.read(&format!("{SCRIPTS}/stdin.DEL")).is_some(),
        "DEL is passed on"
    );
    plugin
        .call("STATUS", &with_script(), &Call::default())
        .succeeded();
    assert!(
        host.read(&format!("{SCRIPTS}/stdin.STATUS")).is_some(),
        "STATUS is passed on"
    );
}

fn a_script_may_answer_in_an_older_version(lab: &Lab) {
    let answers = [
        r#"echo '{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.7.0.5/24", "gateway": "10.7.0.1"}]}'"#,
        r#"echo '{"cniVersion": "0.2.0", "ip4": {"ip": "10.7.0.5/24", "gateway": "10.7.0.1"}}'"#,
        // Without a version it is that of the configuration.
        r#"echo '{"ips": [{"address": "10.7.0.5/24"}]}'"#,
    ];
    for answer in answers {
        let host = Host::new();
        let (pod, result) = attach(lab, &host, answer);
        assert_eq!(pod.addresses("eth0"), ["10.7.0.5/24"], "{answer}");
        assert_eq!(result["ips"][0]["gateway"], "10.7.0.1", "{result:#}");
    }
}

fn the_ipam_plugin_sees_the_call_as_it_came(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    script(&host, "leases", ANSWER);
    let plugin = scripted(lab, &host);
    plugin.add(
        &with_script(),
        &Call::of(&pod).args("IgnoreUnknown=1;K8S_POD_NAME=web-0"),
    );
    let log = host.read(&format!("{SCRIPTS}/log.ADD")).expect("a log");
    let expected = [
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web-0".to_owned(),
        "CNI_COMMAND=ADD".to_owned(),
        "CNI_CONTAINERID=pod".to_owned(),
        "CNI_IFNAME=eth0".to_owned(),
        "CNI_NETNS=/run/netns/pod".to_owned(),
        format!("CNI_PATH={}", plugin.path),
    ];
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
    let stdin = host
        .read(&format!("{SCRIPTS}/stdin.ADD"))
        .expect("its input");
    let stdin: Value = serde_json::from_str(&stdin).expect("its input is JSON");
    assert_eq!(stdin, with_script(), "the whole network configuration");
}

fn the_error_of_an_ipam_plugin_is_passed_on(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let answer = r#"echo '{"cniVersion": "1.0.0", "code": 11, "msg": "no lease yet", "details": "the server sleeps"}'; exit 1"#;
    script(&host, "leases", answer);
    let error = scripted(lab, &host).add_error(&with_script(), &Call::of(&pod));
    assert_eq!(error["code"], 11, "{error}");
    let said = format!("{} {}", error["msg"], error["details"]);
    assert!(
        said.contains("no lease yet") && said.contains("the server sleeps"),
        "{error}"
    );
}

fn an_ipam_plugin_without_addresses_is_an_error(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    script(
        &host,
        "leases",
        r#"echo '{"cniVersion": "1.0.0", "ips": []}'"#,
    );
    scripted(lab, &host).add_error(&with_script(), &Call::of(&pod));
    assert!(
        host.read(&format!("{SCRIPTS}/stdin.DEL")).is_some(),
        "IPAM is released"
    );
}

fn an_ipam_plugin_that_answers_nonsense_is_an_error(lab: &Lab) {
    let answers = [
        "echo nonsense",
        "true",
        "echo '[]'",
        "echo '{\"cniVersion\": \"7.0.0\"}'",
        "exit 3",
        "echo oops; exit 1",
    ];
    for answer in answers {
        let host = Host::new();
        let pod = host.pod("pod");
        script(&host, "leases", answer);
        let before = host.observe();
        let error = scripted(lab, &host).add_error(&with_script(), &Call::of(&pod));
        let said = format!("{} {}", error["msg"], error["details"]);
        assert!(
            said.contains("leases"),
            "the plugin is named: {answer}: {error}"
        );
        let left = host.observe().leftovers(&before);
        let left: Vec<_> = left.iter().filter(|line| !line.contains(SCRIPTS)).collect();
        assert!(left.is_empty(), "{answer}: {left:?}");
    }
}

fn an_ipam_plugin_that_is_killed_is_an_error(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    script(&host, "leases", "kill -KILL $$");
    let error = scripted(lab, &host).add_error(&with_script(), &Call::of(&pod));
    let said = format!("{} {}", error["msg"], error["details"]);
    assert!(
        said.contains("leases") && said.contains("signal"),
        "{error}"
    );
}

fn ipam_is_released_when_add_fails_later(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let answer = r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}],
        "routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]}'"#;

    script(&host, "leases", answer);
    scripted(lab, &host).add_error(&with_script(), &Call::of(&pod));
    assert!(
        host.read(&format!("{SCRIPTS}/stdin.DEL")).is_some(),
        "IPAM is released"
    );
}

fn del_releases_ipam_without_a_netns(lab: &Lab) {
    let host = Host::new();
    let (pod, _) = attach(lab, &host, ANSWER);
    pod.vanish();
    scripted(lab, &host).del(&with_script(), &Call::named("pod", None));
    let log = host
        .read(&format!("{SCRIPTS}/log.DEL"))
        .expect("IPAM is released");
    assert!(log.contains("CNI_CONTAINERID=pod"), "{log}");
}

fn the_first_directory_of_the_path_wins(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    script(&host, "host-local", ANSWER);
    let result = scripted(lab, &host).add(&plain(), &Call::of(&pod));
    assert_eq!(
        address(&result, 0).to_string(),
        "10.7.0.5",
        "the script, though ours has that name"
    );
}

/// The day of the switch: containers that the Go plugins attached are checked and detached by ours.
fn attachments_of_the_go_bridge_are_taken_over(lab: &Lab) {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.observe();
    let go = lab.plugin_in(&host, "bridge", &lab.go_plugins(), &[]);
    let ours = lab.plugin(&host, "bridge");
    let result = go.add(&plain(), &Call::of(&a));
    let other = ours.add(&plain(), &Call::of(&b));
    assert!(a.pings(address(&other, 0)) && b.pings(address(&result, 0)));
    ours.check(&plain(), &result, &Call::of(&a)).succeeded();
    go.check(&plain(), &other, &Call::of(&b)).succeeded();
    ours.del(&plain(), &Call::of(&a));
    go.del(&plain(), &Call::of(&b));
    // What Go didn't know of goes with the second DEL.
    ours.del(&plain(), &Call::of(&b));
    host.assert_nothing_left(&before, &[]);
}

/// ADD of a pod where everything that it starts ends with it, or after a while: it may start itself.
fn contained(plugin: &Plugin<'_>, network: &Value, pod: &Pod) -> Output {
    let cage = ["--pid", "--fork", "--kill-child=KILL", "timeout", "30"];
    let program = Program::new("unshare")
        .args(cage)
        .args([&plugin.program])
        .env("CNI_COMMAND", "ADD")
        .env("CNI_PATH", &plugin.path)
        .env("CNI_CONTAINERID", &pod.name)
        .env("CNI_NETNS", pod.netns())
        .env("CNI_IFNAME", "eth0")
        .stdin(network.to_string());
    plugin.host.run(program)
}

fn a_plugin_that_gives_no_addresses_is_refused_as_ipam(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let bridge_file = lab.bin().join("bridge");
    let bridge_file = bridge_file.display();
    for dir in ["links", "copies", "symlinks"] {
        host.sh(&format!("mkdir /run/lock/{dir}"));
    }
    host.sh(&format!("cp {bridge_file} /run/lock/copies/bridge"));
    host.sh("ln /run/lock/copies/bridge /run/lock/links/ptp");
    host.sh(&format!("ln -s {bridge_file} /run/lock/symlinks/addresses"));
    host.sh("cp /run/lock/copies/bridge /run/lock/copies/addresses");
    let before = host.observe();
    for (dir, name) in [
        ("installed", "bridge"),
        ("installed", "ptp"),
        ("installed", "firewall"),
        ("installed", "trestle"),
        ("/run/lock/copies", "bridge"),
        ("/run/lock/copies", "addresses"),
        ("/run/lock/links", "ptp"),
        ("/run/lock/symlinks", "addresses"),
    ] {
        let mut plugin = lab.plugin(&host, "bridge");
        if dir != "installed" {
            plugin.path = dir.to_owned();
        }
        let network = with(plain(), json!({"ipam": {"type": name}}));
        let error = contained(&plugin, &network, &pod).error();
        assert_eq!(error["code"], 7, "{dir}/{name}: {error}");
        let said = error["msg"].as_str().unwrap_or_default();
        assert!(
            said.contains(&format!("{name} is no IPAM plugin")),
            "{error}"
        );
        assert_eq!(host.observe().since(&before), "", "{dir}/{name}");
    }
}

fn delegation_that_comes_back_ends_soon(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let text = format!(
        "#!/bin/sh\necho $CNI_COMMAND >>{SCRIPTS}/calls\nexec {}\n",
        lab.bin().join("bridge").display()
    );
    host.script(&format!("{SCRIPTS}/again"), &text);
    let network = with(plain(), json!({"ipam": {"type": "again"}}));
    let error = contained(&scripted(lab, &host), &network, &pod).error();
    assert_eq!(error["code"], 7, "{error}");
    assert!(
        error["msg"].as_str().unwrap_or_default().contains("again"),
        "{error}"
    );
    let calls = host.read(&format!("{SCRIPTS}/calls")).unwrap_or_default();
    assert!(calls.lines().count() <= 20, "{calls}");
    assert!(pod.link("eth0").is_none());
}
