//! Connection tracking entries: forgetting those that lead to where nothing is any more.
//!
//! A UDP flow keeps the translation it began with for as long as packets come (`nf_conntrack_udp_timeout`),
//! so a client that goes on asking at an old port mapping is sent to a container that is gone. When the
//! entry is deleted, its next packet begins a new flow, which meets the rules of now. Entries are listed
//! and deleted by netlink (net/netfilter/nf_conntrack_netlink.c); no program is needed.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::errno::Errno;

use super::error::HostError;
use super::netlink::attributes::{Attributes, nest};
use super::netlink::netfilter::{NetfilterSocket, Object, Outgoing};

// Attributes from include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
/// `IPS_SEEN_REPLY` of include/uapi/linux/netfilter/nf_conntrack_common.h.
const SEEN_REPLY: u32 = 1 << 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Where packets come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// The protocol's number: 6 for TCP, 17 for UDP, 132 for SCTP.
    pub protocol: u8,
    /// The source port; 0 where the protocol has none.
    pub source_port: u16,
    /// The destination port; 0 where the protocol has none.
    pub destination_port: u16,
}

/// A flow that the kernel tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The direction of the first packet, as it came in.
    pub original: Tuple,
    /// The replies, as they come in: after a DNAT, their source is where the flow was led to.
    pub reply: Tuple,
    /// Whether there was an answer; else `conntrack -L` says `[UNREPLIED]`.
    pub replied: bool,
    family: NetfilterProtoFamily,
    /// What names the entry to the kernel, as the kernel wrote it.
    handle: Vec<(u16, Vec<u8>)>,
}

