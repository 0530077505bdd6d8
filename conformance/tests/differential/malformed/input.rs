//! Standard input, and the keys that every plugin has.

use serde_json::{Value, json};

use super::Input::{Bytes, Keys};
use super::{Row, refused, refused_alike, refused_by_ours, row, taken, taken_by_ours};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("bridge", keys);
    vec![
        refused_alike("nothing", Bytes(""), 6),
        refused_alike("no JSON", Bytes("name = net"), 6),
        refused_alike("a list", Bytes("[]"), 6),
        refused_alike(
            "half an object",
            Bytes(r#"{"cniVersion": "1.1.0", "name": "net""#),
            6,
        ),
        refused_alike(
            "two objects",
            Bytes(r#"{"cniVersion": "1.1.0", "name": "net", "type": "bridge"} {}"#),
            6,
        ),
        taken("no version", keys(json!({"cniVersion": null}))),
        taken("version is empty", keys(json!({"cniVersion": ""}))),
        refused_alike(
            "version is unknown",
            keys(json!({"cniVersion": "9.9.9"})),
            1,
        ),
        row(
            "version is a number",
            keys(json!({"cniVersion": 1})),
            (7, 6),
            "",
        ),
        refused_alike("version of nonsense", keys(json!({"cniVersion": "one"})), 1),
        refused_alike("no name", keys(json!({"name": null})), 7),
        refused_alike("name is empty", keys(json!({"name": ""})), 7),
        refused_alike("name leads up", keys(json!({"name": "../net"})), 7),
        refused_alike("name with a slash", keys(json!({"name": "a/b"})), 7),
        refused_alike("name with a space", keys(json!({"name": "a b"})), 7),
        row("name is a number", keys(json!({"name": 7})), (7, 6), ""),
        refused_by_ours("type is missing", keys(json!({"type": null})), 7),
        taken("type is another", keys(json!({"type": "other"}))),
        refused_by_ours("type is a path", keys(json!({"type": "../x"})), 7),
        refused(
            "two addresses in 0.2.0",
            keys(
                json!({"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}),
            ),
            7,
        ),
        taken_by_ours("capabilities is a list", keys(json!({"capabilities": []}))),
    ]
}
