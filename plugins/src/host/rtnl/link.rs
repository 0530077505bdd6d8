//! Links of every kind: finding and deleting them.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;
use nix::libc;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::bridge::{BridgeInfo, PortInfo};
use super::exchange::Rtnl;

/// A hardware address, in network order.
pub type Mac = [u8; 6];

/// The longest name of an interface, in bytes: `IFNAMSIZ` less the terminating zero.
pub const NAME_MAX: usize = 15;

/// The longest alias of an interface, in bytes: `IFALIASZ` less the terminating zero.
pub const ALIAS_MAX: usize = 255;

/// What the kernel tells about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The number by which everything else refers to it, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The kind it was created as, such as `veth` or `bridge`; none for hardware and `lo`.
    pub kind: Option<String>,
    /// The hardware address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it is operational: up, with a carrier, and not dormant (`IF_OPER_UP`). False for
    /// links whose driver does not tell, `lo` among them.
    pub running: bool,
    /// Whether it was asked to receive frames for all hardware addresses (`IFF_PROMISC`).
    pub promisc: bool,
    /// Whether it was asked to receive all multicast frames (`IFF_ALLMULTI`).
    pub allmulti: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// The index of the bridge (or bond, …) it is a port of.
    pub master: Option<u32>,
    /// Free text that someone attached to it (`ip link set … alias`).
    pub alias: Option<String>,
    /// The index of the link it stands on: a veth's peer, a VLAN's parent. It is an index in the
    /// namespace that `link_netnsid` tells of, if that is set.
    pub link: Option<u32>,
    /// The namespace of `link`, as the number that this namespace knows it by, if it is another
    /// one.
    pub link_netnsid: Option<i32>,
    /// The length of its transmit queue in packets.
    pub tx_queue_len: u32,
    /// Its state as a port, if it is a bridge's.
    pub port: Option<PortInfo>,
    /// Its settings as a bridge, if it is one.
    pub bridge: Option<BridgeInfo>,
    /// The VLAN's number, if it is a VLAN device.
    pub vlan_id: Option<u16>,
    /// The sysctl `accept_ra`: 0 for a link that takes no router's advertisements. None where IPv6 does not run on it.
    pub accept_ra: Option<i32>,
}

impl Rtnl {
    /// The link of this name, or none. A name longer than 15 bytes is no link's.
    pub fn link_by_name(&self, name: &str) -> Result<Option<Link>, HostError> {
        if !is_possible_name(name) {
            return Ok(None);
        }
        self.find_link(without_statistics().name(name).build())
            .map_err(|error| error.during(format!("look up link {name}")))
    }

