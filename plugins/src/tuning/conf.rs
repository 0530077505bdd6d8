//! Configuration of the `tuning` plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, Request};
use serde::Deserialize;

use super::attributes::Attributes;
use crate::attach::settings;
use crate::host::Sysctl;

/// Where the values from before are saved if the configuration does not say. The Go plugin's place.
const DEFAULT_DATA_DIR: &str = "/run/cni/tuning";

/// Smallest MTU in bytes (`ETH_MIN_MTU` of the kernel); the largest depends on the device.
const MTU_MIN: i64 = 68;

/// Stands for the interface's name in the name of a sysctl.
const PLACEHOLDER: &str = "IFNAME";

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    sysctl: BTreeMap<String, String>,
    mac: Option<String>,
    mtu: Option<i64>,
    promisc: Option<bool>,
    allmulti: Option<bool>,
    tx_q_len: Option<i64>,
    runtime_config: WireMac,
    args: WireArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireMac {
    mac: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireArgs {
    cni: WireTuning,
}

/// What a runtime may give in `args.cni`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireTuning {
    sysctl: BTreeMap<String, String>,
    mac: Option<String>,
    mtu: Option<i64>,
    promisc: Option<bool>,
    allmulti: Option<bool>,
    tx_q_len: Option<i64>,
}

/// One sysctl and the value it is to have.
#[derive(Debug)]
pub(super) struct Setting {
    /// As the configuration spells it.
    pub(super) name: String,
    pub(super) sysctl: Sysctl,
    pub(super) value: String,
}

/// The configuration, validated and complete.
#[derive(Debug)]
pub(super) struct Settings {
    /// In the order of their names.
    pub(super) sysctls: Vec<Setting>,
    pub(super) attributes: Attributes,
}

impl Settings {
    /// Reads the configuration of a request. ADD and CHECK pass the attachment, whose arguments count too.
    pub(super) fn read(request: &Request, attachment: Option<&Attachment>) -> Result<Self, Error> {
        let mut wire: Wire = json::from_value(&request.conf)?;
        let args = std::mem::take(&mut wire.args.cni);
        let mac = requested_mac(&wire, args.mac.as_deref(), attachment)?;
        wire.sysctl.extend(args.sysctl);
        let ifname = attachment.map(|attachment| &attachment.ifname);
        let attributes = Attributes {
            mac,
            mtu: mtu(args.mtu.or(wire.mtu))?,
            // False means "leave it alone" to the Go plugin.
            promisc: args.promisc.or(wire.promisc).filter(|on| *on),
            allmulti: args.allmulti.or(wire.allmulti),
            tx_queue_len: tx_queue_len(args.tx_q_len.or(wire.tx_q_len))?,
        };
        Ok(Self {
            sysctls: sysctls(wire.sysctl, ifname)?,
            attributes,
        })
    }
}

/// Where the values from before are saved.
pub(super) fn data_dir(request: &Request) -> Result<PathBuf, Error> {
    settings::data_dir(request, DEFAULT_DATA_DIR)
}

fn mtu(mtu: Option<i64>) -> Result<Option<u32>, Error> {
    match mtu {
        None | Some(0) => Ok(None),
        Some(mtu) => match u32::try_from(mtu) {
            Ok(valid) if mtu >= MTU_MIN => Ok(Some(valid)),
            _ => Err(FieldError::new(
                "mtu",
                mtu,
                "an MTU has at least 68 bytes; 0 leaves it alone",
            )
            .into()),
        },
    }
}

fn tx_queue_len(packets: Option<i64>) -> Result<Option<u32>, Error> {
    let Some(packets) = packets else {
        return Ok(None);
    };
    u32::try_from(packets)
        .map(Some)
        .map_err(|_| FieldError::new("txQLen", packets, "is no number of packets").into())
}

/// `args.cni` counts most, then the runtime's word, CNI_ARGS, and the configuration itself: the Go plugin's order.
fn requested_mac(
    wire: &Wire,
    from_args: Option<&str>,
    attachment: Option<&Attachment>,
) -> Result<Option<MacAddr>, Error> {
    let sources = [
        ("field \"args.cni.mac\"", from_args),
        (
            "field \"runtimeConfig.mac\"",
            wire.runtime_config.mac.as_deref(),
        ),
        (
            "CNI_ARGS MAC",
            attachment.and_then(|attachment| attachment.args.get("MAC")),
        ),
        ("field \"mac\"", wire.mac.as_deref()),
    ];
    sources
        .into_iter()
        .find_map(|(source, text)| Some((source, text.filter(|text| !text.is_empty())?)))
        .map(|(source, text)| settings::mac(source, text))
        .transpose()
}

fn sysctls(
    wanted: BTreeMap<String, String>,
    ifname: Option<&IfName>,
) -> Result<Vec<Setting>, Error> {
    let mut settings: Vec<Setting> = Vec::new();
    for (name, value) in wanted {
        let field = || format!("sysctl.{name}");
        let sysctl = parse(&name, ifname).map_err(|error| {
            Error::config(format!("field \"{}\": {error}", field()))
                .with_details("name it like \"net.ipv4.conf.IFNAME.arp_notify\"; only settings under net are the container's own")
        })?;
        if let Some(other) = settings.iter().find(|other| other.sysctl == sysctl) {
            return Err(FieldError::new(
                field(),
                &value,
                format!("is the same as {:?}", other.name),
            )
            .into());
        }
        settings.push(Setting {
            name,
            sysctl,
            value,
        });
    }
    Ok(settings)
}

