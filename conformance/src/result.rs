//! Reading what matters to a test from a result in the specification's current shape.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// The `index`th address of a result, with its prefix length.
///
/// # Panics
/// When there is no such address.
#[track_caller]
pub fn network(result: &Value, index: usize) -> IpNet {
    let text = result["ips"][index]["address"].as_str();
    let parsed = text.and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| panic!("no address {index} in {result:#}"))
}

/// The `index`th address of a result.
///
/// # Panics
/// When there is no such address.
#[track_caller]
pub fn address(result: &Value, index: usize) -> IpAddr {
    network(result, index).addr()
}

/// All addresses of a result; none for a layer-2 attachment.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let count = result["ips"].as_array().map_or(0, Vec::len);
    (0..count).map(|index| address(result, index)).collect()
}

/// The interface of a result that is inside the container.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn sandbox_interface(result: &Value) -> Value {
    let interfaces = result["interfaces"].as_array().into_iter().flatten();
    let mut inside = interfaces.filter(|interface| {
        interface["sandbox"]
            .as_str()
            .is_some_and(|sandbox| !sandbox.is_empty())
    });
    inside
        .next_back()
        .cloned()
        .unwrap_or_else(|| panic!("no interface in a sandbox in {result:#}"))
}
