//! Ranges and requests of `host-local`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, refused_by_ours, row, taken};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("host-local", keys);
    let ranges = |ranges: Value| keys(json!({"ipam": {"ranges": ranges}}));
    vec![
        row(
            "resolvConf below /proc",
            keys(json!({"ipam": {"resolvConf": "/proc/mounts"}})),
            (5, 0),
            "no-special-resolv-conf",
        ),
        refused("no range", ranges(json!([])), 7),
        refused("an empty range set", ranges(json!([[]])), 7),
        refused("ranges is a text", ranges(json!("10.0.0.0/8")), 7),
        refused(
            "a range set is no list",
            ranges(json!([{"subnet": "10.1.0.0/24"}])),
            7,
        ),
        refused(
            "subnet without prefix",
            ranges(json!([[{"subnet": "10.1.0.0"}]])),
            7,
        ),
        refused(
            "subnet with host bits",
            ranges(json!([[{"subnet": "10.1.0.7/24"}]])),
            7,
        ),
        refused(
            "subnet of nonsense",
            ranges(json!([[{"subnet": "x/24"}]])),
            7,
        ),
        refused(
            "subnet with a prefix of 33",
            ranges(json!([[{"subnet": "10.1.0.0/33"}]])),
            7,
        ),
        refused(
            "subnet of two addresses",
            ranges(json!([[{"subnet": "10.1.0.0/31"}]])),
            7,
        ),
        refused(
            "subnet of one address",
            ranges(json!([[{"subnet": "fd00::/128"}]])),
            7,
        ),
        refused(
            "subnet with leading zeros",
            ranges(json!([[{"subnet": "10.01.0.0/24"}]])),
            7,
        ),
        taken(
            "prefix length with a leading zero",
            ranges(json!([[{"subnet": "10.1.0.0/024"}]])),
        ),
        refused(
            "rangeStart with leading zeros",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.09"}]])),
            7,
        ),
        refused(
            "rangeEnd with leading zeros",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.09"}]])),
            7,
        ),
        refused(
            "gateway with leading zeros",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.01"}]])),
            7,
        ),
        refused(
            "ips with leading zeros",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.05"]}})),
            7,
        ),
        refused(
            "ips with leading zeros and a prefix length",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.05/24"]}})),
            7,
        ),
        refused(
            "args ips with leading zeros",
            keys(json!({"args": {"cni": {"ips": ["10.1.0.05"]}}})),
            7,
        ),
        refused(
            "ipRanges with leading zeros",
            keys(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.02.0.0/24"}]]}})),
            7,
        ),
        refused(
            "subnet missing",
            ranges(json!([[{"gateway": "10.1.0.1"}]])),
            7,
        ),
        refused(
            "rangeStart outside",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]])),
            7,
        ),
        refused(
            "rangeEnd outside",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}]])),
            7,
        ),
        refused(
            "rangeEnd before rangeStart",
            ranges(
                json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]]),
            ),
            7,
        ),
        refused(
            "rangeStart of nonsense",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "nine"}]])),
            7,
        ),
        taken(
            "rangeStart is the network address",
            ranges(json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.0"}]])),
        ),
        refused(
            "gateway of nonsense",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "gate"}]])),
            7,
        ),
        refused_by_ours(
            "gateway of the other family",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "fd00::1"}]])),
            7,
        ),
        taken(
            "gateway outside",
            ranges(json!([[{"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}]])),
        ),
        refused(
            "ranges of a set overlap",
            ranges(json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]])),
            7,
        ),
        refused(
            "range sets overlap",
            ranges(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]])),
            7,
        ),
        refused(
            "two families in a set",
            ranges(json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]])),
            7,
        ),
        refused(
            "a range without a free address",
            ranges(
                json!([[{"subnet": "10.1.0.0/30", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}]]),
            ),
            7,
        ),
        refused("no ipam section", keys(json!({"ipam": null})), 7),
        refused(
            "ipam section empty",
            keys(json!({"ipam": {"ranges": null}})),
            7,
        ),
        refused(
            "dataDir is a file",
            keys(json!({"ipam": {"dataDir": "/etc/hostname"}})),
            5,
        ),
        refused(
            "resolvConf does not exist",
            keys(json!({"ipam": {"resolvConf": "/nonexistent"}})),
            5,
        ),
        refused(
            "ips of nonsense",
            keys(json!({"runtimeConfig": {"ips": ["x"]}})),
            7,
        ),
        refused(
            "ips outside",
            keys(json!({"runtimeConfig": {"ips": ["10.9.0.5"]}})),
            101,
        ),
        refused(
            "ips twice of a set",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.5", "10.1.0.6"]}})),
            101,
        ),
        refused(
            "ips is the gateway",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.1"]}})),
            101,
        ),
        refused(
            "ips is the broadcast address",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.255"]}})),
            101,
        ),
        refused(
            "ips is the network address",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.0"]}})),
            101,
        ),
        refused(
            "ips is a text",
            keys(json!({"runtimeConfig": {"ips": "10.1.0.5"}})),
            7,
        ),
        refused(
            "args ips of nonsense",
            keys(json!({"args": {"cni": {"ips": ["x"]}}})),
            7,
        ),
    ]
}
