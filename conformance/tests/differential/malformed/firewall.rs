//! The keys of `firewall`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, refused_by_ours};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("firewall", keys);
    vec![
        refused(
            "firewall without prevResult",
            keys(json!({"prevResult": null})),
            7,
        ),
        refused_by_ours(
            "firewall with an unknown backend",
            keys(json!({"backend": "pf"})),
            7,
        ),
        refused(
            "firewall with an unknown policy",
            keys(json!({"ingressPolicy": "some"})),
            7,
        ),
    ]
}
