//! The keys of `host-local`, called directly.

use conformance::differential::chained;
use conformance::with;
use serde_json::{Value, json};

use super::INDEX;
use super::scenario::Scenario;

fn network(name: &str, ipam: Value, more: Value) -> Scenario {
    let plain = chained("host-local", json!({"ipam": {"type": "host-local"}}));
    let network = with(with(plain, json!({"ipam": ipam})), more);
    Scenario::new(format!("host_local::{name}"), vec![network]).differs(&[INDEX])
}

pub(super) fn scenarios() -> Vec<Scenario> {
    [ranges(), options(), requests()]
        .into_iter()
        .flatten()
        .collect()
}

fn ranges() -> Vec<Scenario> {
    let sets = |name, ranges: Value| network(name, json!({"ranges": ranges}), json!({}));
    let old_form = json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.254"});
    let both_forms = with(
        old_form.clone(),
        json!({"ranges": [[{"subnet": "10.2.0.0/24"}]]}),
    );
    vec![
        network("old_form", old_form, json!({})).sees(&["ips[0].address=10.1.0.9/24"]),
        network("both_forms", both_forms, json!({}))
            .sees(&["ips[0].address=10.1.0.9/24", "ips[1].address=10.2.0.2/24"]),
        sets(
            "ranges",
            json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:1::/64"}]]),
        )
        .sees(&["ips[1].address=fd00:1::2/64"]),
        sets(
            "limits_of_a_range",
            json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.30", "rangeEnd": "10.1.0.40", "gateway": "10.1.0.30"}]]),
        )
        .sees(&["ips[0].address=10.1.0.31/24", "ips[0].gateway=10.1.0.30"]),
        sets(
            "a_range_with_both_ends_of_the_subnet",
            json!([[{"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.7"}]]),
        )
        .differs(&["network-and-broadcast-address"]),
        sets(
            "small_subnets",
            json!([[{"subnet": "10.1.0.0/30"}], [{"subnet": "fd00:1::/126"}]]),
        ),
    ]
}

fn options() -> Vec<Scenario> {
    let plain = |name, more| {
        let ranges = json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]});
        network(name, with(ranges, more), json!({}))
    };
    let routes = json!({"routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "192.0.2.0/24", "gw": "10.1.0.7", "mtu": 1400, "advmss": 1360, "priority": 3, "table": 205, "scope": 253}
    ]});
    vec![
        plain("routes", routes.clone()).sees(&["routes[1].advmss=1360", "routes[1].table=205"]),
        plain(
            "routes_with_host_bits",
            json!({"routes": [{"dst": "10.2.0.7/16"}]}),
        )
        .differs(&["host-bits-of-routes"]),
        plain("data_dir", json!({"dataDir": "/run/networks"}))
            .sees(&["file /run/networks/net/10.1.0.2"]),
        plain("resolv_conf", json!({"resolvConf": "/etc/host.conf"})),
        plain("resolv_conf_in_full", json!({"resolvConf": "/run/resolv.conf"}))
            .prepared(|side| {
                let text = "# by hand\nnameserver 192.0.2.53\nnameserver 2001:db8::53\ndomain a.test\nsearch b.test c.test\noptions ndots:2 edns0\n";
                side.host.write("/run/resolv.conf", text);
            })
            .sees(&["dns.domain=a.test", "dns.options"]),
        network(
            "version_0_2_0",
            with(routes, json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]})),
            json!({"cniVersion": "0.2.0"}),
        )
        .sees(&["ip6.ip=fd00:1::2/64"]),
    ]
}

fn requests() -> Vec<Scenario> {
    let plain = |name, more| {
        let ranges = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]});
        network(name, ranges, more)
    };
    let range = json!({"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.7", "rangeEnd": "10.9.0.9", "gateway": "10.9.0.1"});
    let runtime_ranges = json!({"runtimeConfig": {"ipRanges": [[range]]}});
    vec![
        plain(
            "runtime_ips",
            json!({"runtimeConfig": {"ips": ["10.1.0.77/24", "fd00:1::77"]}}),
        )
        .sees(&[
            "ips[0].address=10.1.0.77/24",
            "ips[1].address=fd00:1::77/64",
        ]),
        plain("args_ips", json!({"args": {"cni": {"ips": ["10.1.0.78"]}}}))
            .sees(&["ips[0].address=10.1.0.78/24"]),
        plain("cni_args_ip", json!({}))
            .args("IgnoreUnknown=1;IP=10.1.0.79")
            .sees(&["ips[0].address=10.1.0.79/24"]),
        plain(
            "ips_of_everybody",
            json!({"runtimeConfig": {"ips": ["fd00:1::80"]}}),
        )
        .args("IP=10.1.0.80")
        .sees(&[
            "ips[0].address=10.1.0.80/24",
            "ips[1].address=fd00:1::80/64",
        ]),
        plain("runtime_ranges", runtime_ranges.clone()).sees(&["ips[0].address=10.9.0.7/24"]),
        network("runtime_ranges_alone", json!({}), runtime_ranges),
        plain(
            "taken_address",
            json!({"runtimeConfig": {"ips": ["10.1.0.81"]}}),
        )
        .prepared(|side| {
            let path = "/var/lib/cni/networks/net/10.1.0.81";
            side.host.write(path, "another\r\neth0");
        })
        .differs(&["own-error-codes"])
        .sees(&[" failed code="]),
    ]
}
