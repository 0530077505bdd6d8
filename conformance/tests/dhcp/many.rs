//! Many containers, and names as long as they may be.

use std::collections::BTreeSet;

use conformance::{Call, Case, Lab, Need, case, with};
use serde_json::json;

use super::{Scene, network};
use crate::common::at_once;

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case!(fifty_at_once_get_an_address_each),
        case!(long_names_are_different_clients),
    ];
    cases
        .into_iter()
        .map(|case| case.needs(Need::DhcpServers))
        .collect()
}

fn fifty_at_once_get_an_address_each(lab: &Lab) {
    let scene = Scene::new();
    let server = lab.dnsmasq(&scene.outside, "eth0", "10.94.0.50,10.94.0.250,10m", &[]);
    let daemon = lab.dhcp_daemon(&scene.host, lab.bin(), &[]);
    let pods: Vec<_> = (0..50)
        .map(|index| scene.host.pod(&format!("pod{index}")))
        .collect();
    let plugin = lab.plugin(&scene.host, "macvlan");
    let network = network(json!({}));
    let addresses: BTreeSet<String> = at_once(50, |index| {
        let result = plugin.add(&network, &Call::of(&pods[index]));
        result["ips"][0]["address"].to_string()
    })
    .into_iter()
    .collect();
    assert_eq!(addresses.len(), 50);
    assert_eq!(scene.leases().len(), 50);
    // Leases that are not asked for cost neither threads nor descriptors.
    let of = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).map(Iterator::count)
    };
    assert_eq!(of("task").expect("threads"), 1);
    let descriptors = of("fd").expect("descriptors");
    assert!(descriptors < 10, "{descriptors} descriptors");
    at_once(50, |index| plugin.del(&network, &Call::of(&pods[index])));
    assert_eq!(server.count("DHCPRELEASE"), 50);
    assert!(scene.leases().is_empty());
}

fn long_names_are_different_clients(lab: &Lab) {
    let scene = Scene::new();
    let _server = scene.dnsmasq(lab, &[]);
    let _daemon = scene.daemon(lab);
    let plugin = lab.plugin(&scene.host, "macvlan");
    // So long that the longest do not fit an identifier.
    let network = with(network(json!({})), json!({"name": "n".repeat(30)}));
    let mut addresses = BTreeSet::new();
    for length in [1, 100, 110, 240] {
        for last in ["1", "2"] {
            let name = format!("{}{last}", "x".repeat(length - 1));
            let pod = scene.host.pod(&format!("pod{length}-{last}"));
            let call = Call::named(&name, Some(&pod.netns()));
            let result = plugin.add(&network, &call);
            addresses.insert(result["ips"][0]["address"].to_string());
            plugin.check(&network, &result, &call).succeeded();
        }
    }
    assert_eq!((addresses.len(), scene.leases().len()), (8, 8));
    for length in [1, 100, 110, 240] {
        for last in ["1", "2"] {
            let name = format!("{}{last}", "x".repeat(length - 1));
            plugin.del(&network, &Call::named(&name, None));
        }
    }
    assert!(scene.leases().is_empty());
}