    /// The link with this index, or none.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>, HostError> {
        // To the kernel, 0 would be the absence of an index.
        if index == 0 {
            return Ok(None);
        }
        self.find_link(without_statistics().index(index).build())
            .map_err(|error| error.during(format!("look up link with index {index}")))
    }

    /// Whether there is a link of this name. Unlike the others this doesn't wait for whoever changes links just now.
    ///
    /// # Errors
    /// [`HostError::System`].
    #[expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
    pub fn has_link(&self, name: &str) -> Result<bool, HostError> {
        if !is_possible_name(name) {
            return Ok(false);
        }
        // SAFETY: an all-zero `ifreq` is a valid value of that plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: SIOCGIFINDEX (netdevice(7)) reads the name, which ends with a zero as it is shorter than the field,
        // and writes the index into the same structure, which lives for the duration of the call.
        let answer = unsafe {
            libc::ioctl(
                self.as_fd().as_raw_fd(),
                libc::SIOCGIFINDEX as _,
                &raw mut request,
            )
        };
        match Errno::result(answer) {
            Ok(_) => Ok(true),
            Err(Errno::ENODEV) => Ok(false),
            Err(errno) => Err(HostError::System {
                operation: format!("look up link {name}"),
                source: errno.into(),
            }),
        }
    }

    fn find_link(&self, request: LinkMessage) -> Result<Option<Link>, NetlinkError> {
        match self.get(RouteNetlinkMessage::GetLink(request)) {
            Ok(answer) => Ok(into_link(answer)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The name of a link for an error message. Asked for only once there is an error.
    pub(super) fn describe(&self, index: u32) -> String {
        match self.link_by_index(index) {
            Ok(Some(link)) => link.name,
            _ => format!("link with index {index}"),
        }
    }

    /// All links of the namespace.
    pub fn links(&self) -> Result<Vec<Link>, HostError> {
        self.list_links(without_statistics().build())
            .map_err(|error| error.during("list links"))
    }

    /// All links of one kind, such as `veth`. The kernel does the filtering.
    pub fn links_of_kind(&self, kind: &str) -> Result<Vec<Link>, HostError> {
        let kind_attribute = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind_from_name(kind))]);
        let request = without_statistics().append_extra_attribute(kind_attribute);
        let mut links = self
            .list_links(request.build())
            .map_err(|error| error.during(format!("list links of kind {kind}")))?;
        // A kind that the kernel does not know (yet) filters nothing.
        links.retain(|link| link.kind.as_deref() == Some(kind));
        Ok(links)
    }

    /// All links of one kind whose alias begins with `prefix`: how GC finds what this project made.
    pub fn links_with_alias(&self, kind: &str, prefix: &str) -> Result<Vec<Link>, HostError> {
        let mut links = self.links_of_kind(kind)?;
        links.retain(|link| {
            link.alias
                .as_deref()
                .is_some_and(|alias| alias.starts_with(prefix))
        });
        Ok(links)
    }

    /// The ports of a bridge. The kernel does the filtering.
    pub fn bridge_ports(&self, bridge: u32) -> Result<Vec<Link>, HostError> {
        let request = without_statistics().controller(bridge).build();
        let mut links = self
            .list_links(request)
            .map_err(|error| error.during(format!("list ports of {}", self.describe(bridge))))?;
        links.retain(|link| link.master == Some(bridge));
        Ok(links)
    }

    fn list_links(&self, request: LinkMessage) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.dump(&RouteNetlinkMessage::GetLink(request))?;
        Ok(answers.into_iter().filter_map(into_link).collect())
    }

    /// Deletes a link. Returns false when there was none. The other end of a veth goes with it.
    pub fn delete_link(&self, index: u32) -> Result<bool, HostError> {
        // To the kernel, 0 would be the absence of an index.
        if index == 0 {
            return Ok(false);
        }
        self.remove_link(LinkUnspec::new_with_index(index).build())
            .map_err(|error| error.during(format!("delete {}", self.describe(index))))
    }

    /// Deletes the link of this name. Returns false when there was none.
    pub fn delete_link_by_name(&self, name: &str) -> Result<bool, HostError> {
        if !is_possible_name(name) {
            return Ok(false);
        }
        self.remove_link(LinkUnspec::new_with_name(name).build())
            .map_err(|error| error.during(format!("delete link {name}")))
    }

    fn remove_link(&self, request: LinkMessage) -> Result<bool, NetlinkError> {
        match self.ask(RouteNetlinkMessage::DelLink(request), 0) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a link and returns it as the kernel tells of it.
    ///
    /// Since Linux 6.2 the answer to the request itself can tell (`NLM_F_ECHO`); before that, it
    /// takes a second request. The answer is made before the link becomes a port of its master.
    pub(super) fn new_link(&self, name: &str, request: LinkMessage) -> Result<Link, NetlinkError> {
        let answers = self.ask(
            RouteNetlinkMessage::NewLink(request),
            NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO,
        )?;
        if let Some(link) = answers.into_iter().find_map(into_link) {
            return Ok(link);
        }
        self.find_link(without_statistics().name(name).build())?
            .ok_or(NetlinkError::Unanswered)
    }
}

/// A request about a link that spares the kernel (and this process) its counters.
fn without_statistics() -> LinkMessageBuilder<LinkUnspec> {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    LinkMessageBuilder::<LinkUnspec>::new().append_extra_attribute(mask)
}

fn is_possible_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.contains('\0')
}

fn kind_from_name(kind: &str) -> InfoKind {
    match kind {
        "veth" => InfoKind::Veth,
        "bridge" => InfoKind::Bridge,
        "vlan" => InfoKind::Vlan,
        "ifb" => InfoKind::Ifb,
        other => InfoKind::Other(other.to_owned()),
    }
}

fn into_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
        _ => None,
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            promisc: flags.contains(LinkFlags::Promisc),
            allmulti: flags.contains(LinkFlags::Allmulti),
            loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.mac = address.try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.running = state == State::Up,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Link(index) => link.link = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.link_netnsid = Some(id),
                LinkAttribute::TxQueueLen(length) => link.tx_queue_len = length,
                LinkAttribute::LinkInfo(infos) => link.take_infos(infos),
                LinkAttribute::AfSpecUnspec(families) => link.accept_ra = accept_ra(families),
                _ => {}
            }
        }
        link
    }
}

/// What the kernel tells of `net.ipv6.conf.LINK.accept_ra` (`ipv6_store_devconf` in net/ipv6/addrconf.c).
fn accept_ra(families: Vec<AfSpecUnspec>) -> Option<i32> {
    let inet6 = families.into_iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(settings) => Some(settings),
        _ => None,
    });
    inet6?.into_iter().find_map(|setting| match setting {
        AfSpecInet6::DevConf(settings) => Some(settings.accept_ra),
        _ => None,
    })
}

impl Link {
    fn take_infos(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Bridge(settings)) => {
                    self.bridge = Some(BridgeInfo::from(settings));
                }
                LinkInfo::Data(InfoData::Vlan(settings)) => {
                    self.vlan_id = settings.into_iter().find_map(|setting| match setting {
                        InfoVlan::Id(id) => Some(id),
                        _ => None,
                    });
                }
                LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                    self.port = Some(PortInfo::from(settings));
                }
                _ => {}
            }
        }
    }
}
