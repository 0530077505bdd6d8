//! ADD.

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, Request};
use cni_conf::result::{CniResult, Interface};

use super::conf::Settings;
use super::{ifb, shape};
use crate::attach::chained;
use crate::attach::container::Container;
use crate::attach::undo::Undo;
use crate::host::Rtnl;
use crate::host::rtnl::{Link, Side};
use crate::owner::Owner;

pub(super) fn add(request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
    let settings = Settings::read(request)?;
    let mut result = chained::previous(request)?.clone();
    if settings.is_empty() {
        return Ok(result);
    }
    let container = Container::open(attachment)?;
    let host = Rtnl::new()?;
    let inside = chained::link(&container, &attachment.ifname)?;
    let owner = Owner::of(request, attachment);
    let Some(end) = chained::host_end(&host, &owner, &container, &inside)? else {
        return Err(Error::new(
            Code::UnsupportedField,
            format!("interface {} has no other end on the host, where it could be limited", inside.name),
        )
        .with_details("the bandwidth plugin works behind plugins that make veth pairs, such as bridge and ptp"));
    };
    let made = Undo::guard(|undo| {
        if let Some(limit) = settings.ingress {
            shape::begin(&host, &end, limit, &settings.scope)?;
            // What was there before is gone now, and not before: a limit that was refused has changed nothing.
            undo.push(|| Ok(host.stop_shaping(end.index).map(drop)?));
            shape::sort(&host, &end, &settings.scope, Side::Source)?;
        }
        let Some(limit) = settings.egress else {
            return Ok(None);
        };
        undo.push(|| ifb::delete(&host, &owner).map(drop));
        let ifb = ifb::create(&host, &owner, end.mtu)?;
        shape::begin(&host, &ifb, limit, &settings.scope)?;
        shape::sort(&host, &ifb, &settings.scope, Side::Destination)?;
        host.redirect_ingress(end.index, ifb.index)?;
        Ok(Some(ifb))
    })?;
    result.interfaces.extend(made.as_ref().map(interface));
    Ok(result)
}

fn interface(ifb: &Link) -> Interface {
    Interface {
        name: ifb.name.clone(),
        mac: ifb
            .mac
            .map(|mac| MacAddr::new(mac).to_string())
            .unwrap_or_default(),
        mtu: ifb.mtu,
        ..Interface::default()
    }
}
