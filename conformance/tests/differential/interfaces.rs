//! The keys of `ipvlan`, `vlan`, `dummy` and `tap`.

use conformance::differential::chained;
use conformance::{Need, host_local, with};
use serde_json::{Value, json};

use super::INDEX;
use super::macvlan::{ADDRESSED, ADDRESSED_V6, NDISC, outside, reach_outside};
use super::scenario::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    let groups = [ipvlan(), vlan(), dummy(), tap()];
    groups.into_iter().flatten().collect()
}

fn dns() -> Value {
    json!({"dns": {"nameservers": ["192.0.2.53"]}})
}

fn ipvlan() -> Vec<Scenario> {
    let ipvlan = |name: &str, more: Value| {
        let network = with(chained("ipvlan", json!({"master": "up0"})), more);
        Scenario::new(format!("ipvlan::{name}"), vec![network])
            .needs(Need::LinkKind("ipvlan"))
            .differs(&ADDRESSED)
            .meanwhile(reach_outside)
    };
    let v4 = |name, more| ipvlan(name, with(outside(&["4"]), more)).differs(&[NDISC]);
    vec![
        v4("addresses", json!({})).sees(&["pod to outside Tcp: seen as 198.51.100.50"]),
        ipvlan("dual_stack", outside(&["4", "6"])).differs(&[ADDRESSED_V6]),
        v4("l2", json!({"mode": "l2"})).sees(&["mode=l2"]),
        v4("l3", json!({"mode": "l3"})).sees(&["mode=l3"]),
        v4("l3s", json!({"mode": "l3s"})).sees(&["mode=l3s"]),
        v4("mtu", json!({"mtu": 1400})).sees(&["link eth0 mtu=1400"]),
        v4("dns", dns()).sees(&["dns.nameservers"]),
        v4("master_of_the_default_route", json!({"master": ""}))
            .differs(&["check-without-master"])
            .prepared(|side| side.host.ip("route add default via 198.51.100.2")),
        v4(
            "link_in_container",
            json!({"master": "net0", "linkInContainer": true}),
        )
        .prepared_pod(|_, pod| {
            pod.ip("link add net0 type veth peer name net1");
            pod.ip("link set net0 up");
        }),
    ]
}

fn vlan() -> Vec<Scenario> {
    let vlan = |name: &str, more: Value| {
        let network = with(chained("vlan", json!({"master": "up0", "vlanId": 5})), more);
        Scenario::new(format!("vlan::{name}"), vec![network])
            .needs(Need::LinkKind("vlan"))
            .differs(&ADDRESSED)
            .differs(&["gratuitous-arp"])
    };
    let v4 = |name, more| vlan(name, with(outside(&["4"]), more));
    vec![
        v4("addresses", json!({})).sees(&["info_kind=vlan"]),
        vlan("dual_stack", outside(&["4", "6"])).differs(&[ADDRESSED_V6, NDISC]),
        v4("number_0", json!({"vlanId": 0})),
        v4("mtu", json!({"mtu": 1400})).sees(&["link eth0 mtu=1400"]),
        v4("dns", dns()).sees(&["dns.nameservers"]),
        v4(
            "link_in_container",
            json!({"master": "net0", "linkInContainer": true}),
        )
        .prepared_pod(|_, pod| {
            pod.ip("link add net0 type veth peer name net1");
            pod.ip("link set net0 up");
        }),
    ]
}

fn dummy() -> Vec<Scenario> {
    let dummy = |name: &str, subnets: &[&str]| {
        let network = chained("dummy", json!({"ipam": host_local(subnets)}));
        Scenario::new(format!("dummy::{name}"), vec![network])
            .needs(Need::LinkKind("dummy"))
            .differs(&["mtu-in-results", INDEX, "gratuitous-arp"])
    };
    vec![
        dummy("addresses", &["10.1.0.0/24"]),
        dummy("dual_stack", &["10.1.0.0/24", "fd00:1::/64"]).differs(&[ADDRESSED_V6, NDISC]),
    ]
}

fn tap() -> Vec<Scenario> {
    let tap = |name: &str, more: Value| {
        Scenario::new(
            format!("tap::{name}"),
            vec![with(chained("tap", json!({})), more)],
        )
        .differs(&["mtu-in-results"])
    };
    let addressed = |name: &str, subnets: &[&str]| {
        tap(name, json!({"ipam": host_local(subnets)})).differs(&[INDEX])
    };
    let mac = |last: &str| format!("02:00:00:00:00:{last}");
    let both = json!({"owner": 0, "group": 0});
    vec![
        tap("layer_2", json!({})),
        addressed("addresses", &["10.1.0.0/24"]),
        addressed("dual_stack", &["10.1.0.0/24", "fd00:1::/64"]).differs(&[ADDRESSED_V6, NDISC]),
        tap("multi_queue", json!({"multiQueue": true})).sees(&["multi_queue=true"]),
        tap("owner", json!({"owner": 1000})).sees(&["user"]),
        tap("group", json!({"group": 100})).sees(&["group=users"]),
        tap("owner_and_group", with(both.clone(), json!({}))).differs(&["tap-made-one-way"]),
        tap("mtu", json!({"mtu": 1400})).sees(&["link eth0 mtu=1400"]),
        tap("mac", json!({"mac": mac("31")})).sees(&["eth0 address=02:00:00:00:00:31"]),
        tap(
            "mac_of_owner_and_group",
            with(both, json!({"mac": mac("31")})),
        )
        .differs(&["tap-made-one-way"]),
        tap(
            "mac_of_args",
            json!({"mac": mac("21"), "args": {"cni": {"mac": mac("22")}}}),
        )
        .differs(&["mac-address-of-args"]),
        tap(
            "mac_of_the_runtime",
            json!({"mac": mac("31"), "runtimeConfig": {"mac": mac("33")}}),
        )
        .sees(&["eth0 address=02:00:00:00:00:33"]),
        tap("mac_of_cni_args", json!({"mac": mac("31")}))
            .args("IgnoreUnknown=1;MAC=02:00:00:00:00:34")
            .sees(&["eth0 address=02:00:00:00:00:34"]),
        tap("dns", dns()).sees(&["dns.nameservers"]),
        tap("bridge", json!({"bridge": "br0"}))
            .prepared_pod(|_, pod| pod.ip("link add br0 type bridge"))
            .sees(&["link eth0 master=br0"]),
        tap(
            "selinux_context",
            json!({"selinuxContext": "system_u:system_r:container_t:s0"}),
        )
        // Neither can take it where there is no SELinux.
        .differs(&["own-error-codes", "!mtu-in-results"]),
    ]
}
