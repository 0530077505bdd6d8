//! Following packets through the rules: a table of one's own that marks them, and what the kernel tells of them.
//!
//! The table belongs to a socket (`flags owner`, Linux 5.12), so that the kernel removes it when the process ends,
//! however that is. What is told goes to everybody who listens (`NFNLGRP_NFTRACE`), so events of packets that others
//! trace come, too; who they are about shows in their headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;

use super::trace_table::{self, HOOKS, ICMP};
use super::{Family, Verdict};
use crate::host::HostError;
use crate::host::conntrack::Tuple;
use crate::host::netlink::attributes::Attributes;
use crate::host::netlink::netfilter::{NetfilterSocket, Object};
use crate::host::rtnl::Mac;

pub use super::trace_table::Pattern;

// From include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNLGRP_NFTRACE: u32 = 9;
const TRACE: u16 = 10 << 8 | 17;
const NFTA_TRACE_TABLE: u16 = 1;
const NFTA_TRACE_CHAIN: u16 = 2;
const NFTA_TRACE_RULE_HANDLE: u16 = 3;
const NFTA_TRACE_TYPE: u16 = 4;
const NFTA_TRACE_VERDICT: u16 = 5;
const NFTA_TRACE_ID: u16 = 6;
const NFTA_TRACE_LL_HEADER: u16 = 7;
const NFTA_TRACE_NETWORK_HEADER: u16 = 8;
const NFTA_TRACE_TRANSPORT_HEADER: u16 = 9;
const NFTA_TRACE_IIF: u16 = 10;
const NFTA_TRACE_OIF: u16 = 12;
const NFTA_TRACE_MARK: u16 = 14;
const NFTA_TRACE_POLICY: u16 = 16;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const TYPE_POLICY: u32 = 1;
const TYPE_RULE: u32 = 3;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NF_STOLEN: i32 = 2;
const NF_QUEUE: i32 = 3;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// So many events are kept. Who is traced may send as many packets as it likes.
pub const EVENTS_AT_MOST: usize = 20_000;

/// What the kernel tells of a packet at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same for events of one packet in one chain, at least.
    pub id: u32,
    /// The family of the table.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// What decided, and how.
    pub what: Decision,
    /// The index of the interface that it came in by; none before Linux knows or for what the host sends.
    pub iif: Option<u32>,
    /// The index of the interface that it is to leave by.
    pub oif: Option<u32>,
    /// The packet's mark.
    pub mark: u32,
    /// Whether it ends a TCP connection by force (RST), as far as it is told.
    pub resets: bool,
    /// The hardware address that it goes to, where it has one by then.
    pub mac: Option<Mac>,
    /// The length of the IP packet in bytes, as its header has it, where it may not be fragmented.
    pub whole: Option<u32>,
    /// The error that it tells of, if it is such a message of ICMP.
    pub error: Option<IcmpError>,
    /// Where it goes, told with the first event of each base chain.
    pub packet: Option<Tuple>,
}

/// A message of ICMP about another packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU that it tells, where it says that a packet was too large.
    pub mtu: Option<u32>,
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A rule that applied, by its handle; without a verdict it goes on behind it.
    Rule(u64, Option<Verdict>),
    /// A rule that handed the packet to somebody else (a queue, `dup`, a flow table).
    Taken(u64),
    /// The end of the chain, or of the base chain by its policy.
    End {
        /// Whether the policy drops it.
        drops: bool,
    },
}

/// A table that follows packets, and a socket that listens.
pub struct Tracer {
    /// Closed, it takes the table with it.
    owner: NetfilterSocket,
    listener: NetfilterSocket,
    name: String,
    families: Vec<Family>,
}

impl Tracer {
    /// Begins in the calling thread's network namespace. Bridges are left out on a kernel whose nftables doesn't know them.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] without nftables or before Linux 5.12; [`HostError::Netlink`] with `EPERM` without
    /// CAP_NET_ADMIN.
    pub fn begin(patterns: &[Pattern]) -> Result<Self, HostError> {
        let (owner, listener) = (
            NetfilterSocket::open_alone()?,
            NetfilterSocket::open_alone()?,
        );
        listener
            .subscribe(NFNLGRP_NFTRACE)
            .map_err(|source| HostError::System {
                operation: "listen to what nftables traces".into(),
                source,
            })?;
        let mut tracer = Self {
            owner,
            listener,
            name: format!("trestle-trace-{}", std::process::id()),
            families: Vec::new(),
        };
        match tracer.begin_in(Family::Inet, patterns) {
            // A process of another PID namespace has the same number; its table is nobody else's to look at.
            Err(error) if matches!(error.errno(), Some(Errno::EEXIST | Errno::EPERM)) => {
                let space = std::fs::metadata("/proc/self/ns/pid").map_or(0, |it| it.ino());
                tracer.name = format!("{}-{space}", tracer.name);
                tracer.begin_in(Family::Inet, patterns)?;
            }
            other => other?,
        }
        match tracer.begin_in(Family::Bridge, patterns) {
            Err(HostError::Unsupported { .. }) => {}
            other => other?,
        }
        Ok(tracer)
    }

