//! Who waits for whom: neither a local user nor a program that hangs keeps containers from coming and going.

use conformance::{
    Call, Case, Host, Lab, Pod, Program, bridge, case, host_local, with, with_prev_result,
};
use serde_json::{Value, json};

use crate::common::code;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_local_user_cannot_keep_containers_waiting).ours(),
        case!(an_iptables_that_hangs_is_killed_and_the_next_one_is_served).ours(),
    ]
}

/// A network with everything that is guarded by a lock: iptables for masquerade, and for ports and the firewall.
fn network() -> Value {
    with(
        bridge(host_local(&["10.1.0.0/24"])),
        json!({"isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "iptables"}),
    )
}

/// The rest of its list, with a port of the host's.
fn chained(host_port: u16) -> Vec<Value> {
    let ports = json!([{"hostPort": host_port, "containerPort": 80, "protocol": "tcp"}]);
    let mappings = |backend| {
        let more = json!({"type": "portmap", "backend": backend, "snat": true,
            "runtimeConfig": {"portMappings": ports}});
        with(network(), more)
    };
    let firewall = with(
        network(),
        json!({"type": "firewall", "backend": "iptables"}),
    );
    // nftables has the lock of route_localnet, iptables that of the rules.
    vec![
        mappings(if host_port.is_multiple_of(2) {
            "nftables"
        } else {
            "iptables"
        }),
        firewall,
    ]
}

fn plugin_of(conf: &Value) -> &str {
    conf["type"].as_str().expect("a type")
}

fn add(lab: &Lab, host: &Host, pod: &Pod, host_port: u16) {
    let call = Call::of(pod);
    let mut result = lab.plugin(host, "bridge").add(&network(), &call);
    for conf in chained(host_port) {
        let plugin = lab.plugin(host, plugin_of(&conf));
        result = plugin.add(&with_prev_result(&conf, &result), &call);
    }
}

fn del(lab: &Lab, host: &Host, pod: &Pod, host_port: u16) {
    for conf in chained(host_port).iter().rev() {
        lab.plugin(host, plugin_of(conf)).del(conf, &Call::of(pod));
    }
    lab.plugin(host, "bridge").del(&network(), &Call::of(pod));
}

/// Locks every file that it can open, says how many those are and which process goes on holding them, longer than anybody waits.
const HOLD: &str = r#"#!/bin/bash
ulimit -n 100000
count=0
while IFS= read -r path; do
    { exec {file}<"$path"; } 2>/dev/null || continue
    flock -n -x "$file" && count=$((count + 1))
done < <(find /proc/sys/net /run /var/lib/cni -type f -o -type d 2>/dev/null)
sleep 300 <&- >&- 2>&- &
echo "$count" $!
"#;

fn a_local_user_cannot_keep_containers_waiting(lab: &Lab) {
    let host = Host::new();
    host.sh("iptables -P FORWARD DROP");
    let pods = ["a", "b", "c", "d"].map(|name| host.pod(name));
    let before = host.observe();
    // Those of before make every file that there will be.
    add(lab, &host, &pods[0], 8000);
    add(lab, &host, &pods[1], 8001);
    host.script("/run/hold", HOLD);
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let hold = Program::new("setpriv").args(nobody).args(["/run/hold"]);
    let held = host.run(hold).succeeded().text();
    let (held, holder) = held.trim().split_once(' ').expect("two numbers");
    let held: u32 = held.parse().expect("a number");
    assert!(held > 100, "only {held} files are readable");
    add(lab, &host, &pods[2], 8002);
    add(lab, &host, &pods[3], 8003);
    for (pod, port) in pods.iter().zip(8000..) {
        del(lab, &host, pod, port);
    }
    host.sh(&format!("kill {holder}"));
    host.sh("rm /run/hold");
    host.assert_nothing_left(&before, &[]);
}

/// Stands for iptables-restore: hangs, with a child, as long as there is a file that says so.
const HANGS: &str = "#!/bin/sh
[ -e /run/hang ] || exec /run/real/iptables-restore \"$@\"
rm /run/hang
sleep 1000 &
echo $$ $! >/run/hung
sleep 1000
";

fn an_iptables_that_hangs_is_killed_and_the_next_one_is_served(lab: &Lab) {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.sh("mkdir /run/real");
    let path = host.sh("which iptables-restore");
    host.sh(&format!("cp -L {} /run/real/iptables-restore", path.trim()));
    host.script("/run/fake", HANGS);
    host.sh(&format!("mount --bind /run/fake {}", path.trim()));
    host.write("/run/hang", "");
    let (first, second) = std::thread::scope(|scope| {
        let plugin = lab.plugin(&host, "bridge");
        let call = |pod| {
            let (plugin, call) = (plugin.clone(), Call::of(pod));
            scope.spawn(move || plugin.call("ADD", &network(), &call))
        };
        let hanging = call(&a);
        crate::common::wait_until("iptables-restore hangs", || {
            host.read("/run/hung").is_some()
        });
        // Which waits for the lock meanwhile.
        let waiting = call(&b);
        (
            hanging.join().expect("no panic"),
            waiting.join().expect("no panic"),
        )
    });
    assert_eq!(code(&first), 11, "{first}");
    let said = first.text();
    assert!(
        said.contains("iptables-restore was still running"),
        "{said}"
    );
    second.succeeded();
    for pid in host
        .read("/run/hung")
        .unwrap_or_default()
        .split_whitespace()
    {
        let state = host.read(&format!("/proc/{pid}/stat")).unwrap_or_default();
        // A child of it is reaped by whoever adopts it.
        let gone = state.is_empty() || state.contains(") Z ") || state.contains(") X ");
        assert!(gone, "{state}");
    }
    assert!(a.link("eth0").is_none(), "the failed ADD is undone");
}
