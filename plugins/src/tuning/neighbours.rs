//! What else a MAC address is written in when it is changed: the lock of the bridge's port (`macspoofchk`), which would cut
//! the container off, and what neighbours remember of its addresses.

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use crate::attach::container::Container;
use crate::attach::undo::Undo;
use crate::attach::{bridge_label, chained, ipv6};
use crate::host::Rtnl;
use crate::host::rtnl::Link;
use crate::owner::Owner;

/// Before the container's interface gets this MAC address: lets it through a locked port in place of the former one, and
/// has it tell its neighbours.
pub(super) fn prepare(
    request: &Request,
    attachment: &Attachment,
    container: &Container,
    inside: &Link,
    mac: MacAddr,
    undo: &mut Undo<'_>,
) -> Result<(), Error> {
    let result = chained::previous(request)?;
    if result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
        container.with_sysctls(|procfs| ipv6::notify(procfs, &inside.name))?;
    }
    let host = Rtnl::new()?;
    let owner = Owner::of(request, attachment);
    let Some(end) = chained::host_end(&host, &owner, container, inside)? else {
        return Ok(());
    };
    if let Some(bridge) = end
        .master
        .map(|index| host.link_by_index(index))
        .transpose()?
        .flatten()
    {
        bridge_label::note_other_mac(&host, &bridge)?;
    }
    // As it was reported: what the interface has now is the container's word.
    let former = chained::mac_of(result, &attachment.ifname).map(MacAddr::bytes);
    if !end.port.is_some_and(|port| port.locked) || former == Some(mac.bytes()) {
        return Ok(());
    }
    host.add_static_fdb(end.index, mac.bytes())?;
    if let Some(former) = former {
        host.delete_fdb(end.index, former)?;
    }
    let port = end.index;
    undo.push(move || {
        let host = Rtnl::new()?;
        if let Some(former) = former {
            host.add_static_fdb(port, former)?;
        }
        Ok(host.delete_fdb(port, mac.bytes()).map(drop)?)
    });
    Ok(())
}
