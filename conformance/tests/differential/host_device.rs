//! The keys of `host-device`: a device of the host that is no hardware.

use conformance::differential::chained;
use conformance::{host_local, with};
use serde_json::{Value, json};

use super::INDEX;
use super::macvlan::{ADDRESSED_V6, NDISC};
use super::scenario::Scenario;

fn host_device(name: &str, more: Value) -> Scenario {
    let network = with(chained("host-device", json!({"device": "dev0"})), more);
    Scenario::new(format!("host_device::{name}"), vec![network])
        .differs(&[
            "mtu-in-results",
            "device-comes-back-as-it-was",
            "del-without-the-device",
        ])
        .prepared(|side| {
            let host = &side.host;
            host.ip("link add dev0 address 02:00:00:00:00:41 type veth peer name peer0");
            host.ip("addr add 192.0.2.41/24 dev dev0");
            host.ip("link set dev0 up");
        })
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let addressed = |name: &str, subnets: &[&str], more: Value| {
        host_device(name, with(json!({"ipam": host_local(subnets)}), more))
            .differs(&[INDEX, "gratuitous-arp"])
            .sees(&["addr eth0 10.1.0.2/24"])
    };
    let absent = json!({"device": null});
    let other = |more: Value| with(absent.clone(), more);
    let missing = |name, more| {
        host_device(name, other(more)).differs(&[
            "own-error-codes",
            "!mtu-in-results",
            "!device-comes-back-as-it-was",
        ])
    };
    vec![
        host_device("layer_2", json!({})).sees(&["+ link eth0 ifalias=dev0"]),
        addressed("addresses", &["10.1.0.0/24"], json!({})),
        addressed("dual_stack", &["10.1.0.0/24", "fd00:1::/64"], json!({}))
            .differs(&[ADDRESSED_V6, NDISC]),
        host_device("hwaddr", other(json!({"hwaddr": "02:00:00:00:00:41"})))
            .sees(&["+ link eth0 ifalias=dev0"]),
        host_device(
            "kernelpath",
            other(json!({"kernelpath": "/sys/devices/virtual"})),
        )
        .sees(&["+ link eth0 ifalias=dev0"]),
        addressed(
            "dns",
            &["10.1.0.0/24"],
            json!({"dns": {"nameservers": ["192.0.2.53"]}}),
        )
        .sees(&["dns.nameservers"]),
        missing("pci_bus_id", json!({"pciBusID": "0000:7f:1f.7"})),
        missing(
            "device_id",
            json!({"runtimeConfig": {"deviceID": "0000:7f:1f.7"}}),
        ),
    ]
}
