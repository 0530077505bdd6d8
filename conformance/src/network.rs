//! Network configurations that tests build on.

use serde_json::{Value, json};

/// An IPAM section for host-local with one range set per subnet.
pub fn host_local(subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets
        .iter()
        .map(|subnet| json!([{"subnet": subnet}]))
        .collect();
    json!({"type": "host-local", "ranges": ranges})
}

/// A network called `net` of the plugin alone: host-local, called directly.
pub fn ipam_network(ipam: Value) -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": ipam})
}

/// A network called `net`: the bridge `cni0` as the gateway, with this IPAM.
pub fn bridge(ipam: Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cni0",
        "isGateway": true, "ipam": ipam
    })
}

/// A layer-2 network called `net` on the bridge `cni0`.
pub fn layer2() -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cni0"})
}

/// A configuration with more keys, or other values for them, in every object of it that `more` names.
pub fn with(mut configuration: Value, more: Value) -> Value {
    merge(&mut configuration, more);
    configuration
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
