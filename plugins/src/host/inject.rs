//! A packet that comes in by a link of this host as if somebody outside had sent it.
//!
//! A TAP device that goes when its descriptor is closed, and so with the process however that ends, receives it; a filter of
//! traffic control on that device, which goes with it, hands it on to the link's receiving side (`tcf_mirred_act` in
//! net/sched/act_mirred.c). Nothing is attached to the link itself.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;

use super::conntrack::Tuple;
use super::error::HostError;
use super::probe::Kind;
use super::rtnl::{Link, LinkChange, Mac, Rtnl};
use super::tap::{self, NewTap};

/// Who the frames are from: an address of local administration.
const SENDER: Mac = [0x02, 0x74, 0x72, 0x61, 0x63, 0x65];

/// What a link without Ethernet addresses receives is for.
const NOBODY: Mac = [0x02, 0x74, 0x72, 0x61, 0x63, 0x66];

/// A way into a link.
pub struct Injector {
    tap: File,
    to: Mac,
}

impl Injector {
    /// Opens it, in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] without TAP devices or what redirects their traffic.
    pub fn open(rtnl: &Rtnl, link: &Link) -> Result<Self, HostError> {
        let operation = || format!("make a packet come in by {}", link.name);
        let file = tap::open(operation())?;
        let new = NewTap {
            name: "trestle-%d".into(),
            multi_queue: false,
            owner: None,
            group: None,
        };
        let name = tap::set_interface(&file, &new).map_err(|errno| HostError::System {
            operation: operation(),
            source: errno.into(),
        })?;
        let tap = rtnl
            .link_by_name(&name)?
            .ok_or_else(|| HostError::LinkMissing {
                operation: operation(),
            })?;
        // What is for another address than its own is not for this host (`eth_type_trans`).
        let to = link.mac.unwrap_or(NOBODY);
        let quiet = LinkChange {
            no_link_local: true,
            ..LinkChange::default()
        };
        // Without IPv6 there is no such setting.
        let _ = rtnl.set_link(tap.index, &quiet);
        rtnl.pass_off_as_received(tap.index, link.index)?;
        rtnl.set_link(
            tap.index,
            &LinkChange {
                up: Some(true),
                mac: Some(to),
                mtu: Some(link.mtu.clamp(1280, 65_521)),
                ..LinkChange::default()
            },
        )?;
        Ok(Self { tap: file, to })
    }

    /// Has an IP packet come in.
    ///
    /// # Errors
    /// [`HostError::System`].
    pub fn inject(&self, packet: &[u8]) -> Result<(), HostError> {
        let v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        let protocol: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&self.to[..], &SENDER, &protocol, packet].concat();
        let written = (&self.tap).write(&frame);
        written.map(drop).map_err(|source| HostError::System {
            operation: "make a packet come in".into(),
            source,
        })
    }
}

/// The flags SYN and RST of TCP.
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;

/// The first sequence number of a connection. Nobody is to guess it, but nothing depends on it either.
const SEQUENCE: u32 = 0x7472_6163;

/// An IP packet that may not be fragmented: what begins a TCP connection, a datagram, or an echo request. With a size it gets
/// as long as that, in bytes; TCP does not.
pub fn packet(tuple: &Tuple, kind: &Kind, size: Option<usize>) -> Vec<u8> {
    let content = match kind {
        Kind::Tcp => segment(tuple, SEQUENCE, SYN),
        Kind::Udp(content) => {
            let mut bytes = ports(tuple);
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(padded(content, size, tuple, 8));
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            bytes
        }
        Kind::Icmp => {
            let echo = if tuple.destination.is_ipv6() { 128 } else { 8 };
            let [high, low] = tuple.source_port.to_be_bytes();
            let mut bytes = vec![echo, 0, 0, 0, high, low, 0, 1];
            bytes.extend(padded(&[], size, tuple, 8));
            bytes
        }
    };
    with_header(tuple, content)
}

/// The end of a connection that [`packet`] began.
pub fn reset(tuple: &Tuple) -> Vec<u8> {
    with_header(tuple, segment(tuple, SEQUENCE + 1, RST))
}

/// The bytes of an IP header.
pub fn header_length(v6: bool) -> usize {
    if v6 { 40 } else { 20 }
}

/// Content with zeros behind it, so that the packet gets so long with a header of `header` bytes behind that of IP.
pub(super) fn padded(content: &[u8], size: Option<usize>, tuple: &Tuple, header: usize) -> Vec<u8> {
    let whole = size.map(|size| {
        size.saturating_sub(header_length(tuple.destination.is_ipv6()) + header)
            .max(content.len())
    });
    let mut bytes = content.to_vec();
    bytes.resize(whole.unwrap_or(content.len()), 0);
    bytes
}

fn ports(tuple: &Tuple) -> Vec<u8> {
    let (from, to) = (tuple.source_port, tuple.destination_port);
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

/// RFC 9293, section 3.1.
fn segment(tuple: &Tuple, sequence: u32, flags: u8) -> Vec<u8> {
    let mut bytes = ports(tuple);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

fn with_header(tuple: &Tuple, mut content: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let at = match tuple.protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    // The pseudo header of TCP, UDP and ICMPv6; ICMP has none.
    let mut covered = Vec::new();
    if tuple.protocol != 1 {
        covered.extend(octets(tuple.source));
        covered.extend(octets(tuple.destination));
        covered.extend([0, tuple.protocol]);
        covered.extend(length.to_be_bytes());
    }
    covered.extend(&content);
    let sum = checksum(&covered);
    content[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut header = match tuple.destination {
        IpAddr::V6(_) => {
            let [high, low] = length.to_be_bytes();
            vec![0x60, 0, 0, 0, high, low, tuple.protocol, 64]
        }
        IpAddr::V4(_) => {
            let [high, low] = length.saturating_add(20).to_be_bytes();
            // Not to be fragmented.
            vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, tuple.protocol, 0, 0]
        }
    };
    header.extend(octets(tuple.source));
    header.extend(octets(tuple.destination));
    if tuple.destination.is_ipv4() {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    header.extend(content);
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(v6: bool, protocol: u8) -> Tuple {
        let ends = if v6 {
            ["2001:db8::1", "2001:db8::2"]
        } else {
            ["192.0.2.1", "192.0.2.2"]
        };
        Tuple {
            source: ends[0].parse().unwrap(),
            destination: ends[1].parse().unwrap(),
            protocol,
            source_port: 40_000,
            destination_port: 80,
        }
    }

    #[test]
    fn packets_have_the_size_that_is_asked_for_and_checksums_that_come_out() {
        for (v6, echo) in [(false, 1), (true, 58)] {
            let udp = packet(&tuple(v6, 17), &Kind::Udp(b"abc".to_vec()), Some(1400));
            let icmp = packet(&tuple(v6, echo), &Kind::Icmp, Some(1401));
            let tcp = packet(&tuple(v6, 6), &Kind::Tcp, None);
            let header = header_length(v6);
            assert_eq!(
                (udp.len(), icmp.len(), tcp.len()),
                (1400, 1401, header + 20)
            );
            for (packet, protocol) in [(udp, 17), (icmp, echo), (tcp, 6)] {
                let content = &packet[header..];
                let mut covered = Vec::new();
                if protocol != 1 {
                    covered.extend(&packet[header - if v6 { 32 } else { 8 }..header]);
                    covered.extend([0, protocol]);
                    covered.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
                }
                covered.extend(content);
                assert_eq!(checksum(&covered), 0, "{protocol}");
                assert!(v6 || checksum(&packet[..20]) == 0);
            }
        }
    }
}
