//! Verbs other than ADD.

use serde_json::json;

use super::Input::Verb;
use super::{Row, refused, refused_alike, refused_by_ours, taken, taken_by_ours};

pub(super) fn rows() -> Vec<Row> {
    vec![
        refused_alike("a verb that does not exist", Verb("ATTACH", json!({})), 4),
        refused_alike("a verb in lower case", Verb("add", json!({})), 4),
        refused("CHECK without prevResult", Verb("CHECK", json!({})), 7),
        refused_alike(
            "CHECK before it existed",
            Verb("CHECK", json!({"cniVersion": "0.3.1"})),
            1,
        ),
        refused_alike(
            "GC before it existed",
            Verb("GC", json!({"cniVersion": "1.0.0"})),
            1,
        ),
        refused_alike(
            "STATUS before it existed",
            Verb("STATUS", json!({"cniVersion": "1.0.0"})),
            1,
        ),
        taken_by_ours(
            "DEL with a prevResult of nonsense",
            Verb("DEL", json!({"prevResult": "x"})),
        ),
        taken(
            "DEL with a prevResult of another version",
            Verb("DEL", json!({"prevResult": {"cniVersion": "9.9.9"}})),
        ),
        taken("STATUS", Verb("STATUS", json!({}))),
        refused(
            "STATUS with ipam that is nowhere",
            Verb("STATUS", json!({"ipam": {"type": "nowhere"}})),
            104,
        ),
        refused_by_ours(
            "STATUS with broken ranges",
            Verb("STATUS", json!({"ipam": {"ranges": [[{"subnet": "x"}]]}})),
            7,
        ),
        taken("GC without a list", Verb("GC", json!({}))),
        refused_by_ours(
            "GC with a list of nonsense",
            Verb("GC", json!({"cni.dev/valid-attachments": "all"})),
            7,
        ),
    ]
}