/// A netlink socket for connection tracking. It belongs to the network namespace the thread was in when
/// it was opened.
pub struct Conntrack {
    socket: NetfilterSocket,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`HostError::System`] when the kernel has no nfnetlink.
    pub fn open() -> Result<Self, HostError> {
        NetfilterSocket::open().map(|socket| Self { socket })
    }

    /// The flows of IPv4 or IPv6 that `wanted` says so of.
    ///
    /// # Errors
    /// [`HostError::Netlink`]; `EOPNOTSUPP` or `EINVAL` on a kernel without nf_conntrack_netlink.
    pub fn flows(
        &mut self,
        v6: bool,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Result<Vec<Flow>, HostError> {
        let family = if v6 {
            NetfilterProtoFamily::IPv6
        } else {
            NetfilterProtoFamily::IPv4
        };
        let message = message(family, ConntrackMessage::Get(Vec::new()));
        self.socket
            .dump(&message, "list tracked connections", |found, object| {
                found.extend(read(object).filter(|flow| wanted(flow)));
            })
    }

    /// The flow that began so, asked for by its tuple: how many others there are does not matter. An echo request has its
    /// number for a source port. None if there is none (in zone 0).
    ///
    /// # Errors
    /// As [`Conntrack::flows`].
    pub fn flow(&mut self, began: &Tuple) -> Result<Option<Flow>, HostError> {
        let family = match began.destination.is_ipv6() {
            true => NetfilterProtoFamily::IPv6,
            false => NetfilterProtoFamily::IPv4,
        };
        let tuple = ConntrackAttribute::Other(written(began));
        let message = message(family, ConntrackMessage::Get(vec![tuple]));
        match self
            .socket
            .get(message, "look up a tracked connection", read)
        {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            found => found,
        }
    }

    /// Forgets the flows of IPv4 or IPv6 that `selected` says so of, and tells how many those were.
    /// Flows that ended meanwhile are no error.
    ///
    /// # Errors
    /// As [`Conntrack::flows`].
    pub fn forget(
        &mut self,
        v6: bool,
        selected: impl Fn(&Flow) -> bool,
    ) -> Result<usize, HostError> {
        let flows = self.flows(v6, selected)?;
        let mut forgotten = 0;
        for flow in &flows {
            match self.socket.request(deletion(flow), &deletion_words(flow)) {
                Ok(()) => forgotten += 1,
                Err(HostError::Netlink {
                    errno: Errno::ENOENT,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(forgotten)
    }
}

/// `CTA_TUPLE_ORIG`.
fn written(tuple: &Tuple) -> DefaultNla {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (source, destination) = match tuple.destination.is_ipv6() {
        true => (CTA_IP_V6_SRC, CTA_IP_V6_DST),
        false => (CTA_IP_V4_SRC, CTA_IP_V4_DST),
    };
    let ip = [
        DefaultNla::new(source, octets(tuple.source)),
        DefaultNla::new(destination, octets(tuple.destination)),
    ];
    let port = |kind, port: u16| DefaultNla::new(kind, port.to_be_bytes().to_vec());
    let mut protocol = vec![DefaultNla::new(CTA_PROTO_NUM, vec![tuple.protocol])];
    // Number, type and code of an echo request.
    match tuple.protocol {
        1 | 58 => {
            let (first, echo) = if tuple.protocol == 1 {
                (4, 8)
            } else {
                (7, 128)
            };
            protocol.push(port(first, tuple.source_port));
            protocol.push(DefaultNla::new(first + 1, vec![echo]));
            protocol.push(DefaultNla::new(first + 2, vec![0]));
        }
        _ => {
            protocol.push(port(CTA_PROTO_SRC_PORT, tuple.source_port));
            protocol.push(port(CTA_PROTO_DST_PORT, tuple.destination_port));
        }
    }
    let parts = [nest(CTA_TUPLE_IP, &ip), nest(CTA_TUPLE_PROTO, &protocol)];
    nest(CTA_TUPLE_ORIG, &parts)
}

fn message(family: NetfilterProtoFamily, body: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), body)
}

fn deletion(flow: &Flow) -> Outgoing {
    let attributes = flow
        .handle
        .iter()
        .map(|(kind, value)| ConntrackAttribute::Other(DefaultNla::new(*kind, value.clone())))
        .collect();
    Outgoing {
        message: message(flow.family, ConntrackMessage::Delete(attributes)),
        flags: 0,
    }
}

fn deletion_words(flow: &Flow) -> String {
    let Tuple {
        destination,
        destination_port,
        ..
    } = flow.original;
    format!("forget a tracked connection to {destination} port {destination_port}")
}

fn read(object: &Object<'_>) -> Option<Flow> {
    let attributes = object.attributes;
    // The tuple is needed whole, and so is what tells apart entries with equal ones.
    let named = [
        (CTA_TUPLE_ORIG, CTA_TUPLE_ORIG | NLA_F_NESTED),
        (CTA_ID, CTA_ID),
        (CTA_ZONE, CTA_ZONE),
    ];
    let handle = named
        .into_iter()
        .filter_map(|(kind, written)| Some((written, attributes.find(kind)?.to_vec())))
        .collect();
    Some(Flow {
        original: read_tuple(attributes.nested(CTA_TUPLE_ORIG))?,
        reply: read_tuple(attributes.nested(CTA_TUPLE_REPLY))?,
        replied: attributes
            .u32(CTA_STATUS)
            .is_some_and(|status| status & SEEN_REPLY != 0),
        family: object.family,
        handle,
    })
}

fn read_tuple(tuple: Attributes<'_>) -> Option<Tuple> {
    let (ip, protocol) = (tuple.nested(CTA_TUPLE_IP), tuple.nested(CTA_TUPLE_PROTO));
    let address = |v4, v6| {
        let four = ip
            .find(v4)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let sixteen = ip
            .find(v6)
            .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        four.map(IpAddr::from).or(sixteen.map(IpAddr::from))
    };
    let port = |kind| {
        let bytes = protocol
            .find(kind)
            .and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    Some(Tuple {
        source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: *protocol.find(CTA_PROTO_NUM)?.first()?,
        source_port: port(CTA_PROTO_SRC_PORT),
        destination_port: port(CTA_PROTO_DST_PORT),
    })
}
