//! Set and map elements as bytes, and the comment that says who owns one.
//!
//! A key is what the kernel compares: network byte order, each field of a concatenation padded with zeros
//! at its end to a multiple of four bytes (`ipv4_addr . inet_proto . inet_service` is `a b c d`, `p 0 0 0`,
//! `h l 0 0`). [`KeyBuilder`] and [`KeyReader`] know that rule so that nobody else has to.
//!
//! A comment is userdata, which the kernel keeps and hands back without looking at it. Its format is
//! libnftnl's (`nftnl_udata`): type 0, length, text, NUL; `nft list` prints it as `comment "…"`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, Verdict, VerdictAttribute,
};

use crate::host::netlink::attributes::{Attributes, text};

/// The longest comment, in bytes, that `nft` itself takes (`NFTNL_UDATA_COMMENT_MAXLEN` less the NUL).
/// The kernel would take 253, but a saved ruleset could not be loaded again.
pub const COMMENT_MAX: usize = 127;

// Attributes of an element, from include/uapi/linux/netfilter/nf_tables.h.
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// The userdata type of a comment, for elements and rules alike.
const USERDATA_COMMENT: u8 = 0;

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key as the kernel keeps it.
    pub key: Vec<u8>,
    /// What a map gives for the key; nothing in a set.
    pub data: Option<ElementData>,
    /// Who owns it, at most [`COMMENT_MAX`] bytes; longer ones are cut.
    pub comment: Option<String>,
}

/// What a map gives for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementData {
    /// Bytes, laid out like a key.
    Value(Vec<u8>),
    /// `jump CHAIN`.
    Jump(String),
    /// `goto CHAIN`.
    Goto(String),
}

impl Element {
    /// An element of a set of `ipv4_addr` or `ipv6_addr`.
    pub fn address(address: IpAddr, comment: impl Into<String>) -> Self {
        let key = KeyBuilder::default().address(address).finish();
        Self {
            key,
            data: None,
            comment: Some(comment.into()),
        }
    }

    /// The key as an address, if it has the length of one.
    pub fn as_address(&self) -> Option<IpAddr> {
        if let Ok(octets) = <[u8; 4]>::try_from(self.key.as_slice()) {
            return Some(Ipv4Addr::from(octets).into());
        }
        let octets = <[u8; 16]>::try_from(self.key.as_slice()).ok()?;
        Some(Ipv6Addr::from(octets).into())
    }

    /// The element for a message that adds it (`whole`), or finds or deletes it by its key.
    pub(super) fn encode(&self, whole: bool) -> ListAttribute<SetElementAttribute> {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(
            self.key.clone(),
        ))];
        if whole {
            attributes.extend(self.data.as_ref().map(encode_data));
            attributes.extend(self.comment.as_deref().map(encode_comment));
        }
        ListAttribute::Element(attributes)
    }

    /// An element of a listing. None for the entries that have no key, such as a catch-all.
    pub(super) fn decode(attributes: Attributes<'_>) -> Option<Self> {
        let key = attributes
            .nested(NFTA_SET_ELEM_KEY)
            .find(NFTA_DATA_VALUE)?
            .to_vec();
        let data = decode_data(attributes.nested(NFTA_SET_ELEM_DATA));
        let comment = attributes
            .find(NFTA_SET_ELEM_USERDATA)
            .and_then(decode_comment);
        Some(Self { key, data, comment })
    }
}

fn encode_data(data: &ElementData) -> SetElementAttribute {
    let verdict = |code, chain: &String| {
        DataAttribute::Verdict(vec![
            VerdictAttribute::Code(code),
            VerdictAttribute::Chain(chain.clone()),
        ])
    };
    SetElementAttribute::Data(match data {
        ElementData::Value(bytes) => DataAttribute::Value(bytes.clone()),
        ElementData::Jump(chain) => verdict(Verdict::Jump, chain),
        ElementData::Goto(chain) => verdict(Verdict::Goto, chain),
    })
}

fn decode_data(data: Attributes<'_>) -> Option<ElementData> {
    if let Some(value) = data.find(NFTA_DATA_VALUE) {
        return Some(ElementData::Value(value.to_vec()));
    }
    let verdict = data.nested(NFTA_DATA_VERDICT);
    let chain = verdict.text(NFTA_VERDICT_CHAIN)?;
    match Verdict::from(verdict.u32(NFTA_VERDICT_CODE)?) {
        Verdict::Jump => Some(ElementData::Jump(chain)),
        Verdict::Goto => Some(ElementData::Goto(chain)),
        _ => None,
    }
}

