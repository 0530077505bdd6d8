//! Configuration of the `bandwidth` plugin.

use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::Request;
use ipnet::IpNet;
use serde::Deserialize;

use crate::attach::settings;

/// The JSON as it comes. Rates are in bits a second, bursts in bits.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
    unshaped_subnets: Option<Vec<String>>,
    shaped_subnets: Option<Vec<String>>,
}

/// What limits one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// In bytes a second.
    pub(super) rate: u64,
    /// In bytes.
    pub(super) burst: u32,
}

/// Whose traffic is limited, by the address at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    Everyone,
    AllBut(Vec<IpNet>),
    Only(Vec<IpNet>),
}

/// The configuration, validated and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// For what the container receives.
    pub(super) ingress: Option<Limit>,
    /// For what the container sends.
    pub(super) egress: Option<Limit>,
    pub(super) scope: Scope,
}

impl Settings {
    /// Reads the configuration of a request. Limits that it sets itself count; `runtimeConfig.bandwidth` does where it
    /// sets none, so that a pod's annotation can't lift what the administrator wrote. That is the Go plugin's order.
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Outer {
            runtime_config: Runtime,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Runtime {
            bandwidth: Option<Wire>,
        }
        let own: Wire = json::from_value(&request.conf)?;
        let outer: Outer = json::from_value(&request.conf)?;
        if own.is_empty()
            && let Some(wire) = outer.runtime_config.bandwidth
        {
            return wire.settings("runtimeConfig.bandwidth.");
        }
        own.settings("")
    }

    /// True if nothing is limited.
    pub(super) fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

impl Wire {
    fn is_empty(&self) -> bool {
        let numbers = [
            self.ingress_rate,
            self.ingress_burst,
            self.egress_rate,
            self.egress_burst,
        ];
        numbers.iter().all(Option::is_none)
            && self.unshaped_subnets.is_none()
            && self.shaped_subnets.is_none()
    }

    fn settings(self, path: &str) -> Result<Settings, Error> {
        Ok(Settings {
            ingress: limit(path, "ingress", self.ingress_rate, self.ingress_burst)?,
            egress: limit(path, "egress", self.egress_rate, self.egress_burst)?,
            scope: scope(
                path,
                self.unshaped_subnets.unwrap_or_default(),
                self.shaped_subnets.unwrap_or_default(),
            )?,
        })
    }
}

fn limit(
    path: &str,
    direction: &str,
    rate: Option<u64>,
    burst: Option<u64>,
) -> Result<Option<Limit>, Error> {
    let field = |what: &str| format!("{path}{direction}{what}");
    let invalid = |what, value: u64, problem: &str| FieldError::new(field(what), value, problem);
    let (rate, burst) = (rate.unwrap_or_default(), burst.unwrap_or_default());
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (rate, 0) => {
            return Err(
                Error::from(invalid("Rate", rate, "there is no burst to go with it"))
                    .with_details(format!("set \"{}\" too, in bits", field("Burst"))),
            );
        }
        (0, burst) => {
            return Err(
                Error::from(invalid("Burst", burst, "there is no rate to go with it"))
                    .with_details(format!("set \"{}\" too, in bits a second", field("Rate"))),
            );
        }
        _ => {}
    }
    let bytes = rate / 8;
    if bytes == 0 {
        return Err(invalid("Rate", rate, "rates are in bits a second, 8 at least").into());
    }
    match u32::try_from(burst / 8) {
        Ok(0) => Err(invalid("Burst", burst, "bursts are in bits, 8 at least").into()),
        Ok(burst) => Ok(Some(Limit { rate: bytes, burst })),
        Err(_) => Err(invalid(
            "Burst",
            burst,
            "bursts are in bits, and the kernel takes less than 4 GiB",
        )
        .into()),
    }
}