    fn begin_in(&mut self, family: Family, patterns: &[Pattern]) -> Result<(), HostError> {
        let messages = trace_table::messages(family, &self.name, patterns);
        match self.owner.transact(messages.into_iter()) {
            Ok(()) => self.families.push(family),
            Err(error) if is_unknown(error.errno()) => {
                return Err(unsupported());
            }
            Err(error) => return Err(error.during(format!("make nft table inet {}", self.name))),
        }
        Ok(())
    }

    /// Follows more packets from now on.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn follow(&self, pattern: &Pattern) -> Result<(), HostError> {
        for family in &self.families {
            let rules = trace_table::rules(*family, &self.name, pattern);
            if rules.is_empty() {
                continue;
            }
            self.owner
                .transact(rules.into_iter())
                .map_err(|error| error.during(format!("add a rule to nft table {}", self.name)))?;
        }
        Ok(())
    }

    /// Whether bridges are followed.
    pub fn sees_bridges(&self) -> bool {
        self.families.contains(&Family::Bridge)
    }

    /// Whether an event is from this table's chains, and if so from which hook and whether from the end of it.
    pub fn own_chain(&self, event: &Event) -> Option<(&'static str, bool)> {
        if event.table != self.name {
            return None;
        }
        let (hook, place) = event.chain.split_once('-')?;
        let hook = HOOKS.into_iter().find(|known| *known == hook)?;
        Some((hook, place == "last"))
    }

    /// Adds what the kernel told since the last call. Waits for nothing; returns true when something was lost.
    ///
    /// # Errors
    /// [`HostError::System`].
    pub fn collect(&self, events: &mut Vec<Event>) -> Result<bool, HostError> {
        let take = |object: &Object<'_>| {
            events.extend(read(object));
            events.len() >= EVENTS_AT_MOST
        };
        self.listener
            .notified_until(take)
            .map_err(|error| error.during("read what nftables traces"))
    }
}

/// The descriptor becomes readable when there is something to collect.
impl AsFd for Tracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Packets can't be followed here.
pub fn unsupported() -> HostError {
    HostError::Unsupported {
        operation: "follow packets through nftables".into(),
        remedy: "It needs nf_tables (modprobe nf_tables), and Linux 5.12 or newer: before, a table of rules would outlive a \
                 process that is killed.",
    }
}

/// How the kernel refuses what it doesn't know: the subsystem, the family, the flag.
pub fn is_unknown(errno: Option<Errno>) -> bool {
    matches!(
        errno,
        Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT)
    )
}

fn read(object: &Object<'_>) -> Option<Event> {
    if object.kind != TRACE {
        return None;
    }
    let it = object.attributes;
    let verdict = it.nested(NFTA_TRACE_VERDICT);
    let code = verdict.u32(NFTA_VERDICT_CODE).map(u32::cast_signed);
    let chain = || verdict.text(NFTA_VERDICT_CHAIN).unwrap_or_default();
    let rule = it.u64(NFTA_TRACE_RULE_HANDLE).unwrap_or(0);
    let what = match it.u32(NFTA_TRACE_TYPE)? {
        // The end of a chain is told as a rule without a handle by recent kernels.
        TYPE_RULE if rule == 0 => Decision::End { drops: false },
        TYPE_RULE => match code? {
            NF_DROP => Decision::Rule(rule, Some(Verdict::Drop)),
            NF_ACCEPT => Decision::Rule(rule, Some(Verdict::Accept)),
            NF_STOLEN | NF_QUEUE => Decision::Taken(rule),
            NFT_JUMP => Decision::Rule(rule, Some(Verdict::Jump(chain()))),
            NFT_GOTO => Decision::Rule(rule, Some(Verdict::Goto(chain()))),
            NFT_RETURN => Decision::Rule(rule, Some(Verdict::Return)),
            // The upper half is the number of a queue or an error.
            other if other > 0 && other & 0xff == NF_QUEUE => Decision::Taken(rule),
            _ => Decision::Rule(rule, None),
        },
        TYPE_POLICY => Decision::End {
            drops: it.u32(NFTA_TRACE_POLICY) == Some(0),
        },
        _ => Decision::End { drops: false },
    };
    Some(Event {
        id: it.u32(NFTA_TRACE_ID)?,
        family: object.family,
        table: it.text(NFTA_TRACE_TABLE)?,
        chain: it.text(NFTA_TRACE_CHAIN)?,
        what,
        iif: it.u32(NFTA_TRACE_IIF).filter(|index| *index != 0),
        oif: it.u32(NFTA_TRACE_OIF).filter(|index| *index != 0),
        mark: it.u32(NFTA_TRACE_MARK).unwrap_or(0),
        resets: resets(it),
        mac: it
            .find(NFTA_TRACE_LL_HEADER)
            .and_then(|header| header.first_chunk().copied()),
        whole: whole(it),
        error: icmp_error(it),
        packet: read_packet(it),
    })
}

