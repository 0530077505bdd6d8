//! Values that several plugins' configurations have in common.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use cni_conf::addr::{self, MacAddr};
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::{Attachment, Request};
use cni_conf::result::Dns;
use ipnet::IpNet;
use serde::Deserialize;

/// Smallest and largest MTU of a veth device in bytes (`ETH_MIN_MTU` and `ETH_MAX_MTU` of the kernel).
const MTU: RangeInclusive<i64> = 68..=65535;

/// `mtu`: bytes, or 0 for the kernel's default.
pub fn mtu(mtu: i64) -> Result<Option<u32>, Error> {
    match mtu {
        0 => Ok(None),
        mtu if MTU.contains(&mtu) => Ok(u32::try_from(mtu).ok()),
        mtu => Err(FieldError::new(
            "mtu",
            mtu,
            "an MTU is 68 to 65535 bytes, or 0 for the kernel's default",
        )
        .into()),
    }
}

/// A MAC address that an interface can have. `source` says where the text comes from.
pub fn mac(source: &str, text: &str) -> Result<MacAddr, Error> {
    let mac: MacAddr = text
        .parse()
        .map_err(|error| Error::config(format!("{source}: {error}")))?;
    if !mac.is_unicast() {
        return Err(Error::config(format!(
            "{source}: {mac} is a group or zero address, no interface can have it"
        ))
        .with_details("the lowest bit of a MAC address's first byte must be 0"));
    }
    Ok(mac)
}

/// The MAC address that somebody asked for: `runtimeConfig.mac`, else `args.cni.mac`, else `MAC` in `CNI_ARGS`, else `mac`.
/// ADD and CHECK pass the attachment, whose arguments count too.
pub fn requested_mac(
    request: &Request,
    attachment: Option<&Attachment>,
) -> Result<Option<MacAddr>, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Wire {
        mac: String,
        args: Args,
        runtime_config: Mac,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Args {
        cni: Mac,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Mac {
        mac: String,
    }
    let wire: Wire = json::from_value(&request.conf)?;
    let argument = attachment.and_then(|attachment| attachment.args.get("MAC"));
    let sources = [
        ("runtimeConfig.mac", wire.runtime_config.mac.as_str()),
        ("args.cni.mac", wire.args.cni.mac.as_str()),
        ("CNI_ARGS MAC", argument.unwrap_or_default()),
        ("mac", wire.mac.as_str()),
    ];
    let asked = sources.into_iter().find(|(_, text)| !text.is_empty());
    asked
        .map(|(source, text)| self::mac(source, text))
        .transpose()
}

/// `dataDir`: where a plugin keeps its files, `default` if the configuration does not say. Read apart, since DEL and GC
/// must work when the rest is invalid by now.
pub fn data_dir(request: &Request, default: &str) -> Result<PathBuf, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Place {
        data_dir: String,
    }
    let place: Place = json::from_value(&request.conf)?;
    match place.data_dir.as_str() {
        "" => Ok(default.into()),
        dir if Path::new(dir).is_absolute() => Ok(dir.into()),
        dir => Err(FieldError::new("dataDir", dir, "is no absolute path").into()),
    }
}

/// `dns`: absent keys are told from empty lists.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsConf {
    nameservers: Option<Vec<String>>,
    domain: String,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

impl DnsConf {
    /// What takes the place of the IPAM plugin's, as a whole, if anything was said. An empty list says something: that
    /// there are none.
    pub fn replacement(self) -> Option<Dns> {
        let lists = [&self.nameservers, &self.search, &self.options];
        let is_set = lists.iter().any(|list| list.is_some()) || !self.domain.is_empty();
        is_set.then(|| Dns {
            nameservers: self.nameservers.unwrap_or_default(),
            domain: self.domain,
            search: self.search.unwrap_or_default(),
            options: self.options.unwrap_or_default(),
        })
    }
}

/// A prefix, its host bits dropped. `path` says where the text comes from.
pub fn prefix(path: &str, text: &str) -> Result<IpNet, FieldError> {
    let expected = "a CIDR like \"10.0.0.0/8\" or \"fd00::/8\" is expected";
    addr::parse_net(path, text, expected).map(|prefix| prefix.trunc())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn dns_with_any_key_replaces_that_of_ipam() {
        let replacement = |conf: Value| {
            let conf: DnsConf = json::from_value(&conf).unwrap();
            conf.replacement()
        };
        for nothing in [
            json!({}),
            json!({"domain": ""}),
            json!({"nameservers": null, "search": null}),
        ] {
            assert_eq!(replacement(nothing.clone()), None, "{nothing}");
        }
        for key in ["nameservers", "search", "options"] {
            assert_eq!(replacement(json!({key: []})), Some(Dns::default()), "{key}");
        }
        let domain = replacement(json!({"domain": "example.org"})).unwrap();
        assert_eq!(domain.domain, "example.org");
    }
}
