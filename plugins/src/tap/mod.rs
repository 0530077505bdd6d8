//! The `tap` plugin: a TAP device in the container, for a virtual machine or another program that speaks Ethernet by itself.

use cni_conf::addr::MacAddr;
use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::json;
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;
use serde::Deserialize;

use crate::attach::check::failed;
use crate::attach::container::Container;
use crate::attach::interface::{self, Adding, Common};
use crate::attach::{ipam, settings};
use crate::host::HostError;
use crate::host::rtnl::{Link, LinkChange};
use crate::host::tap::{self, NewTap};

/// What the kernel calls the kind.
const KIND: &str = "tun";

/// The plugin.
pub struct Tap;

/// The JSON as it comes, beside what other plugins have too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    multi_queue: bool,
    mtu: i64,
    owner: Option<u32>,
    group: Option<u32>,
    selinux_context: String,
    bridge: String,
}

/// The configuration, validated and complete.
#[derive(Debug)]
struct Settings {
    multi_queue: bool,
    /// Who may open it, beside root.
    owner: Option<u32>,
    group: Option<u32>,
    selinux_context: Option<String>,
    /// In bytes; `None` for the kernel's default.
    mtu: Option<u32>,
    mac: Option<MacAddr>,
    /// A bridge of the container that it becomes a port of.
    bridge: Option<IfName>,
    common: Common,
}

impl Settings {
    fn read(request: &Request, attachment: Option<&Attachment>) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let bridge = match wire.bridge.as_str() {
            "" => None,
            name => Some(
                IfName::try_from(name)
                    .map_err(|error| Error::config(format!("field \"bridge\": {error}")))?,
            ),
        };
        Ok(Self {
            multi_queue: wire.multi_queue,
            owner: wire.owner,
            group: wire.group,
            selinux_context: Some(wire.selinux_context).filter(|context| !context.is_empty()),
            mtu: settings::mtu(wire.mtu)?,
            mac: settings::requested_mac(request, attachment)?,
            bridge,
            common: Common::read(request)?,
        })
    }

    /// Makes the device in the container, all or nothing.
    fn make(&self, container: &Container, ifname: &IfName) -> Result<Link, Error> {
        let bridge = self.find_bridge(container)?;
        let new = NewTap {
            name: ifname.to_string(),
            multi_queue: self.multi_queue,
            owner: self.owner,
            group: self.group,
        };
        let made = container
            .netns
            .enter(|| match &self.selinux_context {
                Some(context) => new.create_in_context(context),
                None => new.create(),
            })?
            .map_err(|error| explain(error, ifname));
        made?;
        let link = container.rtnl.link_by_name(ifname.as_str())?;
        let link = link.ok_or_else(|| {
            Error::new(
                Code::Conflict,
                format!("TAP device {ifname} was removed as soon as it was made"),
            )
        })?;
        let change = LinkChange {
            mac: self.mac.map(MacAddr::bytes),
            mtu: self.mtu,
            master: bridge,
            ..LinkChange::default()
        };
        if let Err(error) = container.rtnl.set_link(link.index, &change) {
            container.rtnl.delete_link(link.index)?;
            return Err(error.into());
        }
        Ok(Link {
            mac: change.mac.or(link.mac),
            mtu: change.mtu.unwrap_or(link.mtu),
            ..link
        })
    }

    fn find_bridge(&self, container: &Container) -> Result<Option<u32>, Error> {
        let Some(name) = &self.bridge else {
            return Ok(None);
        };
        match container.rtnl.link_by_name(name.as_str())? {
            Some(bridge) => Ok(Some(bridge.index)),
            None => Err(Error::new(
                Code::Conflict,
                format!("field \"bridge\": the container has no interface {name}"),
            )
            .with_details("an attachment before this one has to make the bridge in the container")),
        }
    }
}

fn explain(error: HostError, ifname: &IfName) -> Error {
    if tap::is_taken(&error) {
        return Error::new(Code::Conflict, error.to_string())
            .with_details(format!("something else made {ifname} at the same moment"));
    }
    error.into()
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    Settings::read(request, Some(attachment)).map(drop)
}

impl Plugin for Tap {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let mut settings = Settings::read(request, Some(attachment))?;
        let adding = Adding {
            request,
            attachment,
            common: std::mem::take(&mut settings.common),
            given: None,
            // Nobody has it open yet who could pass it on.
            announces: false,
        };
        adding.run(|container| settings.make(container, &attachment.ifname))
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        interface::del(request, attachment, KIND)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request, Some(attachment))?;
        let (container, link) = interface::check(request, attachment, KIND)?;
        let bridge = settings
            .find_bridge(&container)
            .map_err(|error| failed(error.to_string()))?;
        match bridge {
            Some(_) if link.master != bridge => Err(failed(format!(
                "interface {} is no port of the configuration's bridge",
                link.name
            ))),
            _ => Ok(()),
        }
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        interface::gc(request, valid)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::read(request, None)?;
        tap::require().map_err(interface::unavailable)?;
        ipam::delegate(request, &settings.common.ipam, Call::Status)
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(conf: Value) -> Result<Settings, Error> {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "tap".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        Settings::read(&request, None)
    }

    #[test]
    fn root_is_an_owner_and_nobody_is_none() {
        assert_eq!(read(json!({"owner": 0})).unwrap().owner, Some(0));
        assert_eq!(read(json!({})).unwrap().owner, None);
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field) in [
            (json!({"owner": -1}), "owner"),
            (json!({"group": "kvm"}), "group"),
            (json!({"bridge": "a/b"}), "bridge"),
            (json!({"mtu": 67}), "mtu"),
            (json!({"multiQueue": 1}), "multiQueue"),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(error.msg.contains(field), "{conf}: {error}");
        }
    }
}
