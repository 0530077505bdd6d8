//! The `macvlan` plugin: an interface with a hardware address of its own that stands on one of the host's.
//!
//! The container is a neighbour of whatever is on the wire there, and gets its addresses from that network. The interface is
//! born in the container; the host keeps nothing of it. It goes when the one below goes, as the kernel has it.

use cni_conf::addr::MacAddr;
use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;
use serde::Deserialize;

use crate::attach::check::failed;
use crate::attach::interface::{self, Adding, Common};
use crate::attach::parent::Parent;
use crate::attach::{ipam, settings};
use crate::host::Rtnl;
use crate::host::rtnl::{Kind, MacvlanMode, NewLink};
use crate::owner::Owner;

/// What the kernel calls the kind.
const KIND: &str = "macvlan";

/// The plugin.
pub struct Macvlan;

/// The JSON as it comes, beside what other plugins have too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    mode: String,
    bcqueuelen: u32,
}

/// The configuration, validated and complete.
#[derive(Debug)]
struct Settings {
    parent: Parent,
    mode: MacvlanMode,
    /// Frames that may wait on the interface below.
    bc_queue_len: Option<u32>,
    mac: Option<MacAddr>,
    common: Common,
}

impl Settings {
    fn read(request: &Request, attachment: Option<&Attachment>) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        Ok(Self {
            parent: Parent::read(request)?,
            mode: mode(&wire.mode)?,
            bc_queue_len: (wire.bcqueuelen > 0).then_some(wire.bcqueuelen),
            mac: settings::requested_mac(request, attachment)?,
            common: Common::read(request)?,
        })
    }

    fn kind(&self) -> Kind {
        Kind::Macvlan {
            mode: self.mode,
            bc_queue_len: self.bc_queue_len,
        }
    }
}

fn mode(text: &str) -> Result<MacvlanMode, FieldError> {
    match text {
        "" | "bridge" => Ok(MacvlanMode::Bridge),
        "private" => Ok(MacvlanMode::Private),
        "vepa" => Ok(MacvlanMode::Vepa),
        "passthru" => Ok(MacvlanMode::Passthru),
        other => Err(FieldError::new(
            "mode",
            format!("{other:?}"),
            "a mode is bridge, private, vepa or passthru",
        )),
    }
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    Settings::read(request, Some(attachment)).map(drop)
}

impl Plugin for Macvlan {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let settings = Settings::read(request, Some(attachment))?;
        let kind = settings.kind();
        let Settings {
            parent,
            mode,
            mac,
            common,
            ..
        } = settings;
        let adding = Adding {
            request,
            attachment,
            common,
            given: None,
            // The address is the one of the interface below.
            announces: mode != MacvlanMode::Passthru,
        };
        adding.run(|container| {
            let new = NewLink {
                mac: mac.map(MacAddr::bytes),
                ..NewLink::new(attachment.ifname.as_str(), kind)
            };
            let owner = Owner::of(request, attachment);
            interface::create_on(&parent, container, &owner, new)
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        interface::del(request, attachment, KIND)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request, Some(attachment))?;
        let (container, link) = interface::check(request, attachment, KIND)?;
        interface::check_parent(&settings.parent, &container)?;
        match container.rtnl.kind_of(link.index)? {
            Some(Kind::Macvlan { mode, .. }) if mode == settings.mode => Ok(()),
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
        let settings = Settings::read(request, None)?;
        let host = Rtnl::new()?;
        interface::require_kind(&host, settings.kind())?;
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
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "macvlan".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        Settings::read(&request, None)
    }

    #[test]
    fn everything_may_be_left_out() {
        let settings = read(json!({})).unwrap();
        assert_eq!(settings.mode, MacvlanMode::Bridge);
        assert!(settings.mac.is_none() && settings.bc_queue_len.is_none());
    }

    #[test]
    fn the_runtimes_mac_address_wins() {
        let mac = |conf| {
            read(conf)
                .unwrap()
                .mac
                .map(|mac| mac.to_string())
                .unwrap_or_default()
        };
        let (a, b, c) = (
            "02:00:00:00:00:01",
            "02:00:00:00:00:02",
            "02:00:00:00:00:03",
        );
        assert_eq!(mac(json!({"mac": a})), a);
        assert_eq!(mac(json!({"mac": a, "args": {"cni": {"mac": b}}})), b);
        assert_eq!(
            mac(json!({"mac": a, "args": {"cni": {"mac": b}}, "runtimeConfig": {"mac": c}})),
            c
        );
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field) in [
            (json!({"mode": "bride"}), "mode"),
            (json!({"bcqueuelen": -1}), "bcqueuelen"),
            (json!({"mac": "01:00:00:00:00:00"}), "mac"),
            (json!({"ipam": {"type": "a/b"}}), "ipam.type"),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(error.msg.contains(field), "{conf}: {error}");
        }
    }
}
