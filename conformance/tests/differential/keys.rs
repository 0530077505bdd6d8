//! Whether every key is compared: those that the Go plugin's binaries know, and those that the documentation tells of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use conformance::{Case, Lab, Need, case};
use serde_json::Value;

use super::scenarios;

/// The keys of each plugin by their paths, lists left out, of the network configuration and of `CNI_ARGS`.
const KEYS: [(&str, &[&str]); 17] = [
    (
        "bridge",
        &[
            "bridge",
            "isGateway",
            "isDefaultGateway",
            "forceAddress",
            "mtu",
            "hairpinMode",
            "promiscMode",
            "ipMasq",
            "ipMasqBackend",
            "portIsolation",
            "macspoofchk",
            "vlan",
            "vlanTrunk.id",
            "vlanTrunk.minID",
            "vlanTrunk.maxID",
            "preserveDefaultVlan",
            "enabledad",
            "disableContainerInterface",
            "dns.nameservers",
            "dns.domain",
            "dns.search",
            "dns.options",
            "ipam.type",
            "args.cni.mac",
            "runtimeConfig.mac",
            "CNI_ARGS.MAC",
        ],
    ),
    (
        "ptp",
        &[
            "mtu",
            "ipMasq",
            "ipMasqBackend",
            "dns.nameservers",
            "dns.domain",
            "dns.search",
            "dns.options",
            "ipam.type",
        ],
    ),
    (
        "macvlan",
        &[
            "master",
            "mode",
            "mtu",
            "mac",
            "bcqueuelen",
            "linkInContainer",
            "dns.nameservers",
            "ipam.type",
            "args.cni.mac",
            "runtimeConfig.mac",
            "CNI_ARGS.MAC",
        ],
    ),
    (
        "ipvlan",
        &[
            "master",
            "mode",
            "mtu",
            "linkInContainer",
            "dns.nameservers",
            "ipam.type",
        ],
    ),
    (
        "vlan",
        &[
            "master",
            "vlanId",
            "mtu",
            "linkInContainer",
            "dns.nameservers",
            "ipam.type",
        ],
    ),
    ("dummy", &["ipam.type"]),
    (
        "tap",
        &[
            "multiQueue",
            "owner",
            "group",
            "selinuxContext",
            "bridge",
            "mtu",
            "mac",
            "dns.nameservers",
            "ipam.type",
            "args.cni.mac",
            "runtimeConfig.mac",
            "CNI_ARGS.MAC",
        ],
    ),
    (
        "host-device",
        &[
            "device",
            "hwaddr",
            "kernelpath",
            "pciBusID",
            "dns.nameservers",
            "ipam.type",
            "runtimeConfig.deviceID",
        ],
    ),
    ("sbr", &["table"]),
    ("vrf", &["vrfname", "table"]),
    (
        "portmap",
        &[
            "backend",
            "snat",
            "masqAll",
            "markMasqBit",
            "externalSetMarkChain",
            "conditionsV4",
            "conditionsV6",
            "runtimeConfig.portMappings.hostPort",
            "runtimeConfig.portMappings.containerPort",
            "runtimeConfig.portMappings.protocol",
            "runtimeConfig.portMappings.hostIP",
        ],
    ),
    (
        "firewall",
        &[
            "backend",
            "iptablesAdminChainName",
            "firewalldZone",
            "ingressPolicy",
            "ingressCIDRs",
        ],
    ),
    (
        "tuning",
        &[
            "sysctl",
            "mac",
            "mtu",
            "promisc",
            "allmulti",
            "txQLen",
            "dataDir",
            "args.cni.sysctl",
            "args.cni.mac",
            "args.cni.mtu",
            "args.cni.promisc",
            "args.cni.allmulti",
            "args.cni.txQLen",
            "runtimeConfig.mac",
            "CNI_ARGS.MAC",
        ],
    ),
    (
        "bandwidth",
        &[
            "ingressRate",
            "ingressBurst",
            "egressRate",
            "egressBurst",
            "runtimeConfig.bandwidth.ingressRate",
            "runtimeConfig.bandwidth.ingressBurst",
            "runtimeConfig.bandwidth.egressRate",
            "runtimeConfig.bandwidth.egressBurst",
        ],
    ),
    (
        "host-local",
        &[
            "ipam.ranges.subnet",
            "ipam.ranges.rangeStart",
            "ipam.ranges.rangeEnd",
            "ipam.ranges.gateway",
            "ipam.subnet",
            "ipam.rangeStart",
            "ipam.rangeEnd",
            "ipam.gateway",
            "ipam.routes.dst",
            "ipam.routes.gw",
            "ipam.routes.mtu",
            "ipam.routes.advmss",
            "ipam.routes.priority",
            "ipam.routes.table",
            "ipam.routes.scope",
            "ipam.resolvConf",
            "ipam.dataDir",
            "args.cni.ips",
            "runtimeConfig.ips",
            "runtimeConfig.ipRanges.subnet",
            "runtimeConfig.ipRanges.rangeStart",
            "runtimeConfig.ipRanges.rangeEnd",
            "runtimeConfig.ipRanges.gateway",
            "CNI_ARGS.IP",
        ],
    ),
    (
        "static",
        &[
            "ipam.addresses.address",
            "ipam.addresses.gateway",
            "ipam.routes.dst",
            "ipam.routes.gw",
            "ipam.routes.mtu",
            "ipam.routes.advmss",
            "ipam.routes.priority",
            "ipam.routes.table",
            "ipam.routes.scope",
            "ipam.dns.nameservers",
            "ipam.dns.domain",
            "ipam.dns.search",
            "ipam.dns.options",
            "args.cni.ips",
            "runtimeConfig.ips",
            "CNI_ARGS.IP",
            "CNI_ARGS.GATEWAY",
        ],
    ),
    ("loopback", &[]),
];

