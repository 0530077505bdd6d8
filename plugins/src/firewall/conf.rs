//! Configuration of the `firewall` plugin.

use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::Request;
use ipnet::IpNet;
use serde::Deserialize;

use crate::attach::settings;

/// The administrator's chain where the configuration names none. It is the Go plugin's, since people write to it.
const ADMIN_CHAIN: &str = "CNI-ADMIN";

/// firewalld's zone that lets everything through.
const TRUSTED_ZONE: &str = "trusted";

/// The longest name that iptables takes for a chain (`XT_EXTENSION_MAXNAMELEN` less the NUL).
const CHAIN_NAME_MAX: usize = 28;

/// Names that mean something else in iptables.
const NO_CHAINS: [&str; 9] = [
    "INPUT",
    "FORWARD",
    "OUTPUT",
    "PREROUTING",
    "POSTROUTING",
    "ACCEPT",
    "DROP",
    "RETURN",
    "REJECT",
];

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    backend: String,
    iptables_admin_chain_name: String,
    firewalld_zone: String,
    ingress_policy: String,
    #[serde(rename = "ingressCIDRs")]
    ingress_cidrs: Vec<String>,
}

/// `backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Absent or empty: what works on this host.
    Automatic,
    Iptables,
    Nftables,
    Firewalld,
}

/// `ingressPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Open,
    SameBridge,
    Isolated,
}

/// The configuration, validated and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) backend: Choice,
    /// The chain whose rules come before ours.
    pub(super) admin: String,
    /// Whether the configuration names that chain itself.
    pub(super) admin_is_named: bool,
    /// Where firewalld puts the addresses.
    pub(super) zone: String,
    pub(super) policy: Policy,
    /// Who may open connections to the containers, each address once.
    pub(super) ingress: Vec<IpNet>,
}

impl Settings {
    /// Reads the configuration of a request.
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        Ok(Self {
            backend: backend(&wire.backend)?,
            admin_is_named: !wire.iptables_admin_chain_name.is_empty(),
            admin: admin_chain(wire.iptables_admin_chain_name)?,
            zone: zone_name(wire.firewalld_zone)?,
            policy: policy(&wire.ingress_policy)?,
            ingress: prefixes(&wire.ingress_cidrs)?,
        })
    }
}

/// The zone that DEL takes addresses out of, as far as firewalld may have been used; also where the rest of the
/// configuration has become invalid.
pub(super) fn zone(request: &Request) -> Option<String> {
    let wire: Wire = json::from_value(&request.conf).unwrap_or_default();
    let elsewhere = matches!(
        backend(&wire.backend),
        Ok(Choice::Iptables | Choice::Nftables)
    );
    let zone = zone_name(wire.firewalld_zone).unwrap_or_else(|_| TRUSTED_ZONE.to_owned());
    (!elsewhere).then_some(zone)
}

fn backend(text: &str) -> Result<Choice, Error> {
    match text {
        "" => Ok(Choice::Automatic),
        "iptables" => Ok(Choice::Iptables),
        "nftables" => Ok(Choice::Nftables),
        "firewalld" => Ok(Choice::Firewalld),
        other => {
            let problem = "a backend is \"iptables\", \"nftables\" or \"firewalld\"; leave it out to have it chosen";
            Err(FieldError::new("backend", other, problem).into())
        }
    }
}

fn policy(text: &str) -> Result<Policy, Error> {
    match text {
        "" | "open" => Ok(Policy::Open),
        "same-bridge" => Ok(Policy::SameBridge),
        "isolated" => Ok(Policy::Isolated),
        other => {
            let problem = "a policy is \"open\", \"same-bridge\" or \"isolated\"";
            Err(FieldError::new("ingressPolicy", other, problem).into())
        }
    }
}

fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, Error> {
    let read = |(i, text): (usize, &String)| settings::prefix(&format!("ingressCIDRs[{i}]"), text);
    let prefixes = texts.iter().enumerate().map(read);
    let prefixes = prefixes.collect::<Result<Vec<_>, FieldError>>()?;
    // Overlaps would be rules that no packet gets to.
    Ok(IpNet::aggregate(&prefixes))
}

