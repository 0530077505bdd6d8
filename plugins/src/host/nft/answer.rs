//! What comes back on a netfilter netlink socket.

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader};
use netlink_packet_netfilter::NetfilterProtoFamily;

use super::attributes::Attributes;

// Attributes of an extended acknowledgement, from include/uapi/linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Message types below this one are netlink's own (`NLMSG_MIN_TYPE`).
const FIRST_OWN_TYPE: u16 = 16;

/// The length of a netlink header (`struct nlmsghdr`).
const NETLINK_HEADER: usize = 16;

/// The length of a netfilter header behind it (`struct nfgenmsg`).
const NETFILTER_HEADER: usize = 4;

/// An object in an answer.
pub(crate) struct Answer<'a> {
    /// Subsystem in the upper, message in the lower byte.
    pub(crate) kind: u16,
    /// The address family.
    pub(crate) family: NetfilterProtoFamily,
    /// What is told of it.
    pub(crate) attributes: Attributes<'a>,
}

/// A message of netlink's own, or an object.
pub(super) enum Incoming<'a> {
    Object(Answer<'a>),
    /// The end of a listing, with an error code.
    Done(i32),
    Status(Status),
    Other,
}

/// A refusal, or an acknowledgement when the code is 0.
pub(super) struct Status {
    /// 0 or a negative error number.
    pub(super) code: i32,
    /// The kernel's words on it.
    pub(super) detail: Option<String>,
    /// Where in the request, counted from its header, the attribute is that the kernel refused.
    pub(super) offset: Option<u32>,
}

/// The first message of a datagram and how many bytes it takes up.
pub(super) fn incoming(bytes: &[u8]) -> Option<(NetlinkHeader, Incoming<'_>, usize)> {
    let buffer = NetlinkBuffer::new_checked(&bytes).ok()?;
    let mut header = NetlinkHeader::default();
    header.length = buffer.length();
    header.message_type = buffer.message_type();
    header.flags = buffer.flags();
    header.sequence_number = buffer.sequence_number();
    let length = usize::try_from(header.length).ok()?;
    let payload = bytes.get(NETLINK_HEADER..length)?;
    let code = || {
        payload
            .first_chunk::<4>()
            .map(|bytes| i32::from_ne_bytes(*bytes))
    };
    let incoming = match header.message_type {
        NLMSG_DONE => Incoming::Done(code().unwrap_or(0)),
        NLMSG_ERROR => Incoming::Status(status(code()?, payload.get(4..)?)),
        kind if kind >= FIRST_OWN_TYPE => Incoming::Object(Answer {
            kind,
            family: (*payload.first()?).into(),
            attributes: Attributes::new(payload.get(NETFILTER_HEADER..)?),
        }),
        _ => Incoming::Other,
    };
    Some((header, incoming, length.next_multiple_of(4)))
}

/// What follows the code of a refusal: the header of the request it quotes (the header alone, because the socket
/// asks for that: `NETLINK_CAP_ACK`), and what the kernel adds.
fn status(code: i32, quote: &[u8]) -> Status {
    let added = Attributes::new(quote.get(NETLINK_HEADER..).unwrap_or_default());
    let offset = added.find(NLMSGERR_ATTR_OFFS);
    Status {
        code,
        detail: added.text(NLMSGERR_ATTR_MSG),
        offset: offset
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes),
    }
}
