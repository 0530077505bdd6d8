//! What nobody should write into a configuration, a result or the environment.

use conformance::{Call, Pod};
use serde_json::{Map, Value, json};

use crate::random::Random;

/// Keys that plugins know, so that a configuration gets one that it doesn't have.
const KEYS: &[&str] = &[
    "mtu",
    "vlan",
    "vlanTrunk",
    "isGateway",
    "hairpinMode",
    "promiscMode",
    "bridge",
    "ipMasqBackend",
    "nonMasqueradeCIDRs",
    "dns",
    "ipam",
    "args",
    "runtimeConfig",
    "mac",
    "mode",
    "master",
    "device",
    "hwaddr",
    "pciBusID",
    "bcqueuelen",
    "vlanId",
    "multiQueue",
    "owner",
    "group",
    "selinuxContext",
    "table",
    "gateways",
    "addSourceHints",
    "vrfname",
    "linkInContainer",
    "backend",
    "snat",
    "masqAll",
    "markMasqBit",
    "externalSetMarkChain",
    "conditionsV4",
    "conditionsV6",
    "ingressPolicy",
    "ingressCIDRs",
    "iptablesAdminChainName",
    "firewalldZone",
    "sysctl",
    "promisc",
    "txQLen",
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "shapedSubnets",
    "unshapedSubnets",
    "cniVersion",
    "name",
    "type",
    "capabilities",
    "bridgeNetfilter",
    "enabledad",
    "disableContainerInterface",
    "preserveDefaultVlan",
    "dataDir",
    "prevResult",
    "cni.dev/valid-attachments",
];

/// Values that have a meaning somewhere.
const TEXTS: &[&str] = &[
    "",
    " ",
    "e%d",
    "..",
    ".",
    "/",
    "../../etc",
    "a/b",
    "lo",
    "up0",
    "bridge-bridge-b",
    "nftables",
    "iptables",
    "firewalld",
    "isolated",
    "same-bridge",
    "private",
    "passthru",
    "vepa",
    "0.0.0.0/0",
    "::/0",
    "10.1.0.0/33",
    "10.1.0.0/0",
    "10.1.0.1/32",
    "255.255.255.255/32",
    "fd00:1::/129",
    "::ffff:10.1.0.1/128",
    "127.0.0.1/8",
    "10.1.0.1",
    "::1",
    "0.0.0.0",
    "-A",
    "--help",
    "-m",
    "!",
    "CNI-FORWARD",
    "00:00:00:00:00:00",
    "ff:ff:ff:ff:ff:ff",
    "02:00:00:00:00:01",
    "1.1.0",
    "0.1.0",
    "2.0.0",
    "99999999999999999999.0.0",
    "\u{0}",
    "a\u{0}b",
    "\n",
    "a\nb",
    "\"",
    "\u{202e}\u{1f980}",
    "\u{fffd}",
    "é",
    "tcp",
    "sctp",
    "bridge",
    "host-local",
    "static",
    "portmap",
    "net.core.somaxconn",
    "kernel.hostname",
    "net/../kernel/hostname",
    "-1",
    "nan",
];

/// Places for files. All of them are the test host's own: the rest of the file system is read-only.
const PATHS: &[&str] = &[
    "",
    "/run/elsewhere",
    "/run/netns",
    "relative",
    "/run/../run/odd",
    "/run/fifo",
    "/proc/kmsg",
    "/dev/null",
];

/// Keys whose value is a place for files.
const PATH_KEYS: [&str; 2] = ["dataDir", "resolvConf"];

/// Any value, right or wrong.
pub(super) fn value(random: &mut Random) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!(random.pick(&[
            0_i64,
            -1,
            1,
            2,
            67,
            68,
            4095,
            65535,
            65536,
            i64::MAX,
            i64::MIN,
            4_294_967_296
        ])),
        3 => json!(random.pick(&[u64::MAX, 1 << 63, 1 << 53])),
        4 => json!(random.pick(&[0.5, 1e308, -1e-300, 1e19])),
        5 => json!("x".repeat(random.pick(&[15, 16, 100, 255, 256, 4096, 100_000]))),
        6 => deep(random.pick(&[3, 100, 126, 200])),
        7 => json!([]),
        8 => json!({}),
        9 => json!([value(random)]),
        10 => json!({ random.pick(KEYS): value(random) }),
        11 => json!(vec![random.pick(TEXTS); random.pick(&[2, 1000])]),
        _ => json!(random.pick(TEXTS)),
    }
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!([inner]))
}

/// Change one to three things in a configuration.
pub(super) fn corrupt(random: &mut Random, conf: &mut Value) {
    for _ in 0..=random.below(3) {
        if random.one_in(3) {
            let key = random.pick(KEYS);
            conf[key] = value_for(random, key);
            continue;
        }
        let count = count(conf);
        let mut at = random.below(count.max(1));
        replace(random, conf, &mut at);
    }
    // An address of others taken from a bridge is what this key is for.
    if conf["forceAddress"] == json!(true) {
        conf["forceAddress"] = json!(false);
    }
}

