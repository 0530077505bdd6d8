//! The socket: sending a request and taking in the answers.
//!
//! The event loop is the caller's own thread: a request is put into rtnetlink's queue, and the
//! connection is driven until the answers are in. There is no task and no thread beside it, and
//! dropping an [`Rtnl`] closes its socket at once.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use netlink_packet_core::{
    DoneMessage, ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP,
    NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::proto::{self, ConnectionHandle};
use tokio::runtime::{Builder, Runtime};

use super::super::error::HostError;
use super::super::netns::NetNs;

/// The kernel answers before `sendto` returns, but a request may wait for others: all of them take
/// one lock, and deleting a namespace full of links holds it for long. A lost answer must still end
/// somewhere.
const ANSWER_BOUND: Duration = Duration::from_secs(30);

/// The same for a socket that is subscribed: notifications share its buffer with the answers, and when many come at
/// once the kernel drops an answer that has no room (`netlink_attachskb` in net/netlink/af_netlink.c). An answer that
/// is not there when `sendto` has returned won't come.
const SUBSCRIBED_ANSWER_BOUND: Duration = Duration::from_millis(100);

/// Size of the receive buffer of a subscribed socket, in bytes; memory is taken only while it is full. The usual
/// 208 KiB are about fifty notifications, fewer than what a few simultaneous ADDs cause.
const SUBSCRIBED_BUFFER: usize = 8 << 20;

/// How often a listing is begun anew when objects come and go while it is made.
const DUMP_ATTEMPTS: u32 = 20;

/// `NLMSGERR_ATTR_MSG` of include/uapi/linux/netlink.h.
const ATTRIBUTE_MESSAGE: u16 = 1;

type Message = NetlinkMessage<RouteNetlinkMessage>;
type Connection = proto::Connection<RouteNetlinkMessage>;
type Notices = Pin<Box<dyn Stream<Item = (Message, SocketAddr)>>>;

thread_local! {
    /// The event loop that all handles of a thread share.
    static RUNTIME: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

/// A route netlink socket of one network namespace.
///
/// Handles are cheap: one socket each, one event loop for all handles of a thread. A handle stays
/// on the thread that made it.
pub struct Rtnl {
    handle: ConnectionHandle<RouteNetlinkMessage>,
    connection: RefCell<Connection>,
    notices: RefCell<Notices>,
    runtime: Rc<Runtime>,
    answer_bound: Cell<Duration>,
}

impl std::fmt::Debug for Rtnl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rtnl").finish_non_exhaustive()
    }
}

impl Rtnl {
    /// A socket in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`HostError::System`] when there are no more descriptors or memory.
    pub fn new() -> Result<Self, HostError> {
        let failed = |source| HostError::System {
            operation: "open a route netlink socket".to_owned(),
            source,
        };
        let runtime = shared_runtime().map_err(failed)?;
        let context = runtime.enter();
        let (mut connection, handle, notices) =
            proto::new_connection(NETLINK_ROUTE).map_err(failed)?;
        drop(context);
        // The end of a listing says whether it failed, and of several requests each has an answer.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let socket = connection.socket_mut().socket_mut();
        // These improve error messages and filters; requests do not depend on them, and a listing
        // is filtered once more when it comes in.
        for wanted in [
            socket.set_ext_ack(true),
            socket.set_cap_ack(true),
            socket.set_netlink_get_strict_chk(true),
        ] {
            match wanted {
                Err(error) if error.raw_os_error() != Some(Errno::ENOPROTOOPT as i32) => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok(Self {
            handle,
            connection: RefCell::new(connection),
            notices: RefCell::new(Box::pin(notices)),
            runtime,
            answer_bound: Cell::new(ANSWER_BOUND),
        })
    }

    /// A socket in another namespace. The thread enters it only to open the socket.
    ///
    /// # Errors
    /// As [`Rtnl::new`]; also when the namespace can't be entered.
    pub fn in_netns(netns: &NetNs) -> Result<Self, HostError> {
        netns.enter(Self::new)?
    }

    /// Makes a request that is acknowledged, and returns the messages that came before the
    /// acknowledgement.
    pub(super) fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        self.exchange(request, NLM_F_REQUEST | NLM_F_ACK | flags)
    }

    /// Asks for a list. Begins anew when the kernel says that the list changed while it was made.
    pub(super) fn dump(
        &self,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.exchange(request.clone(), NLM_F_REQUEST | NLM_F_DUMP) {
                Err(Refusal::Interrupted) => {}
                result => return result,
            }
        }
        Err(Refusal::Interrupted)
    }

    fn exchange(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let mut found = Vec::new();
        self.converse(vec![(request, flags)], |answer| {
            take_in(answer).map(|inner| found.extend(inner))
        })?;
        Ok(found)
    }

