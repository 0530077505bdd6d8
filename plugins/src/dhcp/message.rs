//! Messages of DHCPv4 (RFC 2131, section 2): a header of fixed length, and options of type, length and value.
//!
//! What an option means is read where it is needed. Those that nobody asked for are passed over, whatever is in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::options::code;
use crate::host::rtnl::Mac;

/// The size that every host can receive, in bytes, and that servers may fill without being asked.
const LEAST_SIZE: u16 = 576;

/// Length of the fields in front of the options, with what says that options follow.
const HEADER: usize = 240;

/// What says so.
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// BOOTP's size, below which relays of old drop a message.
const SIZE_MIN: usize = 300;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    /// Hardware address of the interface.
    pub(super) mac: Mac,
    /// The client identifier, with its type in front.
    pub(super) id: Vec<u8>,
    /// Options that every message has, with their values.
    pub(super) provide: Vec<(u8, Vec<u8>)>,
    /// Options that are asked for.
    pub(super) request: Vec<u8>,
    /// The interface receives nothing for an address that it does not have yet, so servers are to broadcast their answers.
    pub(super) broadcast: bool,
    /// The longest message that the link takes in one piece, in bytes.
    pub(super) size: u16,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// DISCOVER, with the address that the client would like to have.
    Discover { like: Option<Ipv4Addr> },
    /// REQUEST of what a server offered.
    Select { address: Ipv4Addr, server: Ipv4Addr },
    /// REQUEST for more time.
    Extend { address: Ipv4Addr },
    /// RELEASE.
    Release { address: Ipv4Addr, server: Ipv4Addr },
}

/// The transaction that a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) xid: u32,
    /// Seconds since the client began.
    pub(super) secs: u16,
}

/// Writes a message.
pub(super) fn write(client: &Client, purpose: Purpose, transaction: Transaction) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let (kind, own) = match purpose {
        Purpose::Discover { .. } => (1, none),
        Purpose::Select { .. } => (3, none),
        Purpose::Extend { address } => (3, address),
        Purpose::Release { address, .. } => (7, address),
    };
    let mut message = vec![0; HEADER];
    // BOOTREQUEST, Ethernet, with six bytes of hardware address.
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&transaction.xid.to_be_bytes());
    message[8..10].copy_from_slice(&transaction.secs.to_be_bytes());
    if client.broadcast && own == none {
        message[10] = 0x80;
    }
    message[12..16].copy_from_slice(&own.octets());
    message[28..34].copy_from_slice(&client.mac);
    message[236..240].copy_from_slice(&COOKIE);
    set(&mut message, code::MESSAGE_TYPE, &[kind]);
    let provided = &client.provide;
    if provided.iter().all(|(code, _)| *code != code::CLIENT) {
        set(&mut message, code::CLIENT, &client.id);
    }
    match purpose {
        Purpose::Discover {
            like: Some(address),
        } => {
            set(&mut message, code::REQUESTED_ADDRESS, &address.octets());
        }
        Purpose::Select { address, server } => {
            set(&mut message, code::REQUESTED_ADDRESS, &address.octets());
            set(&mut message, code::SERVER, &server.octets());
        }
        Purpose::Release { server, .. } => set(&mut message, code::SERVER, &server.octets()),
        Purpose::Discover { like: None } | Purpose::Extend { .. } => {}
    }
    for (code, value) in provided {
        set(&mut message, *code, value);
    }
    if !matches!(purpose, Purpose::Release { .. }) {
        let size = client.size.max(LEAST_SIZE).to_be_bytes();
        set(&mut message, code::MAX_SIZE, &size);
        if !client.request.is_empty() {
            set(&mut message, code::REQUEST_LIST, &client.request);
        }
    }
    message.push(code::END);
    message.resize(message.len().max(SIZE_MIN), code::PAD);
    message
}

