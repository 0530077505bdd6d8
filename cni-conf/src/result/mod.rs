//! The result of ADD, kept in the shape of the newest specification and written in the one asked for.

mod legacy;
mod types;

use serde_json::{Map, Value, json};

use crate::json::{self, FieldError};
use crate::version::SpecVersion;

pub use self::types::{CniResult, Dns, Interface, IpConfig, Route};

impl CniResult {
    /// Reads a result of any version. `default_version` counts where the result has no `cniVersion` of its own.
    ///
    /// A result of another version than it claims is read by its shape, since runtimes convert with varying care.
    pub fn from_json(value: &Value, default_version: SpecVersion) -> Result<Self, FieldError> {
        let version = value
            .get("cniVersion")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default_version);
        if version < SpecVersion::V0_3_0 && value.get("ips").is_none() {
            return legacy::from_json(value);
        }
        json::from_value(value)
    }

    /// The JSON value of this result in `version`. What the version has no place for is left out.
    pub fn to_value(&self, version: SpecVersion) -> Value {
        let mut value = if version < SpecVersion::V0_3_0 {
            legacy::to_value(self)
        } else {
            serde_json::to_value(self).unwrap_or_default()
        };
        value["cniVersion"] = json!(version);
        if version < SpecVersion::V1_1_0 {
            for route in objects(&mut value, "routes") {
                route.retain(|key, _| matches!(key.as_str(), "dst" | "gw"));
            }
            for interface in objects(&mut value, "interfaces") {
                interface.retain(|key, _| matches!(key.as_str(), "name" | "mac" | "sandbox"));
            }
        }
        if version >= SpecVersion::V1_0_0 {
            // Older versions always have it, if only as an empty object.
            if let Some(result) = value.as_object_mut().filter(|_| self.dns.is_empty()) {
                result.remove("dns");
            }
        } else {
            for (ip, config) in objects(&mut value, "ips").zip(&self.ips) {
                let family = if config.address.addr().is_ipv4() {
                    "4"
                } else {
                    "6"
                };
                ip.insert("version".into(), family.into());
            }
        }
        value
    }

    /// The text of this result in `version`, as it goes to stdout.
    pub fn to_json(&self, version: SpecVersion) -> String {
        serde_json::to_string_pretty(&self.to_value(version)).unwrap_or_default()
    }
}

fn objects<'a>(
    value: &'a mut Value,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> + use<'a> {
    value
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> CniResult {
        CniResult {
            interfaces: vec![
                Interface {
                    name: "cni0".into(),
                    mac: "0a:58:0a:01:00:01".into(),
                    mtu: 1500,
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    sandbox: "/run/netns/a".into(),
                    ..Interface::default()
                },
            ],
            ips: vec![
                IpConfig {
                    interface: Some(1),
                    address: "10.1.0.2/24".parse().unwrap(),
                    gateway: Some("10.1.0.1".parse().unwrap()),
                },
                IpConfig {
                    interface: Some(1),
                    address: "fd00::2/64".parse().unwrap(),
                    gateway: None,
                },
            ],
            routes: vec![Route {
                mtu: Some(1400),
                priority: Some(0),
                ..Route::new(
                    "0.0.0.0/0".parse().unwrap(),
                    Some("10.1.0.1".parse().unwrap()),
                )
            }],
            dns: Dns {
                nameservers: vec!["10.1.0.1".into()],
                ..Dns::default()
            },
        }
    }

    #[test]
    fn the_newest_version_keeps_everything() {
        let value = full().to_value(SpecVersion::V1_1_0);
        assert_eq!(
            CniResult::from_json(&value, SpecVersion::V0_1_0).unwrap(),
            full()
        );
        assert_eq!(
            value["routes"][0],
            json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "priority": 0})
        );
        assert_eq!(value["interfaces"][0]["mtu"], 1500);
    }

    #[test]
    fn version_1_0_0_has_no_attributes_of_1_1_0() {
        let value = full().to_value(SpecVersion::V1_0_0);
        assert_eq!(
            value["routes"][0],
            json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1"})
        );
        assert_eq!(
            value["interfaces"][0],
            json!({"name": "cni0", "mac": "0a:58:0a:01:00:01"})
        );
        assert_eq!(value["ips"][0].get("version"), None);
    }

    #[test]
    fn versions_before_1_0_0_tell_the_family_of_each_address() {
        for version in [
            SpecVersion::V0_3_0,
            SpecVersion::V0_3_1,
            SpecVersion::V0_4_0,
        ] {
            let value = full().to_value(version);
            assert_eq!(value["cniVersion"], version.as_str());
            assert_eq!(value["ips"][0]["version"], "4");
            assert_eq!(value["ips"][1]["version"], "6");
        }
    }

    #[test]
    fn every_version_reads_back_what_it_can_hold() {
        for version in SpecVersion::ALL {
            let value = full().to_value(version);
            let read = CniResult::from_json(&value, version).unwrap();
            assert_eq!(read.to_value(version), value, "{version}");
            assert_eq!(read.ips.len(), 2, "{version}");
        }
    }

    #[test]
    fn empty_resolver_settings_are_written_as_the_go_plugin_does() {
        let dns = |version| CniResult::default().to_value(version).get("dns").cloned();
        assert_eq!(dns(SpecVersion::V0_2_0), Some(json!({})));
        assert_eq!(dns(SpecVersion::V0_4_0), Some(json!({})));
        assert_eq!(dns(SpecVersion::V1_0_0), None);
    }

    #[test]
    fn odd_but_harmless_spellings_are_read() {
        let value = json!({
            "IPs": [{"Interface": -1, "Address": "10.0.0.1/8", "gateway": ""}],
            "dns": null, "interfaces": null,
        });
        let result = CniResult::from_json(&value, SpecVersion::V1_0_0).unwrap();
        assert_eq!(
            (result.ips[0].interface, result.ips[0].gateway),
            (None, None)
        );
    }

    #[test]
    fn leading_zeros_are_named_in_the_error() {
        for (value, field) in [
            (
                json!({"ips": [{"address": "10.01.0.2/24"}]}),
                "ips[0].address",
            ),
            (
                json!({"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.01"}]}),
                "ips[0].gateway",
            ),
            (json!({"routes": [{"dst": "010.0.0.0/8"}]}), "routes[0].dst"),
            (
                json!({"routes": [{"dst": "10.0.0.0/8", "gw": "10.1.00.1"}]}),
                "routes[0].gw",
            ),
        ] {
            let error = CniResult::from_json(&value, SpecVersion::V1_0_0).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with(&format!("field \"{field}\"")), "{error}");
            assert!(error.contains("without leading zeros"), "{error}");
        }
    }

    #[test]
    fn an_address_without_prefix_is_named_in_the_error() {
        let value = json!({"ips": [{"address": "10.0.0.1"}]});
        let error = CniResult::from_json(&value, SpecVersion::V1_0_0)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("field \"ips[0].address\""), "{error}");
    }
}
