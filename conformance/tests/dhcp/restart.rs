//! What becomes of leases when the daemon ends, is killed, or is not there.

use conformance::{Call, Case, Lab, Need, case, with};
use serde_json::json;

use super::{Scene, is_up, network};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(killed_daemon_goes_on_where_it_was),
        case!(daemon_that_ends_leaves_no_socket),
        case!(del_without_a_daemon_is_remembered),
        case!(second_daemon_is_refused),
        case!(nobody_but_root_is_let_in),
        case!(plugin_that_is_killed_ends_the_search),
    ];
    cases
        .into_iter()
        .map(|case| case.needs(Need::DhcpServers))
        .collect()
}

fn killed_daemon_goes_on_where_it_was(lab: &Lab) {
    let scene = Scene::new();
    let mut server = scene.dhcpd(lab, 6, 50);
    let daemon = scene.daemon(lab);
    let pods = ["a", "b"].map(|name| scene.host.pod(name));
    let network = network(json!({}));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let result = plugin.add(&network, &Call::of(&pods[0]));
    plugin.add(&network, &Call::of(&pods[1]));
    daemon.kill();
    let [pod, gone] = pods;
    gone.vanish();
    // Debris that is no lease is in nobody's way.
    scene.host.write("/var/lib/cni/dhcp/lease:net:x:eth0", "{");
    scene.host.write("/var/lib/cni/dhcp/new", "half");
    let daemon = scene.daemon(lab);
    assert!(daemon.log().contains("with 1 leases"), "{}", daemon.log());
    assert!(daemon.log().contains("left alone: "), "{}", daemon.log());
    let acks = server.count("DHCPACK");
    server.wait_for("DHCPACK", acks + 2);
    assert_eq!(server.count("DHCPDISCOVER"), 2, "{}", server.log());
    assert!(is_up(&pod));
    plugin.check(&network, &result, &Call::of(&pod)).succeeded();
    plugin.del(&network, &Call::of(&pod));
    server.wait_for("DHCPRELEASE", 1);
    // An old boot's leases are nobody's.
    let pod = scene.host.pod("c");
    plugin.add(&network, &Call::of(&pod));
    daemon.kill();
    let file = "/var/lib/cni/dhcp/lease:net:c:eth0";
    let lease = scene.host.read(file).expect("the lease");
    let boot = lease
        .split("\"boot\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let other = lease.replace(boot.expect("a boot"), "another");
    scene.host.write(file, other);
    let daemon = scene.daemon(lab);
    assert!(
        daemon.log().ends_with("with 0 leases\n"),
        "{}",
        daemon.log()
    );
    assert_eq!(scene.leases(), ["lease:net:x:eth0"]);
}

fn daemon_that_ends_leaves_no_socket(lab: &Lab) {
    let scene = Scene::new();
    let host = &scene.host;
    let daemon = lab.dhcp_daemon(host, lab.bin(), &["-pidfile", "/run/dhcp.pid"]);
    let pid = host.read("/run/dhcp.pid").unwrap_or_default();
    assert_eq!(pid.trim(), daemon.pid().to_string());
    assert_eq!(daemon.terminate(), Some(0));
    assert!(host.list("/run/cni").is_empty() && host.read("/run/dhcp.pid").is_none());
    // One that is killed leaves it, and the next one takes its place.
    lab.dhcp_daemon(host, lab.bin(), &[]).kill();
    assert_eq!(host.list("/run/cni"), ["dhcp.sock"]);
    lab.dhcp_daemon(host, lab.bin(), &[]);
}

fn del_without_a_daemon_is_remembered(lab: &Lab) {
    let scene = Scene::new();
    let _server = scene.dnsmasq(lab, &[]);
    let daemon = scene.daemon(lab);
    let network = network(json!({}));
    let plugin = lab.plugin(&scene.host, "macvlan");
    let pods = ["a", "b", "c"].map(|name| scene.host.pod(name));
    for pod in &pods {
        plugin.add(&network, &Call::of(pod));
    }
    daemon.kill();
    let output = plugin
        .call("DEL", &network, &Call::of(&pods[0]))
        .succeeded();
    assert!(
        output
            .stderr
            .contains("keeps the address until the lease ends"),
        "{output}"
    );
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]});
    plugin
        .call("GC", &with(network, valid), &Call::default())
        .succeeded();
    assert_eq!(scene.leases(), ["lease:net:b:eth0"]);
    let daemon = scene.daemon(lab);
    assert!(
        daemon.log().ends_with("with 1 leases\n"),
        "{}",
        daemon.log()
    );
}

fn second_daemon_is_refused(lab: &Lab) {
    let scene = Scene::new();
    let _daemon = scene.daemon(lab);
    let dhcp = lab.bin().join("dhcp");
    let run = |more: &[&str]| {
        let program = conformance::Program::new(&dhcp).args(["daemon"]).args(more);
        let output = scene.host.run(program);
        assert_eq!(output.status.code(), Some(1), "{output}");
        output.stderr
    };
    assert!(run(&[]).contains("another daemon keeps its leases in /var/lib/cni/dhcp: process "));
    assert!(run(&["-statedir", "/run/other"]).contains("another daemon listens there"));
    assert_eq!(scene.host.list("/run/cni"), ["dhcp.sock"]);
}

fn nobody_but_root_is_let_in(lab: &Lab) {
    let scene = Scene::new();
    let _daemon = scene.daemon(lab);
    let stat = "stat -c %a /run/cni/dhcp.sock /var/lib/cni/dhcp /var/lib/cni/dhcp/lock";
    let modes = scene
        .host
        .run(conformance::Program::new("sh").args(["-c", stat]));
    assert_eq!(modes.succeeded().text(), "600\n700\n600\n");
    // Neither where somebody has made the socket one for everybody.
    scene.host.sh("chmod 0666 /run/cni/dhcp.sock");
    let plugin = lab.bin().join("dhcp").display().to_string();
    let words = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        plugin.as_str(),
    ];
    let program = conformance::Program::new("setpriv").args(words);
    let program = program
        .env("CNI_COMMAND", "STATUS")
        .env("CNI_PATH", "/nonexistent");
    let output = scene
        .host
        .run(program.stdin(network(json!({})).to_string()));
    assert!(
        output.text().contains("ended before it answered"),
        "{output}"
    );
}

fn plugin_that_is_killed_ends_the_search(lab: &Lab) {
    let scene = Scene::new();
    let mut daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    pod.ip("link add eth0 type veth peer name other");
    let dhcp = lab.bin().join("dhcp").display().to_string();
    let program = conformance::Program::new("timeout").args(["-s", "KILL", "1", &dhcp]);
    let program = program
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "pod")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", pod.netns())
        .env("CNI_PATH", lab.bin());
    scene
        .host
        .run(program.stdin(network(json!({})).to_string()));
    daemon.wait_for("the plugin left before there was a lease", 1);
    assert!(scene.leases().is_empty());
}