/// Appends an option; one that is longer than an option can be comes in pieces (RFC 3396).
fn set(message: &mut Vec<u8>, code: u8, value: &[u8]) {
    for piece in value.chunks(255) {
        message.extend([code, piece.len() as u8]);
        message.extend_from_slice(piece);
    }
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Offer,
    Ack,
    Nak,
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    /// Whom it is for.
    pub(super) mac: Mac,
    /// The client's address.
    pub(super) address: Ipv4Addr,
    /// The neighbour who sent it: the server, or a relay.
    pub(super) via: Mac,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Reply {
    /// Reads a message; none for anything else than a server's answer.
    pub(super) fn read(bytes: &[u8], via: Mac) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        // BOOTREPLY, Ethernet, with six bytes of hardware address.
        if header[..3] != [2, 1, 6] || header[236..] != COOKIE {
            return None;
        }
        let mut options = BTreeMap::new();
        collect(&mut options, rest);
        // File and server name may hold more options (RFC 2132, section 9.3).
        let overload = options.get(&code::OVERLOAD).and_then(|it| it.first());
        let more = match overload {
            Some(1) => &[&header[108..236]][..],
            Some(2) => &[&header[44..108]],
            Some(3) => &[&header[108..236], &header[44..108]],
            _ => &[],
        };
        for field in more {
            collect(&mut options, field);
        }
        let kind = match options.get(&code::MESSAGE_TYPE)?.as_slice() {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        Some(Self {
            kind,
            xid: u32::from_be_bytes(header[4..8].try_into().ok()?),
            mac: header[28..34].try_into().ok()?,
            address: <[u8; 4]>::try_from(&header[16..20]).ok()?.into(),
            via,
            options,
        })
    }

    /// The value of an option, whole where it came in several pieces.
    pub(super) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// The addresses in an option; none for one that is cut.
    pub(super) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let value = self.option(code).unwrap_or_default();
        let (quads, rest) = value.as_chunks::<4>();
        match rest {
            [] => quads.iter().copied().map(Ipv4Addr::from).collect(),
            _ => Vec::new(),
        }
    }

    /// The one address in an option.
    pub(super) fn address_in(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into())
    }

    /// The number of seconds in an option.
    pub(super) fn seconds(&self, code: u8) -> Option<u32> {
        let bytes: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    /// What the server says to people, made safe to print.
    pub(super) fn text(&self) -> String {
        let text = self.option(code::MESSAGE).unwrap_or_default();
        let printable = text.iter().filter(|byte| (0x20..0x7f).contains(*byte));
        printable.map(|byte| char::from(*byte)).collect()
    }
}