fn parse(name: &str, ifname: Option<&IfName>) -> Result<Sysctl, crate::host::HostError> {
    let Some(ifname) = ifname else {
        return Sysctl::parse(name);
    };
    let by_dots = name
        .find(['.', '/'])
        .is_some_and(|at| name[at..].starts_with('.'));
    let spelt = if by_dots {
        ifname.as_str().replace('.', "/")
    } else {
        ifname.to_string()
    };
    Sysctl::parse(&name.replacen(PLACEHOLDER, &spelt, 1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cni_conf::request::CniArgs;
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn request(conf: Value) -> Request {
        Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "tuning".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        }
    }

    fn read_as(conf: Value, ifname: &str, args: &str) -> Result<Settings, Error> {
        let attachment = Attachment {
            container: "c1".try_into().unwrap(),
            ifname: ifname.try_into().unwrap(),
            netns: None,
            args: CniArgs::parse(args).unwrap(),
            netns_override: false,
        };
        Settings::read(&request(conf), Some(&attachment))
    }

    fn read(conf: Value) -> Result<Settings, Error> {
        read_as(conf, "eth0", "")
    }

    #[test]
    fn an_empty_configuration_changes_nothing() {
        let settings = read(json!({})).unwrap();
        assert!(settings.sysctls.is_empty() && settings.attributes.is_empty());
        assert_eq!(
            data_dir(&request(json!({}))).unwrap(),
            Path::new("/run/cni/tuning")
        );
    }

    #[test]
    fn zero_mtu_and_promisc_false_leave_things_alone() {
        assert!(
            read(json!({"mtu": 0, "promisc": false}))
                .unwrap()
                .attributes
                .is_empty()
        );
        let settings = read(json!({"allmulti": false, "txQLen": 0})).unwrap();
        assert_eq!(settings.attributes.allmulti, Some(false));
        assert_eq!(settings.attributes.tx_queue_len, Some(0));
    }

    #[test]
    fn args_win_over_the_runtime_and_that_over_cni_args_and_the_configuration() {
        let mut conf = json!({
            "args": {"cni": {"mac": "02:00:00:00:00:04"}},
            "runtimeConfig": {"mac": "02:00:00:00:00:03"},
            "mac": "02:00:00:00:00:01",
        });
        let mac = |conf: &Value, args| {
            let settings = read_as(conf.clone(), "eth0", args).unwrap();
            settings.attributes.mac.unwrap().bytes()[5]
        };
        let args = "MAC=02:00:00:00:00:02";
        assert_eq!(mac(&conf, args), 4);
        conf["args"] = json!(null);
        assert_eq!(mac(&conf, args), 3);
        conf["runtimeConfig"] = json!({"mac": ""});
        assert_eq!(mac(&conf, args), 2);
        assert_eq!(mac(&conf, ""), 1);
    }

    #[test]
    fn args_change_single_settings() {
        let settings = read(json!({
            "sysctl": {"net.core.somaxconn": "1", "net.ipv4.ip_forward": "1"}, "mtu": 1500, "promisc": true,
            "args": {"cni": {"sysctl": {"net.core.somaxconn": "2"}, "mtu": 1400, "promisc": false, "allmulti": true}},
        }))
        .unwrap();
        let values: Vec<_> = settings
            .sysctls
            .iter()
            .map(|setting| setting.value.as_str())
            .collect();
        assert_eq!(values, ["2", "1"]);
        assert_eq!(settings.attributes.mtu, Some(1400));
        assert_eq!(
            (settings.attributes.promisc, settings.attributes.allmulti),
            (None, Some(true))
        );
    }

    #[test]
    fn ifname_stands_for_the_interface_in_either_spelling() {
        for name in [
            "net.ipv4.conf.IFNAME.arp_filter",
            "net/ipv4/conf/IFNAME/arp_filter",
        ] {
            let settings = read_as(json!({"sysctl": {name: "1"}}), "eth0.10", "").unwrap();
            assert_eq!(
                settings.sysctls[0].sysctl,
                Sysctl::ipv4_conf("eth0.10", "arp_filter"),
                "{name}"
            );
        }
    }

    #[test]
    fn sysctls_outside_the_network_namespace_are_refused() {
        for name in [
            "kernel.core_pattern",
            "net",
            "",
            "../net/x",
            "net/../kernel/core_pattern",
            "net/ipv4/../../kernel/core_pattern",
            "net.//.//.kernel.core_pattern",
            "/proc/sys/net/x",
        ] {
            let error = read(json!({"sysctl": {name: "x"}})).unwrap_err();
            assert!(
                error.msg.contains(name) && !error.details.is_empty(),
                "{error}"
            );
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field, value) in [
            (json!({"mtu": 67}), "mtu", "67"),
            (json!({"mtu": -1}), "mtu", "-1"),
            (json!({"args": {"cni": {"mtu": 1}}}), "mtu", "1"),
            (json!({"txQLen": -1}), "txQLen", "-1"),
            (json!({"promisc": "yes"}), "promisc", "yes"),
            (json!({"mac": "zz"}), "mac", "zz"),
            (json!({"mac": "ff:ff:ff:ff:ff:ff"}), "mac", "ff:ff"),
            (
                json!({"sysctl": {"net.core.somaxconn": 5}}),
                "sysctl.net.core.somaxconn",
                "5",
            ),
            (
                json!({"sysctl": ["net.core.somaxconn"]}),
                "sysctl",
                "somaxconn",
            ),
            (
                json!({"sysctl": {"net.core.somaxconn": "1", "net/core/somaxconn": "2"}}),
                "net/core/somaxconn",
                "net.core.somaxconn",
            ),
        ] {
            let error = read(conf.clone()).unwrap_err().to_string();
            assert!(
                error.contains(field) && error.contains(value),
                "{conf}: {error}"
            );
        }
        let error = data_dir(&request(json!({"dataDir": "x/y"}))).unwrap_err();
        assert!(error.msg.contains("dataDir") && error.msg.contains("x/y"));
    }
}
