//! Changing links.

use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoPortKind,
    LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::super::error::HostError;
use super::super::netns::NetNs;
use super::bridge::PortChange;
use super::build::With;
use super::changes::Change;
use super::exchange::Rtnl;
use super::link::Mac;

/// What to change about a link. `None` leaves a property alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// Bring it up or down.
    pub up: Option<bool>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// Receive frames for all hardware addresses.
    pub promisc: Option<bool>,
    /// Receive all multicast frames.
    pub allmulti: Option<bool>,
    /// The length of the transmit queue in packets.
    pub tx_queue_len: Option<u32>,
    /// The free text attached to it, up to 255 bytes; an empty one removes it.
    pub alias: Option<&'a str>,
    /// A new name. Most kernels want the link to be down for it.
    pub name: Option<&'a str>,
    /// The index of the bridge to make it a port of; 0 releases it from the one it is on.
    pub master: Option<u32>,
    /// Settings as a port of the bridge it is on already.
    pub port: Option<PortChange>,
    /// `arp_notify`: tell the neighbours, whenever the link comes up from now on, where its IPv4 addresses are. The
    /// kernel sets it after everything else, so together with `up` it holds from the next time on.
    pub arp_notify: bool,
    /// `addr_gen_mode` none: the kernel gives the link no IPv6 link-local address when it next becomes operational.
    /// `EAFNOSUPPORT` where IPv6 does not run on the link.
    pub no_link_local: bool,
    /// Move it into this namespace, where it keeps its index if that is free there.
    pub netns: Option<&'a NetNs>,
}

impl Rtnl {
    /// Changes a link, everything in one request.
    ///
    /// The kernel applies the changes one by one and stops at the first that fails.
    pub fn set_link(&self, index: u32, change: &LinkChange<'_>) -> Result<(), HostError> {
        self.make(&Change::Link {
            link: index,
            change: *change,
        })
    }
}

impl LinkChange<'_> {
    /// Brings it up, and nothing else.
    pub fn up() -> Self {
        Self {
            up: Some(true),
            ..Self::default()
        }
    }

    /// The request to change the link of this index.
    pub(super) fn request(&self, index: u32) -> RouteNetlinkMessage {
        let message = self.message(index);
        // Only the request that also creates links takes settings of a port; it creates none here.
        match self.port {
            Some(_) => RouteNetlinkMessage::NewLink(message),
            None => RouteNetlinkMessage::SetLink(message),
        }
    }

    fn message(&self, index: u32) -> LinkMessage {
        type Builder = LinkMessageBuilder<LinkUnspec>;
        LinkUnspec::new_with_index(index)
            .with(self.up, |link, up| if up { link.up() } else { link.down() })
            .with(self.promisc, Builder::promiscuous)
            .with(self.allmulti, Builder::allmulticast)
            .with(self.mtu, Builder::mtu)
            .with(self.mac, |link, mac| link.address(mac.to_vec()))
            .with(self.tx_queue_len, Builder::txqueuelen)
            .with(self.alias, Builder::alias)
            .with(self.name, Builder::name)
            .with(self.master, Builder::controller)
            .with(self.netns, |link, netns| {
                link.setns_by_fd(netns.fd().as_raw_fd())
            })
            .with(self.port, |link, port| {
                link.set_port_kind(InfoPortKind::Bridge)
                    .set_port_data(port.settings())
            })
            .with(self.families(), Builder::append_extra_attribute)
            .build()
    }

    /// What belongs to an address family, of which the builder knows nothing.
    fn families(&self) -> Option<LinkAttribute> {
        let inet = self.arp_notify.then(|| {
            // Those that are 0 are not sent.
            let mut settings = InetDevConf::default();
            settings.arp_notify = 1;
            AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)])
        });
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let inet6 = self.no_link_local.then(|| AfSpecUnspec::Inet6(vec![none]));
        let all: Vec<_> = inet.into_iter().chain(inet6).collect();
        (!all.is_empty()).then_some(LinkAttribute::AfSpecUnspec(all))
    }
}

/// What the change does, in words for an error message: `set up, mtu 1400`.
impl std::fmt::Display for LinkChange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on_off = |on| if on { "on" } else { "off" };
        let parts: Vec<String> = [
            self.up.map(|up| if up { "up" } else { "down" }.to_owned()),
            self.mtu.map(|mtu| format!("mtu {mtu}")),
            self.mac.map(|mac| format!("address {}", mac_text(mac))),
            self.promisc.map(|on| format!("promisc {}", on_off(on))),
            self.allmulti.map(|on| format!("allmulti {}", on_off(on))),
            self.tx_queue_len
                .map(|length| format!("txqueuelen {length}")),
            self.alias.map(|alias| format!("alias {alias}")),
            self.name.map(|name| format!("name {name}")),
            self.master.map(|master| format!("master {master}")),
            self.netns
                .map(|netns| format!("netns {}", netns.path().display())),
            self.port.map(|_| "port settings".to_owned()),
            self.arp_notify.then(|| "arp_notify".to_owned()),
            self.no_link_local.then(|| "addrgenmode none".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        write!(f, "set {}", parts.join(", "))
    }
}

fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
