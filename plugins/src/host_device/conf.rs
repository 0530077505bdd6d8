//! Configuration of the `host-device` plugin.

use std::path::{Component, Path, PathBuf};

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::Request;
use serde::Deserialize;

use crate::attach::interface::Common;
use crate::attach::settings;
use crate::host::Rtnl;
use crate::host::device::Device;
use crate::host::rtnl::Link;

/// The JSON as it comes, beside what other plugins have too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    device: String,
    hwaddr: String,
    kernelpath: String,
    #[serde(rename = "pciBusID")]
    pci_bus_id: String,
    use_interface_network: bool,
    runtime_config: WireRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireRuntime {
    #[serde(rename = "deviceID")]
    device_id: String,
}

/// How a configuration says which device is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// The interface of this name.
    Name(IfName),
    /// The one with this hardware address.
    Mac(MacAddr),
    /// That of the device in this directory of sysfs.
    Path(PathBuf),
    /// That of the device with this name on the PCI or the auxiliary bus.
    Bus(String),
}

/// The configuration, validated and complete.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) which: Which,
    /// The container gets the addresses and routes that the host has on it.
    pub(super) with_network: bool,
    pub(super) common: Common,
}

impl Settings {
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let settings = Self {
            which: which(&wire)?,
            with_network: wire.use_interface_network,
            common: Common::read(request)?,
        };
        Ok(settings)
    }
}

/// What the runtime says wins over what the configuration does; of that, the first in the order of the Go plugin.
fn which(wire: &Wire) -> Result<Which, Error> {
    let id = [&wire.runtime_config.device_id, &wire.pci_bus_id];
    let id = id.into_iter().find(|id| !id.is_empty());
    if !wire.device.is_empty() {
        let name = IfName::try_from(wire.device.as_str());
        return name
            .map(Which::Name)
            .map_err(|error| Error::config(format!("field \"device\": {error}")));
    }
    if !wire.hwaddr.is_empty() {
        return settings::mac("hwaddr", &wire.hwaddr).map(Which::Mac);
    }
    if !wire.kernelpath.is_empty() {
        let path = PathBuf::from(&wire.kernelpath);
        let inside = path.starts_with("/sys/devices")
            && path
                .components()
                .all(|part| !matches!(part, Component::ParentDir));
        return if inside {
            Ok(Which::Path(path))
        } else {
            let expected = "a path below /sys/devices is expected";
            Err(FieldError::new("kernelpath", format!("{:?}", wire.kernelpath), expected).into())
        };
    }
    match id {
        Some(id) => Ok(Which::Bus(id.clone())),
        None => Err(Error::config(
            "one of \"device\", \"hwaddr\", \"kernelpath\" and \"pciBusID\" must say which device is meant",
        )
        .with_details(
            "with \"capabilities\": {\"deviceID\": true} the runtime may say it, in runtimeConfig.deviceID",
        )),
    }
}

impl Which {
    /// The interface on the host; none if it is not there now.
    pub(super) fn find(&self, host: &Rtnl) -> Result<Option<Link>, Error> {
        let of_device = |device: &Device, what: &Path| {
            let names = device.interfaces().map_err(|error| {
                Error::new(
                    Code::Io,
                    format!("look for interfaces of {}: {error}", what.display()),
                )
            })?;
            let found = names
                .iter()
                .find_map(|name| host.link_by_name(name).transpose());
            Ok::<_, Error>(found.transpose()?)
        };
        match self {
            Self::Name(name) => Ok(host.link_by_name(name.as_str())?),
            Self::Mac(mac) => {
                let links = host.links()?.into_iter();
                let mut links =
                    links.filter(|link| link.mac == Some(mac.bytes()) && !link.loopback);
                // What stands on a device has its address, too.
                let first = links.next();
                let hardware = links.find(|link| link.kind.is_none());
                Ok(match first {
                    Some(first) if first.kind.is_some() => hardware.or(Some(first)),
                    first => first,
                })
            }
            Self::Path(path) => of_device(&Device::in_directory(path), path),
            Self::Bus(id) => match Device::on_a_bus(id) {
                Some(device) => of_device(&device, Path::new(id)),
                None => Ok(None),
            },
        }
    }

    /// Whether a program drives the device by itself, so that it has no interface to move.
    pub(super) fn is_driven_by_a_program(&self) -> bool {
        match self {
            Self::Bus(id) => Device::on_a_bus(id).is_some_and(|it| it.is_driven_by_a_program()),
            _ => false,
        }
    }

    /// Which it is, in words for an error message.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Name(name) => format!("device {name}"),
            Self::Mac(mac) => format!("device with the hardware address {mac}"),
            Self::Path(path) => format!("device at {}", path.display()),
            Self::Bus(id) => format!("device {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(conf: Value) -> Result<Which, Error> {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "host-device".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        Settings::read(&request).map(|settings| settings.which)
    }

    #[test]
    fn the_runtimes_device_wins() {
        let conf =
            json!({"pciBusID": "0000:00:1f.6", "runtimeConfig": {"deviceID": "mlx5_core.sf.2"}});
        assert_eq!(read(conf), Ok(Which::Bus("mlx5_core.sf.2".into())));
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field) in [
            (json!({}), "pciBusID"),
            (json!({"device": "a/b"}), "device"),
            (json!({"hwaddr": "eth0"}), "hwaddr"),
            (json!({"kernelpath": "/etc"}), "kernelpath"),
            (json!({"kernelpath": "/sys/devices/../class"}), "kernelpath"),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(error.msg.contains(field), "{conf}: {error}");
        }
    }
}