fn encode_comment(comment: &str) -> SetElementAttribute {
    SetElementAttribute::UserData(encode_userdata(comment))
}

/// The userdata of an element or a rule with a comment.
pub(super) fn encode_userdata(comment: &str) -> Vec<u8> {
    let comment = cut(comment, COMMENT_MAX);
    let mut bytes = Vec::with_capacity(comment.len() + 3);
    // The cut above keeps the length within a byte.
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    bytes.extend([USERDATA_COMMENT, length]);
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

/// The longest beginning of `text` that has at most `limit` bytes and no broken character.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The comment within the userdata of an element or a rule.
pub(super) fn decode_comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == USERDATA_COMMENT {
            return Some(text(value));
        }
        userdata = &rest[value.len()..];
    }
    None
}

/// Lays the fields of a key out as the kernel expects them.
#[derive(Debug, Default, Clone)]
pub struct KeyBuilder {
    bytes: Vec<u8>,
}

impl KeyBuilder {
    /// `ipv4_addr` or `ipv6_addr`.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    /// `inet_proto`, by its number.
    #[must_use]
    pub fn protocol(self, protocol: u8) -> Self {
        self.field(&[protocol])
    }

    /// `inet_service`.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.field(&port.to_be_bytes())
    }

    /// `ether_addr`.
    #[must_use]
    pub fn mac(self, mac: [u8; 6]) -> Self {
        self.field(&mac)
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        // Padding in front of a field is the end of the one before it: a single field has none.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The key. A concatenation is padded at its end too, a single field is not.
    pub fn finish(mut self) -> Vec<u8> {
        if self.bytes.len() > 4 {
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        self.bytes
    }
}

/// Reads the fields of a key in order; each method gives none when the key has ended.
#[derive(Debug, Clone)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
}

impl<'a> KeyReader<'a> {
    /// Starts at the first field of `key`.
    pub fn new(key: &'a [u8]) -> Self {
        Self { rest: key }
    }

    /// `ipv4_addr`.
    pub fn ipv4(&mut self) -> Option<Ipv4Addr> {
        self.field::<4>().map(Ipv4Addr::from)
    }

    /// `ipv6_addr`.
    pub fn ipv6(&mut self) -> Option<Ipv6Addr> {
        self.field::<16>().map(Ipv6Addr::from)
    }

    /// `inet_proto`, by its number.
    pub fn protocol(&mut self) -> Option<u8> {
        self.field::<1>().map(|[number]| number)
    }

    /// `inet_service`.
    pub fn port(&mut self) -> Option<u16> {
        self.field::<2>().map(u16::from_be_bytes)
    }

    fn field<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.rest.first_chunk::<N>().copied()?;
        let padded = N.next_multiple_of(4).min(self.rest.len());
        self.rest = &self.rest[padded..];
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_a_concatenation_is_padded_to_four_bytes() {
        let key = KeyBuilder::default()
            .address(IpAddr::from([10, 1, 2, 3]))
            .protocol(17)
            .port(53)
            .finish();
        assert_eq!(key, [10, 1, 2, 3, 17, 0, 0, 0, 0, 53, 0, 0]);
        let mut reader = KeyReader::new(&key);
        assert_eq!(reader.ipv4(), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(reader.protocol(), Some(17));
        assert_eq!(reader.port(), Some(53));
        assert_eq!(reader.port(), None);
    }

    #[test]
    fn a_comment_survives_the_round_trip_and_is_cut_at_a_character() {
        for comment in ["net/abc/eth0", "", &"ä".repeat(100)] {
            let SetElementAttribute::UserData(bytes) = encode_comment(comment) else {
                panic!()
            };
            assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
            let back = decode_comment(&bytes).unwrap();
            assert!(comment.starts_with(&back) && back.len() <= COMMENT_MAX);
            assert!(back.len() == comment.len() || back.len() >= COMMENT_MAX - 1);
        }
    }

    #[test]
    fn a_comment_is_found_behind_other_userdata_and_garbage_has_none() {
        assert_eq!(
            decode_comment(&[1, 1, 9, 0, 2, b'x', 0]).as_deref(),
            Some("x")
        );
        assert_eq!(decode_comment(&[1, 200, 9]), None);
        assert_eq!(decode_comment(&[]), None);
        assert_eq!(decode_comment(&[0]), None);
    }
}
