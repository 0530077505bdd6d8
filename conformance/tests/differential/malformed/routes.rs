//! Routes that the IPAM plugin hands to `bridge`.

use serde_json::{Value, json};

use super::Input::Keys;
use super::{Row, refused, refused_by_ours, taken_by_ours};

pub(super) fn rows() -> Vec<Row> {
    let keys = |keys: Value| Keys("bridge", keys);
    let route = |route: Value| keys(json!({"ipam": {"routes": [route]}}));
    vec![
        refused(
            "route to leading zeros",
            route(json!({"dst": "192.0.02.0/24"})),
            7,
        ),
        refused(
            "route by leading zeros",
            route(json!({"dst": "192.0.2.0/24", "gw": "10.1.0.01"})),
            7,
        ),
        refused("route to nonsense", route(json!({"dst": "everywhere"})), 7),
        refused(
            "route without a destination",
            route(json!({"gw": "10.1.0.1"})),
            7,
        ),
        refused(
            "route without a prefix",
            route(json!({"dst": "192.0.2.1"})),
            7,
        ),
        taken_by_ours(
            "route with host bits",
            route(json!({"dst": "192.0.2.1/24"})),
        ),
        refused(
            "route by nonsense",
            route(json!({"dst": "192.0.2.0/24", "gw": "x"})),
            7,
        ),
        refused(
            "route by the other family",
            route(json!({"dst": "192.0.2.0/24", "gw": "fd00::1"})),
            100,
        ),
        refused(
            "route by who is not there",
            route(json!({"dst": "192.0.2.0/24", "gw": "203.0.113.1"})),
            100,
        ),
        refused_by_ours(
            "route with a negative mtu",
            route(json!({"dst": "192.0.2.0/24", "mtu": -1})),
            7,
        ),
        refused("route is a text", route(json!("192.0.2.0/24")), 7),
        taken_by_ours(
            "route twice",
            keys(json!({"ipam": {"routes": [{"dst": "192.0.2.0/24"}, {"dst": "192.0.2.0/24"}]}})),
        ),
    ]
}