/// Keys that the documentation tells of and the Go plugins have nothing to compare with.
const OURS_ALONE: [(&str, &str); 15] = [
    ("sbr", "gateways"),
    ("sbr", "addSourceHints"),
    ("host-device", "dataDir"),
    ("host-device", "useInterfaceNetwork"),
    ("dummy", "dns"),
    ("portmap", "dataDir"),
    ("firewall", "dataDir"),
    ("bandwidth", "shapedSubnets"),
    ("bandwidth", "unshapedSubnets"),
    ("bridge", "nonMasqueradeCIDRs"),
    ("bridge", "bridgeNetfilter"),
    ("bridge", "multicastSnooping"),
    ("ptp", "nonMasqueradeCIDRs"),
    ("host-local", "reclaim"),
    ("host-local", "statusWhenFull"),
];

/// What the Go plugin's `bridge` reads and writes beside configurations: the JSON of nft.
const OF_NFT: [&str; 37] = [
    "add",
    "addr",
    "bytes",
    "chain",
    "comment",
    "counter",
    "delete",
    "dnat",
    "expr",
    "family",
    "field",
    "flags",
    "flush",
    "goto",
    "handle",
    "hook",
    "index",
    "json_schema_version",
    "jump",
    "left",
    "masquerade",
    "match",
    "metainfo",
    "nftables",
    "op",
    "packets",
    "payload",
    "policy",
    "port",
    "prio",
    "protocol",
    "redirect",
    "release_name",
    "right",
    "rule",
    "snat",
    "target",
];

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(every_key_is_compared),
        case!(every_key_of_the_go_plugin_is_known).needs(Need::GoPlugins),
        case!(every_key_of_the_docs_is_known),
    ]
}

/// Each key stands in the configuration of a scenario.
fn every_key_is_compared(_: &Lab) {
    let used = used();
    for (plugin, keys) in KEYS {
        for key in keys {
            assert!(
                used.contains(&(plugin.to_owned(), (*key).to_owned())),
                "no scenario compares {key} of {plugin}"
            );
        }
    }
}

/// The plugins of the scenarios, each with the paths of its configurations.
fn used() -> BTreeSet<(String, String)> {
    let mut used = BTreeSet::new();
    for scenario in scenarios() {
        for configuration in &scenario.chain {
            let ipam = configuration["ipam"]["type"].as_str();
            for plugin in [configuration["type"].as_str(), ipam].into_iter().flatten() {
                paths("", configuration, &mut |path| {
                    used.insert((plugin.to_owned(), path.to_owned()));
                });
                for argument in scenario.args.unwrap_or_default().split(';') {
                    let name = argument.split('=').next().unwrap_or_default();
                    used.insert((plugin.to_owned(), format!("CNI_ARGS.{name}")));
                }
            }
        }
    }
    used
}

fn paths(path: &str, value: &Value, found: &mut impl FnMut(&str)) {
    found(path);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let deeper = format!("{path}.{key}");
                paths(deeper.trim_start_matches('.'), value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(path, item, found)),
        _ => {}
    }
}

/// Go keeps the names of JSON fields in its binaries. Those that `loopback`, which has no keys, knows as well belong to
/// results and to the protocol.
fn every_key_of_the_go_plugin_is_known(lab: &Lab) {
    let tags = |plugin| {
        let binary = lab.go_plugins().join(plugin);
        fields(&fs::read(binary).expect("the Go plugin's binary"))
    };
    let of_everybody = tags("loopback");
    for (plugin, keys) in KEYS {
        let parts: BTreeSet<&str> = keys.iter().flat_map(|key| key.split('.')).collect();
        let unknown: Vec<String> = tags(plugin)
            .difference(&of_everybody)
            .filter(|field| !parts.contains(field.as_str()))
            .filter(|field| plugin != "bridge" || !OF_NFT.contains(&field.as_str()))
            .filter(|field| *field != "ignoreunknown")
            .cloned()
            .collect();
        assert!(
            unknown.is_empty(),
            "the Go {plugin} has keys that are in no table here: {unknown:?}"
        );
    }
}

/// The names in `json:"name"` and `json:"name,omitempty"`.
fn fields(binary: &[u8]) -> BTreeSet<String> {
    const TAG: &[u8] = b"json:\"";
    let starts = binary.windows(TAG.len()).enumerate();
    let starts = starts.filter_map(|(at, window)| (window == TAG).then_some(at + TAG.len()));
    let names = starts.map(|at| {
        let rest = binary[at..].iter().copied();
        let name = rest.take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        name.map(char::from).collect::<String>()
    });
    names.filter(|name| name.len() > 1).collect()
}

/// The first column of the tables on each plugin's page.
fn every_key_of_the_docs_is_known(_: &Lab) {
    for (plugin, known) in KEYS {
        let page =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/plugins/{plugin}.md"));
        let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        let told = keys_of_tables(&page);
        assert!(plugin != "bridge" || told.contains("isGateway"), "{told:?}");
        for key in told {
            let compared = known
                .iter()
                .any(|path| path.split('.').any(|part| part == key));
            assert!(
                compared || OURS_ALONE.contains(&(plugin, key.as_str())),
                "{key} is on the page of {plugin} and not compared"
            );
        }
    }
}

/// What stands in backquotes in the first column of each row.
fn keys_of_tables(page: &str) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for line in page.lines() {
        let Some(cell) = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('|').next())
        else {
            continue;
        };
        let keys = cell.split([',', '`']).map(str::trim);
        told.extend(keys.filter(|key| !key.is_empty()).map(str::to_owned));
    }
    told
}