    /// Makes several requests that are acknowledged, in one message. The kernel carries them out in their order, each
    /// whether those before it failed or not. Returns the first refusal, with the place of the request.
    pub(super) fn ask_all(
        &self,
        requests: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<(), (usize, Refusal)> {
        let requests = requests
            .into_iter()
            .map(|(request, flags)| (request, NLM_F_REQUEST | NLM_F_ACK | flags))
            .collect();
        let (mut place, mut first) = (0, None);
        let outcome = self.converse(requests, |answer| {
            // Answers come in the order of the requests, and each ends with its acknowledgement.
            let is_last = matches!(answer.payload, NetlinkPayload::Error(_));
            if let Err(refusal) = take_in(answer) {
                first.get_or_insert((place, refusal));
            }
            place += usize::from(is_last);
            Ok(())
        });
        match (first, outcome) {
            (Some(refused), _) => Err(refused),
            (None, Err(refusal)) => Err((place, refusal)),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Sends requests in one message and passes each answer on, until all are there or one is too many.
    fn converse(
        &self,
        requests: Vec<(RouteNetlinkMessage, u16)>,
        mut heed: impl FnMut(Message) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let messages = requests.into_iter().map(|(request, flags)| {
            let mut message = Message::from(request);
            message.header.flags = flags;
            message
        });
        let messages: Vec<_> = messages.collect();
        let kernel = SocketAddr::new(0, 0);
        let answers = self.handle.request_batch(messages, kernel);
        let mut answers = pin!(answers.map_err(|_| Refusal::Closed)?);
        self.drive(self.answer_bound.get(), |context| {
            loop {
                match answers.as_mut().poll_next(context) {
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(answer)) => {
                        if let Err(refusal) = heed(answer) {
                            return Poll::Ready(Err(refusal));
                        }
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })?
    }

    /// Runs the connection until `step` is ready.
    fn drive<T>(
        &self,
        bound: Duration,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Refusal> {
        let mut connection = self.connection.borrow_mut();
        let both = poll_fn(|context| {
            let closed = Pin::new(&mut *connection).poll(context).is_ready();
            match step(context) {
                Poll::Ready(value) => Poll::Ready(Ok(value)),
                Poll::Pending if closed => Poll::Ready(Err(Refusal::Closed)),
                Poll::Pending => Poll::Pending,
            }
        });
        self.runtime
            .block_on(async { tokio::time::timeout(bound, both).await })
            .unwrap_or(Err(Refusal::Silence))
    }

    /// Lends the socket, for calls that are no messages.
    pub(super) fn with_socket<T>(&self, work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        let mut connection = self.connection.borrow_mut();
        work(connection.socket_mut().socket_mut().as_fd())
    }

    /// Subscribes this socket to a multicast group, `RTNLGRP_*`, until the guard is dropped. Meanwhile the answer to a
    /// request may get lost, which ends it soon with [`Refusal::Silence`].
    pub(super) fn subscribe(&self, group: u32) -> io::Result<Subscription<'_>> {
        let mut connection = self.connection.borrow_mut();
        let socket = connection.socket_mut().socket_mut();
        // Without CAP_NET_ADMIN in the first user namespace the buffer stays small.
        let _ = setsockopt(socket, sockopt::RcvBufForce, &SUBSCRIBED_BUFFER);
        socket.add_membership(group)?;
        self.answer_bound.set(SUBSCRIBED_ANSWER_BOUND);
        Ok(Subscription { rtnl: self, group })
    }

    /// The next notification of a group subscribed to; none when there is none in time.
    pub(super) fn next_notice(
        &self,
        bound: Duration,
    ) -> Result<Option<NetlinkPayload<RouteNetlinkMessage>>, Refusal> {
        let mut notices = self.notices.borrow_mut();
        match self.drive(bound, |context| notices.as_mut().poll_next(context)) {
            Ok(Some((message, _))) => Ok(Some(message.payload)),
            Ok(None) => Err(Refusal::Closed),
            Err(Refusal::Silence) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

/// A subscription to a multicast group.
pub(super) struct Subscription<'a> {
    rtnl: &'a Rtnl,
    group: u32,
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.rtnl.answer_bound.set(ANSWER_BOUND);
        // What fails here costs no more than messages that nobody reads.
        let mut connection = self.rtnl.connection.borrow_mut();
        let _ = connection
            .socket_mut()
            .socket_mut()
            .drop_membership(self.group);
        let mut notices = self.rtnl.notices.borrow_mut();
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(_)) = notices.as_mut().poll_next(&mut context) {}
    }
}

fn shared_runtime() -> io::Result<Rc<Runtime>> {
    RUNTIME.with_borrow_mut(|shared| {
        if let Some(runtime) = shared {
            return Ok(Rc::clone(runtime));
        }
        let runtime = Rc::new(
            Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()?,
        );
        *shared = Some(Rc::clone(&runtime));
        Ok(runtime)
    })
}

/// Why a request had no result.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel said no.
    Refused {
        errno: Errno,
        detail: Option<String>,
    },
    /// A listing was interrupted by changes.
    Interrupted,
    /// No answer came.
    Silence,
    /// The socket can't be used any more.
    Closed,
}

impl Refusal {
    /// The kernel's error number, if it gave one.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the kernel does not know the kind of link at all (net/core/rtnetlink.c).
    pub(super) fn is_unknown_kind(&self) -> bool {
        matches!(self, Self::Refused { detail: Some(text), .. } if text == "Unknown device type")
    }

    /// The error to report, given what was being done.
    pub(super) fn during(self, operation: impl Into<String>) -> HostError {
        let operation = operation.into();
        match self {
            Self::Refused { errno, detail } => HostError::Netlink {
                operation,
                errno,
                detail,
            },
            Self::Interrupted => HostError::DumpInterrupted {
                operation,
                attempts: DUMP_ATTEMPTS,
            },
            Self::Silence => HostError::Timeout {
                operation,
                waited: ANSWER_BOUND,
            },
            Self::Closed => HostError::Protocol {
                operation,
                problem: "the netlink socket was closed",
            },
        }
    }

    /// As [`Refusal::during`], with what to do about it if the kernel lacks the feature.
    pub(super) fn during_or_unsupported(
        self,
        operation: impl Into<String>,
        remedy: &'static str,
    ) -> HostError {
        match self.errno() {
            Some(Errno::EOPNOTSUPP) => HostError::Unsupported {
                operation: operation.into(),
                remedy,
            },
            _ => self.during(operation),
        }
    }
}

/// The message inside an answer; none for an acknowledgement or the end of a listing.
fn take_in(answer: Message) -> Result<Option<RouteNetlinkMessage>, Refusal> {
    if answer.header.flags & NLM_F_DUMP_INTR != 0 && is_part_of_a_list(&answer.payload) {
        return Err(Refusal::Interrupted);
    }
    match answer.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
        NetlinkPayload::Error(error) => refusal(&answer.header, &error).map_or(Ok(None), Err),
        NetlinkPayload::Done(done) => dump_refusal(&done).map_or(Ok(None), Err),
        NetlinkPayload::Overrun(_) => Err(Refusal::Interrupted),
        _ => Ok(None),
    }
}

fn is_part_of_a_list(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    matches!(
        payload,
        NetlinkPayload::InnerMessage(_) | NetlinkPayload::Done(_)
    )
}

/// What an `NLMSG_ERROR` says; none if it is an acknowledgement.
fn refusal(header: &NetlinkHeader, error: &ErrorMessage) -> Option<Refusal> {
    let errno = errno_of(error.raw_code())?;
    // The payload is the request's header, the rest of the request unless that was cut off, and
    // then the attributes of the extended acknowledgement.
    let request = &error.header;
    let request_length = match request.first_chunk::<4>() {
        Some(length) if header.flags & NLM_F_CAPPED == 0 => u32::from_ne_bytes(*length) as usize,
        _ => REQUEST_HEADER_LENGTH,
    };
    let attributes = match request.get(request_length.next_multiple_of(4)..) {
        Some(attributes) if header.flags & NLM_F_ACK_TLVS != 0 => attributes,
        _ => &[],
    };
    Some(classify(errno, attributes))
}

/// The size of `struct nlmsghdr`.
const REQUEST_HEADER_LENGTH: usize = 16;

/// What the end of a listing says; none if it ended well.
fn dump_refusal(done: &DoneMessage) -> Option<Refusal> {
    errno_of(done.code).map(|errno| classify(errno, &done.extended_ack))
}

fn errno_of(code: i32) -> Option<Errno> {
    (code < 0).then(|| Errno::from_raw(code.saturating_neg()))
}

fn classify(errno: Errno, attributes: &[u8]) -> Refusal {
    // EINTR is how listings of some kinds end when they were interrupted.
    if errno == Errno::EINTR {
        return Refusal::Interrupted;
    }
    Refusal::Refused {
        errno,
        detail: extended_text(attributes),
    }
}

/// The text of an extended acknowledgement.
fn extended_text(attributes: &[u8]) -> Option<String> {
    let attribute = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == ATTRIBUTE_MESSAGE)?;
    let text = String::from_utf8_lossy(attribute.value());
    let text = text.trim_end_matches(['\0', '\n', '.', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}
