//! `ptp` and `loopback`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, refused_by_ours, taken};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("ptp", keys);
    vec![
        refused("ptp without ipam", keys(json!({"ipam": null})), 7),
        refused("ptp with a text as mtu", keys(json!({"mtu": "x"})), 7),
        refused_by_ours("ptp with a negative mtu", keys(json!({"mtu": -5})), 7),
        refused(
            "ptp with an unknown backend",
            keys(json!({"ipMasq": true, "ipMasqBackend": "pf"})),
            7,
        ),
        taken(
            "loopback with unknown keys",
            Keys("loopback", json!({"x": 1})),
        ),
    ]
}
