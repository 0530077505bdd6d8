//! ADD.

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::CniResult;

use super::allowlist;
use super::conf::{self, Setting, Settings};
use super::neighbours;
use super::saved::Saved;
use super::state::Store;
use crate::attach::chained;
use crate::attach::container::Container;
use crate::attach::undo::Undo;

/// The smallest MTU in bytes that IPv6 works with (RFC 8200, section 5).
const IPV6_MTU_MIN: u32 = 1280;

pub(super) fn add(request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
    let settings = Settings::read(request, Some(attachment))?;
    let mut result = chained::previous(request)?.clone();
    let store = Store::new(conf::data_dir(request)?, request);
    allowlist::require(&settings.sysctls)?;
    warn_of_lost_ipv6(&settings, &result);
    let container = Container::open(attachment)?;
    Undo::guard(|undo| {
        for setting in &settings.sysctls {
            set(&container, setting, undo)?;
        }
        if settings.attributes.is_empty() {
            return Ok(());
        }
        tune(request, attachment, &settings, &container, &store, undo)
    })?;
    if let Some(interface) = chained::interface(&mut result, &attachment.ifname) {
        if let Some(mac) = settings.attributes.mac {
            interface.mac = mac.to_string();
        }
        if let Some(mtu) = settings.attributes.mtu {
            interface.mtu = mtu;
        }
    }
    Ok(result)
}

/// The kernel takes IPv6 off an interface whose MTU becomes too small for it, addresses and routes included, and
/// DEL can't bring them back.
fn warn_of_lost_ipv6(settings: &Settings, result: &CniResult) {
    let mtu = settings.attributes.mtu.filter(|mtu| *mtu < IPV6_MTU_MIN);
    let ipv6 = result.ips.iter().find(|ip| ip.address.addr().is_ipv6());
    if let (Some(mtu), Some(ip)) = (mtu, ipv6) {
        warn(format_args!(
            "tuning: an MTU of {mtu} takes the address {} away, since IPv6 needs {IPV6_MTU_MIN}",
            ip.address
        ));
    }
}

fn set<'a>(
    container: &'a Container,
    setting: &'a Setting,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    // Some can only be written, such as net.ipv4.route.flush.
    let before = container.with_sysctls(|procfs| Ok(setting.sysctl.read_in(procfs).ok()))?;
    if before.as_deref() == Some(&setting.value) {
        return Ok(());
    }
    if let Some(before) = before {
        undo.push(move || {
            container.with_sysctls(|procfs| setting.sysctl.write_in(procfs, &before))?;
            Ok(())
        });
    }
    container
        .with_sysctls(|procfs| setting.sysctl.write_in(procfs, &setting.value))
        .map_err(|error| {
            Error::from(error).with_details(format!(
                "it was to get the value {:?} by \"sysctl\" of the tuning plugin",
                setting.value
            ))
        })
}

/// Saves what the interface is like, and changes it.
fn tune<'a>(
    request: &'a Request,
    attachment: &Attachment,
    settings: &Settings,
    container: &'a Container,
    store: &'a Store<'a>,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let id = attachment.id();
    let link = chained::link(container, &attachment.ifname)?;
    let before = settings.attributes.of(&link)?;
    let earlier = store.read(&id)?;
    let saved = Saved::new(
        &request.network,
        container,
        &link,
        &before,
        earlier.as_ref(),
    );
    undo.push({
        let id = id.clone();
        move || match earlier {
            Some(earlier) => store.write(&id, &earlier),
            None => store.remove(&id),
        }
    });
    store.write(&id, &saved)?;
    if let Some(mac) = settings.attributes.mac {
        neighbours::prepare(request, attachment, container, &link, mac, undo)?;
    }
    undo.push(move || before.apply(&container.rtnl, link.index));
    settings.attributes.apply(&container.rtnl, link.index)
}
