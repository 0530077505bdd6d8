//! The verb GC beyond the bridge alone, and `trestle gc` for runtimes that don't call it.

use conformance::{
    Call, Case, Host, Lab, Need, Output, Pod, Program, Snapshot, case, host_local, with,
};
use serde_json::{Value, json};

use crate::common::{list, plain, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    let verb = ["nftables", "iptables"].map(|backend| {
        let name = format!("garbage_collection::gc_takes_masquerade_by_{backend}_out");
        Case::new(name, move |lab| gc_takes_masquerade_out(lab, backend)).ours()
    });
    let others = [
        case!(gc_carries_on_after_an_error).ours(),
        case!(gc_leaves_other_networks_alone).ours(),
        case!(the_command_says_what_it_would_remove).ours(),
        case!(the_command_removes_what_is_gone_and_nothing_else).ours(),
        case!(the_command_believes_the_cache_of_the_runtime)
            .ours()
            .needs(Need::Cnitool),
        case!(the_command_takes_in_every_plugin_of_the_list)
            .ours()
            .needs(Need::Cnitool),
        case!(gc_by_cnitool_takes_in_every_plugin_of_the_list)
            .ours()
            .needs(Need::NewCnitool),
        case!(the_command_keeps_what_the_go_plugins_gave)
            .ours()
            .needs(Need::GoPlugins),
        case!(the_command_does_not_touch_containers_that_come_meanwhile).ours(),
        case!(the_command_explains_a_wrong_configuration).ours(),
        case!(the_command_takes_in_every_network)
            .ours()
            .needs(Need::Cnitool),
        case!(the_command_removes_what_a_network_without_a_list_left).ours(),
        case!(what_was_removed_is_not_found_again_in_the_cache)
            .ours()
            .needs(Need::Cnitool),
        case!(a_renamed_network_masquerades_nobody_who_comes_after_it).ours(),
    ];
    verb.into_iter().chain(others).collect()
}

fn masqueraded() -> Value {
    with(plain(), json!({"ipMasq": true}))
}

/// The network as the verb GC sees it, with these containers valid.
fn valid(network: &Value, names: &[&str]) -> Value {
    let list: Vec<_> = names
        .iter()
        .map(|name| json!({"containerID": name, "ifname": "eth0"}))
        .collect();
    with(network.clone(), json!({"cni.dev/valid-attachments": list}))
}

fn gc_takes_masquerade_out(lab: &Lab, backend: &str) {
    let host = Host::new();
    let network = with(masqueraded(), json!({"ipMasqBackend": backend}));
    let plugin = lab.plugin(&host, "bridge");
    let before = host.observe();
    let (kept, lost, gone) = (host.pod("kept"), host.pod("lost"), host.pod("gone"));
    let result = plugin.add(&network, &Call::of(&kept));
    plugin.add(&network, &Call::of(&lost));
    plugin.add(&network, &Call::of(&gone));
    gone.vanish();
    let gc = |names: &[&str]| plugin.call("GC", &valid(&network, names), &Call::default());
    gc(&["kept"]).succeeded();
    plugin
        .check(&network, &result, &Call::of(&kept))
        .succeeded();
    let now = host.observe();
    for name in ["net/lost", "net/gone", "lost\\r", "gone\\r"] {
        assert!(
            now.mentioning(name).is_empty(),
            "{:?}",
            now.mentioning(name)
        );
    }
    gc(&[]).succeeded();
    host.assert_nothing_left(&before, &["net/kept", "kept\\r"]);
}

fn gc_carries_on_after_an_error(lab: &Lab) {
    let host = Host::new();
    let network = masqueraded();
    let plugin = lab.plugin(&host, "bridge");
    let pod = host.pod("pod");
    plugin.add(&network, &Call::of(&pod));
    let networks = "/var/lib/cni/networks";
    host.sh(&format!("mount --bind {networks} {networks}"));
    host.sh(&format!("mount -o remount,bind,ro {networks}"));
    let output = plugin.call("GC", &valid(&network, &[]), &Call::default());
    assert!(
        output.error()["msg"]
            .as_str()
            .is_some_and(|msg| msg.contains("Read-only"))
    );
    let now = host.observe();
    assert!(
        now.mentioning("net/pod/eth0").is_empty(),
        "{:?}",
        now.mentioning("net/pod")
    );
    assert!(
        pod.link("eth0").is_none(),
        "the interface is gone all the same"
    );
    host.sh(&format!("umount {networks}"));
    plugin
        .call("GC", &valid(&network, &[]), &Call::default())
        .succeeded();
    assert!(host.observe().mentioning("pod").is_empty());
}

