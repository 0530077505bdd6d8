//! Links of further kinds: macvlan, ipvlan, VLAN devices, dummy and VRF.
//!
//! Such a link may stand on one of this namespace and be born in another, which its creation then names
//! (net/core/rtnetlink.c, `rtnl_newlink`). Up to Linux 6.12 the kernel looks the new name up in the namespace of whoever asks
//! all the same, and refuses one that is taken there.

use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, InfoVrf, IpVlanMode, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use nix::errno::Errno;

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::super::netns::NetNs;
use super::exchange::Rtnl;
use super::link::Mac;

/// How the links that stand on one link reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Directly.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// By way of a switch outside that sends frames back where they came from.
    Vepa,
    /// There is but one, with the hardware address of the link below.
    Passthru,
}

/// At which layer packets leave an ipvlan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Layer 2: neighbours are resolved, broadcasts pass.
    #[default]
    L2,
    /// Layer 3: the namespace of the link below routes, past its netfilter.
    L3,
    /// Layer 3 with netfilter and connection tracking of the link below.
    L3s,
}

/// A kind of link with what is particular to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A link with a hardware address of its own.
    Macvlan {
        /// How its likes are reached.
        mode: MacvlanMode,
        /// How many broadcast frames may wait in the queue of the link below; the kernel's default (1000) if none.
        bc_queue_len: Option<u32>,
    },
    /// A link that shares the hardware address of the one below.
    Ipvlan {
        /// At which layer it works.
        mode: IpvlanMode,
    },
    /// A VLAN device (802.1Q).
    Vlan {
        /// The VLAN's number, 0 to 4094.
        vid: u16,
    },
    /// A link that swallows what it is given.
    Dummy,
    /// A routing domain, whose members use one routing table.
    Vrf {
        /// The table.
        table: u32,
    },
}

/// A link to create.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// The index of the link it stands on, in the namespace of the [`Rtnl`].
    pub parent: Option<u32>,
    /// Its hardware address; the kernel's choice if none.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; the parent's if none.
    pub mtu: Option<u32>,
    /// The namespace it is born in; that of the [`Rtnl`] if none.
    pub netns: Option<&'a NetNs>,
    /// Whether it is up from the beginning.
    pub up: bool,
}

impl NewLink<'_> {
    /// A link that has nothing set beside its name and kind.
    pub fn new(name: &str, kind: Kind) -> NewLink<'_> {
        NewLink {
            name,
            kind,
            parent: None,
            mac: None,
            mtu: None,
            netns: None,
            up: false,
        }
    }
}

impl Kind {
    /// What the kernel calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
            Self::Vlan { .. } => "vlan",
            Self::Dummy => "dummy",
            Self::Vrf { .. } => "vrf",
        }
    }

    fn info(self) -> Vec<LinkInfo> {
        let kind = |kind| vec![LinkInfo::Kind(kind)];
        let with = |kind, data| vec![LinkInfo::Kind(kind), LinkInfo::Data(data)];
        match self {
            Self::Macvlan { mode, bc_queue_len } => {
                let mut settings = vec![InfoMacVlan::Mode(mode.into())];
                settings.extend(bc_queue_len.map(InfoMacVlan::BcQueueLen));
                with(InfoKind::MacVlan, InfoData::MacVlan(settings))
            }
            Self::Ipvlan { mode } => {
                let mode = InfoIpVlan::Mode(mode.into());
                with(InfoKind::IpVlan, InfoData::IpVlan(vec![mode]))
            }
            Self::Vlan { vid } => {
                let vid = InfoVlan::Id(vid);
                with(InfoKind::Vlan, InfoData::Vlan(vec![vid]))
            }
            Self::Dummy => kind(InfoKind::Dummy),
            Self::Vrf { table } => {
                let table = InfoVrf::TableId(table);
                with(InfoKind::Vrf, InfoData::Vrf(vec![table]))
            }
        }
    }

    /// What to do when the kernel has no such links.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Macvlan { .. } => {
                "Load the kernel's module macvlan (CONFIG_MACVLAN): `modprobe macvlan`, or install the distribution's \
                 full kernel."
            }
            Self::Ipvlan { .. } => {
                "Load the kernel's module ipvlan (CONFIG_IPVLAN): `modprobe ipvlan`, or install the distribution's full \
                 kernel."
            }
            Self::Vlan { .. } => {
                "Load the kernel's module 8021q (CONFIG_VLAN_8021Q): `modprobe 8021q`, or install the distribution's \
                 full kernel."
            }
            Self::Dummy => {
                "Load the kernel's module dummy (CONFIG_DUMMY): `modprobe dummy`, or install the distribution's full \
                 kernel."
            }
            Self::Vrf { .. } => {
                "Load the kernel's module vrf (CONFIG_NET_VRF): `modprobe vrf`, or install the distribution's full \
                 kernel."
            }
        }
    }

    fn of(infos: Vec<LinkInfo>) -> Option<Self> {
        infos.into_iter().find_map(|info| match info {
            LinkInfo::Kind(InfoKind::Dummy) => Some(Self::Dummy),
            LinkInfo::Data(InfoData::MacVlan(settings)) => Self::of_macvlan(&settings),
            LinkInfo::Data(InfoData::IpVlan(settings)) => {
                settings.iter().find_map(|setting| match setting {
                    InfoIpVlan::Mode(mode) => Some(Self::Ipvlan {
                        mode: IpvlanMode::of(*mode)?,
                    }),
                    _ => None,
                })
            }
            LinkInfo::Data(InfoData::Vlan(settings)) => {
                settings.iter().find_map(|setting| match setting {
                    InfoVlan::Id(vid) => Some(Self::Vlan { vid: *vid }),
                    _ => None,
                })
            }
            LinkInfo::Data(InfoData::Vrf(settings)) => {
                settings.iter().find_map(|setting| match setting {
                    InfoVrf::TableId(table) => Some(Self::Vrf { table: *table }),
                    _ => None,
                })
            }
            _ => None,
        })
    }

    fn of_macvlan(settings: &[InfoMacVlan]) -> Option<Self> {
        let mode = settings.iter().find_map(|setting| match setting {
            InfoMacVlan::Mode(mode) => MacvlanMode::of(*mode),
            _ => None,
        });
        let bc_queue_len = settings.iter().find_map(|setting| match setting {
            InfoMacVlan::BcQueueLen(length) => Some(*length),
            _ => None,
        });
        let mode = mode?;
        Some(Self::Macvlan { mode, bc_queue_len })
    }
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> Self {
        match mode {
            MacvlanMode::Bridge => Self::Bridge,
            MacvlanMode::Private => Self::Private,
            MacvlanMode::Vepa => Self::Vepa,
            MacvlanMode::Passthru => Self::Passthrough,
        }
    }
}