fn scope(path: &str, unshaped: Vec<String>, shaped: Vec<String>) -> Result<Scope, Error> {
    if !unshaped.is_empty() && !shaped.is_empty() {
        return Err(Error::config(format!(
            "\"{path}unshapedSubnets\" and \"{path}shapedSubnets\" can't both be set"
        ))
        .with_details("limit everything but the former, or nothing but the latter: remove one"));
    }
    let prefixes = |key: &str, texts: Vec<String>| {
        let prefix =
            |(i, text): (usize, String)| settings::prefix(&format!("{path}{key}[{i}]"), &text);
        texts
            .into_iter()
            .enumerate()
            .map(prefix)
            .collect::<Result<Vec<IpNet>, FieldError>>()
    };
    Ok(match (unshaped.is_empty(), shaped.is_empty()) {
        (false, _) => Scope::AllBut(prefixes("unshapedSubnets", unshaped)?),
        (_, false) => Scope::Only(prefixes("shapedSubnets", shaped)?),
        _ => Scope::Everyone,
    })
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(conf: Value) -> Result<Settings, Error> {
        Settings::read(&Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "bandwidth".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn nothing_is_limited_unless_asked_for() {
        for conf in [
            json!({}),
            json!({"ingressRate": 0, "ingressBurst": 0}),
            json!({"runtimeConfig": {"bandwidth": {}}}),
            json!({"runtimeConfig": {"bandwidth": null}}),
        ] {
            assert!(read(conf.clone()).unwrap().is_empty(), "{conf}");
        }
    }

    #[test]
    fn bits_become_bytes() {
        let settings = read(json!({"ingressRate": 8_000_000, "ingressBurst": 80_000})).unwrap();
        let limit = Limit {
            rate: 1_000_000,
            burst: 10_000,
        };
        assert_eq!((settings.ingress, settings.egress), (Some(limit), None));
        assert_eq!(settings.scope, Scope::Everyone);
        // What containerd makes of a pod's annotation.
        let unlimited = json!({"egressRate": 1_000_000, "egressBurst": u32::MAX});
        let settings = read(json!({"runtimeConfig": {"bandwidth": unlimited}})).unwrap();
        assert_eq!(settings.egress.unwrap().burst, u32::MAX / 8);
    }

    #[test]
    fn the_configurations_own_limits_count_before_the_runtimes() {
        let runtime = json!({"bandwidth": {"ingressRate": 16, "ingressBurst": 16}});
        let settings = read(json!({"ingressRate": 8, "ingressBurst": 8, "runtimeConfig": runtime}));
        assert_eq!(settings.unwrap().ingress.unwrap().rate, 1);
        let settings = read(json!({"RuntimeConfig": runtime}));
        assert_eq!(settings.unwrap().ingress.unwrap().rate, 2);
    }

    #[test]
    fn subnets_say_whose_traffic_is_limited() {
        let scope = |conf| read(conf).unwrap().scope;
        assert_eq!(
            scope(json!({"unshapedSubnets": ["10.1.2.3/8", "fd00::/8"]})),
            Scope::AllBut(vec![
                "10.0.0.0/8".parse().unwrap(),
                "fd00::/8".parse().unwrap()
            ])
        );
        assert_eq!(
            scope(json!({"shapedSubnets": ["10.1.0.0/16"], "unshapedSubnets": []})),
            Scope::Only(vec!["10.1.0.0/16".parse().unwrap()])
        );
    }

    #[test]
    fn bad_values_are_named() {
        let rate = |bits: u64| json!({"ingressRate": bits, "ingressBurst": 8000});
        for (conf, field, value) in [
            (json!({"ingressRate": 100}), "ingressRate", "100"),
            (json!({"ingressBurst": 100}), "ingressBurst", "100"),
            (
                json!({"egressRate": 100, "egressBurst": 0}),
                "egressRate",
                "100",
            ),
            (rate(7), "ingressRate", "7"),
            (
                json!({"egressRate": 8, "egressBurst": 1}),
                "egressBurst",
                "1",
            ),
            (
                json!({"egressRate": 8, "egressBurst": 34_359_738_368_u64}),
                "egressBurst",
                "34359738368",
            ),
            (json!({"ingressRate": -1}), "ingressRate", "-1"),
            (json!({"ingressRate": "1M"}), "ingressRate", "1M"),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 5}}}),
                "runtimeConfig.bandwidth.ingressRate",
                "5",
            ),
            (
                json!({"shapedSubnets": ["10.0.0.1"]}),
                "shapedSubnets[0]",
                "10.0.0.1",
            ),
            (
                json!({"shapedSubnets": ["10.0.0.0/8"], "unshapedSubnets": ["10.0.0.0/8"]}),
                "unshapedSubnets",
                "shapedSubnets",
            ),
        ] {
            let error = read(conf.clone()).unwrap_err().to_string();
            assert!(
                error.contains(field) && error.contains(value),
                "{conf}: {error}"
            );
        }
    }
}
