//! UDP over IPv4 for those that have no address yet: headers that are written and read by hand (RFC 791, RFC 768).

use std::net::Ipv4Addr;

/// The client's port.
pub(super) const CLIENT: u16 = 68;
/// The server's port.
pub(super) const SERVER: u16 = 67;

/// Length of an IPv4 header without options.
const IP: usize = 20;
const UDP: usize = 8;

/// A packet of the client's for the server's port.
pub(super) fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let length = |header: usize| u16::try_from(header + message.len()).unwrap_or(u16::MAX);
    let (whole, datagram) = (length(IP + UDP), length(UDP));
    // Version and header length, low delay (as servers' answers have it), no fragments, a life of 64 hops, UDP.
    let mut ip = [0_u8; IP];
    ip[..2].copy_from_slice(&[0x45, 0x10]);
    ip[2..4].copy_from_slice(&whole.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let checksum = complement(sum(0, &ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut udp = [0_u8; UDP];
    udp[..2].copy_from_slice(&CLIENT.to_be_bytes());
    udp[2..4].copy_from_slice(&SERVER.to_be_bytes());
    udp[4..6].copy_from_slice(&datagram.to_be_bytes());
    let pseudo = sum(17 + u32::from(datagram), &ip[12..20]);
    let checksum = match complement(sum(sum(pseudo, &udp), message)) {
        // To UDP, 0 would mean that there is none.
        0 => u16::MAX,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    [&ip[..], &udp, message].concat()
}

/// The message in a packet for the client's port, if it is one.
///
/// Checksums are not looked at: of a packet that never left the machine they are not filled in.
pub(super) fn message(packet: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    let whole = usize::from(number(2)?);
    let is_udp = first >> 4 == 4 && header >= IP && *packet.get(9)? == 17;
    let is_whole = number(6)? & 0x3fff == 0;
    if !is_udp || !is_whole || number(header + 2)? != CLIENT {
        return None;
    }
    let end = header + usize::from(number(header + 4)?);
    if end > whole {
        return None;
    }
    packet.get(header + UDP..end)
}

/// The sum of 16-bit words, the last one filled up with zeros; RFC 1071.
fn sum(start: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        rest => u32::from(rest.first().copied().unwrap_or(0)) << 8,
    });
    words.fold(start, u32::wrapping_add)
}

fn complement(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message: &[u8]) -> Vec<u8> {
        let mut packet = packet([10, 0, 0, 1].into(), Ipv4Addr::BROADCAST, message);
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    #[test]
    fn checksums_are_right() {
        // Summed up with its checksum, a header is all ones.
        for message in [&b"odd"[..], b"even", b""] {
            let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            let packet = packet(from, to, message);
            assert_eq!(complement(sum(0, &packet[..20])), 0);
            let pseudo = sum(17 + 8 + message.len() as u32, &packet[12..20]);
            assert_eq!(complement(sum(pseudo, &packet[20..])), 0);
        }
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        assert_eq!(message(&answer(b"hello")), Some(&b"hello"[..]));
        // Ethernet fills short frames up.
        let mut padded = answer(b"hello");
        padded.extend([0; 20]);
        assert_eq!(message(&padded), Some(&b"hello"[..]));
    }

    #[test]
    fn what_is_cut_or_for_others_is_no_message() {
        let whole = answer(b"hello");
        for length in 0..whole.len() {
            assert_eq!(message(&whole[..length]), None, "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut changed = whole.clone();
            changed[at] = byte;
            changed
        };
        for (at, byte) in [
            (0, 0x65), // version 6
            (0, 0x44), // a header shorter than a header
            (0, 0x4f), // longer than the packet
            (6, 0x20), // more fragments
            (7, 1),    // a later fragment
            (9, 6),    // TCP
            (23, 67),  // another port
            (25, 200), // longer than the packet
            (25, 3),   // shorter than its header
        ] {
            assert_eq!(message(&with(at, byte)), None, "byte {at} is {byte}");
        }
    }
}
