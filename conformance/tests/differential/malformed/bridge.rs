//! The keys of `bridge`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, refused_by_ours, taken, taken_by_ours};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("bridge", keys);
    vec![
        refused("bridge is a list", keys(json!({"bridge": ["cni0"]})), 7),
        refused("bridge has a slash", keys(json!({"bridge": "a/b"})), 7),
        refused(
            "bridge is too long",
            keys(json!({"bridge": "sixteen-bytes-xx"})),
            7,
        ),
        taken_by_ours("bridge is empty", keys(json!({"bridge": ""}))),
        refused("bridge is a dot", keys(json!({"bridge": "."})), 7),
        refused("bridge has a space", keys(json!({"bridge": "a b"})), 7),
        refused("isGateway is a text", keys(json!({"isGateway": "yes"})), 7),
        refused("isGateway is a number", keys(json!({"isGateway": 1})), 7),
        taken("isGateway is null", keys(json!({"isGateway": null}))),
        refused("mtu is a text", keys(json!({"mtu": "large"})), 7),
        refused_by_ours("mtu is negative", keys(json!({"mtu": -1})), 7),
        refused("mtu is too small", keys(json!({"mtu": 10})), 7),
        refused("mtu is too large", keys(json!({"mtu": 70000})), 7),
        refused("mtu has a fraction", keys(json!({"mtu": 1400.5})), 7),
        refused(
            "mtu is a whole number with a fraction",
            keys(json!({"mtu": 1400.0})),
            7,
        ),
        taken("mtu is null", keys(json!({"mtu": null}))),
        refused("vlan is too large", keys(json!({"vlan": 4095})), 7),
        refused("vlan is negative", keys(json!({"vlan": -1})), 7),
        refused(
            "vlanTrunk is no list",
            keys(json!({"vlanTrunk": {"id": 5}})),
            7,
        ),
        refused(
            "vlanTrunk has an empty entry",
            keys(json!({"vlanTrunk": [{}]})),
            7,
        ),
        refused(
            "vlanTrunk has half a range",
            keys(json!({"vlanTrunk": [{"minID": 5}]})),
            7,
        ),
        refused(
            "vlanTrunk has a range upside down",
            keys(json!({"vlanTrunk": [{"minID": 9, "maxID": 8}]})),
            7,
        ),
        refused(
            "vlanTrunk has ID 0",
            keys(json!({"vlanTrunk": [{"id": 0}]})),
            7,
        ),
        refused(
            "hairpinMode and promiscMode",
            keys(json!({"hairpinMode": true, "promiscMode": true})),
            7,
        ),
        refused(
            "disableContainerInterface with ipam",
            keys(json!({"disableContainerInterface": true})),
            7,
        ),
        refused(
            "ipMasqBackend is unknown",
            keys(json!({"ipMasq": true, "ipMasqBackend": "pf"})),
            7,
        ),
        refused_by_ours(
            "ipMasqBackend is unknown and not used",
            keys(json!({"ipMasqBackend": "pf"})),
            7,
        ),
        refused("ipam is a number", keys(json!({"ipam": 7})), 7),
        taken("ipam is null", keys(json!({"ipam": null}))),
        refused(
            "ipam type is unknown",
            keys(json!({"ipam": {"type": "nowhere"}})),
            104,
        ),
        refused(
            "ipam type is a path",
            keys(json!({"ipam": {"type": "../bridge"}})),
            7,
        ),
        refused(
            "ipam type is a number",
            keys(json!({"ipam": {"type": 5}})),
            7,
        ),
        refused("dns is a list", keys(json!({"dns": []})), 7),
        taken(
            "dns nameserver is no address",
            keys(json!({"dns": {"nameservers": ["dns.test"]}})),
        ),
        refused(
            "mac is none",
            keys(json!({"runtimeConfig": {"mac": "zz"}})),
            7,
        ),
        refused(
            "mac is too long",
            keys(json!({"runtimeConfig": {"mac": "02:00:00:00:00:00:00:01"}})),
            7,
        ),
        refused(
            "mac is multicast",
            keys(json!({"runtimeConfig": {"mac": "01:00:00:00:00:01"}})),
            7,
        ),
        refused(
            "mac is zero",
            keys(json!({"runtimeConfig": {"mac": "00:00:00:00:00:00"}})),
            7,
        ),
        taken(
            "mac has dashes",
            keys(json!({"runtimeConfig": {"mac": "02-00-00-00-00-07"}})),
        ),
        taken(
            "mac has dots",
            keys(json!({"runtimeConfig": {"mac": "0200.0000.0007"}})),
        ),
        refused(
            "mac has three dots",
            keys(json!({"runtimeConfig": {"mac": "0200.0000.0007.0000"}})),
            7,
        ),
        refused(
            "mac has dots in other places",
            keys(json!({"runtimeConfig": {"mac": "02.00.00.00.00.07"}})),
            7,
        ),
        taken("mac is empty", keys(json!({"runtimeConfig": {"mac": ""}}))),
        refused(
            "runtimeConfig is a list",
            keys(json!({"runtimeConfig": []})),
            7,
        ),
        refused("args is a text", keys(json!({"args": "x"})), 7),
        taken(
            "unknown keys",
            keys(json!({"unheardOf": {}, "ipam": {"x": 1}})),
        ),
        taken("layer 2 without keys", Keys("layer2", json!({}))),
        taken(
            "layer 2 with isDefaultGateway",
            Keys("layer2", json!({"isDefaultGateway": true})),
        ),
    ]
}
