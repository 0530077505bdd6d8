//! Traffic shaping: token buckets, and the way of received traffic into one by an ifb device.
//!
//! Only what leaves by a link can be shaped. What a link receives is redirected to an ifb device,
//! and shaped where it leaves that. The token bucket's options are put together here, because the
//! packet crate does not have them; include/uapi/linux/pkt_sched.h describes them.

use netlink_packet_core::{
    DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE, Nla, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption,
    TcActionOption, TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage,
    TcMirror, TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use nix::errno::Errno;
use rtnetlink::{LinkIfb, LinkMessageBuilder};

use super::super::error::HostError;
use super::super::netlink::NetlinkError;
use super::build::With;
use super::exchange::Rtnl;
use super::link::Link;

const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;

/// `TC_LINKLAYER_ETHERNET`: the kernel works out packets' times from the rate, without a table of
/// them.
pub(super) const LINKLAYER_ETHERNET: u8 = 1;

/// The length of `struct tc_tbf_qopt`: two rates of 12 bytes, then limit, buffer and mtu.
const PARAMETERS_LENGTH: usize = 36;
const LIMIT_AT: usize = 24;

/// A tick of the packet scheduler in nanoseconds, `1 << PSCHED_SHIFT`.
const TICK_NANOSECONDS: u128 = 64;

/// What to do when the kernel can't shape.
pub(super) const NO_SHAPING: &str = "Load the kernel's modules sch_tbf, sch_htb, sch_ingress, \
    cls_u32, act_mirred and ifb, or install the distribution's full kernel.";

/// A token bucket: how fast, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// The rate in bytes per second.
    pub rate: u64,
    /// How many bytes may be sent at once after a pause. Must be more than the largest packet.
    pub burst: u32,
    /// How many bytes may wait; what comes when they do is dropped.
    pub limit: u32,
}

impl Rtnl {
    /// Creates an ifb device and returns it.
    ///
    /// # Errors
    /// [`HostError::already_exists`]; [`HostError::Unsupported`] when the kernel has no such devices.
    pub fn create_ifb(&self, name: &str, mtu: Option<u32>, up: bool) -> Result<Link, HostError> {
        let message = LinkIfb::new(name)
            .with(mtu, LinkMessageBuilder::mtu)
            .when(up, LinkMessageBuilder::up)
            .build();
        self.new_link(name, message).map_err(|error| {
            error.during_or_unsupported(format!("create ifb device {name}"), NO_SHAPING)
        })
    }

