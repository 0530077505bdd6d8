//! What neighbours remember: the MAC address that an IP address had. When the address is used again, a wrong one costs
//! them half a minute. Neighbours are the other containers, the host, and whoever is on a LAN that the bridge leads to.

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use super::conf::{self, Settings};
use crate::attach::container::{Container, Layer3};
use crate::attach::{bridge_label, chained, ipv6, mac};
use crate::host::Rtnl;
use crate::host::rtnl::Link;

/// What has to be known to tell neighbours of a container.
pub(super) struct Announcement<'a> {
    pub(super) settings: &'a Settings,
    pub(super) bridge: &'a Link,
    /// Where the host has its neighbours.
    pub(super) gateway: &'a Link,
    pub(super) layer3: &'a Layer3,
    pub(super) mac: MacAddr,
}

impl Announcement<'_> {
    /// Before the container is there: notes that its MAC address is not the one that belongs to its address.
    pub(super) fn note(&self, host: &Rtnl) -> Result<(), Error> {
        if self.settings.mac.is_some() && !self.layer3.ips.is_empty() {
            bridge_label::note_other_mac(host, self.bridge)?;
        }
        Ok(())
    }

    /// Tells all neighbours where the container's addresses are, unless none of them can think otherwise: the news goes to
    /// every port of the bridge. To be called when the bridge forwards; it would drop the news before.
    pub(super) fn tell(
        &self,
        host: &Rtnl,
        container: &Container,
        link: u32,
        ifname: &str,
    ) -> Result<(), Error> {
        let routed = self.settings.gateway && self.settings.mac.is_none();
        if self.layer3.ips.is_empty() || routed && bridge_label::derives_every_mac(self.bridge) {
            return Ok(());
        }
        if self.settings.gateway {
            for ip in &self.layer3.ips {
                host.correct_neighbour(self.gateway.index, ip.address.addr(), self.mac.bytes())?;
            }
        }
        if self.layer3.has_ipv6() {
            container.with_sysctls(|procfs| ipv6::notify(procfs, ifname))?;
        }
        container.announce(link, self.mac)
    }
}

/// DEL: has the host forget a container with a MAC address that the next one won't have. Others are corrected by the
/// next one's ADD.
pub(super) fn forget(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let Some(result) = request.prev_result.as_ref().filter(|result| {
        let own = chained::mac_of(result, &attachment.ifname);
        own.is_some() && own != mac::of_ips(&result.ips)
    }) else {
        return Ok(());
    };
    let Some(interface) = conf::gateway_of(request) else {
        return Ok(());
    };
    let host = Rtnl::new()?;
    if let Some(link) = host.link_by_name(&interface)? {
        for ip in &result.ips {
            host.forget_neighbour(link.index, ip.address.addr())?;
        }
    }
    Ok(())
}
