//! IP addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
pub use netlink_packet_route::address::{AddressFlags, AddressScope};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::AddressMessageBuilder;

use super::super::error::HostError;
use super::changes::Change;
use super::exchange::Rtnl;

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address and the length of its prefix.
    pub net: IpNet,
    /// How far it is valid; `Link` for fe80::/10.
    pub scope: AddressScope,
    /// The kernel's flags. `Permanent` is missing from those that came from router advertisements
    /// or DHCP.
    pub flags: AddressFlags,
    /// The broadcast address, IPv4 only.
    pub broadcast: Option<Ipv4Addr>,
}

impl Address {
    /// Whether duplicate address detection is still under way: the address can't be used yet.
    pub fn is_tentative(&self) -> bool {
        self.flags.contains(AddressFlags::Tentative)
            && !self.flags.contains(AddressFlags::Optimistic)
    }

    /// Whether another host was found to have the address.
    pub fn is_duplicate(&self) -> bool {
        self.flags.contains(AddressFlags::Dadfailed)
    }
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// IPv6: no duplicate address detection, the address can be used at once.
    pub nodad: bool,
    /// Do not add the route to the prefix.
    pub noprefixroute: bool,
}

impl Rtnl {
    /// The addresses of a link, both families; of all links for index 0. The kernel does the filtering.
    pub fn addresses(&self, link: u32) -> Result<Vec<Address>, HostError> {
        let mut request = AddressMessage::default();
        request.header.index = link;
        let answers = self
            .dump(&RouteNetlinkMessage::GetAddress(request))
            .map_err(|error| error.during(format!("list addresses of {}", self.describe(link))))?;
        let mut addresses: Vec<_> = answers.into_iter().filter_map(into_address).collect();
        // Without strict checking the kernel lists those of all links.
        addresses.retain(|address| link == 0 || address.link == link);
        Ok(addresses)
    }

    /// Adds an address. An IPv4 one gets the last address of its prefix as its broadcast address,
    /// as with `ip address add … brd +`, unless the prefix is a /31 or /32.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when the link has the address already.
    pub fn add_address(
        &self,
        link: u32,
        net: IpNet,
        options: AddressOptions,
    ) -> Result<(), HostError> {
        self.make(&Change::Address { link, net, options })
    }

    /// Removes an address. Returns false when the link does not have it, or is not there itself.
    pub fn delete_address(&self, link: u32, net: IpNet) -> Result<bool, HostError> {
        match self.ask(RouteNetlinkMessage::DelAddress(message(link, net)), 0) {
            Ok(_) => Ok(true),
            Err(error) => match error.errno() {
                Some(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(false),
                _ => {
                    Err(error.during(format!("remove address {net} from {}", self.describe(link))))
                }
            },
        }
    }
}

impl AddressOptions {
    /// The request to add an address, and its flags.
    pub(super) fn request(self, link: u32, net: IpNet) -> (RouteNetlinkMessage, u16) {
        let mut message = match net {
            IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(link)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(link)
                .address(net.addr(), net.prefix_len())
                .build(),
        };
        // The builder knows neither flags nor scopes.
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, self.nodad && net.addr().is_ipv6());
        flags.set(AddressFlags::Noprefixroute, self.noprefixroute);
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        message.header.scope = scope(net.addr());
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        (RouteNetlinkMessage::NewAddress(message), flags)
    }
}

/// What an address is deleted by. Not by the builder's: that leaves out a multicast address, and without one the kernel
/// deletes the first address of the link (`inet_rtm_deladdr` in net/ipv4/devinet.c).
fn message(link: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.prefix_len = net.prefix_len();
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(net.addr()));
    message
}

/// How far an address is valid: loopback addresses on this host only. For IPv6 the kernel decides.
fn scope(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(address) if address.is_loopback() => AddressScope::Host,
        _ => AddressScope::Universe,
    }
}

pub(super) fn into_address(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address, mut broadcast) = (None, None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(ip),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    // With a peer address (pointopoint), `Address` is the peer's.
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address {
        link: message.header.index,
        net,
        scope: message.header.scope,
        flags,
        broadcast,
    })
}
