//! Malformed and unusual input, put to ours and to the Go reference: both refuse it or both take it, or the table
//! says why not. Whatever ours refuses leaves nothing behind.

use conformance::{Call, Case, Host, Lab, Need, Output, Plugin, host_local, layer2, with};
use serde_json::{Value, json};

use crate::common::plain;

/// How a call ended: 0 when it succeeded, else the code of the error.
type Outcome = u64;

/// What is wrong, where, ours, the reference's, and the heading in `docs/differences.md` if one takes what the other
/// refuses.
type Row = (&'static str, Input, Outcome, Outcome, &'static str);

/// A table: its name and its rows.
type Table = (&'static str, fn() -> Vec<Row>);

/// What is put in.
enum Input {
    /// ADD of that plugin's plain network with these keys changed.
    Keys(&'static str, Value),
    /// ADD to the plain bridge network with these `CNI_ARGS`.
    Args(&'static str),
    /// ADD to the plain bridge network with another value of one variable.
    Variable(&'static str, Option<&'static str>),
    /// ADD with these bytes on standard input.
    Bytes(&'static str),
    /// A verb with the plain bridge network and these keys changed.
    Verb(&'static str, Value),
}
use Input::{Args, Bytes, Keys, Variable, Verb};

pub(crate) fn cases() -> Vec<Case> {
    let tables: [Table; 5] = [
        ("bridge", bridge),
        ("addresses", addresses),
        ("chained", chained),
        ("environment", environment),
        ("input", input),
    ];
    let case = |(name, rows): Table| {
        Case::new(format!("differential_malformed::{name}"), move |lab| {
            judge(lab, rows())
        })
        .needs(Need::GoPlugins)
    };
    tables.into_iter().map(case).collect()
}

fn judge(lab: &Lab, rows: Vec<Row>) {
    let documented = include_str!("../../docs/differences.md");
    let mut wrong = Vec::new();
    for (what, input, ours, go, reason) in rows {
        let seen = (
            put(lab.bin(), &input, true),
            put(&lab.go_plugins(), &input, false),
        );
        if seen != (ours, go) {
            wrong.push(format!(
                "{what}: {ours}, {go} expected, but {}, {}",
                seen.0, seen.1
            ));
        }
        let agree = (ours == 0) == (go == 0);
        let heading = format!("### {reason}");
        if agree != reason.is_empty() || !(agree || documented.lines().any(|line| line == heading))
        {
            wrong.push(format!(
                "{what}: one is taken, one refused: needs a reason, has {reason:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The outcome on a new host.
fn put(bin: &std::path::Path, input: &Input, ours: bool) -> Outcome {
    let host = Host::new();
    let call = Call::of(&host.pod("pod"));
    let before = host.observe();
    let plugin = |name: &str| Plugin {
        host: &host,
        program: bin.join(name),
        path: bin.to_string_lossy().into_owned(),
    };
    let bridge = plugin("bridge");
    let output = match input {
        Keys(name, more) => {
            let call = if *name == "loopback" {
                call.ifname("lo")
            } else {
                call
            };
            let conf = with(network(name), more.clone());
            let program = if *name == "layer2" { "bridge" } else { name };
            plugin(program).call("ADD", &conf, &call)
        }
        Args(args) => bridge.call("ADD", &plain(), &call.args(args)),
        Variable(name, value) => bridge.call("ADD", &plain(), &changed(call, name, *value)),
        Bytes(bytes) => bridge.call_raw("ADD", bytes.as_bytes(), &call),
        Verb(verb, more) => bridge.call(verb, &with(plain(), more.clone()), &call),
    };
    if ours && !output.ok() {
        host.assert_nothing_left(&before, &["pod"]);
    }
    outcome(&output)
}

fn outcome(output: &Output) -> Outcome {
    if output.ok() {
        return 0;
    }
    output.error()["code"].as_u64().unwrap_or(u64::MAX)
}

fn changed(mut call: Call, name: &str, value: Option<&str>) -> Call {
    let place = match name {
        "CNI_CONTAINERID" => &mut call.container,
        "CNI_NETNS" => &mut call.netns,
        "CNI_IFNAME" => &mut call.ifname,
        _ => &mut call.args,
    };
    *place = value.map(str::to_owned);
    call
}

/// The plain network of a plugin.
fn network(plugin: &str) -> Value {
    let named = json!({"cniVersion": "1.1.0", "name": "net", "type": plugin});
    let attached = json!({"prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{"name": "lo", "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}]
    }});
    match plugin {
        "bridge" => plain(),
        "layer2" => layer2(),
        "ptp" | "host-local" => with(named, json!({"ipam": host_local(&["10.1.0.0/24"])})),
        "static" => with(named, json!({"ipam": {"type": "static"}})),
        "loopback" => named,
        _ => with(named, attached),
    }
}

fn bridge() -> Vec<Row> {
    vec![
        (
            "bridge is a list",
            Keys("bridge", json!({"bridge": ["cni0"]})),
            7,
            999,
            "",
        ),
        (
            "bridge has a slash",
            Keys("bridge", json!({"bridge": "a/b"})),
            7,
            999,
            "",
        ),
        (
            "bridge is too long",
            Keys("bridge", json!({"bridge": "sixteen-bytes-xx"})),
            7,
            999,
            "",
        ),
        (
            "bridge is empty",
            Keys("bridge", json!({"bridge": ""})),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "bridge is a dot",
            Keys("bridge", json!({"bridge": "."})),
            7,
            999,
            "",
        ),
        (
            "bridge has a space",
            Keys("bridge", json!({"bridge": "a b"})),
            7,
            999,
            "",
        ),
        (
            "isGateway is a text",
            Keys("bridge", json!({"isGateway": "yes"})),
            7,
            999,
            "",
        ),
        (
            "isGateway is a number",
            Keys("bridge", json!({"isGateway": 1})),
            7,
            999,
            "",
        ),
        (
            "isGateway is null",
            Keys("bridge", json!({"isGateway": null})),
            0,
            0,
            "",
        ),
        (
            "mtu is a text",
            Keys("bridge", json!({"mtu": "large"})),
            7,
            999,
            "",
        ),
        (
            "mtu is negative",
            Keys("bridge", json!({"mtu": -1})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "mtu is too small",
            Keys("bridge", json!({"mtu": 10})),
            7,
            999,
            "",
        ),
        (
            "mtu is too large",
            Keys("bridge", json!({"mtu": 70000})),
            7,
            999,
            "",
        ),
        (
            "mtu has a fraction",
            Keys("bridge", json!({"mtu": 1400.5})),
            7,
            999,
            "",
        ),
        (
            "mtu is a whole number with a fraction",
            Keys("bridge", json!({"mtu": 1400.0})),
            7,
            999,
            "",
        ),
        (
            "mtu is null",
            Keys("bridge", json!({"mtu": null})),
            0,
            0,
            "",
        ),
        (
            "vlan is too large",
            Keys("bridge", json!({"vlan": 4095})),
            7,
            999,
            "",
        ),
        (
            "vlan is negative",
            Keys("bridge", json!({"vlan": -1})),
            7,
            999,
            "",
        ),
        (
            "vlanTrunk is no list",
            Keys("bridge", json!({"vlanTrunk": {"id": 5}})),
            7,
            999,
            "",
        ),
        (
            "vlanTrunk has an empty entry",
            Keys("bridge", json!({"vlanTrunk": [{}]})),
            7,
            999,
            "",
        ),
        (
            "vlanTrunk has half a range",
            Keys("bridge", json!({"vlanTrunk": [{"minID": 5}]})),
            7,
            999,
            "",
        ),
        (
            "vlanTrunk has a range upside down",
            Keys("bridge", json!({"vlanTrunk": [{"minID": 9, "maxID": 8}]})),
            7,
            999,
            "",
        ),
        (
            "vlanTrunk has ID 0",
            Keys("bridge", json!({"vlanTrunk": [{"id": 0}]})),
            7,
            999,
            "",
        ),
        (
            "hairpinMode and promiscMode",
            Keys("bridge", json!({"hairpinMode": true, "promiscMode": true})),
            7,
            999,
            "",
        ),
        (
            "disableContainerInterface with ipam",
            Keys("bridge", json!({"disableContainerInterface": true})),
            7,
            999,
            "",
        ),
        (
            "ipMasqBackend is unknown",
            Keys("bridge", json!({"ipMasq": true, "ipMasqBackend": "pf"})),
            7,
            999,
            "",
        ),
        (
            "ipMasqBackend is unknown and not used",
            Keys("bridge", json!({"ipMasqBackend": "pf"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "ipam is a number",
            Keys("bridge", json!({"ipam": 7})),
            7,
            999,
            "",
        ),
        (
            "ipam is null",
            Keys("bridge", json!({"ipam": null})),
            0,
            0,
            "",
        ),
        (
            "ipam type is unknown",
            Keys("bridge", json!({"ipam": {"type": "nowhere"}})),
            104,
            999,
            "",
        ),
        (
            "ipam type is a path",
            Keys("bridge", json!({"ipam": {"type": "../bridge"}})),
            7,
            999,
            "",
        ),
        (
            "ipam type is a number",
            Keys("bridge", json!({"ipam": {"type": 5}})),
            7,
            999,
            "",
        ),
        (
            "dns is a list",
            Keys("bridge", json!({"dns": []})),
            7,
            999,
            "",
        ),
        (
            "dns nameserver is no address",
            Keys("bridge", json!({"dns": {"nameservers": ["dns.test"]}})),
            0,
            0,
            "",
        ),
        (
            "mac is none",
            Keys("bridge", json!({"runtimeConfig": {"mac": "zz"}})),
            7,
            999,
            "",
        ),
        (
            "mac is too long",
            Keys(
                "bridge",
                json!({"runtimeConfig": {"mac": "02:00:00:00:00:00:00:01"}}),
            ),
            7,
            999,
            "",
        ),
        (
            "mac is multicast",
            Keys(
                "bridge",
                json!({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}),
            ),
            7,
            999,
            "",
        ),
        (
            "mac is zero",
            Keys(
                "bridge",
                json!({"runtimeConfig": {"mac": "00:00:00:00:00:00"}}),
            ),
            7,
            999,
            "",
        ),
        (
            "mac has dashes",
            Keys(
                "bridge",
                json!({"runtimeConfig": {"mac": "02-00-00-00-00-07"}}),
            ),
            0,
            0,
            "",
        ),
        (
            "mac has dots",
            Keys(
                "bridge",
                json!({"runtimeConfig": {"mac": "0200.0000.0007"}}),
            ),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "mac is empty",
            Keys("bridge", json!({"runtimeConfig": {"mac": ""}})),
            0,
            0,
            "",
        ),
        (
            "runtimeConfig is a list",
            Keys("bridge", json!({"runtimeConfig": []})),
            7,
            999,
            "",
        ),
        (
            "args is a text",
            Keys("bridge", json!({"args": "x"})),
            7,
            999,
            "",
        ),
        (
            "unknown keys",
            Keys("bridge", json!({"unheardOf": {}, "ipam": {"x": 1}})),
            0,
            0,
            "",
        ),
        ("layer 2 without keys", Keys("layer2", json!({})), 0, 0, ""),
        (
            "layer 2 with isDefaultGateway",
            Keys("layer2", json!({"isDefaultGateway": true})),
            0,
            0,
            "",
        ),
        (
            "ptp without ipam",
            Keys("ptp", json!({"ipam": null})),
            7,
            999,
            "",
        ),
        (
            "ptp with a text as mtu",
            Keys("ptp", json!({"mtu": "x"})),
            7,
            999,
            "",
        ),
        (
            "ptp with a negative mtu",
            Keys("ptp", json!({"mtu": -5})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "ptp with an unknown backend",
            Keys("ptp", json!({"ipMasq": true, "ipMasqBackend": "pf"})),
            7,
            999,
            "",
        ),
        (
            "loopback with unknown keys",
            Keys("loopback", json!({"x": 1})),
            0,
            0,
            "",
        ),
    ]
}

fn addresses() -> Vec<Row> {
    let ranges = |ranges: Value| Keys("host-local", json!({"ipam": {"ranges": ranges}}));
    let route = |route: Value| Keys("bridge", json!({"ipam": {"routes": [route]}}));
    let fixed = |ipam: Value| Keys("static", json!({"ipam": ipam}));
    vec![
        ("no range", ranges(json!([])), 7, 999, ""),
        ("an empty range set", ranges(json!([[]])), 7, 999, ""),
        ("ranges is a text", ranges(json!("10.0.0.0/8")), 7, 999, ""),
        (
            "a range set is no list",
            ranges(json!([{"subnet": "10.1.0.0/24"}])),
            7,
            999,
            "",
        ),
        (
            "subnet without prefix",
            ranges(json!([[{"subnet": "10.1.0.0"}]])),
            7,
            999,
            "",
        ),
        (
            "subnet with host bits",
            ranges(json!([[{"subnet": "10.1.0.7/24"}]])),
            7,
            999,
            "",
        ),
        (
            "subnet of nonsense",
            ranges(json!([[{"subnet": "x/24"}]])),
            7,
            999,
            "",
        ),
        (
            "subnet with a prefix of 33",
            ranges(json!([[{"subnet": "10.1.0.0/33"}]])),
            7,
            999,
            "",
        ),
        (
            "subnet of two addresses",
            ranges(json!([[{"subnet": "10.1.0.0/31"}]])),
            7,
            999,
            "",
        ),
        (
            "subnet of one address",
            ranges(json!([[{"subnet": "fd00::/128"}]])),
            7,
            999,
            "",
        ),
        (
            "subnet with leading zeros",
            ranges(json!([[{"subnet": "10.01.0.0/24"}]])),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "subnet missing",
            ranges(json!([[{"gateway": "10.1.0.1"}]])),
            7,
            999,
            "",
        ),
        (
            "rangeStart outside",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]])),
            7,
            999,
            "",
        ),
        (
            "rangeEnd outside",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}]])),
            7,
            999,
            "",
        ),
        (
            "rangeEnd before rangeStart",
            ranges(
                json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]]),
            ),
            7,
            999,
            "",
        ),
        (
            "rangeStart of nonsense",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "nine"}]])),
            7,
            999,
            "",
        ),
        (
            "rangeStart is the network address",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.0"}]])),
            0,
            0,
            "",
        ),
        (
            "gateway of nonsense",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "gate"}]])),
            7,
            999,
            "",
        ),
        (
            "gateway of the other family",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "fd00::1"}]])),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "gateway outside",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}]])),
            0,
            0,
            "",
        ),
        (
            "ranges of a set overlap",
            ranges(json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]])),
            7,
            999,
            "",
        ),
        (
            "range sets overlap",
            ranges(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]])),
            7,
            999,
            "",
        ),
        (
            "two families in a set",
            ranges(json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]])),
            7,
            999,
            "",
        ),
        (
            "a range without a free address",
            ranges(
                json!([[{"subnet": "10.1.0.0/30", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}]]),
            ),
            7,
            999,
            "",
        ),
        (
            "no ipam section",
            Keys("host-local", json!({"ipam": null})),
            7,
            999,
            "",
        ),
        (
            "ipam section empty",
            Keys("host-local", json!({"ipam": {"ranges": null}})),
            7,
            999,
            "",
        ),
        (
            "dataDir is a file",
            Keys("host-local", json!({"ipam": {"dataDir": "/etc/hostname"}})),
            5,
            999,
            "",
        ),
        (
            "resolvConf does not exist",
            Keys(
                "host-local",
                json!({"ipam": {"resolvConf": "/nonexistent"}}),
            ),
            5,
            999,
            "",
        ),
        (
            "ips of nonsense",
            Keys("host-local", json!({"runtimeConfig": {"ips": ["x"]}})),
            7,
            999,
            "",
        ),
        (
            "ips outside",
            Keys(
                "host-local",
                json!({"runtimeConfig": {"ips": ["10.9.0.5"]}}),
            ),
            101,
            999,
            "",
        ),
        (
            "ips twice of a set",
            Keys(
                "host-local",
                json!({"runtimeConfig": {"ips": ["10.1.0.5", "10.1.0.6"]}}),
            ),
            101,
            999,
            "",
        ),
        (
            "ips is the gateway",
            Keys(
                "host-local",
                json!({"runtimeConfig": {"ips": ["10.1.0.1"]}}),
            ),
            101,
            999,
            "",
        ),
        (
            "ips is the broadcast address",
            Keys(
                "host-local",
                json!({"runtimeConfig": {"ips": ["10.1.0.255"]}}),
            ),
            101,
            999,
            "",
        ),
        (
            "ips is the network address",
            Keys(
                "host-local",
                json!({"runtimeConfig": {"ips": ["10.1.0.0"]}}),
            ),
            101,
            999,
            "",
        ),
        (
            "ips is a text",
            Keys("host-local", json!({"runtimeConfig": {"ips": "10.1.0.5"}})),
            7,
            999,
            "",
        ),
        (
            "args ips of nonsense",
            Keys("host-local", json!({"args": {"cni": {"ips": ["x"]}}})),
            7,
            999,
            "",
        ),
        (
            "route to nonsense",
            route(json!({"dst": "everywhere"})),
            7,
            999,
            "",
        ),
        (
            "route without a destination",
            route(json!({"gw": "10.1.0.1"})),
            7,
            999,
            "",
        ),
        (
            "route without a prefix",
            route(json!({"dst": "192.0.2.1"})),
            7,
            999,
            "",
        ),
        (
            "route with host bits",
            route(json!({"dst": "192.0.2.1/24"})),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "route by nonsense",
            route(json!({"dst": "192.0.2.0/24", "gw": "x"})),
            7,
            999,
            "",
        ),
        (
            "route by the other family",
            route(json!({"dst": "192.0.2.0/24", "gw": "fd00::1"})),
            100,
            999,
            "",
        ),
        (
            "route by who is not there",
            route(json!({"dst": "192.0.2.0/24", "gw": "203.0.113.1"})),
            100,
            999,
            "",
        ),
        (
            "route with a negative mtu",
            route(json!({"dst": "192.0.2.0/24", "mtu": -1})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        ("route is a text", route(json!("192.0.2.0/24")), 7, 999, ""),
        (
            "route twice",
            Keys(
                "bridge",
                json!({"ipam": {"routes": [{"dst": "192.0.2.0/24"}, {"dst": "192.0.2.0/24"}]}}),
            ),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "static without addresses",
            fixed(json!({})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "static address without prefix",
            fixed(json!({"addresses": [{"address": "10.1.0.2"}]})),
            7,
            999,
            "",
        ),
        (
            "static address of nonsense",
            fixed(json!({"addresses": [{"address": "x"}]})),
            7,
            999,
            "",
        ),
        (
            "static gateway of nonsense",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24", "gateway": "x"}]})),
            7,
            999,
            "",
        ),
        (
            "static address twice",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24"}, {"address": "10.1.0.2/24"}]})),
            0,
            0,
            "",
        ),
        (
            "static addresses is a text",
            fixed(json!({"addresses": "10.1.0.2/24"})),
            7,
            999,
            "",
        ),
        (
            "static route of nonsense",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24"}], "routes": [{"dst": "x"}]})),
            7,
            999,
            "",
        ),
    ]
}

fn chained() -> Vec<Row> {
    let tuning = |more: Value| Keys("tuning", more);
    let ports = |mapping: Value| {
        Keys(
            "portmap",
            json!({"runtimeConfig": {"portMappings": [mapping]}}),
        )
    };
    vec![
        (
            "tuning without prevResult",
            tuning(json!({"prevResult": null})),
            7,
            999,
            "",
        ),
        (
            "tuning with half a prevResult",
            tuning(json!({"prevResult": 7})),
            7,
            999,
            "",
        ),
        ("tuning without keys", tuning(json!({})), 0, 0, ""),
        (
            "sysctl is a list",
            tuning(json!({"sysctl": []})),
            7,
            999,
            "",
        ),
        (
            "sysctl value is a number",
            tuning(json!({"sysctl": {"net.ipv4.conf.all.log_martians": 1}})),
            7,
            999,
            "",
        ),
        (
            "sysctl does not exist",
            tuning(json!({"sysctl": {"net.ipv4.conf.all.unheard": "1"}})),
            100,
            999,
            "",
        ),
        (
            "sysctl of the machine",
            tuning(json!({"sysctl": {"kernel.hostname": "x"}})),
            7,
            999,
            "",
        ),
        (
            "sysctl leads out",
            tuning(json!({"sysctl": {"net/../kernel/hostname": "x"}})),
            7,
            999,
            "",
        ),
        (
            "sysctl value is refused",
            tuning(json!({"sysctl": {"net.ipv4.conf.all.log_martians": "x"}})),
            100,
            999,
            "",
        ),
        (
            "tuning mac of nonsense",
            tuning(json!({"mac": "x"})),
            7,
            999,
            "",
        ),
        (
            "tuning mtu is negative",
            tuning(json!({"mtu": -1})),
            7,
            999,
            "",
        ),
        (
            "tuning mtu is a text",
            tuning(json!({"mtu": "x"})),
            7,
            999,
            "",
        ),
        (
            "txQLen is negative",
            tuning(json!({"txQLen": -1})),
            7,
            999,
            "",
        ),
        (
            "promisc is a text",
            tuning(json!({"promisc": "yes"})),
            7,
            999,
            "",
        ),
        (
            "portmap without prevResult",
            Keys("portmap", json!({"prevResult": null})),
            7,
            999,
            "",
        ),
        (
            "portmap without mappings",
            Keys("portmap", json!({})),
            0,
            0,
            "",
        ),
        (
            "mappings is a text",
            Keys("portmap", json!({"runtimeConfig": {"portMappings": "80"}})),
            7,
            999,
            "",
        ),
        (
            "host port 0",
            ports(json!({"hostPort": 0, "containerPort": 80, "protocol": "tcp"})),
            7,
            999,
            "",
        ),
        (
            "host port is negative",
            ports(json!({"hostPort": -1, "containerPort": 80, "protocol": "tcp"})),
            7,
            999,
            "",
        ),
        (
            "host port is too large",
            ports(json!({"hostPort": 65536, "containerPort": 80, "protocol": "tcp"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "host port is a text",
            ports(json!({"hostPort": "80", "containerPort": 80, "protocol": "tcp"})),
            7,
            999,
            "",
        ),
        (
            "container port 0",
            ports(json!({"hostPort": 80, "containerPort": 0, "protocol": "tcp"})),
            7,
            999,
            "",
        ),
        (
            "container port is too large",
            ports(json!({"hostPort": 80, "containerPort": 70000, "protocol": "tcp"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "protocol is unknown",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "protocol is missing",
            ports(json!({"hostPort": 80, "containerPort": 80})),
            0,
            0,
            "",
        ),
        (
            "protocol in capitals",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "TCP"})),
            0,
            0,
            "",
        ),
        (
            "host IP of nonsense",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "x"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "portmap with an unknown backend",
            Keys(
                "portmap",
                json!({"backend": "pf", "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}),
            ),
            7,
            999,
            "",
        ),
        (
            "markMasqBit is too large",
            Keys(
                "portmap",
                json!({"markMasqBit": 32, "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}),
            ),
            7,
            999,
            "",
        ),
        (
            "markMasqBit and externalSetMarkChain",
            Keys(
                "portmap",
                json!({"markMasqBit": 5, "externalSetMarkChain": "X", "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}}),
            ),
            7,
            999,
            "",
        ),
        (
            "snat is a text",
            Keys("portmap", json!({"snat": "yes"})),
            7,
            999,
            "",
        ),
        (
            "conditionsV4 is a text",
            Keys("portmap", json!({"conditionsV4": "-d"})),
            7,
            999,
            "",
        ),
        (
            "firewall without prevResult",
            Keys("firewall", json!({"prevResult": null})),
            7,
            999,
            "",
        ),
        (
            "firewall with an unknown backend",
            Keys("firewall", json!({"backend": "pf"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "firewall with an unknown policy",
            Keys("firewall", json!({"ingressPolicy": "some"})),
            7,
            999,
            "",
        ),
        (
            "bandwidth without prevResult",
            Keys(
                "bandwidth",
                json!({"prevResult": null, "ingressRate": 8000, "ingressBurst": 8000}),
            ),
            7,
            999,
            "",
        ),
        (
            "bandwidth without limits",
            Keys("bandwidth", json!({})),
            0,
            0,
            "",
        ),
        (
            "rate without burst",
            Keys("bandwidth", json!({"ingressRate": 8000})),
            7,
            999,
            "",
        ),
        (
            "burst without rate",
            Keys("bandwidth", json!({"ingressBurst": 8000})),
            7,
            999,
            "",
        ),
        (
            "rate is negative",
            Keys(
                "bandwidth",
                json!({"ingressRate": -1, "ingressBurst": 8000}),
            ),
            7,
            999,
            "",
        ),
        (
            "burst is too large",
            Keys(
                "bandwidth",
                json!({"ingressRate": 8000, "ingressBurst": 99_999_999_999_i64}),
            ),
            7,
            999,
            "",
        ),
        (
            "rate is a text",
            Keys(
                "bandwidth",
                json!({"ingressRate": "1M", "ingressBurst": 8000}),
            ),
            7,
            999,
            "",
        ),
    ]
}

fn environment() -> Vec<Row> {
    vec![
        (
            "no container ID",
            Variable("CNI_CONTAINERID", None),
            4,
            4,
            "",
        ),
        (
            "container ID is empty",
            Variable("CNI_CONTAINERID", Some("")),
            4,
            4,
            "",
        ),
        (
            "container ID starts with a dash",
            Variable("CNI_CONTAINERID", Some("-x")),
            4,
            4,
            "",
        ),
        (
            "container ID leads up",
            Variable("CNI_CONTAINERID", Some("../x")),
            4,
            4,
            "",
        ),
        (
            "container ID with a space",
            Variable("CNI_CONTAINERID", Some("a b")),
            4,
            4,
            "",
        ),
        (
            "container ID with a colon",
            Variable("CNI_CONTAINERID", Some("a:b")),
            4,
            4,
            "",
        ),
        ("no interface name", Variable("CNI_IFNAME", None), 4, 4, ""),
        (
            "interface name is too long",
            Variable("CNI_IFNAME", Some("sixteen-bytes-xx")),
            4,
            4,
            "",
        ),
        (
            "interface name is a dot",
            Variable("CNI_IFNAME", Some(".")),
            4,
            4,
            "",
        ),
        (
            "interface name is two dots",
            Variable("CNI_IFNAME", Some("..")),
            4,
            4,
            "",
        ),
        (
            "interface name with a slash",
            Variable("CNI_IFNAME", Some("a/b")),
            4,
            4,
            "",
        ),
        (
            "interface name with a colon",
            Variable("CNI_IFNAME", Some("a:b")),
            4,
            4,
            "",
        ),
        (
            "interface name with a space",
            Variable("CNI_IFNAME", Some("a b")),
            4,
            4,
            "",
        ),
        (
            "interface name exists",
            Variable("CNI_IFNAME", Some("lo")),
            102,
            999,
            "",
        ),
        ("no netns", Variable("CNI_NETNS", None), 4, 4, ""),
        ("netns is empty", Variable("CNI_NETNS", Some("")), 4, 4, ""),
        (
            "netns does not exist",
            Variable("CNI_NETNS", Some("/run/netns/none")),
            4,
            999,
            "",
        ),
        (
            "netns is no namespace",
            Variable("CNI_NETNS", Some("/etc/hostname")),
            4,
            999,
            "",
        ),
        (
            "netns is another kind",
            Variable("CNI_NETNS", Some("/proc/self/ns/mnt")),
            4,
            999,
            "",
        ),
        (
            "netns is the host's own",
            Variable("CNI_NETNS", Some("/proc/self/ns/net")),
            4,
            0,
            "own-namespace",
        ),
        ("args without a value", Args("IP"), 4, 999, ""),
        (
            "args with an unknown key",
            Args("UNHEARD=1"),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "args with an unknown key that may be ignored",
            Args("IgnoreUnknown=1;UNHEARD=1"),
            0,
            0,
            "",
        ),
        (
            "args with a semicolon at the end",
            Args("IgnoreUnknown=1;"),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "args with two equals signs",
            Args("IgnoreUnknown=1;A=b=c"),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        ("args with an IP of nonsense", Args("IP=x"), 7, 999, ""),
        ("args with a MAC of nonsense", Args("MAC=x"), 7, 999, ""),
        ("args with an IP outside", Args("IP=10.9.0.9"), 101, 999, ""),
        (
            "args with IgnoreUnknown of nonsense",
            Args("IgnoreUnknown=maybe"),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "a verb that does not exist",
            Verb("ATTACH", json!({})),
            4,
            4,
            "",
        ),
        ("a verb in lower case", Verb("add", json!({})), 4, 4, ""),
        (
            "CHECK without prevResult",
            Verb("CHECK", json!({})),
            7,
            999,
            "",
        ),
        (
            "CHECK before it existed",
            Verb("CHECK", json!({"cniVersion": "0.3.1"})),
            1,
            1,
            "",
        ),
        (
            "GC before it existed",
            Verb("GC", json!({"cniVersion": "1.0.0"})),
            1,
            1,
            "",
        ),
        (
            "STATUS before it existed",
            Verb("STATUS", json!({"cniVersion": "1.0.0"})),
            1,
            1,
            "",
        ),
        (
            "DEL with a prevResult of nonsense",
            Verb("DEL", json!({"prevResult": "x"})),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
        (
            "DEL with a prevResult of another version",
            Verb("DEL", json!({"prevResult": {"cniVersion": "9.9.9"}})),
            0,
            0,
            "",
        ),
        ("STATUS", Verb("STATUS", json!({})), 0, 0, ""),
        (
            "STATUS with ipam that is nowhere",
            Verb("STATUS", json!({"ipam": {"type": "nowhere"}})),
            104,
            999,
            "",
        ),
        (
            "STATUS with broken ranges",
            Verb("STATUS", json!({"ipam": {"ranges": [[{"subnet": "x"}]]}})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        ("GC without a list", Verb("GC", json!({})), 0, 0, ""),
        (
            "GC with a list of nonsense",
            Verb("GC", json!({"cni.dev/valid-attachments": "all"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
    ]
}

fn input() -> Vec<Row> {
    vec![
        ("nothing", Bytes(""), 6, 6, ""),
        ("no JSON", Bytes("name = net"), 6, 6, ""),
        ("a list", Bytes("[]"), 6, 6, ""),
        (
            "half an object",
            Bytes(r#"{"cniVersion": "1.1.0", "name": "net""#),
            6,
            6,
            "",
        ),
        (
            "two objects",
            Bytes(r#"{"cniVersion": "1.1.0", "name": "net", "type": "bridge"} {}"#),
            6,
            6,
            "",
        ),
        (
            "no version",
            Keys("bridge", json!({"cniVersion": null})),
            0,
            0,
            "",
        ),
        (
            "version is empty",
            Keys("bridge", json!({"cniVersion": ""})),
            0,
            0,
            "",
        ),
        (
            "version is unknown",
            Keys("bridge", json!({"cniVersion": "9.9.9"})),
            1,
            1,
            "",
        ),
        (
            "version is a number",
            Keys("bridge", json!({"cniVersion": 1})),
            7,
            6,
            "",
        ),
        (
            "version of nonsense",
            Keys("bridge", json!({"cniVersion": "one"})),
            1,
            1,
            "",
        ),
        ("no name", Keys("bridge", json!({"name": null})), 7, 7, ""),
        (
            "name is empty",
            Keys("bridge", json!({"name": ""})),
            7,
            7,
            "",
        ),
        (
            "name leads up",
            Keys("bridge", json!({"name": "../net"})),
            7,
            7,
            "",
        ),
        (
            "name with a slash",
            Keys("bridge", json!({"name": "a/b"})),
            7,
            7,
            "",
        ),
        (
            "name with a space",
            Keys("bridge", json!({"name": "a b"})),
            7,
            7,
            "",
        ),
        (
            "name is a number",
            Keys("bridge", json!({"name": 7})),
            7,
            6,
            "",
        ),
        (
            "type is missing",
            Keys("bridge", json!({"type": null})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "type is another",
            Keys("bridge", json!({"type": "other"})),
            0,
            0,
            "",
        ),
        (
            "type is a path",
            Keys("bridge", json!({"type": "../x"})),
            7,
            0,
            "refused-before-anything-happens",
        ),
        (
            "two addresses in 0.2.0",
            Keys(
                "bridge",
                json!({"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}),
            ),
            7,
            999,
            "",
        ),
        (
            "capabilities is a list",
            Keys("bridge", json!({"capabilities": []})),
            0,
            999,
            "taken-where-the-reference-refuses",
        ),
    ]
}
