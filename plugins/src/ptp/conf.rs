//! Configuration of the `ptp` plugin.

use cni_conf::error::Error;
use cni_conf::json;
use cni_conf::names::PluginName;
use cni_conf::request::Request;
use cni_conf::result::Dns;
use serde::Deserialize;

use crate::attach::ipam::IpamConf;
use crate::attach::masq;
use crate::attach::settings::{self, DnsConf};

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    mtu: i64,
    dns: DnsConf,
    ipam: IpamConf,
}

/// The configuration, validated and complete.
#[derive(Debug)]
pub(super) struct Settings {
    /// In bytes; `None` for the kernel's default.
    pub(super) mtu: Option<u32>,
    /// Takes the place of the IPAM plugin's.
    pub(super) dns: Option<Dns>,
    pub(super) ipam: IpamConf,
    /// How the containers are masqueraded, if they are.
    pub(super) masquerade: Option<masq::Settings>,
    /// The name in `ipam`.
    pub(super) ipam_plugin: PluginName,
}

impl Settings {
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let Some(ipam_plugin) = wire.ipam.plugin()? else {
            return Err(Error::config("field \"ipam.type\" is missing: ptp routes to addresses, and has none to give")
                .with_details("add an \"ipam\" section, such as {\"type\": \"host-local\", \"subnet\": \"10.1.0.0/24\"}"));
        };
        Ok(Self {
            mtu: settings::mtu(wire.mtu)?,
            dns: wire.dns.replacement(),
            ipam: wire.ipam,
            masquerade: masq::Settings::read(request)?,
            ipam_plugin,
        })
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(mut conf: Value) -> Result<Settings, Error> {
        if conf.get("ipam").is_none() {
            conf["ipam"] = json!({"type": "host-local"});
        }
        Settings::read(&Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "ptp".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn everything_but_ipam_may_be_left_out() {
        let settings = read(json!({})).unwrap();
        assert!(settings.mtu.is_none() && settings.dns.is_none());
        assert_eq!(settings.ipam_plugin.as_str(), "host-local");
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field, value) in [
            (json!({"mtu": 67}), "mtu", "67"),
            (json!({"mtu": "1500"}), "mtu", "1500"),
            (json!({"ipMasqBackend": "pf"}), "ipMasqBackend", "pf"),
            (json!({"ipam": {}}), "ipam.type", "missing"),
            (json!({"ipam": {"type": ""}}), "ipam.type", "missing"),
            (json!({"ipam": {"type": "a/b"}}), "ipam.type", "a/b"),
            (json!({"dns": {"nameservers": "x"}}), "dns.nameservers", "x"),
        ] {
            let error = read(conf.clone()).unwrap_err().to_string();
            assert!(
                error.contains(field) && error.contains(value),
                "{conf}: {error}"
            );
        }
    }
}
