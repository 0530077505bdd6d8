//! Reading netlink attributes in place.
//!
//! Requests are written with netlink-packet-netfilter. Answers are read here instead of with its parsers,
//! which format the whole datagram for an error message at every list entry, whether there is an error or
//! not: a set of 1,000 elements took 600 ms to list.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};

/// An attribute with others in it, for a request.
pub(crate) fn nest(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// The bits of an attribute's type that are flags (`NLA_TYPE_MASK`).
const FLAGS: u16 = 0xc000;

/// The attributes of a message or of a nested attribute: type without flags, and value. It ends early at
/// one that is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// All attributes in `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The value of the first attribute of this type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes nested in the first one of this type; none when there is no such one.
    pub(crate) fn nested(self, kind: u16) -> Self {
        Self::new(self.find(kind).unwrap_or_default())
    }

    /// The first attribute of this type as text.
    pub(crate) fn text(self, kind: u16) -> Option<String> {
        self.find(kind).map(text)
    }

    /// The first attribute of this type as a number in network byte order.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// The first attribute of this type as a number in network byte order.
    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_be_bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d, ..] = *self.rest else {
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.rest.get(4..length)?;
        self.rest = self
            .rest
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !FLAGS, value))
    }
}

/// Bytes up to the first NUL, as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_their_flags_are_no_part_of_the_type() {
        let bytes = [5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 2, 0x80, b'h', b'i', 0, 0];
        let all: Vec<_> = Attributes::new(&bytes).collect();
        assert_eq!(all, [(1, &[7][..]), (2, &b"hi\0\0"[..])]);
        assert_eq!(Attributes::new(&bytes).text(2).as_deref(), Some("hi"));
        assert_eq!(Attributes::new(&bytes).find(3), None);
    }

    #[test]
    fn broken_attributes_end_the_list() {
        for bytes in [
            &[][..],
            &[8],
            &[8, 0, 1, 0],
            &[0, 0, 1, 0, 9],
            &[3, 0, 1, 0],
            &[255, 255, 1, 0, 1],
        ] {
            assert_eq!(Attributes::new(bytes).count(), 0, "{bytes:?}");
        }
    }
}