fn admin_chain(name: String) -> Result<String, Error> {
    if name.is_empty() {
        return Ok(ADMIN_CHAIN.to_owned());
    }
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let taken = NO_CHAINS.contains(&name.as_str()) || name.starts_with(super::iptables::PREFIX);
    if begins_well && plain && !taken && name.len() <= CHAIN_NAME_MAX {
        return Ok(name);
    }
    let problem = "a chain of the administrator's own has a name of 1 to 28 letters, digits, '-', '_' or '.', with a \
                   letter first";
    Err(FieldError::new("iptablesAdminChainName", name, problem).into())
}

fn zone_name(name: String) -> Result<String, Error> {
    if name.is_empty() {
        return Ok(TRUSTED_ZONE.to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c);
    if name.chars().all(plain) && !name.starts_with('-') {
        return Ok(name);
    }
    let problem = "a zone of firewalld has a name of letters, digits, '-', '_' or '/'";
    Err(FieldError::new("firewalldZone", name, problem).into())
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
            plugin: "firewall".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn an_empty_configuration_chooses_by_itself_and_is_open() {
        let expected = Settings {
            backend: Choice::Automatic,
            admin: "CNI-ADMIN".into(),
            admin_is_named: false,
            zone: "trusted".into(),
            policy: Policy::Open,
            ingress: Vec::new(),
        };
        assert_eq!(read(json!({})).unwrap(), expected);
        // Written by podman and by hand.
        assert_eq!(
            read(json!({"backend": "", "ingressPolicy": "", "iptablesAdminChainName": null}))
                .unwrap(),
            expected
        );
    }

    #[test]
    fn every_value_has_its_meaning() {
        for (conf, backend) in [
            (json!({"backend": "iptables"}), Choice::Iptables),
            (json!({"Backend": "nftables"}), Choice::Nftables),
            (json!({"backend": "firewalld"}), Choice::Firewalld),
        ] {
            assert_eq!(read(conf).unwrap().backend, backend);
        }
        for (policy, meaning) in [
            ("open", Policy::Open),
            ("same-bridge", Policy::SameBridge),
            ("isolated", Policy::Isolated),
        ] {
            assert_eq!(
                read(json!({"ingressPolicy": policy})).unwrap().policy,
                meaning
            );
        }
        let settings =
            read(json!({"iptablesAdminChainName": "MY_RULES.1", "firewalldZone": "work"})).unwrap();
        assert_eq!(
            (settings.admin.as_str(), settings.zone.as_str()),
            ("MY_RULES.1", "work")
        );
        assert!(settings.admin_is_named);
        let prefixes = json!(["10.244.0.0/16", "10.244.3.0/24", "10.1.2.3/8", "fd00::1/64"]);
        let ingress = read(json!({"ingressCIDRs": prefixes})).unwrap().ingress;
        let ingress: Vec<String> = ingress.iter().map(ToString::to_string).collect();
        assert_eq!(ingress, ["10.0.0.0/8", "fd00::/64"]);
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field, value) in [
            (json!({"backend": "pf"}), "backend", "pf"),
            (json!({"backend": 1}), "backend", "1"),
            (
                json!({"ingressPolicy": "closed"}),
                "ingressPolicy",
                "closed",
            ),
            (
                json!({"iptablesAdminChainName": "FORWARD"}),
                "iptablesAdminChainName",
                "FORWARD",
            ),
            (
                json!({"iptablesAdminChainName": "TRESTLE-FORWARD"}),
                "iptablesAdminChainName",
                "TRESTLE",
            ),
            (
                json!({"iptablesAdminChainName": "a b"}),
                "iptablesAdminChainName",
                "a b",
            ),
            (
                json!({"iptablesAdminChainName": "-X"}),
                "iptablesAdminChainName",
                "-X",
            ),
            (
                json!({"iptablesAdminChainName": "A".repeat(29)}),
                "iptablesAdminChainName",
                "AAA",
            ),
            (
                json!({"ingressCIDRs": ["10.0.0.0/33"]}),
                "ingressCIDRs",
                "10.0.0.0/33",
            ),
            (
                json!({"ingressCIDRs": ["10.0.0.1"]}),
                "ingressCIDRs",
                "10.0.0.1",
            ),
            (
                json!({"firewalldZone": "--reload"}),
                "firewalldZone",
                "--reload",
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