fn gc_leaves_other_networks_alone(lab: &Lab) {
    let host = Host::new();
    let plugin = lab.plugin(&host, "bridge");
    let mut neighbours = Vec::new();
    // Names that begin alike.
    for (name, subnet) in [
        ("net2", "10.2.0.0/24"),
        ("ne", "10.3.0.0/24"),
        ("net.x", "10.4.0.0/24"),
    ] {
        let network = with(
            masqueraded(),
            json!({"name": name, "bridge": format!("br-{name}"), "ipam": {"ranges": [[{"subnet": subnet}]]}}),
        );
        let pod = host.pod(&format!("pod-{name}"));
        let result = plugin.add(&network, &Call::of(&pod));
        neighbours.push((network, pod, result));
    }
    plugin.add(&masqueraded(), &Call::of(&host.pod("pod")));
    plugin
        .call("GC", &valid(&masqueraded(), &[]), &Call::default())
        .succeeded();
    for (network, pod, result) in &neighbours {
        plugin.check(network, result, &Call::of(pod)).succeeded();
    }
}

/// `trestle gc` for the network of this configuration.
fn command(lab: &Lab, host: &Host, network: &Value, more: &[&str]) -> Output {
    host.configure("10-net.conflist", &list(network));
    let conf = format!("{}/10-net.conflist", Host::NET_D);
    let program = Program::new(lab.bin().join("trestle")).args(["gc", "--conf", &conf]);
    host.run(program.args(more))
}

/// A container that lives and one that vanished without DEL.
fn alive_and_gone(lab: &Lab, host: &Host, network: &Value) -> (Pod, Value) {
    let plugin = lab.plugin(host, "bridge");
    let (alive, gone) = (host.pod("alive"), host.pod("gone"));
    let result = plugin.add(network, &Call::of(&alive));
    let lost = plugin.add(network, &Call::of(&gone));
    vanish(host, gone, &lost);
    (alive, result)
}

/// Take a container away, and wait until the kernel has done the same with its interfaces.
fn vanish(host: &Host, pod: Pod, result: &Value) {
    pod.vanish();
    let veth = result["interfaces"][1]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    wait_until("the veth goes with its namespace", || {
        host.link(&veth).is_none()
    });
}

fn the_command_says_what_it_would_remove(lab: &Lab) {
    let host = Host::new();
    let network = masqueraded();
    let _alive = alive_and_gone(lab, &host, &network);
    command(lab, &host, &network, &["--dry-run"]).succeeded();
    let before = host.observe();
    let said = command(lab, &host, &network, &["--dry-run"])
        .succeeded()
        .text();
    assert_eq!(host.observe().since(&before), "", "nothing was touched");
    for words in [
        "container gone, interface eth0: its network namespace is gone",
        "would remove address 10.1.0.3",
        "would remove nft element 10.1.0.3",
        "1 attachments would be removed, 1 kept",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("alive"), "{said}");
}

fn the_command_removes_what_is_gone_and_nothing_else(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let host = Host::new();
        let network = with(masqueraded(), json!({"ipMasqBackend": backend}));
        let (alive, result) = alive_and_gone(lab, &host, &network);
        let said = command(lab, &host, &network, &[]).succeeded().text();
        assert!(said.contains("removed address 10.1.0.3"), "{said}");
        let now = host.observe();
        assert!(
            now.mentioning("gone").is_empty(),
            "{:?}",
            now.mentioning("gone")
        );
        let plugin = lab.plugin(&host, "bridge");
        plugin
            .check(&network, &result, &Call::of(&alive))
            .succeeded();
        let again = command(lab, &host, &network, &[]).succeeded().text();
        assert!(again.contains("0 attachments removed, 1 kept"), "{again}");
    }
}

