//! The keys of `static`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, refused_by_ours, taken};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("static", keys);
    let fixed = |ipam: Value| keys(json!({"ipam": ipam}));
    vec![
        refused(
            "static address with leading zeros",
            fixed(json!({"addresses": [{"address": "10.1.0.02/24"}]})),
            7,
        ),
        refused(
            "static gateway with leading zeros",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.01"}]})),
            7,
        ),
        refused(
            "static ips with leading zeros",
            keys(json!({"runtimeConfig": {"ips": ["10.1.0.02/24"]}})),
            7,
        ),
        refused_by_ours("static without addresses", fixed(json!({})), 7),
        refused(
            "static address without prefix",
            fixed(json!({"addresses": [{"address": "10.1.0.2"}]})),
            7,
        ),
        refused(
            "static address of nonsense",
            fixed(json!({"addresses": [{"address": "x"}]})),
            7,
        ),
        refused(
            "static gateway of nonsense",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24", "gateway": "x"}]})),
            7,
        ),
        taken(
            "static address twice",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24"}, {"address": "10.1.0.2/24"}]})),
        ),
        refused(
            "static addresses is a text",
            fixed(json!({"addresses": "10.1.0.2/24"})),
            7,
        ),
        refused(
            "static route of nonsense",
            fixed(json!({"addresses": [{"address": "10.1.0.2/24"}], "routes": [{"dst": "x"}]})),
            7,
        ),
    ]
}
