//! The `ipvlan` plugin: an interface that stands on one of the host's and shares its hardware address.
//!
//! For networks whose switch admits one hardware address for each machine. Chained behind another plugin without an IPAM
//! section of its own, it takes over that plugin's addresses.

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;
use serde::Deserialize;

use crate::attach::check::failed;
use crate::attach::interface::{self, Adding, Common};
use crate::attach::ipam;
use crate::attach::parent::Parent;
use crate::host::Rtnl;
use crate::host::rtnl::{IpvlanMode, Kind, NewLink};
use crate::owner::Owner;

/// What the kernel calls the kind.
const KIND: &str = "ipvlan";

/// The plugin.
pub struct Ipvlan;

/// The JSON as it comes, beside what other plugins have too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    mode: String,
}

/// The configuration, validated and complete.
#[derive(Debug)]
struct Settings<'a> {
    parent: Parent,
    mode: IpvlanMode,
    common: Common,
    /// Of the plugin before, whose addresses it takes over.
    given: Option<&'a CniResult>,
}

impl<'a> Settings<'a> {
    /// For ADD: where the result of a plugin before tells what is left open.
    fn read(request: &'a Request) -> Result<Self, Error> {
        let mut settings = Self::read_alone(request)?;
        let previous = request.prev_result.as_ref();
        if let Some(previous) = previous.filter(|_| settings.parent.name.is_none()) {
            settings.parent.name = Some(only_interface(previous)?);
        }
        settings.given = previous.filter(|previous| !previous.ips.is_empty());
        if settings.given.is_none() || settings.common.ipam.plugin()?.is_some() {
            settings.given = None;
            settings.common = Common::read_with_ipam(request)?;
        }
        Ok(settings)
    }

    fn read_alone(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        Ok(Self {
            parent: Parent::read(request)?,
            mode: mode(&wire.mode)?,
            common: Common::read(request)?,
            given: None,
        })
    }
}

fn mode(text: &str) -> Result<IpvlanMode, FieldError> {
    match text {
        "" | "l2" => Ok(IpvlanMode::L2),
        "l3" => Ok(IpvlanMode::L3),
        "l3s" => Ok(IpvlanMode::L3s),
        other => Err(FieldError::new(
            "mode",
            format!("{other:?}"),
            "a mode is l2, l3 or l3s",
        )),
    }
}

fn only_interface(previous: &CniResult) -> Result<IfName, Error> {
    match previous.interfaces.as_slice() {
        [one] => IfName::try_from(one.name.as_str())
            .map_err(|error| Error::config(format!("prevResult.interfaces[0].name: {error}"))),
        interfaces => Err(Error::config(format!(
            "field \"master\" is not set, and prevResult has {} interfaces to choose from",
            interfaces.len()
        ))
        .with_details("set \"master\" to the name of an interface")),
    }
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    Settings::read(request).map(drop)
}

impl Plugin for Ipvlan {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let Settings {
            parent,
            mode,
            common,
            given,
        } = Settings::read(request)?;
        let adding = Adding {
            request,
            attachment,
            common,
            given,
            // The hardware address is not its own to set.
            announces: false,
        };
        adding.run(|container| {
            let owner = Owner::of(request, attachment);
            let new = NewLink::new(attachment.ifname.as_str(), Kind::Ipvlan { mode });
            interface::create_on(&parent, container, &owner, new)
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        interface::del(request, attachment, KIND)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read_alone(request)?;
        let (container, link) = interface::check(request, attachment, KIND)?;
        interface::check_parent(&settings.parent, &container)?;
        match container.rtnl.kind_of(link.index)? {
            Some(Kind::Ipvlan { mode }) if mode == settings.mode => Ok(()),
            _ => Err(failed(format!(
                "interface {} has another mode than the configuration says",
                link.name
            ))),
        }
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        interface::gc(request, valid)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        // Whether a plugin stands before this one is not told, and so neither whose interface it is.
        let settings = Settings::read_alone(request)?;
        let host = Rtnl::new()?;
        let kind = Kind::Ipvlan {
            mode: settings.mode,
        };
        interface::require_kind(&host, kind)?;
        if settings.parent.name.is_some() || settings.common.ipam.plugin()?.is_some() {
            settings.parent.status(&host)?;
        }
        ipam::delegate(request, &settings.common.ipam, Call::Status)
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::result::{Interface, IpConfig};
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn request(conf: Value, prev_result: Option<CniResult>) -> Request {
        Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "ipvlan".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result,
        }
    }

    fn previous(interfaces: &[&str], addresses: &[&str]) -> CniResult {
        CniResult {
            interfaces: interfaces
                .iter()
                .map(|name| Interface {
                    name: (*name).into(),
                    ..Interface::default()
                })
                .collect(),
            ips: addresses
                .iter()
                .map(|address| IpConfig {
                    interface: None,
                    address: address.parse().unwrap(),
                    gateway: None,
                })
                .collect(),
            ..CniResult::default()
        }
    }

    #[test]
    fn a_plugin_before_gives_master_and_addresses() {
        let chained = request(json!({}), Some(previous(&["net1"], &["10.1.0.2/24"])));
        let settings = Settings::read(&chained).unwrap();
        assert_eq!(settings.parent.name, Some("net1".try_into().unwrap()));
        assert!(settings.given.is_some());
        let own = json!({"master": "eth5", "ipam": {"type": "static"}});
        let own = request(own, Some(previous(&["net1"], &["10.1.0.2/24"])));
        let settings = Settings::read(&own).unwrap();
        assert_eq!(settings.parent.name, Some("eth5".try_into().unwrap()));
        assert!(
            settings.given.is_none(),
            "a section of its own is asked instead"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let two = previous(&["a", "b"], &["10.1.0.2/24"]);
        for (conf, prev_result, part) in [
            (json!({}), Some(two), "2 interfaces"),
            (json!({}), Some(previous(&["a"], &[])), "ipam.type"),
            (json!({}), None, "ipam.type"),
            (
                json!({"mode": "l4", "ipam": {"type": "static"}}),
                None,
                "mode",
            ),
        ] {
            let error = Settings::read(&request(conf, prev_result)).unwrap_err();
            assert!(error.msg.contains(part), "{error}");
        }
    }
}
