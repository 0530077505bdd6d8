//! What comes back on a netlink socket.

use netlink_packet_core::{NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader};
use nix::errno::Errno;

use super::attributes::Attributes;

// Attributes of an extended acknowledgement, from include/uapi/linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Message types below this one are netlink's own (`NLMSG_MIN_TYPE`).
const FIRST_OWN_TYPE: u16 = 16;

/// The length of a netlink header (`struct nlmsghdr`).
const HEADER: usize = 16;

/// The length of the code in front of what an error or the end of a listing brings along.
const CODE: usize = 4;

/// One message.
pub(crate) struct Reply<'a> {
    /// Type, flags, sequence number and port number.
    pub(crate) header: NetlinkHeader,
    /// What it says.
    pub(crate) content: Content<'a>,
}

/// A message of netlink's own, or an object.
pub(crate) enum Content<'a> {
    /// What follows the header.
    Object(&'a [u8]),
    /// The end of a listing, which may have failed.
    Done(Status),
    /// The outcome of a request.
    Status(Status),
    /// Nothing of interest.
    Other,
}

/// A refusal, or an acknowledgement.
pub(crate) struct Status {
    /// None for an acknowledgement.
    pub(crate) errno: Option<Errno>,
    /// The kernel's words on it.
    pub(crate) detail: Option<String>,
    /// Where in the request, counted from its header, the attribute is that the kernel refused.
    pub(crate) offset: Option<u32>,
}

/// The first message of a datagram and how many bytes it takes up; none if it can't be understood.
pub(crate) fn parse_reply(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let buffer = NetlinkBuffer::new_checked(&bytes).ok()?;
    let mut header = NetlinkHeader::default();
    header.length = buffer.length();
    header.message_type = buffer.message_type();
    header.flags = buffer.flags();
    header.sequence_number = buffer.sequence_number();
    header.port_number = buffer.port_number();
    let length = usize::try_from(header.length).ok()?;
    let payload = bytes.get(HEADER..length)?;
    let content = match header.message_type {
        NLMSG_DONE => Content::Done(Status::parse(payload, 0)),
        NLMSG_ERROR => Content::Status(Status::parse(payload, quoted(&header, payload))),
        kind if kind >= FIRST_OWN_TYPE => Content::Object(payload),
        _ => Content::Other,
    };
    Some((Reply { header, content }, length.next_multiple_of(4)))
}

/// How much of the request an error repeats: its header, and the rest of it unless that was cut off.
fn quoted(header: &NetlinkHeader, payload: &[u8]) -> usize {
    let length = payload
        .get(CODE..)
        .and_then(|quote| quote.first_chunk().copied())
        .map(u32::from_ne_bytes);
    match length {
        Some(length) if header.flags & NLM_F_CAPPED == 0 => {
            usize::try_from(length).map_or(usize::MAX, |length| length.next_multiple_of(4))
        }
        _ => HEADER,
    }
}

impl Status {
    /// The code, so many bytes that are skipped, and the attributes of the extended acknowledgement.
    fn parse(payload: &[u8], skipped: usize) -> Self {
        let code = payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
        let attributes = payload.get(CODE.saturating_add(skipped)..);
        let attributes = Attributes::new(attributes.unwrap_or_default());
        let offset = attributes.find(NLMSGERR_ATTR_OFFS);
        let text = attributes.text(NLMSGERR_ATTR_MSG).map(|text| {
            let end = text.trim_end_matches(['\n', '.', ' ']).len();
            text[..end].to_owned()
        });
        Self {
            errno: (code < 0).then(|| Errno::from_raw(code.saturating_neg())),
            detail: text.filter(|text| !text.is_empty()),
            offset: offset
                .and_then(|bytes| bytes.try_into().ok())
                .map(u32::from_ne_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_ACK_TLVS;

    use super::*;

    /// An error about a request of so many bytes, with a text and an offset.
    fn error(flags: u16, quote: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend((-17_i32).to_ne_bytes());
        bytes.extend(quote);
        bytes.extend([12, 0, 1, 0]);
        bytes.extend(*b"Exists.\0");
        bytes.extend([8, 0, 2, 0]);
        bytes.extend(44_u32.to_ne_bytes());
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_ACK_TLVS).to_ne_bytes());
        bytes
    }

    #[test]
    fn what_the_kernel_adds_to_an_error_is_found_behind_a_whole_quote_and_a_capped_one() {
        let mut quote = vec![7; 22];
        quote[..4].copy_from_slice(&22_u32.to_ne_bytes());
        let capped = error(NLM_F_CAPPED, &quote[..HEADER]);
        quote.resize(24, 0);
        for bytes in [capped, error(0, &quote)] {
            let (reply, length) = parse_reply(&bytes).unwrap();
            assert_eq!(length, bytes.len());
            let Content::Status(status) = reply.content else {
                panic!("no status")
            };
            assert_eq!(status.errno, Some(Errno::EEXIST));
            assert_eq!(status.detail.as_deref(), Some("Exists"));
            assert_eq!(status.offset, Some(44));
        }
    }

    #[test]
    fn a_message_that_is_cut_off_is_none() {
        let bytes = error(0, &[9; 16]);
        for end in 0..bytes.len() {
            assert!(parse_reply(&bytes[..end]).is_none(), "{end}");
        }
    }
}