/// Go's host-local leaves no word about namespaces, but the runtime does.
fn the_command_believes_the_cache_of_the_runtime(lab: &Lab) {
    let host = Host::new();
    let network = masqueraded();
    host.configure("10-net.conflist", &list(&network));
    let mut cnitool = lab.cnitool(&host);
    cnitool.path = format!("{}:{}", lab.bin().display(), cnitool.path);
    let (alive, gone) = (host.pod("alive"), host.pod("gone"));
    cnitool.add("net", &alive);
    let lost = cnitool.add("net", &gone);
    let address = lost["ips"][0]["address"]
        .as_str()
        .and_then(|it| it.split('/').next());
    let address = address.expect("an address").to_owned();
    // As if Go's host-local had given it.
    host.sh("rm -r /var/lib/cni/networks/.trestle");
    vanish(&host, gone, &lost);
    let said = command(lab, &host, &network, &["--dry-run"])
        .succeeded()
        .text();
    assert!(
        said.contains("there is no network namespace /run/netns/gone"),
        "{said}"
    );
    assert!(
        said.contains(&format!("would remove address {address}")),
        "{said}"
    );
    command(lab, &host, &network, &[]).succeeded();
    assert!(
        host.read(&format!("/var/lib/cni/networks/net/{address}"))
            .is_none()
    );
    cnitool.del("net", &alive);
}

/// A host with a network of everything that goes into a list, and two pods: one lives, one has vanished.
fn whole_list(lab: &Lab) -> (Host, Snapshot, Pod) {
    let host = Host::new();
    let main = with(masqueraded(), json!({"cniVersion": null, "name": null}));
    let plugins = json!([
        main,
        {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400}
    ]);
    let list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": plugins});
    host.configure("10-net.conflist", &list.to_string());
    let before = host.observe();
    let (alive, gone) = (host.pod("alive"), host.pod("gone"));
    let cnitool = |port: u16| {
        let mapping = json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        let arguments = json!({"portMappings": mapping}).to_string();
        lab.cnitool(&host).env("CAP_ARGS", &arguments)
    };
    cnitool(8080).add("net", &alive);
    let lost = cnitool(8081).add("net", &gone);
    vanish(&host, gone, &lost);
    (host, before, alive)
}