/// As the header says: IPv4 has the whole, IPv6 what comes behind its header.
fn whole(event: Attributes<'_>) -> Option<u32> {
    let header = event.find(NFTA_TRACE_NETWORK_HEADER)?;
    let number =
        |at: usize| Some(u32::from(*header.get(at)?) << 8 | u32::from(*header.get(at + 1)?));
    match header.first()? >> 4 {
        4 if number(6)? & 0x4000 == 0 => None,
        4 => number(2),
        _ => Some(number(4)? + 40),
    }
}

/// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 792, RFC 4443).
fn icmp_error(event: Attributes<'_>) -> Option<IcmpError> {
    let network = event.find(NFTA_TRACE_NETWORK_HEADER)?;
    let header: &[u8; 8] = event.find(NFTA_TRACE_TRANSPORT_HEADER)?.first_chunk()?;
    let (kind, code) = (header[0], header[1]);
    let word = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let v6 = network.first()? >> 4 == 6;
    let (is_error, mtu) = match v6 {
        false if network.get(9) == Some(&1) => (
            matches!(kind, 3 | 11 | 12),
            (kind == 3 && code == 4).then_some(word & 0xffff),
        ),
        true if network.get(6) == Some(&58) => (matches!(kind, 1..=4), (kind == 2).then_some(word)),
        _ => return None,
    };
    is_error.then_some(IcmpError { kind, code, mtu })
}

/// The flag RST of a TCP header (RFC 9293, section 3.1).
fn resets(event: Attributes<'_>) -> bool {
    let flags = event
        .find(NFTA_TRACE_TRANSPORT_HEADER)
        .and_then(|it| it.get(13));
    flags.is_some_and(|flags| flags & 1 << 2 != 0)
}

/// Addresses and ports from the headers that come along.
fn read_packet(event: Attributes<'_>) -> Option<Tuple> {
    let network = event.find(NFTA_TRACE_NETWORK_HEADER)?;
    let transport = event.find(NFTA_TRACE_TRANSPORT_HEADER).unwrap_or_default();
    let (source, destination, protocol): (IpAddr, IpAddr, u8) = match network.first()? >> 4 {
        4 => {
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = network.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            };
            (address(12)?, address(16)?, *network.get(9)?)
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = network.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            };
            (address(8)?, address(24)?, *network.get(6)?)
        }
        _ => return None,
    };
    let number = |at: usize| {
        let bytes = transport.get(at..at + 2);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u16::from_be_bytes)
    };
    let (source_port, destination_port) = match ICMP.contains(&protocol) {
        // An echo request's number stands for the asker's port, in both directions.
        true => match transport.first() {
            Some(8 | 128) => (number(4), 0),
            Some(0 | 129) => (0, number(4)),
            _ => (0, 0),
        },
        false => (number(0), number(2)),
    };
    Some(Tuple {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux before 5.12 answers to the flag of a table that goes with its owner.
    #[test]
    fn a_flag_that_the_kernel_does_not_know_is_taken_for_an_old_kernel() {
        let refused = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            let socket = NetfilterSocket::open_alone().ok()?;
            let table = trace_table::table(Family::Inet, "t", 1 << 30);
            socket.transact([table].into_iter()).err()
        });
        // Without privileges there is no namespace to try it in.
        if let Some(error) = refused.join().unwrap() {
            assert!(is_unknown(error.errno()), "{error:?}");
        }
    }
}
