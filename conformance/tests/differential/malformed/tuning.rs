//! The keys of `tuning`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{CRASHED, Row, refused, row, taken};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("tuning", keys);
    vec![
        row(
            "sysctl of args alone",
            keys(json!({"args": {"cni": {"sysctl": {"net.core.somaxconn": "300"}}}})),
            (0, CRASHED),
            "taken-where-the-go-plugins-refuse",
        ),
        refused(
            "tuning without prevResult",
            keys(json!({"prevResult": null})),
            7,
        ),
        refused(
            "tuning with half a prevResult",
            keys(json!({"prevResult": 7})),
            7,
        ),
        taken("tuning without keys", keys(json!({}))),
        refused("sysctl is a list", keys(json!({"sysctl": []})), 7),
        refused(
            "sysctl value is a number",
            keys(json!({"sysctl": {"net.ipv4.conf.all.log_martians": 1}})),
            7,
        ),
        refused(
            "sysctl does not exist",
            keys(json!({"sysctl": {"net.ipv4.conf.all.unheard": "1"}})),
            100,
        ),
        refused(
            "sysctl of the machine",
            keys(json!({"sysctl": {"kernel.hostname": "x"}})),
            7,
        ),
        refused(
            "sysctl leads out",
            keys(json!({"sysctl": {"net/../kernel/hostname": "x"}})),
            7,
        ),
        refused(
            "sysctl value is refused",
            keys(json!({"sysctl": {"net.ipv4.conf.all.log_martians": "x"}})),
            100,
        ),
        refused("tuning mac of nonsense", keys(json!({"mac": "x"})), 7),
        refused("tuning mtu is negative", keys(json!({"mtu": -1})), 7),
        refused("tuning mtu is a text", keys(json!({"mtu": "x"})), 7),
        refused("txQLen is negative", keys(json!({"txQLen": -1})), 7),
        refused("promisc is a text", keys(json!({"promisc": "yes"})), 7),
    ]
}