fn the_command_takes_in_every_plugin_of_the_list(lab: &Lab) {
    let (host, before, alive) = whole_list(lab);
    let conf = format!("{}/10-net.conflist", Host::NET_D);
    let command = |more: &[&str]| {
        let program = Program::new(lab.bin().join("trestle")).args(["gc", "--conf", &conf]);
        host.run(program.args(more)).succeeded().text()
    };
    let said = command(&["--dry-run"]);
    for words in [
        "would remove port mapping",
        "8081",
        "tuning, firewall, portmap, bridge",
        "1 kept",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("8080"), "{said}");
    command(&[]);
    let now = host.observe();
    // libcni's own cache is its own.
    let left: Vec<_> = now
        .lines()
        .filter(|line| line.contains("10.1.0.3") || line.contains("8081"))
        .collect();
    let left: Vec<_> = left
        .iter()
        .filter(|line| !line.contains("/results/") && !line.contains("last_reserved"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
    let capabilities =
        r#"{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}"#;
    let cnitool = lab.cnitool(&host).env("CAP_ARGS", capabilities);
    cnitool.check("net", &alive);
    cnitool.del("net", &alive);
    let left = host.observe().leftovers(&before);
    let left: Vec<_> = left
        .iter()
        .filter(|line| !line.contains("/results/"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

fn gc_by_cnitool_takes_in_every_plugin_of_the_list(lab: &Lab) {
    let (host, before, alive) = whole_list(lab);
    lab.cnitool(&host)
        .call("gc", "net", &alive.netns())
        .succeeded();
    let left = host.observe().leftovers(&before);
    let left: Vec<_> = left
        .iter()
        .filter(|line| !line.contains("/results/"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

fn the_command_keeps_what_the_go_plugins_gave(lab: &Lab) {
    let host = Host::new();
    let go = lab.plugin_in(&host, "bridge", &lab.go_plugins(), &[]);
    let (alive, gone) = (host.pod("alive"), host.pod("gone"));
    let network = plain();
    let result = go.add(&network, &Call::of(&alive));
    let lost = go.add(&network, &Call::of(&gone));
    vanish(&host, gone, &lost);
    let said = command(lab, &host, &network, &[]).succeeded().text();
    assert!(said.contains("nothing tells whether it lives"), "{said}");
    go.check(&network, &result, &Call::of(&alive)).succeeded();
    for address in ["10.1.0.2", "10.1.0.3"] {
        assert!(
            host.read(&format!("/var/lib/cni/networks/net/{address}"))
                .is_some()
        );
    }
}

fn the_command_does_not_touch_containers_that_come_meanwhile(lab: &Lab) {
    let host = Host::new();
    let network = masqueraded();
    let plugin = lab.plugin(&host, "bridge");
    let pods: Vec<_> = (0..8)
        .map(|index| host.pod(&format!("pod{index}")))
        .collect();
    let results = crate::common::at_once(9, |index| match pods.get(index) {
        Some(pod) => {
            for _ in 0..3 {
                plugin.add(&network, &Call::of(pod));
                plugin.del(&network, &Call::of(pod));
            }
            plugin.add(&network, &Call::of(pod))
        }
        None => {
            for _ in 0..10 {
                command(lab, &host, &network, &[]).succeeded();
            }
            Value::Null
        }
    });
    for (pod, result) in pods.iter().zip(&results) {
        plugin.check(&network, result, &Call::of(pod)).succeeded();
        plugin.del(&network, &Call::of(pod));
    }
}

fn the_command_explains_a_wrong_configuration(lab: &Lab) {
    let host = Host::new();
    host.write("/run/wrong", "{\"name\": \"../x\"}");
    for (conf, says) in [("/run/missing", "No such file"), ("/run/wrong", "../x")] {
        let program = Program::new(lab.bin().join("trestle")).args(["gc", "--conf", conf]);
        let output = host.run(program);
        assert_eq!(output.status.code(), Some(1), "{output}");
        assert!(
            output.stderr.contains(conf) && output.stderr.contains(says),
            "{output}"
        );
    }
}

/// The list is gone, and nobody remembers it.
fn the_command_removes_what_a_network_without_a_list_left(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        let host = Host::new();
        let network = with(masqueraded(), json!({"ipMasqBackend": backend}));
        let (alive, result) = alive_and_gone(lab, &host, &network);
        let by_name = |more: &[&str]| {
            let program = Program::new(lab.bin().join("trestle")).args(["gc", "--network", "net"]);
            host.run(program.args(more)).succeeded().text()
        };
        let said = by_name(&["--dry-run"]);
        assert!(said.contains("would remove address 10.1.0.3"), "{said}");
        let said = by_name(&[]);
        assert!(said.contains("1 attachments removed, 1 kept"), "{said}");
        let now = host.observe();
        assert!(
            now.mentioning("gone").is_empty(),
            "{:?}",
            now.mentioning("gone")
        );
        let plugin = lab.plugin(&host, "bridge");
        plugin
            .check(&network, &result, &Call::of(&alive))
            .succeeded();
        assert!(by_name(&[]).contains("0 attachments removed, 1 kept"));
    }
}

fn what_was_removed_is_not_found_again_in_the_cache(lab: &Lab) {
    let host = Host::new();
    let network = with(
        masqueraded(),
        json!({"ipam": with(host_local(&["10.1.0.0/24"]), json!({"dataDir": "/run/elsewhere"}))}),
    );
    host.configure("10-net.conflist", &list(&network));
    let mut cnitool = lab.cnitool(&host);
    cnitool.path = format!("{}:{}", lab.bin().display(), cnitool.path);
    let (alive, gone) = (host.pod("alive"), host.pod("gone"));
    cnitool.add("net", &alive);
    let lost = cnitool.add("net", &gone);
    vanish(&host, gone, &lost);
    // The list goes, and what the runtime remembers of it stands for it: it knows where the addresses are.
    host.sh(&format!("rm {}/10-net.conflist", Host::NET_D));
    let by_name = || {
        let program = Program::new(lab.bin().join("trestle")).args(["gc", "--network", "net"]);
        host.run(program).succeeded().text()
    };
    let said = by_name();
    assert!(said.contains("removed address 10.1.0.3"), "{said}");
    let cached = host.sh("ls /var/lib/cni/results");
    assert_eq!(cached.lines().count(), 1, "{cached}");
    let again = by_name();
    assert!(again.contains("0 attachments removed, 1 kept"), "{again}");
    host.configure("10-net.conflist", &list(&network));
    cnitool.del("net", &alive);
}

/// The runtime calls DEL with the list as it is now, under whose name nothing is found.
fn a_renamed_network_masquerades_nobody_who_comes_after_it(lab: &Lab) {
    for backend in ["nftables", "iptables"] {
        for masquerades in [true, false] {
            let host = Host::new();
            let plugin = lab.plugin(&host, "bridge");
            let former = with(masqueraded(), json!({"ipMasqBackend": backend}));
            // The other backend's rules are not looked for where nothing is masqueraded.
            if backend == "iptables" && !masquerades {
                continue;
            }
            let renamed = with(
                former.clone(),
                json!({"name": "podnet", "ipMasq": masquerades}),
            );
            let (old, stays) = (host.pod("old"), host.pod("stays"));
            let result = plugin.add(&former, &Call::of(&old));
            plugin.add(&former, &Call::of(&stays));
            vanish(&host, old, &result);
            assert!(!host.observe().mentioning("net/old").is_empty());
            let new = host.pod("new");
            let now = plugin.add(&renamed, &Call::of(&new));
            assert_eq!(now["ips"][0]["address"], result["ips"][0]["address"]);
            let rules = |name: &str| host.observe().mentioning(name).len();
            assert_eq!(rules("net/old/eth0"), 0, "{backend}");
            // The other's host interface stands, though the new network gives out its address as well.
            let newer = host.pod("newer");
            plugin.add(&renamed, &Call::of(&newer));
            assert_ne!(rules("net/stays/eth0"), 0, "{backend}");
        }
    }
}

/// Lists, a list that is gone, and one that is broken.
fn the_command_takes_in_every_network(lab: &Lab) {
    let host = Host::new();
    let mut lost = Vec::new();
    for (index, name) in ["one", "two", "three"].iter().enumerate() {
        let subnet = format!("10.{index}.0.0/24");
        let plugin = json!({
            "type": "bridge", "bridge": format!("br{index}"), "ipMasq": true, "isGateway": true,
            "ipam": {"type": "host-local", "subnet": subnet}
        });
        let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]});
        host.configure(&format!("{index}.conflist"), &list.to_string());
        let (alive, gone) = (
            host.pod(&format!("alive{index}")),
            host.pod(&format!("gone{index}")),
        );
        lab.cnitool(&host).add(name, &alive);
        let result = lab.cnitool(&host).add(name, &gone);
        lost.push((alive, gone, result));
    }
    let mut alive = Vec::new();
    for (pod, gone, result) in lost {
        vanish(&host, gone, &result);
        alive.push(pod);
    }
    host.sh(&format!("rm {}/2.conflist", Host::NET_D));
    host.configure("1-broken.conflist", "garbage");
    let bin = lab.bin().to_string_lossy().into_owned();
    let all = |more: &[&str]| {
        let program = Program::new(lab.bin().join("trestle")).args([
            "gc",
            "--all",
            "--conf-dir",
            Host::NET_D,
            "--bin-dir",
            &bin,
        ]);
        host.run(program.args(more))
    };
    let output = all(&["--dry-run"]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    assert!(output.stderr.contains("1-broken.conflist"), "{output}");
    for network in ["one", "two", "three"] {
        let words = format!("network {network}: 1 attachments would be removed, 1 kept");
        assert!(output.text().contains(&words), "{words}: {output}");
    }
    all(&[]);
    let again = all(&[]).text();
    assert_eq!(
        again.matches(": 0 attachments removed, 1 kept").count(),
        3,
        "{again}"
    );
}