/// Takes up the options of a field, up to its end or to where it is cut. One that comes several times is one in pieces (RFC
/// 3396).
fn collect(options: &mut BTreeMap<u8, Vec<u8>>, mut field: &[u8]) {
    loop {
        field = match field {
            [code::PAD, rest @ ..] => rest,
            [code::END, ..] => return,
            [code, length, rest @ ..] => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
                    return;
                };
                options.entry(*code).or_default().extend_from_slice(value);
                rest
            }
            _ => return,
        };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const MAC: Mac = [2, 0, 0, 0, 0, 7];

    pub(crate) fn client() -> Client {
        Client {
            mac: MAC,
            id: b"\0c1/net/eth0".to_vec(),
            provide: vec![(12, b"web".to_vec())],
            request: vec![1, 3, 121],
            broadcast: false,
            size: 1500,
        }
    }

    /// A server's message with these options, in this order.
    pub(crate) fn answer(xid: u32, address: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        bytes[16..20].copy_from_slice(&address);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        for (code, value) in options {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend_from_slice(value);
        }
        bytes.push(255);
        bytes
    }

    /// The options of a client's message.
    fn sent(bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
        let mut options = BTreeMap::new();
        collect(&mut options, &bytes[HEADER..]);
        options
    }

    const ONE: Transaction = Transaction { xid: 7, secs: 3 };

    #[test]
    fn a_discover_says_who_asks_for_what() {
        let like = Some([10, 0, 0, 5].into());
        let bytes = write(&client(), Purpose::Discover { like }, ONE);
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 0, 0, 0, 7, 0, 3, 0, 0]);
        assert_eq!(bytes[28..34], MAC);
        let options = sent(&bytes);
        assert_eq!(options[&53], [1]);
        assert_eq!(options[&50], [10, 0, 0, 5]);
        assert_eq!(options[&61], b"\0c1/net/eth0");
        assert_eq!(options[&12], b"web");
        assert_eq!(options[&55], [1, 3, 121]);
        assert_eq!(options[&57], 1500_u16.to_be_bytes());
    }

    #[test]
    fn a_broadcast_is_asked_for_until_there_is_an_address() {
        let client = Client {
            broadcast: true,
            ..client()
        };
        let flags = |purpose| write(&client, purpose, ONE)[10];
        let (address, server) = ([10, 0, 0, 5].into(), [10, 0, 0, 1].into());
        assert_eq!(flags(Purpose::Discover { like: None }), 0x80);
        assert_eq!(flags(Purpose::Select { address, server }), 0x80);
        assert_eq!(flags(Purpose::Extend { address }), 0);
    }

    #[test]
    fn requests_name_the_address_where_the_rfc_wants_it() {
        let (address, server) = ([10, 0, 0, 5].into(), [10, 0, 0, 1].into());
        let select = write(&client(), Purpose::Select { address, server }, ONE);
        assert_eq!(select[12..16], [0; 4]);
        assert_eq!(sent(&select)[&50], [10, 0, 0, 5]);
        assert_eq!(sent(&select)[&54], [10, 0, 0, 1]);
        let extend = write(&client(), Purpose::Extend { address }, ONE);
        assert_eq!(extend[12..16], [10, 0, 0, 5]);
        assert!(!sent(&extend).contains_key(&50) && !sent(&extend).contains_key(&54));
        let release = write(&client(), Purpose::Release { address, server }, ONE);
        assert_eq!(release[12..16], [10, 0, 0, 5]);
        let options = sent(&release);
        assert_eq!(
            (&options[&53][..], &options[&54][..]),
            (&[7][..], &[10, 0, 0, 1][..])
        );
        assert!(!options.contains_key(&55));
    }

    #[test]
    fn the_list_may_give_another_identifier() {
        let client = Client {
            provide: vec![(61, b"\x01me".to_vec())],
            ..client()
        };
        let bytes = write(&client, Purpose::Discover { like: None }, ONE);
        assert_eq!(sent(&bytes)[&61], b"\x01me");
    }

    #[test]
    fn an_answer_is_read_with_options_in_pieces_and_in_other_fields() {
        let mut bytes = answer(
            9,
            [10, 0, 0, 5],
            &[
                (53, &[2]),
                (15, b"exam"),
                (52, &[3]),
                (15, b"ple."),
                (0, &[]),
            ],
        );
        // The pad has no length; take out the one that was written.
        let pad = bytes.len() - 2;
        bytes.remove(pad);
        bytes[108..113].copy_from_slice(&[15, 2, b'o', b'r', 255]);
        bytes[44..48].copy_from_slice(&[15, 1, b'g', 255]);
        let reply = Reply::read(&bytes, [1; 6]).unwrap();
        assert_eq!((reply.kind, reply.xid), (Kind::Offer, 9));
        assert_eq!(reply.option(15), Some(&b"example.org"[..]));
        assert_eq!((reply.mac, reply.via), (MAC, [1; 6]));
    }

    #[test]
    fn nothing_that_a_server_sends_is_trusted_to_be_whole() {
        let whole = answer(9, [10, 0, 0, 5], &[(53, &[5]), (1, &[255, 255, 255, 0])]);
        for length in 0..whole.len() {
            // Cut within the options, what came before counts.
            let _ = Reply::read(&whole[..length], MAC);
        }
        for length in 0..HEADER + 3 {
            assert_eq!(Reply::read(&whole[..length], MAC), None, "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut changed = whole.clone();
            changed[at] = byte;
            Reply::read(&changed, MAC)
        };
        for (at, byte) in [
            (0, 1),          // a client's
            (1, 6),          // not Ethernet
            (2, 16),         // another length of hardware address
            (2, 255),        // beyond the message
            (236, 0),        // no options
            (HEADER + 2, 1), // a client's kind
        ] {
            assert_eq!(with(at, byte), None, "byte {at} is {byte}");
        }
        // Every option there is, malformed in every length up to six, beside an answer that is in order.
        for code in 1..255_u8 {
            for length in 0..6 {
                let value = vec![0xff; length];
                let bytes = answer(9, [10, 0, 0, 5], &[(53, &[2]), (code, &value)]);
                assert!(code == 53 || Reply::read(&bytes, MAC).is_some(), "{code}");
            }
        }
    }

    #[test]
    fn what_a_server_says_is_printed_without_its_control_characters() {
        let bytes = answer(9, [0; 4], &[(53, &[6]), (56, b"no\x1b[2J\nway\xff")]);
        assert_eq!(Reply::read(&bytes, MAC).unwrap().text(), "no[2Jway");
    }
}
