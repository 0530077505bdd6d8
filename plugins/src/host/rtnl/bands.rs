//! Two bands for what leaves by a link, only one of which is shaped: traffic with some addresses waits for tokens, the
//! rest does not.
//!
//! This is the queueing discipline `htb`, tc-htb(8), with a single class; what belongs to the class 0 bypasses it
//! (net/sched/sch_htb.c, `HTB_DIRECT`). Packets are told apart by filters of the kind `u32`, tc-u32(8), which compare
//! words of the IP header and are part of nearly every kernel. Structures are those of include/uapi/linux/pkt_sched.h.

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};
use nix::errno::Errno;
use nix::libc;

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::exchange::Rtnl;
use super::qdisc::{
    LINKLAYER_ETHERNET, NO_SHAPING, ROOT_HANDLE, TokenBucket, tc_message, unread_options,
};

/// `TCA_OPTIONS`, for a discipline whose options are a bare structure.
const OPTIONS: u16 = 2;

const HTB_PARAMETERS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;

/// The version of the kernel's interface, `HTB_VER` of its major half.
const HTB_VERSION: u32 = 3;

/// Of no use with one class that brings its quantum along, but the kernel wants it not to be 0.
const RATE_TO_QUANTUM: u32 = 10;

/// The length of `struct tc_htb_opt`: two rates of 12 bytes, then buffer, cbuffer, quantum, level and prio.
const PARAMETERS_LENGTH: usize = 44;
const BUFFER_AT: usize = 24;
const QUANTUM_AT: usize = 32;

/// A band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// Never waits for tokens, and goes first.
    Free,
    /// Waits for tokens.
    Shaped,
}

impl Band {
    fn class(self) -> TcHandle {
        let minor = match self {
            Self::Free => 0,
            Self::Shaped => 1,
        };
        TcHandle {
            minor,
            ..ROOT_HANDLE
        }
    }
}

/// Which address of a packet counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// The handle of the queue in the shaped band.
const QUEUE_HANDLE: TcHandle = TcHandle { major: 2, minor: 0 };

impl Rtnl {
    /// Makes the two bands in place of whatever there was, the shaped one with the token bucket. Packets that no
    /// filter knows go into the band `default`. Where only a part can be made, it is taken away again.
    pub fn set_bands(
        &self,
        link: u32,
        default: Band,
        bucket: &TokenBucket,
    ) -> Result<(), HostError> {
        let mut root = tc_message(link);
        root.header.parent = TcHandle::ROOT;
        root.header.handle = ROOT_HANDLE;
        root.attributes = vec![
            TcAttribute::Kind("htb".to_owned()),
            TcAttribute::Options(vec![option(HTB_INIT, glob(default))]),
        ];
        let mut class = tc_message(link);
        class.header.parent = ROOT_HANDLE;
        class.header.handle = Band::Shaped.class();
        class.attributes = vec![
            TcAttribute::Kind("htb".to_owned()),
            TcAttribute::Options(class_options(bucket)),
        ];
        let mut queue = tc_message(link);
        queue.header.parent = Band::Shaped.class();
        queue.header.handle = QUEUE_HANDLE;
        queue.attributes = vec![
            TcAttribute::Kind("bfifo".to_owned()),
            TcAttribute::Other(DefaultNla::new(
                OPTIONS,
                bucket.limit.to_ne_bytes().to_vec(),
            )),
        ];
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let failed = |error| unknown_or(error, format!("make bands on {}", self.describe(link)));
        self.ask(RouteNetlinkMessage::NewQueueDiscipline(root), flags)
            .map_err(failed)?;
        let filled = self
            .ask(RouteNetlinkMessage::NewTrafficClass(class), NLM_F_CREATE)
            .and_then(|_| self.ask(RouteNetlinkMessage::NewQueueDiscipline(queue), flags));
        let Err(error) = filled else { return Ok(()) };
        self.stop_shaping(link)?;
        Err(failed(error))
    }

    /// The token bucket of the shaped band, if there are bands. The burst is not told.
    pub fn bands_token_bucket(&self, link: u32) -> Result<Option<TokenBucket>, HostError> {
        let mut class = tc_message(link);
        class.header.handle = Band::Shaped.class();
        let mut queue = tc_message(link);
        queue.header.parent = Band::Shaped.class();
        let rate = self
            .tc_object(link, RouteNetlinkMessage::GetTrafficClass(class))?
            .and_then(|class| rate(&class));
        let limit = self
            .tc_object(link, RouteNetlinkMessage::GetQueueDiscipline(queue))?
            .and_then(|queue| limit(&queue));
        Ok(rate.zip(limit).map(|(rate, limit)| TokenBucket {
            rate,
            burst: 0,
            limit,
        }))
    }