impl MacvlanMode {
    /// None for a mode that nothing here asks for.
    fn of(mode: MacVlanMode) -> Option<Self> {
        match mode {
            MacVlanMode::Bridge => Some(Self::Bridge),
            MacVlanMode::Private => Some(Self::Private),
            MacVlanMode::Vepa => Some(Self::Vepa),
            MacVlanMode::Passthrough => Some(Self::Passthru),
            _ => None,
        }
    }
}

impl From<IpvlanMode> for IpVlanMode {
    fn from(mode: IpvlanMode) -> Self {
        match mode {
            IpvlanMode::L2 => Self::L2,
            IpvlanMode::L3 => Self::L3,
            IpvlanMode::L3s => Self::L3S,
        }
    }
}

impl IpvlanMode {
    fn of(mode: IpVlanMode) -> Option<Self> {
        match mode {
            IpVlanMode::L2 => Some(Self::L2),
            IpVlanMode::L3 => Some(Self::L3),
            IpVlanMode::L3S => Some(Self::L3s),
            _ => None,
        }
    }
}

impl Rtnl {
    /// Creates a link.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when the name is taken, or the parent has that VLAN already; [`HostError::Unsupported`] when
    /// the kernel has no links of this kind.
    pub fn create_link(&self, new: &NewLink<'_>) -> Result<(), HostError> {
        let request = RouteNetlinkMessage::NewLink(new.message());
        match self.ask(request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.creation_error(error, new)),
        }
    }

    fn creation_error(&self, error: NetlinkError, new: &NewLink<'_>) -> HostError {
        let mut operation = format!("create {} {}", new.kind.name(), new.name);
        if let Some(parent) = new.parent {
            operation += &format!(" on {}", self.describe(parent));
        }
        if let Some(netns) = new.netns {
            operation += &format!(" in {}", netns.path().display());
        }
        if error.is_unknown_kind() {
            return HostError::Unsupported {
                operation,
                remedy: new.kind.remedy(),
            };
        }
        error.during(operation)
    }

    /// Fails where the kernel has no links of this kind, having tried to load the module. Nothing is made: what is asked for
    /// has an address that no link can have, and stands on none.
    ///
    /// # Errors
    /// [`HostError::Unsupported`].
    pub fn require_kind(&self, kind: Kind) -> Result<(), HostError> {
        let new = NewLink {
            mac: Some([0; 6]),
            ..NewLink::new("trestle-probe", kind)
        };
        let request = RouteNetlinkMessage::NewLink(new.message());
        match self.ask(request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.is_unknown_kind() => Err(HostError::Unsupported {
                operation: format!("make links of kind {}", kind.name()),
                remedy: kind.remedy(),
            }),
            Err(NetlinkError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.during(format!("look for links of kind {}", kind.name()))),
            // It can't be.
            Ok(_) => self.delete_link_by_name(new.name).map(drop),
        }
    }

    /// The kind of a link with its settings; none where there is no such link, or one of another kind.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn kind_of(&self, link: u32) -> Result<Option<Kind>, HostError> {
        let mut request = LinkMessage::default();
        request.header.index = link;
        match self.ask(RouteNetlinkMessage::GetLink(request), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(kind)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error.during(format!("look at link with index {link}"))),
        }
    }
}

fn kind(answer: RouteNetlinkMessage) -> Option<Kind> {
    let RouteNetlinkMessage::NewLink(message) = answer else {
        return None;
    };
    message
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Kind::of(infos),
            _ => None,
        })
}

impl NewLink<'_> {
    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        if self.up {
            message.header.flags.insert(LinkFlags::Up);
            message.header.change_mask.insert(LinkFlags::Up);
        }
        let netns = self
            .netns
            .map(|netns| LinkAttribute::NetNsFd(netns.fd().as_raw_fd()));
        message.attributes.extend(
            [
                Some(LinkAttribute::IfName(self.name.to_owned())),
                self.parent.map(LinkAttribute::Link),
                self.mac.map(|mac| LinkAttribute::Address(mac.to_vec())),
                self.mtu.map(LinkAttribute::Mtu),
                netns,
                Some(LinkAttribute::LinkInfo(self.kind.info())),
            ]
            .into_iter()
            .flatten(),
        );
        message
    }
}
