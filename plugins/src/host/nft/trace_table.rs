//! The table that has the kernel tell of some packets: `meta nftrace set 1` for them, and an empty chain at the beginning
//! and the end of every hook, each of which tells what a packet looks like there.
//!
//! It is written with bare attributes; numbers are from include/uapi/linux/netfilter/nf_tables.h.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};

use super::Family;
use crate::host::conntrack::Tuple;
use crate::host::netlink::attributes::nest;
use crate::host::netlink::netfilter::Outgoing;

const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
/// `NFT_TABLE_F_OWNER`: only this socket changes the table, and it goes when the socket is closed. Linux 5.12.
const OWNED: u32 = 1 << 1;

const META_PROTOCOL: u32 = 1;
const META_NFTRACE: u32 = 12;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_PROTO_SRC: u32 = 11;
const CT_PROTO_DST: u32 = 12;
const CT_SRC: [u32; 2] = [19, 21];
const CT_DST: [u32; 2] = [20, 22];
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const REGISTER: u32 = 1;

/// ICMP and ICMPv6, and the types of an echo request and its reply in them.
pub(super) const ICMP: [u8; 2] = [1, 58];
const ECHO: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];

/// Chains of a hook: before everybody, and behind everybody else.
const FIRST: i32 = i32::MIN + 1;
const LAST: i32 = i32::MAX - 1;

/// Behind connection tracking, which is at -200, and before any translation.
const TRACKED: i32 = -199;

/// The hooks of IP and of a bridge, which have the same numbers.
pub(super) const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Which packets are told of.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Packets of exactly this direction. A source that is unspecified, or a port of 0, stands for any.
    Exactly(Tuple),
    /// Packets to this address and port: answers to it, whoever sends them.
    To(Tuple),
    /// Errors of ICMP about packets of this direction, by what they quote of them: who sent it, and from which port.
    About(Tuple),
    /// Both directions of the flow, or of all such flows, that connection tracking knows to have begun so. Has no effect on a bridge.
    Begun(Tuple),
}

/// The messages that make a table of that family which tells of packets of `patterns`.
pub(super) fn messages(family: Family, name: &str, patterns: &[Pattern]) -> Vec<Outgoing> {
    let mut messages = vec![table(family, name, OWNED)];
    let tracked = family == Family::Inet
        && patterns
            .iter()
            .any(|pattern| matches!(pattern, Pattern::Begun(_)));
    for (hook, word) in (0_u32..).zip(HOOKS) {
        let mut places = vec![("first", FIRST), ("last", LAST)];
        if tracked && matches!(word, "prerouting" | "output") {
            places.push(("tracked", TRACKED));
        }
        for (place, priority) in places {
            let at = vec![number(1, hook), number(2, priority.cast_unsigned())];
            let chain = vec![
                text(1, name),
                text(3, &format!("{word}-{place}")),
                nest(4, &at),
                number(5, 1),
                text(7, "filter"),
            ];
            messages.push(outgoing(family, NEW_CHAIN, NLM_F_CREATE, chain));
        }
    }
    messages.extend(
        patterns
            .iter()
            .flat_map(|pattern| rules(family, name, pattern)),
    );
    messages
}

/// The message that makes a table with these flags.
pub(super) fn table(family: Family, name: &str, flags: u32) -> Outgoing {
    let table = vec![text(1, name), number(2, flags)];
    outgoing(family, NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, table)
}

/// The rules of one pattern.
pub(super) fn rules(family: Family, table: &str, pattern: &Pattern) -> Vec<Outgoing> {
    let place = match pattern {
        Pattern::Begun(_) if family != Family::Inet => return Vec::new(),
        Pattern::Begun(_) => "tracked",
        _ => "first",
    };
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    let rule = |hook: &str| {
        let rule = vec![
            text(1, table),
            text(2, &format!("{hook}-{place}")),
            nest(4, &expressions(family, pattern)),
        ];
        outgoing(family, NEW_RULE, flags, rule)
    };
    ["prerouting", "output"].map(rule).into()
}

fn outgoing(family: Family, kind: u8, flags: u16, attributes: Vec<DefaultNla>) -> Outgoing {
    let body = NfTablesMessage::Other {
        message_type: kind,
        attributes,
    };
    Outgoing {
        message: NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), body),
        flags,
    }
}

