//! Each key of each plugin, put to ours and to the Go plugins on two hosts: results, kernel and files agree, or
//! differ as `docs/differences.md` says. [`keys`] sees to it that no key is forgotten.

mod bandwidth;
mod bridge;
mod firewall;
mod host_device;
mod host_local;
mod interfaces;
mod keys;
mod macvlan;
mod malformed;
mod owners;
mod portmap;
mod ptp;
mod routing;
mod scenario;
mod static_ipam;
mod tuning;
mod verbs;

use std::collections::BTreeSet;

use conformance::differential::{KNOWN, chained};
use conformance::{Case, Lab, case};
use serde_json::json;

use scenario::Scenario;

/// What every attachment to a bridge shows.
const ON_A_BRIDGE: [&str; 6] = [
    "alias-on-the-host-end",
    "no-link-local-address-on-the-host-end",
    "no-multicast-snooping",
    "queue-length-of-the-host-end",
    "ipv6-usable-at-once",
    "mtu-in-results",
];

/// What every use of host-local shows.
const INDEX: &str = "index-beside-the-state";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![case!(every_difference_has_its_reason)];
    cases.extend(keys::cases());
    cases.extend(scenarios().into_iter().map(Scenario::into_case));
    cases.extend(verbs::cases());
    cases.extend(owners::cases());
    cases.extend(malformed::cases());
    cases
}

fn scenarios() -> Vec<Scenario> {
    let loopback = Scenario::new("loopback::up", vec![chained("loopback", json!({}))]);
    let plugins = [
        bridge::scenarios(),
        ptp::scenarios(),
        macvlan::scenarios(),
        interfaces::scenarios(),
        routing::scenarios(),
        host_device::scenarios(),
        host_local::scenarios(),
        static_ipam::scenarios(),
        vec![loopback],
        tuning::scenarios(),
        portmap::scenarios(),
        firewall::scenarios(),
        bandwidth::scenarios(),
    ];
    plugins.into_iter().flatten().collect()
}

/// Each heading is a difference that some test insists on seeing, and each such difference has a heading.
fn every_difference_has_its_reason(_: &Lab) {
    let text = include_str!("../../../docs/differences.md");
    let written: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let scenarios = scenarios();
    let mut seen: BTreeSet<&str> = malformed::reasons();
    seen.extend(scenarios.iter().flat_map(|row| &row.differences));
    seen.extend(verbs::DIFFERENCES);
    seen.extend(owners::DIFFERENCES);
    seen.extend(crate::dhcp::DIFFERENCES);
    assert_eq!(
        seen, written,
        "left: what tests expect, right: the headings"
    );
    for difference in KNOWN {
        assert!(
            seen.contains(difference.name),
            "nothing shows {}",
            difference.name
        );
    }
}
