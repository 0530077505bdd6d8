//! Beside the Go plugin: the same addresses, routes and identifiers, and a word to whoever meets the other's daemon.

use conformance::{Call, Case, Lab, Need, case};
use serde_json::{Value, json};

use super::{Scene, network};

/// What differs on purpose.
pub(crate) const DIFFERENCES: [&str; 4] = [
    "leases-outlive-the-daemon",
    "resolver-settings-of-a-lease",
    "identifiers-of-long-names",
    "daemons-speak-different-languages",
];

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(result_is_that_of_the_go_plugin),
        case!(daemon_of_the_go_plugins_is_named),
        case!(go_plugin_is_told),
    ];
    cases
        .into_iter()
        .map(|case| case.needs(Need::DhcpServers).needs(Need::GoPlugins).ours())
        .collect()
}

/// The result of an ADD, and what the server wrote down and was asked for.
fn seen(lab: &Lab, ours: bool, options: &[&str], ipam: &Value) -> (Value, String, Vec<String>) {
    let scene = Scene::new();
    let server = scene.dnsmasq(lab, options);
    let dir = if ours {
        lab.bin().to_owned()
    } else {
        lab.go_plugins()
    };
    let _daemon = lab.dhcp_daemon(&scene.host, &dir, &[]);
    let pod = scene.host.pod("pod");
    let plugin = lab.plugin_in(&scene.host, "macvlan", &dir, &[]);
    let network = conformance::with(
        network(ipam.clone()),
        json!({"mac": "02:00:00:00:00:21", "cniVersion": "1.1.0"}),
    );
    let mut result = plugin.add(&network, &Call::of(&pod).args("IgnoreUnknown=1;NAME=web-0"));
    result["interfaces"] = Value::Null;
    result["ips"][0]["interface"] = Value::Null;
    let lease = scene
        .outside
        .read("/run/dnsmasq.leases")
        .unwrap_or_default();
    let lease = lease.split_once(' ').map(|(_, rest)| rest.to_owned());
    let mut sent: Vec<String> = server.log().lines().filter_map(told).collect();
    sent.sort();
    sent.dedup();
    (result, lease.unwrap_or_default(), sent)
}

/// What the client said of itself.
fn told(line: &str) -> Option<String> {
    ["client provides name", "vendor class", "user class"]
        .iter()
        .find_map(|what| line.find(what))
        .map(|at| line[at..].to_owned())
}

fn result_is_that_of_the_go_plugin(lab: &Lab) {
    let routes = "121,10.9.0.0/16,10.94.0.2,0.0.0.0/0,10.94.0.3";
    let ipam = json!({
        "priority": 5,
        "provide": [
            {"option": "12", "fromArg": "NAME"},
            {"option": "vendor-class-identifier", "value": "class"},
        ],
        "request": [{"option": "121"}],
    });
    for (options, ipam) in [
        (&["-O", "3,10.94.0.1"][..], json!({})),
        (&["-O", "3,10.94.0.1", "-O", routes], ipam),
    ] {
        let (own, own_lease, own_sent) = seen(lab, true, options, &ipam);
        let (other, other_lease, other_sent) = seen(lab, false, options, &ipam);
        assert_eq!(own, other);
        assert_eq!(
            own_lease, other_lease,
            "address, name and client identifier"
        );
        assert_eq!(own_sent, other_sent);
    }
    // The Go plugin has no resolver settings, whatever the server sends.
    let options = ["-O", "6,10.94.0.53"];
    let (own, other) = (
        seen(lab, true, &options, &json!({})).0,
        seen(lab, false, &options, &json!({})).0,
    );
    assert_eq!(own["dns"], json!({"nameservers": ["10.94.0.53"]}));
    assert_eq!(other["dns"]["nameservers"], Value::Null, "{other}");
}

fn daemon_of_the_go_plugins_is_named(lab: &Lab) {
    let scene = Scene::new();
    let _daemon = lab.dhcp_daemon(&scene.host, &lab.go_plugins(), &[]);
    let plugin = lab.plugin(&scene.host, "dhcp");
    let pod = scene.host.pod("pod");
    for verb in ["ADD", "DEL"] {
        let error = plugin
            .call(verb, &network(json!({})), &Call::of(&pod))
            .error();
        let msg = error["msg"].as_str().unwrap_or_default();
        assert!(msg.contains("is the Go plugins'"), "{verb}: {error}");
        let details = error["details"].as_str().unwrap_or_default();
        assert!(details.contains("systemctl"), "{verb}: {error}");
    }
}

fn go_plugin_is_told(lab: &Lab) {
    let scene = Scene::new();
    let _daemon = scene.daemon(lab);
    let plugin = lab.plugin_in(&scene.host, "dhcp", &lab.go_plugins(), &[]);
    let pod = scene.host.pod("pod");
    let output = plugin.call("ADD", &network(json!({})), &Call::of(&pod));
    assert!(
        output.text().contains("this daemon is trestle's"),
        "{output}"
    );
}
