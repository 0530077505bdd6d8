//! A blocking `NETLINK_NETFILTER` socket: one request, its answers, nothing left in between.
//!
//! The kernel works a request off inside `sendmsg(2)` (net/netfilter/nfnetlink.c), so every answer of a
//! batch waits in the socket when the call returns and no read ever has to block. A dump fills its first
//! datagram in the same way and each further one while the one before it is read.
//!
//! A transaction is one `sendmsg(2)`, however long. Only its last message asks for an acknowledgement; errors come
//! unasked, all of them in the order of the messages and before that acknowledgement. One answer always fits into an
//! empty receive buffer, so what overruns it (`ENOBUFS`) is errors: the transaction was refused, and the first
//! errors are there to say why.
//!
//! A thread keeps its socket when it is done with it and uses it again in the same network namespace. Closing one
//! makes the kernel finish what transactions have removed (`nft_rcv_nl_event` in net/netfilter/nf_tables_api.c), which
//! takes an RCU grace period, ten milliseconds or more, whoever's socket it is: once in a process is enough.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::answer::{Answer, Incoming, Status, incoming};
use crate::host::{HostError, NetNs};

/// The most a datagram of a dump holds: the kernel stops at 32 KiB (`netlink_dump`), whatever is offered.
const DATAGRAM: usize = 64 * 1024;

/// How often a listing is begun anew when the ruleset changed while it was read.
const DUMP_ATTEMPTS: u32 = 20;

/// What an answer that only acknowledges or refuses takes of the receive buffer at most, in bytes.
const ANSWER_MEMORY: usize = 1024;

/// So many of them fit into a receive buffer of the usual size (net.core.rmem_default).
const ANSWERS_THAT_FIT: usize = 200;

/// There is no need to read more errors than this.
const ANSWERS_AT_MOST: usize = 10_000;

/// The subsystem number that opens and closes an nftables batch (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM_NFTABLES: u16 = 10;

/// One message of a request, not yet numbered.
pub(crate) struct Outgoing {
    /// The family, subsystem and body.
    pub(crate) message: NetfilterMessage,
    /// `NLM_F_*` beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) flags: u16,
}

/// A transaction that did not take effect.
pub(super) struct Refusal {
    /// The kernel's error number.
    pub(super) errno: Errno,
    /// The kernel's words on it.
    pub(super) detail: Option<String>,
    /// The message that was refused, counted from 0; none when it is the transaction as a whole.
    pub(super) position: Option<usize>,
    /// Where in the message the attribute is that was refused, if the kernel tells.
    pub(super) offset: Option<u32>,
}

/// A netfilter netlink socket. It belongs to the network namespace the thread was in when it was opened.
pub(crate) struct NetfilterSocket {
    line: Rc<Line>,
    /// The number of the first message of the request sent last.
    request: u32,
    inbox: Vec<u8>,
}

/// What outlives the one who uses it.
struct Line {
    socket: Socket,
    /// The number of the message sent last.
    sequence: Cell<u32>,
    /// The namespace that it belongs to and keeps alive; none if /proc does not tell.
    netns: Option<(u64, u64)>,
}

thread_local! {
    static KEPT: RefCell<Option<Rc<Line>>> = const { RefCell::new(None) };
}

impl Line {
    /// The one that the thread has kept, if it leads to the namespace that the thread is in and nobody uses it.
    fn kept() -> Option<Rc<Self>> {
        let kept = KEPT.with_borrow_mut(Option::take)?;
        let here = NetNs::current_id().ok();
        let free = Rc::strong_count(&kept) == 1 && here.is_some() && kept.netns == here;
        (free && kept.is_silent()).then_some(kept)
    }