fn value_for(random: &mut Random, key: &str) -> Value {
    if PATH_KEYS.contains(&key) {
        return json!(random.pick(PATHS));
    }
    match key {
        // Whoever writes another's device into a configuration gets it.
        "device" => json!(random.pick(&["", "dev-a-0", "dev-a-1", "dev-a-9", "lo", "e%d", "a/b"])),
        "mac" => json!(random.pick(&[
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "02:00:00:00:00:01",
            "0:1:2:3:4:5",
            ""
        ])),
        "type" if random.one_in(2) => json!(random.pick(&[
            "bridge",
            "ptp",
            "host-local",
            "static",
            "loopback",
            "trestle"
        ])),
        "portMappings" => {
            json!([{"hostPort": random.pick(&[0, 1, 8000, 8010, 8011, 65535, 65536]), "containerPort": 80,
            "protocol": random.pick(&["tcp", "udp", "sctp", "TCP", "icmp", ""]),
            "hostIP": random.pick(&["", "127.0.0.1", "::1", "0.0.0.0", "10.1.0.1", "fe80::1", "224.0.0.1", "x"])}])
        }
        _ => value(random),
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(|value| 1 + count(value)).sum(),
        Value::Array(items) => items.iter().map(|value| 1 + count(value)).sum(),
        _ => 0,
    }
}

/// Replace the value that is number `at` of those below this one.
fn replace(random: &mut Random, value: &mut Value, at: &mut usize) -> bool {
    let mut visit = |key: &str, child: &mut Value, at: &mut usize| {
        if *at == 0 {
            *child = value_for(random, key);
            return true;
        }
        *at -= 1;
        replace(random, child, at)
    };
    match value {
        Value::Object(map) => map.iter_mut().any(|(key, child)| visit(key, child, at)),
        Value::Array(items) => items.iter_mut().any(|child| visit("", child, at)),
        _ => false,
    }
}

/// A result that is not the one of the chain: spoilt, another's where there is one, or something else altogether.
pub(super) fn prev_result(
    random: &mut Random,
    own: Option<&Value>,
    others: Option<&Value>,
) -> Value {
    match (random.below(4), others) {
        (0, _) => value(random),
        (1, Some(others)) => others.clone(),
        _ => {
            let mut result = own
                .or(others)
                .cloned()
                .unwrap_or_else(|| json!({"ips": [], "interfaces": []}));
            corrupt(random, &mut result);
            result
        }
    }
}

/// Bytes that are no configuration, made from one.
pub(super) fn bytes(random: &mut Random, conf: &Value) -> Vec<u8> {
    let mut text = conf.to_string().into_bytes();
    match random.below(8) {
        0 => text.truncate(random.below(text.len())),
        1 => text.extend_from_slice(b"{}"),
        2 => text = vec![b'['; 100_000],
        3 => text = b"{\"a\":".repeat(50_000),
        4 => text.clear(),
        5 => {
            for _ in 0..=random.below(8) {
                let at = random.below(text.len());
                text[at] = u8::try_from(random.below(256)).unwrap_or(0);
            }
        }
        6 => text.splice(0..0, [0xef, 0xbb, 0xbf]).for_each(drop),
        _ => {
            let huge = "x".repeat(2_000_000);
            let mut map = conf.as_object().cloned().unwrap_or_else(Map::new);
            map.insert("huge".to_owned(), json!(huge));
            text = Value::Object(map).to_string().into_bytes();
        }
    }
    text
}

/// One variable of the environment changed.
pub(super) fn environment(random: &mut Random, call: &mut Call, pod: &Pod) {
    let long = "c".repeat(random.pick(&[16, 256, 5000]));
    match random.below(4) {
        0 => {
            let ids = [
                "", "a/b", "..", "a b", "é", "a\nb", "-x", "_x", "a%d", &long,
            ];
            call.container = (!random.one_in(6)).then(|| random.pick(&ids).to_owned());
        }
        1 => {
            let names = [
                "", "lo", "all", "default", "e%d", ".", "..", "a/b", "a:b", "a b", "e\tx", "é",
                "-h", &long,
            ];
            call.ifname = (!random.one_in(6)).then(|| random.pick(&names).to_owned());
        }
        2 => {
            let below = format!("{}/below", pod.netns());
            let paths = [
                "",
                "/run",
                "/run/fifo",
                "/run/loop",
                "/run/netns/absent",
                "relative",
                "/dev/null",
                "/dev/tty",
                "/proc/self/ns/net",
                "/proc/self/ns/mnt",
                "/proc/self/ns/user",
                &below,
                &long,
            ];
            call.netns = (!random.one_in(6)).then(|| random.pick(&paths).to_owned());
        }
        _ => {
            let args = [
                "IP=10.1.0.77",
                "IP=10.9.0.1",
                "IP=x",
                "IP=10.1.0.1/24;GATEWAY=10.1.0.1",
                "MAC=x",
                "MAC=02:00:00:00:00:07",
                "MAC=ff:ff:ff:ff:ff:ff",
                "IgnoreUnknown=1;K8S_POD_NAME=p",
                "IgnoreUnknown=x",
                "A=B",
                ";;;",
                "=",
                "=;=",
                "é=é",
                &long,
            ];
            call.args = Some(random.pick(&args).to_owned());
        }
    }
}
