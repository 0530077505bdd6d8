//! The shape of a result in each version of the specification (section "Result Types", and the older SPEC.md's).

use std::net::IpAddr;

use serde_json::{Map, Value};

/// Whether a result is one of that version.
pub(crate) fn check(result: &Map<String, Value>, version: &str) -> Result<(), String> {
    let found = result.get("cniVersion").and_then(Value::as_str);
    if found != Some(version) {
        return Err(format!(
            "\"cniVersion\" is {found:?} instead of {version:?}"
        ));
    }
    if version < "0.3.0" {
        return old(result);
    }
    let interfaces = list(result, "interfaces")?;
    for interface in interfaces {
        check_interface(interface)?;
    }
    for address in list(result, "ips")? {
        check_address(address, interfaces.len(), version)?;
    }
    check_routes(list(result, "routes")?)
}

/// Before 0.3.0 a result had one address of each family.
fn old(result: &Map<String, Value>) -> Result<(), String> {
    for (key, other) in [("ip4", "ips"), ("ip6", "interfaces")] {
        if result.contains_key(other) {
            return Err(format!("{other:?} came with 0.3.0"));
        }
        let Some(family) = result.get(key).filter(|value| !value.is_null()) else {
            continue;
        };
        is_network(&family["ip"], &format!("{key}.ip"))?;
        optional(&family["gateway"], &format!("{key}.gateway"), is_address)?;
        let routes = family["routes"].as_array().map_or(&[][..], Vec::as_slice);
        check_routes(routes)?;
    }
    Ok(())
}

fn list<'r>(result: &'r Map<String, Value>, key: &str) -> Result<&'r [Value], String> {
    match result.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(other) => Err(format!("{key:?} is no list: {other}")),
    }
}

fn check_interface(interface: &Value) -> Result<(), String> {
    if interface["name"].as_str().is_none_or(str::is_empty) {
        return Err(format!("an interface has a \"name\": {interface}"));
    }
    for key in ["mac", "sandbox"] {
        if !(interface[key].is_null() || interface[key].is_string()) {
            return Err(format!("{key:?} of an interface is a text: {interface}"));
        }
    }
    Ok(())
}

fn check_address(address: &Value, interfaces: usize, version: &str) -> Result<(), String> {
    let network = is_network(&address["address"], "address")?;
    optional(&address["gateway"], "gateway", is_address)?;
    let index = &address["interface"];
    let within = index
        .as_u64()
        .is_some_and(|index| index < interfaces as u64);
    if !index.is_null() && !within {
        return Err(format!(
            "\"interface\" is an index of \"interfaces\": {address}"
        ));
    }
    let family = if network.is_ipv4() { "4" } else { "6" };
    let expected = (version < "1.0.0").then_some(family);
    if address["version"].as_str() != expected {
        return Err(format!(
            "\"version\" of an address is \"4\" or \"6\" before 1.0.0, and absent from there on: {address}"
        ));
    }
    Ok(())
}

fn check_routes(routes: &[Value]) -> Result<(), String> {
    for route in routes {
        is_network(&route["dst"], "dst")?;
        optional(&route["gw"], "gw", is_address)?;
    }
    Ok(())
}

fn optional<T>(
    value: &Value,
    key: &str,
    check: fn(&Value, &str) -> Result<T, String>,
) -> Result<(), String> {
    if value.is_null() || value.as_str() == Some("") {
        return Ok(());
    }
    check(value, key).map(drop)
}

fn is_address(value: &Value, key: &str) -> Result<IpAddr, String> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{key:?} is an address: {value}"))
}

/// An address with its prefix length.
fn is_network(value: &Value, key: &str) -> Result<IpAddr, String> {
    let parse = |text: &str| {
        let (address, length) = text.split_once('/')?;
        let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(address)
    };
    let parsed = value.as_str().and_then(parse);
    parsed.ok_or_else(|| format!("{key:?} is an address with its prefix length: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shape(result: Value, version: &str) -> Result<(), String> {
        check(result.as_object().expect("an object"), version)
    }

    #[test]
    fn results_of_the_specification_are_right() {
        let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]}});
        assert_eq!(shape(old, "0.2.0"), Ok(()));
        let new = |version: &str, family: Value| {
            json!({
                "cniVersion": version,
                "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a"}],
                "ips": [{"address": "fd00::2/64", "gateway": "fd00::1", "interface": 0, "version": family}],
                "routes": [{"dst": "::/0", "gw": "fd00::1"}], "dns": {}
            })
        };
        assert_eq!(shape(new("0.4.0", json!("6")), "0.4.0"), Ok(()));
        assert_eq!(shape(new("1.1.0", Value::Null), "1.1.0"), Ok(()));
        for (version, family) in [
            ("0.4.0", json!("4")),
            ("0.4.0", Value::Null),
            ("1.0.0", json!("6")),
        ] {
            let result = new(version, family);
            shape(result.clone(), version).expect_err(&result.to_string());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (json!({"cniVersion": "1.0.0"}), "1.1.0", "cniVersion"),
            (json!({"cniVersion": "0.2.0", "ips": []}), "0.2.0", "0.3.0"),
            (
                json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2"}}),
                "0.2.0",
                "ip4.ip",
            ),
            (
                json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/33"}]}),
                "1.1.0",
                "address",
            ),
            (
                json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24", "interface": 0}]}),
                "1.1.0",
                "interface",
            ),
            (json!({"cniVersion": "1.1.0", "ips": {}}), "1.1.0", "ips"),
            (
                json!({"cniVersion": "1.1.0", "interfaces": [{"mac": "x"}]}),
                "1.1.0",
                "name",
            ),
            (
                json!({"cniVersion": "1.1.0", "routes": [{"dst": "everywhere"}]}),
                "1.1.0",
                "dst",
            ),
        ];
        for (result, version, named) in cases {
            let how = shape(result.clone(), version).expect_err(&result.to_string());
            assert!(how.contains(named), "{result}: {how}");
        }
    }
}
