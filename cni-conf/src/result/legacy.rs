//! Results of CNI 0.1.0 and 0.2.0: at most one address of each family, no interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::types::{CniResult, Dns, IpConfig, Route};
use crate::addr::{self, optional_ip};
use crate::json::{self, FieldError};

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<Family>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<Family>,
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct Family {
    #[serde(deserialize_with = "addr::net")]
    ip: IpNet,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_ip"
    )]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

/// Reads the old shape into the new one.
pub(crate) fn from_json(value: &Value) -> Result<CniResult, FieldError> {
    let wire: Wire = json::from_value(value)?;
    let mut result = CniResult {
        dns: wire.dns,
        ..CniResult::default()
    };
    for family in [wire.ip4, wire.ip6].into_iter().flatten() {
        result.ips.push(IpConfig {
            interface: None,
            address: family.ip,
            gateway: family.gateway,
        });
        result.routes.extend(family.routes);
    }
    Ok(result)
}

/// Writes what the old shape can hold: the first address of each family with the routes of that family.
pub(crate) fn to_value(result: &CniResult) -> Value {
    let family = |ipv4: bool| {
        let ip = result
            .ips
            .iter()
            .find(|ip| ip.address.addr().is_ipv4() == ipv4)?;
        let routes = result
            .routes
            .iter()
            .filter(|route| route.dst.addr().is_ipv4() == ipv4);
        Some(Family {
            ip: ip.address,
            gateway: ip.gateway,
            routes: routes
                .map(|route| Route::new(route.dst, route.gw))
                .collect(),
        })
    };
    let wire = Wire {
        ip4: family(true),
        ip6: family(false),
        dns: result.dns.clone(),
    };
    serde_json::to_value(wire).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::result::CniResult;
    use crate::version::SpecVersion;

    #[test]
    fn the_old_shape_is_read_and_written() {
        let value = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
            "dns": {"nameservers": ["10.1.0.1"]},
        });
        let result = CniResult::from_json(&value, SpecVersion::V0_2_0).unwrap();
        assert_eq!(result.routes.len(), 2);
        assert_eq!(result.to_value(SpecVersion::V0_2_0), value);
    }
}