    /// Puts packets with an address of `net` into a band. `number` is the order in which filters are asked; one
    /// number is for one family.
    pub fn add_band_filter(
        &self,
        link: u32,
        number: u16,
        side: Side,
        net: &IpNet,
        band: Band,
    ) -> Result<(), HostError> {
        let protocol = match net {
            IpNet::V4(_) => libc::ETH_P_IP,
            IpNet::V6(_) => libc::ETH_P_IPV6,
        };
        let mut message = tc_message(link);
        message.header.parent = ROOT_HANDLE;
        message.header.info = u32::from(TcHandle {
            major: number,
            minor: u16::try_from(protocol).unwrap_or_default().to_be(),
        });
        message.attributes = vec![
            TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
            TcAttribute::Options(vec![
                TcOption::U32(TcFilterU32Option::ClassId(band.class())),
                TcOption::U32(TcFilterU32Option::Selector(selector(side, net))),
            ]),
        ];
        self.ask(
            RouteNetlinkMessage::NewTrafficFilter(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|error| {
            unknown_or(
                error,
                format!("add filter {net} to {}", self.describe(link)),
            )
        })?;
        Ok(())
    }
}

/// The error to report; `ENOENT` is what an unknown kind is called.
fn unknown_or(error: NetlinkError, operation: String) -> HostError {
    match error.errno() {
        Some(Errno::ENOENT) => HostError::Unsupported {
            operation,
            remedy: NO_SHAPING,
        },
        _ => error.during_or_unsupported(operation, NO_SHAPING),
    }
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// `struct tc_htb_glob`.
fn glob(default: Band) -> Vec<u8> {
    let class = u32::from(default.class().minor);
    [HTB_VERSION, RATE_TO_QUANTUM, class, 0, 0]
        .map(u32::to_ne_bytes)
        .concat()
}

fn class_options(bucket: &TokenBucket) -> Vec<TcOption> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut parameters = vec![0; PARAMETERS_LENGTH];
    // Rate and ceiling are the same.
    for at in [0, 12] {
        parameters[at + 1] = LINKLAYER_ETHERNET;
        parameters[at + 8..at + 12].copy_from_slice(&rate.to_ne_bytes());
    }
    let buffer = bucket.ticks().to_ne_bytes();
    parameters[BUFFER_AT..QUANTUM_AT].copy_from_slice(&[buffer, buffer].concat());
    let quantum = u32::from(u16::MAX).to_ne_bytes();
    parameters[QUANTUM_AT..QUANTUM_AT + 4].copy_from_slice(&quantum);
    let rate64 = bucket.rate.to_ne_bytes().to_vec();
    vec![
        option(HTB_PARAMETERS, parameters),
        option(HTB_RATE64, rate64.clone()),
        option(HTB_CEIL64, rate64),
    ]
}

/// The rate of a class.
fn rate(class: &TcMessage) -> Option<u64> {
    let options = unread_options(&class.attributes, "htb")?;
    let value = |wanted| {
        let mut options = NlasIterator::new(options.as_slice()).map_while(Result::ok);
        options
            .find(|option| option.kind() == wanted)
            .map(|option| option.value().to_vec())
    };
    let rate64 = value(HTB_RATE64).and_then(|bytes| bytes.try_into().ok());
    let rate = || {
        let parameters = value(HTB_PARAMETERS)?;
        let rate = parameters.get(8..12)?.try_into().ok()?;
        Some(u64::from(u32::from_ne_bytes(rate)))
    };
    rate64.map(u64::from_ne_bytes).or_else(rate)
}

/// The limit of a queue.
fn limit(queue: &TcMessage) -> Option<u32> {
    let options = unread_options(&queue.attributes, "bfifo")?;
    options.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The words to compare. Offsets count from the beginning of the IP header.
fn selector(side: Side, net: &IpNet) -> TcU32Selector {
    let keys = match net {
        IpNet::V4(net) => words(
            if side == Side::Source { 12 } else { 16 },
            &net.netmask().octets(),
            &net.network().octets(),
        ),
        IpNet::V6(net) => words(
            if side == Side::Source { 8 } else { 24 },
            &net.netmask().octets(),
            &net.network().octets(),
        ),
    };
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = u8::try_from(keys.len()).unwrap_or_default();
    selector.keys = keys;
    selector
}

/// A key for every word of the address that the mask lets count; one of which nothing counts, if none does.
fn words(offset: i32, mask: &[u8], address: &[u8]) -> Vec<TcU32Key> {
    let word = |bytes: &[u8]| bytes.first_chunk().copied().map_or(0, u32::from_be_bytes);
    let mut keys = Vec::new();
    let words = mask.chunks(4).map(word).zip(address.chunks(4).map(word));
    for (at, (mask, value)) in (offset..).step_by(4).zip(words) {
        if mask != 0 {
            let mut key = TcU32Key::default();
            (key.mask, key.val, key.off) = (mask, value, at);
            keys.push(key);
        }
    }
    if keys.is_empty() {
        keys.push(TcU32Key::default());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_that_the_prefix_covers_are_compared() {
        let keys = |side, prefix: &str| {
            let selector = selector(side, &prefix.parse().unwrap());
            assert_eq!(usize::from(selector.nkeys), selector.keys.len());
            let keys = selector.keys.iter();
            keys.map(|key| (key.off, key.mask, key.val))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys(Side::Source, "10.1.2.3/8"),
            [(12, 0xff00_0000, 0x0a00_0000)]
        );
        assert_eq!(
            keys(Side::Destination, "10.1.2.3/32"),
            [(16, u32::MAX, 0x0a01_0203)]
        );
        assert_eq!(
            keys(Side::Destination, "fd00:1:2::/40"),
            [(24, u32::MAX, 0xfd00_0001), (28, 0xff00_0000, 0)]
        );
        assert_eq!(keys(Side::Source, "::/0"), [(0, 0, 0)]);
    }
}