    /// Throws away what is left of a request that was given up on. False if the socket is of no use any more.
    fn is_silent(&self) -> bool {
        let mut rest = Vec::with_capacity(DATAGRAM);
        loop {
            rest.clear();
            match self.socket.recv(&mut rest, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    fn open() -> Result<Self, HostError> {
        let refused = |source| HostError::System {
            operation: "open netfilter netlink socket".into(),
            source,
        };
        // Neither bound nor connected: the kernel does the one at the first request and is where
        // requests without an address go (netlink_sendmsg).
        let socket = Socket::new(NETLINK_NETFILTER).map_err(refused)?;
        // Errors are understood without either; the text is a courtesy of kernels from 4.12.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            sequence: Cell::new(0),
            netns: NetNs::current_id().ok(),
        })
    }
}

impl NetfilterSocket {
    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`HostError::System`]; `EPROTONOSUPPORT` on a kernel without nfnetlink.
    pub(crate) fn open() -> Result<Self, HostError> {
        let line = match Line::kept() {
            Some(line) => line,
            None => Rc::new(Line::open()?),
        };
        KEPT.set(Some(Rc::clone(&line)));
        Ok(Self {
            line,
            request: 0,
            inbox: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Sends `messages` as one nftables transaction: all of them take effect at once, or none does. The inner
    /// error is the kernel's on the first message that it refused.
    ///
    /// # Errors
    /// [`HostError::System`] when the transaction can't be sent, [`HostError::Protocol`] and
    /// [`HostError::Netlink`] when its outcome isn't known.
    pub(super) fn transact(
        &mut self,
        messages: impl ExactSizeIterator<Item = Outgoing>,
        operation: &str,
    ) -> Result<Result<(), Refusal>, HostError> {
        let count = messages.len();
        let mut outbox = Vec::new();
        self.request = self.line.sequence.get().wrapping_add(1);
        self.number(batch_edge(ControlMessage::BatchBegin), 0, &mut outbox);
        let mut last = self.request;
        for (position, Outgoing { message, flags }) in messages.enumerate() {
            let ack = if position + 1 == count { NLM_F_ACK } else { 0 };
            last = self.number(message, flags | ack, &mut outbox);
        }
        self.number(batch_edge(ControlMessage::BatchEnd), 0, &mut outbox);
        self.make_room_for_answers(count);
        self.send(&outbox, operation)?;
        self.collect_refusal(last, operation)
    }

    /// Sends one message and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel refused.
    pub(crate) fn request(&mut self, message: Outgoing, operation: &str) -> Result<(), HostError> {
        let Outgoing { message, flags } = message;
        let mut outbox = Vec::new();
        self.request = self.number(message, flags | NLM_F_ACK, &mut outbox);
        self.send(&outbox, operation)?;
        match self.collect_refusal(self.request, operation)? {
            Ok(()) => Ok(()),
            Err(Refusal { errno, detail, .. }) => Err(HostError::Netlink {
                operation: operation.to_owned(),
                errno,
                detail,
            }),
        }
    }

    /// Sends one message that is answered with a single object, and gives what `read` makes of it.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel refused, with `ENOENT` when there is no such object.
    pub(crate) fn get<T>(
        &mut self,
        message: NetfilterMessage,
        operation: &str,
        mut read: impl FnMut(&Answer<'_>) -> Option<T>,
    ) -> Result<Option<T>, HostError> {
        let mut outbox = Vec::new();
        self.request = self.number(message, 0, &mut outbox);
        self.send(&outbox, operation)?;
        let (mut answered, mut found) = (false, None);
        while !answered && self.receive(operation)? {
            self.each_message(operation, |_, incoming| match incoming {
                Incoming::Object(object) => {
                    answered = true;
                    found = read(&object);
                    Ok(())
                }
                Incoming::Status(status) => refusal(operation, status.code, status.detail),
                _ => Ok(()),
            })?;
        }
        if answered {
            Ok(found)
        } else {
            Err(unanswered(operation))
        }
    }

    /// Lists objects: hands each one to `take`, from the start again, with nothing seen so far, when the
    /// listing was interrupted by a change.
    ///
    /// # Errors
    /// [`HostError::Netlink`] with `ENOENT` when the table, chain or set does not exist;
    /// [`HostError::DumpInterrupted`] when changes never ceased.
    pub(crate) fn dump<T>(
        &mut self,
        message: &NetfilterMessage,
        operation: &str,
        mut take: impl FnMut(&mut Vec<T>, &Answer<'_>),
    ) -> Result<Vec<T>, HostError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut seen = Vec::new();
            match self.dump_once(message, operation, |answer| take(&mut seen, answer)) {
                Ok(true) => return Ok(seen),
                Ok(false) => {}
                Err(HostError::Netlink {
                    errno: Errno::EINTR | Errno::ENOBUFS,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        let operation = operation.to_owned();
        Err(HostError::DumpInterrupted {
            operation,
            attempts: DUMP_ATTEMPTS,
        })
    }

    /// Begins a listing and hands only the objects of its first datagram to `take`; the rest is read and
    /// thrown away. Good for telling an empty set from one with thousands of elements.
    ///
    /// # Errors
    /// As [`Self::dump`], except that an inconsistent listing is none.
    pub(crate) fn glance(
        &mut self,
        message: &NetfilterMessage,
        operation: &str,
        take: impl FnMut(&Answer<'_>),
    ) -> Result<(), HostError> {
        let mut outbox = Vec::new();
        self.request = self.number(message.clone(), NLM_F_DUMP, &mut outbox);
        self.send(&outbox, operation)?;
        if !self.receive(operation)? {
            return Err(unanswered(operation));
        }
        let outcome = self.each_listed(operation, &mut false, &mut false, take);
        while self.receive(operation)? {}
        outcome
    }

    /// One attempt at a listing; false when it is not consistent.
    fn dump_once(
        &mut self,
        message: &NetfilterMessage,
        operation: &str,
        mut take: impl FnMut(&Answer<'_>),
    ) -> Result<bool, HostError> {
        let mut outbox = Vec::new();
        self.request = self.number(message.clone(), NLM_F_DUMP, &mut outbox);
        self.send(&outbox, operation)?;
        let (mut done, mut interrupted) = (false, false);
        while !done && self.receive(operation)? {
            self.each_listed(operation, &mut done, &mut interrupted, &mut take)?;
        }
        if done {
            Ok(!interrupted)
        } else {
            Err(unanswered(operation))
        }
    }

    /// Hands the objects of a listing's datagram to `take` and notes its end and whether it is consistent.
    fn each_listed(
        &self,
        operation: &str,
        done: &mut bool,
        interrupted: &mut bool,
        mut take: impl FnMut(&Answer<'_>),
    ) -> Result<(), HostError> {
        self.each_message(operation, |header, incoming| {
            *interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
            match incoming {
                Incoming::Object(object) => take(&object),
                Incoming::Done(code) => {
                    *done = true;
                    return refusal(operation, code, None);
                }
                Incoming::Status(status) => {
                    *done = true;
                    return refusal(operation, status.code, status.detail);
                }
                Incoming::Other => {}
            }
            Ok(())
        })
    }

    /// Appends `message` to `outbox` under the next sequence number, which is returned.
    fn number(&mut self, message: NetfilterMessage, flags: u16, outbox: &mut Vec<u8>) -> u32 {
        let sequence = self.line.sequence.get().wrapping_add(1);
        self.line.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let (start, length) = (outbox.len(), message.buffer_len());
        outbox.resize(start + length.next_multiple_of(4), 0);
        message.serialize(&mut outbox[start..start + length]);
        sequence
    }

    fn send(&mut self, bytes: &[u8], operation: &str) -> Result<(), HostError> {
        let mut may_grow = true;
        loop {
            let Err(source) = self.line.socket.send(bytes, 0) else {
                return Ok(());
            };
            match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
                Errno::EINTR => {}
                Errno::EMSGSIZE if may_grow => {
                    may_grow = false;
                    self.make_room_to_send(bytes.len());
                }
                _ => {
                    let operation = operation.to_owned();
                    return Err(HostError::System { operation, source });
                }
            }
        }
    }

    /// Lets a message of so many bytes through: the kernel takes none that is longer than the send buffer
    /// (`netlink_sendmsg`). Beyond net.core.wmem_max that needs CAP_NET_ADMIN of the host.
    fn make_room_to_send(&self, bytes: usize) {
        let socket = &self.line.socket;
        if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
            // What it comes to shows when the message is sent.
            let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
        }
    }

    /// Lets the receive buffer hold an error for each of so many messages, where the usual size may not.
    fn make_room_for_answers(&self, messages: usize) {
        if messages > ANSWERS_THAT_FIT {
            // Where this is not permitted, the first errors are enough.
            let _ = setsockopt(
                &self.line.socket,
                sockopt::RcvBufForce,
                &(messages.min(ANSWERS_AT_MOST) * ANSWER_MEMORY),
            );
        }
    }

    /// Reads the next datagram into the inbox; false when none is waiting.
    fn receive(&mut self, operation: &str) -> Result<bool, HostError> {
        loop {
            self.inbox.clear();
            match self.line.socket.recv(&mut self.inbox, libc::MSG_DONTWAIT) {
                Ok(_) => return Ok(true),
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                    Errno::EINTR => {}
                    Errno::EAGAIN => return Ok(false),
                    errno => {
                        let operation = operation.to_owned();
                        return Err(HostError::Netlink {
                            operation,
                            errno,
                            detail: None,
                        });
                    }
                },
            }
        }
    }

    /// Calls `handle` for each message of the datagram that answers the latest request.
    fn each_message(
        &self,
        operation: &str,
        mut handle: impl FnMut(NetlinkHeader, Incoming<'_>) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let mut rest = self.inbox.as_slice();
        while !rest.is_empty() {
            let (header, incoming, length) = incoming(rest).ok_or_else(|| HostError::Protocol {
                operation: operation.to_owned(),
                problem: "the kernel's answer can't be understood",
            })?;
            rest = rest.get(length..).unwrap_or_default();
            // What is left of a request that was given up on is nobody's any more.
            let age = header.sequence_number.wrapping_sub(self.request);
            if age <= self.line.sequence.get().wrapping_sub(self.request) {
                handle(header, incoming)?;
            }
        }
        Ok(())
    }

    /// Reads the answers up to the one to the message numbered `last`; the inner error is the first refusal.
    fn collect_refusal(
        &mut self,
        last: u32,
        operation: &str,
    ) -> Result<Result<(), Refusal>, HostError> {
        let (mut complete, mut overrun, mut refusal) = (false, None, None);
        while !complete {
            match self.receive(operation) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.errno() == Some(Errno::ENOBUFS) && overrun.is_none() => {
                    overrun = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.each_message(operation, |header, incoming| {
                if let Incoming::Status(status) = incoming {
                    complete |= header.sequence_number == last;
                    if status.code != 0 && refusal.is_none() {
                        refusal = Some(self.refused(header.sequence_number, status));
                    }
                }
                Ok(())
            })?;
        }
        match (refusal, overrun) {
            (Some(refusal), _) => Ok(Err(refusal)),
            // The kernel had no memory for an answer, which may have been an error or not.
            (None, Some(overrun)) => Err(overrun),
            (None, None) if complete => Ok(Ok(())),
            (None, None) => Err(unanswered(operation)),
        }
    }

    fn refused(&self, sequence: u32, status: Status) -> Refusal {
        // The first message of a transaction opens it.
        let position = sequence.wrapping_sub(self.request).checked_sub(1);
        Refusal {
            errno: Errno::from_raw(status.code.saturating_abs()),
            detail: status.detail,
            position: position.and_then(|position| usize::try_from(position).ok()),
            offset: status.offset,
        }
    }
}

/// The message that opens or closes an nftables batch. Its `res_id` names the subsystem.
fn batch_edge(edge: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    NetfilterMessage::new(header, edge)
}

/// An acknowledgement is an error message with code 0.
fn refusal(operation: &str, code: i32, detail: Option<String>) -> Result<(), HostError> {
    if code == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw(code.saturating_abs());
    Err(HostError::Netlink {
        operation: operation.to_owned(),
        errno,
        detail,
    })
}

fn unanswered(operation: &str) -> HostError {
    HostError::Protocol {
        operation: operation.to_owned(),
        problem: "the kernel did not answer",
    }
}