    /// Shapes what leaves by a link, in place of whatever did before.
    pub fn set_token_bucket(&self, link: u32, bucket: &TokenBucket) -> Result<(), HostError> {
        let mut message = tc_message(link);
        message.header.parent = TcHandle::ROOT;
        message.header.handle = ROOT_HANDLE;
        message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
        message
            .attributes
            .push(TcAttribute::Options(bucket.options()));
        self.ask(
            RouteNetlinkMessage::NewQueueDiscipline(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map_err(|error| {
            let operation = format!(
                "shape {} to {} bytes/s, burst {}",
                self.describe(link),
                bucket.rate,
                bucket.burst
            );
            match error.errno() {
                // What an unknown kind of queueing discipline is called.
                Some(Errno::ENOENT) => HostError::Unsupported {
                    operation,
                    remedy: NO_SHAPING,
                },
                _ => error.during_or_unsupported(operation, NO_SHAPING),
            }
        })?;
        Ok(())
    }

    /// The token bucket that shapes what leaves by a link, if there is one. The burst is rounded by
    /// the kernel, which keeps it as a time.
    pub fn token_bucket(&self, link: u32) -> Result<Option<TokenBucket>, HostError> {
        let mut request = tc_message(link);
        request.header.parent = TcHandle::ROOT;
        let queue = self.tc_object(link, RouteNetlinkMessage::GetQueueDiscipline(request))?;
        Ok(queue.and_then(|queue| TokenBucket::from_attributes(&queue.attributes)))
    }

    /// A queueing discipline or class of a link, without listing those of all links. The kernel tells of it in a
    /// notification, which the asker gets too where it asks for an echo.
    pub(super) fn tc_object(
        &self,
        link: u32,
        request: RouteNetlinkMessage,
    ) -> Result<Option<TcMessage>, HostError> {
        match self.ask(request, NLM_F_ECHO) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewQueueDiscipline(message)
                | RouteNetlinkMessage::NewTrafficClass(message) => Some(message),
                _ => None,
            })),
            Err(error) => match error.errno() {
                // There is none, or one that the kernel does not tell of since it put it there itself.
                Some(Errno::ENOENT | Errno::EINVAL) => Ok(None),
                _ => Err(error.during(format!("look up how {} is shaped", self.describe(link)))),
            },
        }
    }

    /// Redirects all that a link receives to another one, an ifb device. All or nothing.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when its received traffic is redirected already.
    pub fn redirect_ingress(&self, link: u32, to: u32) -> Result<(), HostError> {
        self.redirect(link, to, TcMirrorActionType::EgressRedir)
    }

    /// Has what a link receives come in by another one, as if that had received it. All or nothing.
    ///
    /// # Errors
    /// As [`Self::redirect_ingress`].
    pub fn pass_off_as_received(&self, link: u32, by: u32) -> Result<(), HostError> {
        self.redirect(link, by, TcMirrorActionType::IngressRedir)
    }

    fn redirect(&self, link: u32, to: u32, how: TcMirrorActionType) -> Result<(), HostError> {
        let failed = |error: NetlinkError| {
            let operation = format!(
                "redirect what {} receives to {}",
                self.describe(link),
                self.describe(to)
            );
            match error.errno() {
                Some(Errno::ENOENT) => HostError::Unsupported {
                    operation,
                    remedy: NO_SHAPING,
                },
                _ => error.during_or_unsupported(operation, NO_SHAPING),
            }
        };
        let mut queue = tc_message(link);
        queue.header.parent = TcHandle::INGRESS;
        queue.header.handle = INGRESS_HANDLE;
        queue
            .attributes
            .push(TcAttribute::Kind("ingress".to_owned()));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.ask(RouteNetlinkMessage::NewQueueDiscipline(queue), flags)
            .map_err(failed)?;
        let filter = RouteNetlinkMessage::NewTrafficFilter(redirect_message(link, to, how));
        let Err(error) = self.ask(filter, flags) else {
            return Ok(());
        };
        self.stop_ingress_redirect(link)?;
        Err(failed(error))
    }

    /// Shapes no longer what leaves by a link, and forgets its bands. Returns false when nothing was set.
    pub fn stop_shaping(&self, link: u32) -> Result<bool, HostError> {
        self.delete_queue(link, TcHandle::ROOT, "stop shaping")
    }

    /// Redirects no longer what a link receives. Returns false when it was not redirected.
    pub fn stop_ingress_redirect(&self, link: u32) -> Result<bool, HostError> {
        self.delete_queue(
            link,
            TcHandle::INGRESS,
            "stop redirecting what is received by",
        )
    }

    fn delete_queue(&self, link: u32, parent: TcHandle, what: &str) -> Result<bool, HostError> {
        let mut message = tc_message(link);
        message.header.parent = parent;
        match self.ask(RouteNetlinkMessage::DelQueueDiscipline(message), 0) {
            Ok(_) => Ok(true),
            Err(error) => match error.errno() {
                // EINVAL for what the kernel put there itself.
                Some(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV) => Ok(false),
                _ => Err(error.during(format!("{what} {}", self.describe(link)))),
            },
        }
    }

    /// The index of the link that received traffic is redirected to, if it is.
    pub fn ingress_redirect(&self, link: u32) -> Result<Option<u32>, HostError> {
        let mut request = tc_message(link);
        request.header.parent = INGRESS_HANDLE;
        let answers = match self.dump(&RouteNetlinkMessage::GetTrafficFilter(request)) {
            Ok(answers) => answers,
            // There is nothing to receive traffic, hence nothing to filter it.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::ENOENT)) => {
                return Ok(None);
            }
            Err(error) => {
                let operation = format!("list filters of {}", self.describe(link));
                return Err(error.during(operation));
            }
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(message) => redirect_target(&message),
            _ => None,
        }))
    }
}

/// The handle of what queues for a whole link.
pub(super) const ROOT_HANDLE: TcHandle = TcHandle { major: 1, minor: 0 };