fn expressions(family: Family, pattern: &Pattern) -> Vec<DefaultNla> {
    let (Pattern::Exactly(tuple)
    | Pattern::To(tuple)
    | Pattern::Begun(tuple)
    | Pattern::About(tuple)) = pattern;
    let v6 = tuple.destination.is_ipv6();
    let mut all = Vec::new();
    match family {
        Family::Bridge => {
            let protocol: u16 = if v6 { 0x86dd } else { 0x0800 };
            all.extend(compare(meta(META_PROTOCOL), &protocol.to_be_bytes()));
        }
        _ => all.extend(compare(meta(META_NFPROTO), &[if v6 { 10 } else { 2 }])),
    }
    let protocol = match pattern {
        Pattern::About(_) => ICMP[usize::from(v6)],
        _ => tuple.protocol,
    };
    all.extend(compare(meta(META_L4PROTO), &[protocol]));
    match pattern {
        Pattern::About(_) => {
            // Behind eight bytes of its own an error quotes the packet's IP header and what follows.
            let (source, ports) = if v6 {
                (8 + 8, 8 + 40)
            } else {
                (8 + 12, 8 + 20)
            };
            all.extend(bytes_at(TRANSPORT, source, &octets(tuple.source)));
            let number = if is_icmp(tuple) { ports + 4 } else { ports };
            all.extend(number_at(TRANSPORT, number, tuple.source_port));
        }
        Pattern::Exactly(_) => {
            if !tuple.source.is_unspecified() {
                all.extend(address(tuple.source, 0));
            }
            all.extend(address(tuple.destination, 1));
            let source_port = Some(tuple.source_port).filter(|port| *port != 0);
            if is_icmp(tuple) {
                all.extend(bytes_at(TRANSPORT, 0, &[ECHO[usize::from(v6)]]));
                all.extend(
                    source_port
                        .into_iter()
                        .flat_map(|it| number_at(TRANSPORT, 4, it)),
                );
            } else {
                all.extend(
                    source_port
                        .into_iter()
                        .flat_map(|it| number_at(TRANSPORT, 0, it)),
                );
                let port = Some(tuple.destination_port).filter(|port| *port != 0);
                all.extend(port.into_iter().flat_map(|it| number_at(TRANSPORT, 2, it)));
            }
        }
        Pattern::To(_) => {
            all.extend(address(tuple.destination, 1));
            if is_icmp(tuple) {
                all.extend(bytes_at(TRANSPORT, 0, &[ECHO_REPLY[usize::from(v6)]]));
                all.extend(number_at(TRANSPORT, 4, tuple.destination_port));
            } else {
                all.extend(number_at(TRANSPORT, 2, tuple.destination_port));
            }
        }
        Pattern::Begun(_) => {
            let of = |keys: [u32; 2]| keys[usize::from(v6)];
            if !tuple.source.is_unspecified() {
                all.extend(compare(ct(of(CT_SRC)), &octets(tuple.source)));
            }
            all.extend(compare(ct(of(CT_DST)), &octets(tuple.destination)));
            if tuple.source_port != 0 {
                all.extend(compare(ct(CT_PROTO_SRC), &tuple.source_port.to_be_bytes()));
            }
            if !is_icmp(tuple) {
                let port = tuple.destination_port.to_be_bytes();
                all.extend(compare(ct(CT_PROTO_DST), &port));
            }
        }
    }
    let one = nest(2, &[DefaultNla::new(1, vec![1])]);
    all.push(expression("immediate", &[number(1, REGISTER), one]));
    all.push(expression(
        "meta",
        &[number(2, META_NFTRACE), number(3, REGISTER)],
    ));
    all
}

/// Whether it is about echo requests, whose number stands in place of ports.
pub(super) fn is_icmp(tuple: &Tuple) -> bool {
    ICMP.contains(&tuple.protocol)
}

fn number_at(base: u32, offset: u32, number: u16) -> Vec<DefaultNla> {
    bytes_at(base, offset, &number.to_be_bytes())
}

/// The source (0) or destination (1) address of a header.
fn address(address: IpAddr, which: u32) -> Vec<DefaultNla> {
    let octets = octets(address);
    let begin = if address.is_ipv4() { 12 } else { 8 };
    let length = u32::try_from(octets.len()).unwrap_or(0);
    bytes_at(NETWORK, begin + which * length, &octets)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn bytes_at(base: u32, offset: u32, value: &[u8]) -> Vec<DefaultNla> {
    let length = u32::try_from(value.len()).unwrap_or(0);
    let load = [
        number(1, REGISTER),
        number(2, base),
        number(3, offset),
        number(4, length),
    ];
    compare(expression("payload", &load), value)
}

fn meta(key: u32) -> DefaultNla {
    expression("meta", &[number(1, REGISTER), number(2, key)])
}

/// A part of the tuple that the flow began with.
fn ct(key: u32) -> DefaultNla {
    let original = DefaultNla::new(3, vec![0]);
    expression("ct", &[number(1, REGISTER), number(2, key), original])
}

/// What loads the register, and the comparison.
fn compare(load: DefaultNla, value: &[u8]) -> Vec<DefaultNla> {
    let data = nest(3, &[DefaultNla::new(1, value.to_vec())]);
    vec![
        load,
        expression("cmp", &[number(1, REGISTER), number(2, 0), data]),
    ]
}

fn expression(name: &str, data: &[DefaultNla]) -> DefaultNla {
    nest(1, &[text(1, name), nest(2, data)])
}

fn text(kind: u16, text: &str) -> DefaultNla {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().into())
}
