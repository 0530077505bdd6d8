//! What comes back on a netfilter netlink socket.

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader};
use netlink_packet_netfilter::NetfilterProtoFamily;

use super::attributes::{Attributes, text};

/// The attribute of an extended acknowledgement that holds the kernel's words (`NLMSGERR_ATTR_MSG`).
const EXTENDED_ACK_TEXT: u16 = 1;

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
    /// A refusal, or an acknowledgement when the code is 0, and the kernel's words on it.
    Status(i32, Option<String>),
    Other,
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
        NLMSG_ERROR => Incoming::Status(code()?, extended_ack(payload.get(4..)?)),
        kind if kind >= FIRST_OWN_TYPE => Incoming::Object(Answer {
            kind,
            family: (*payload.first()?).into(),
            attributes: Attributes::new(payload.get(NETFILTER_HEADER..)?),
        }),
        _ => Incoming::Other,
    };
    Some((header, incoming, length.next_multiple_of(4)))
}

/// The kernel's own words on a refusal, after the header of the request it quotes. The quote is only the
/// header, because the socket asks for that (`NETLINK_CAP_ACK`).
fn extended_ack(quote: &[u8]) -> Option<String> {
    Attributes::new(quote.get(NETLINK_HEADER..)?)
        .find(EXTENDED_ACK_TEXT)
        .map(text)
}