/// The ingress queueing discipline always has this handle.
const INGRESS_HANDLE: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

/// `ETH_P_ALL`: packets of every protocol.
const ALL_PROTOCOLS: u16 = 0x0003;

/// Traffic control has signed indices; the kernel gives out no negative ones.
fn tc_index(link: u32) -> i32 {
    i32::try_from(link).unwrap_or_default()
}

pub(super) fn tc_message(link: u32) -> TcMessage {
    TcMessage::with_index(tc_index(link))
}

/// A filter that every packet matches and that ends its way here.
fn redirect_message(link: u32, to: u32, how: TcMirrorActionType) -> TcMessage {
    let mut mirror = TcMirror::default();
    mirror.generic = TcActionGeneric::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = how;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];

    let mut message = tc_message(link);
    message.header.parent = INGRESS_HANDLE;
    message.header.info = u32::from(TcHandle {
        major: 1,
        minor: ALL_PROTOCOLS.to_be(),
    });
    message
        .attributes
        .push(TcAttribute::Kind(TcFilterU32::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ]));
    message
}

fn redirect_target(message: &TcMessage) -> Option<u32> {
    let options = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
    let actions = options.iter().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions.flatten().flat_map(|action| &action.attributes);
    let options = attributes.filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))
            if mirror.eaction == TcMirrorActionType::EgressRedir =>
        {
            Some(mirror.ifindex)
        }
        _ => None,
    })
}

fn payload(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}

/// The options of a kind that the packet crate does not know: it keeps them in one attribute, unread.
pub(super) fn unread_options(attributes: &[TcAttribute], kind: &str) -> Option<Vec<u8>> {
    let is_kind = |it: &TcAttribute| matches!(it, TcAttribute::Kind(found) if found == kind);
    if !attributes.iter().any(is_kind) {
        return None;
    }
    attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => match options.as_slice() {
            [TcOption::Other(unread)] => Some(payload(unread)),
            _ => None,
        },
        _ => None,
    })
}

impl TokenBucket {
    /// The time that the burst takes at the rate, in ticks; as many as fit.
    pub(super) fn ticks(&self) -> u32 {
        let nanoseconds = u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate.max(1));
        u32::try_from(nanoseconds / TICK_NANOSECONDS).unwrap_or(u32::MAX)
    }

    fn options(&self) -> Vec<TcOption> {
        let rate = u32::try_from(self.rate);
        let mut parameters = vec![0; PARAMETERS_LENGTH];
        parameters[1] = LINKLAYER_ETHERNET;
        parameters[8..12].copy_from_slice(&rate.unwrap_or(u32::MAX).to_ne_bytes());
        parameters[LIMIT_AT..LIMIT_AT + 4].copy_from_slice(&self.limit.to_ne_bytes());
        let mut options = vec![
            DefaultNla::new(TBF_PARAMETERS, parameters),
            DefaultNla::new(TBF_BURST, self.burst.to_ne_bytes().to_vec()),
        ];
        if rate.is_err() {
            options.push(DefaultNla::new(
                TBF_RATE64,
                self.rate.to_ne_bytes().to_vec(),
            ));
        }
        options.into_iter().map(TcOption::Other).collect()
    }

    fn from_attributes(attributes: &[TcAttribute]) -> Option<Self> {
        let options = unread_options(attributes, "tbf")?;
        let value = |wanted| {
            NlasIterator::new(options.as_slice())
                .map_while(Result::ok)
                .find(|option| option.kind() == wanted)
                .map(|option| option.value().to_vec())
        };
        let parameters = value(TBF_PARAMETERS)?;
        let number = |at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(
                parameters.get(at..at + 4)?.try_into().ok()?,
            ))
        };
        let big_rate = value(TBF_RATE64).and_then(|bytes| bytes.try_into().ok());
        let rate = big_rate.map_or(u64::from(number(8)?), u64::from_ne_bytes);
        let nanoseconds = u128::from(number(LIMIT_AT + 4)?) * TICK_NANOSECONDS;
        let burst = (u128::from(rate) * nanoseconds).div_ceil(1_000_000_000);
        Some(Self {
            rate,
            burst: u32::try_from(burst).unwrap_or(u32::MAX),
            limit: number(LIMIT_AT)?,
        })
    }
}
