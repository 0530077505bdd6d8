//! The `vlan` plugin: a VLAN device (802.1Q) on one of the host's interfaces, in the container.

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;
use serde::Deserialize;

use crate::attach::check::failed;
use crate::attach::interface::{self, Adding, Common};
use crate::attach::ipam;
use crate::attach::parent::Parent;
use crate::host::Rtnl;
use crate::host::rtnl::{Kind, NewLink};
use crate::owner::Owner;

/// What the kernel calls the kind.
const KIND: &str = "vlan";

/// Highest VLAN ID that may be used (IEEE 802.1Q reserves 4095).
const VLAN_MAX: i64 = 4094;

/// The plugin.
pub struct Vlan;

/// The JSON as it comes, beside what other plugins have too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    vlan_id: i64,
}

/// The configuration, validated and complete.
#[derive(Debug)]
struct Settings {
    parent: Parent,
    vid: u16,
    common: Common,
}

impl Settings {
    fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let parent = Parent::read(request)?;
        if parent.name.is_none() {
            return Err(Error::config(
                "field \"master\" is missing: a VLAN stands on an interface",
            )
            .with_details("set \"master\" to the name of an interface of the host"));
        }
        let vid = match u16::try_from(wire.vlan_id) {
            Ok(vid) if wire.vlan_id <= VLAN_MAX => vid,
            _ => {
                let expected = format!("a VLAN ID is 0 to {VLAN_MAX}");
                return Err(FieldError::new("vlanId", wire.vlan_id, expected).into());
            }
        };
        Ok(Self {
            parent,
            vid,
            common: Common::read_with_ipam(request)?,
        })
    }

    /// What to do where the kernel says that something exists although the name is free.
    fn explain(&self, error: Error) -> Error {
        if !error.msg.contains("exists") {
            return error;
        }
        let vid = self.vid;
        let master = self.parent.name.as_ref().map_or("", |name| name.as_str());
        error.with_details(format!(
            "an interface has one device for each VLAN: {vid} of {master} belongs to somebody else, a container or the \
             host; see `ip -d link`"
        ))
    }
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    Settings::read(request).map(drop)
}

impl Plugin for Vlan {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let mut settings = Settings::read(request)?;
        let adding = Adding {
            request,
            attachment,
            common: std::mem::take(&mut settings.common),
            given: None,
            // To set its hardware address would keep it from following the one below.
            announces: false,
        };
        adding.run(|container| {
            let owner = Owner::of(request, attachment);
            let kind = Kind::Vlan { vid: settings.vid };
            let new = NewLink::new(attachment.ifname.as_str(), kind);
            interface::create_on(&settings.parent, container, &owner, new)
                .map_err(|error| settings.explain(error))
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        interface::del(request, attachment, KIND)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let (container, link) = interface::check(request, attachment, KIND)?;
        interface::check_parent(&settings.parent, &container)?;
        match link.vlan_id {
            Some(vid) if vid == settings.vid => Ok(()),
            _ => Err(failed(format!(
                "interface {} has another VLAN than {}",
                link.name, settings.vid
            ))),
        }
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        interface::gc(request, valid)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let host = Rtnl::new()?;
        interface::require_kind(&host, Kind::Vlan { vid: settings.vid })?;
        settings.parent.status(&host)?;
        ipam::delegate(request, &settings.common.ipam, Call::Status)
    }
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
            plugin: "vlan".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn numbers_of_vlans_end_at_4094() {
        let vid = |vid: i64| {
            let conf = json!({"master": "eth0", "vlanId": vid, "ipam": {"type": "static"}});
            read(conf).map(|settings| settings.vid)
        };
        assert_eq!((vid(0), vid(4094)), (Ok(0), Ok(4094)));
        for wrong in [-1, 4095, 65536 + 5] {
            let error = vid(wrong).unwrap_err();
            assert!(error.msg.contains("vlanId"), "{error}");
        }
    }

    #[test]
    fn master_and_ipam_are_required() {
        for (conf, field) in [
            (json!({"ipam": {"type": "static"}}), "master"),
            (json!({"master": "eth0"}), "ipam.type"),
        ] {
            let error = read(conf).unwrap_err();
            assert!(error.msg.contains(field), "{error}");
        }
    }
}
