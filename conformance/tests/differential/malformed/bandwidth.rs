//! The keys of `bandwidth`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, taken};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("bandwidth", keys);
    vec![
        refused(
            "subnet with leading zeros",
            keys(
                json!({"ingressRate": 8000, "ingressBurst": 8000, "shapedSubnets": ["10.01.0.0/16"]}),
            ),
            7,
        ),
        refused(
            "subnet of nonsense",
            keys(json!({"ingressRate": 8000, "ingressBurst": 8000, "unshapedSubnets": ["x"]})),
            7,
        ),
        refused(
            "shapedSubnets and unshapedSubnets",
            keys(
                json!({"ingressRate": 8000, "ingressBurst": 8000, "shapedSubnets": ["10.1.0.0/16"], "unshapedSubnets": ["10.2.0.0/16"]}),
            ),
            7,
        ),
        refused(
            "bandwidth without prevResult",
            keys(json!({"prevResult": null, "ingressRate": 8000, "ingressBurst": 8000})),
            7,
        ),
        taken("bandwidth without limits", keys(json!({}))),
        refused("rate without burst", keys(json!({"ingressRate": 8000})), 7),
        refused("burst without rate", keys(json!({"ingressBurst": 8000})), 7),
        refused(
            "rate is negative",
            keys(json!({"ingressRate": -1, "ingressBurst": 8000})),
            7,
        ),
        refused(
            "burst is too large",
            keys(json!({"ingressRate": 8000, "ingressBurst": 99_999_999_999_i64})),
            7,
        ),
        refused(
            "rate is a text",
            keys(json!({"ingressRate": "1M", "ingressBurst": 8000})),
            7,
        ),
    ]
}
