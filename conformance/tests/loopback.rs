//! The loopback plugin.

use conformance::{Call, Case, Host, Lab, Place, case, with_prev_result};
use serde_json::{Value, json};

use crate::common::plain;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(loopback_passes_the_previous_result_on),
        case!(loopback_comes_up_and_goes_down),
        case!(loopback_is_checked),
    ]
}

fn loopback() -> Value {
    json!({"cniVersion": "1.1.0", "name": "lo", "type": "loopback"})
}

fn loopback_passes_the_previous_result_on(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let earlier = lab.plugin(&host, "bridge").add(&plain(), &Call::of(&pod));
    let chained = with_prev_result(&loopback(), &earlier);
    let result = lab.plugin(&host, "loopback").add(&chained, &Call::of(&pod));
    assert_eq!(result, earlier);
}

fn is_up(place: &Place) -> bool {
    let flags = place.link("lo").expect("lo")["flags"].clone();
    flags
        .as_array()
        .is_some_and(|flags| flags.contains(&json!("UP")))
}

fn loopback_comes_up_and_goes_down(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let plugin = lab.plugin(&host, "loopback");
    let call = Call::of(&pod).ifname("lo");
    let result = plugin.add(&loopback(), &call);
    assert!(is_up(&pod));
    assert!(pod.pings([127, 0, 0, 1].into()) && pod.pings("::1".parse().expect("an address")));
    assert_eq!(result["interfaces"][0]["name"], "lo", "{result:#}");
    assert_eq!(
        result["interfaces"][0]["sandbox"], "/run/netns/pod",
        "{result:#}"
    );
    let addresses: Vec<_> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|ip| &ip["address"])
        .collect();
    assert!(addresses.contains(&&json!("127.0.0.1/8")), "{result:#}");
    assert!(addresses.contains(&&json!("::1/128")), "{result:#}");
    plugin.del(&with_prev_result(&loopback(), &result), &call);
    assert!(!is_up(&pod));
    plugin.del(&loopback(), &call);
    plugin.del(
        &loopback(),
        &Call::named(&pod.name.clone(), Some(&pod.vanish())).ifname("lo"),
    );
}

fn loopback_is_checked(lab: &Lab) {
    let host = Host::new();
    let pod = host.pod("pod");
    let plugin = lab.plugin(&host, "loopback");
    let call = Call::of(&pod).ifname("lo");
    let result = plugin.add(&loopback(), &call);
    plugin.check(&loopback(), &result, &call).succeeded();
    pod.ip("link set lo down");
    plugin.check(&loopback(), &result, &call).error();
}
