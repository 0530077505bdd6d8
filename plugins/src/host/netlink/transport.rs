//! Sending requests and reading the replies, by blocking calls.
//!
//! The kernel works a request off inside `sendto(2)`, so every reply waits in the socket when that returns, and no
//! read has to block: what isn't there won't come. A listing fills its first datagram in the same way and each
//! further one while the one before it is read (`netlink_dump` in net/netlink/af_netlink.c).
//!
//! Requests that belong together go in one `sendto(2)`, however many. Only the last one asks for an acknowledgement;
//! errors come unasked, in the order of the requests and before that acknowledgement.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{NetlinkAddr, bind, setsockopt, sockopt};

use super::error::{NetlinkError, Refusal};
use super::reply::{Content, Reply, Status, parse_reply};

/// The most that a datagram holds: the kernel stops filling one of a listing at 32 KiB, whatever is offered, and an
/// attribute can't be longer than 64 KiB.
const DATAGRAM: usize = 64 * 1024;

/// How often a listing is begun anew when objects come and go while it is made.
pub(super) const DUMP_ATTEMPTS: u32 = 20;

/// What a reply that only acknowledges or refuses takes of the receive buffer at most, in bytes.
const STATUS_MEMORY: usize = 1024;

/// So many of them fit into a receive buffer of the usual size (net.core.rmem_default).
const STATUSES_THAT_FIT: usize = 200;

/// There is no need to read more errors than this.
const STATUSES_AT_MOST: usize = 10_000;

/// Errors quote the request they are about, which is welcome up to this many bytes.
const QUOTED_AT_MOST: usize = 4096;

/// Size of the receive buffer of a subscribed socket, in bytes; memory is taken only while it is full. The usual
/// 208 KiB are about fifty notifications, fewer than what a few simultaneous ADDs cause.
const SUBSCRIBED_BUFFER: usize = 8 << 20;

thread_local! {
    /// What datagrams are read into, one after the other, for all sockets of a thread.
    static INBOX: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A netlink socket. It belongs to the network namespace that the thread was in when it was opened.
pub(crate) struct Transport {
    socket: Socket,
    /// The number of the request made last.
    sequence: Cell<u32>,
    /// Whether requests for listings are checked strictly.
    strict: Cell<bool>,
    /// Whether replies to a request that was given up on may be waiting.
    stale: Cell<bool>,
    /// The socket's port number, while it is subscribed to notifications.
    subscriber: Cell<Option<u32>>,
}

/// Requests that are sent together.
pub(crate) struct Requests<'t> {
    transport: &'t Transport,
    bytes: Vec<u8>,
    /// The numbers of the first one and of the one after the last.
    first: u32,
    next: u32,
    /// The number of the one that is acknowledged.
    acknowledged: u32,
}

/// What a read of the socket came to.
enum Received {
    Datagram,
    /// Something did not fit into the receive buffer, or there was no memory for it.
    Overrun,
    Nothing,
}

/// How an exchange ended.
struct Exchange {
    /// Whether the reply came that was waited for.
    complete: bool,
    /// Whether replies were lost.
    overrun: bool,
}

impl Transport {
    /// Opens a socket of the protocol `NETLINK_*` in the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's; `EPROTONOSUPPORT` where the kernel lacks the protocol.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        // Neither bound nor connected: the kernel does the one at the first request and is where requests without
        // an address go (`netlink_sendmsg`).
        let socket = Socket::new(protocol)?;
        // Errors are understood without; the text is a courtesy of kernels from 4.12.
        let _ = socket.set_ext_ack(true);
        Ok(Self {
            socket,
            sequence: Cell::new(0),
            strict: Cell::new(false),
            stale: Cell::new(false),
            subscriber: Cell::new(None),
        })
    }

    /// Has the kernel check requests for listings strictly from now on, and so filter as they say (Linux 4.20).
    /// Without, a listing has to be filtered when it comes in.
    pub(crate) fn filter_strictly(&self) {
        if !self.strict.replace(true) {
            let _ = self.socket.set_netlink_get_strict_chk(true);
        }
    }

    /// No requests yet.
    pub(crate) fn requests(&self) -> Requests<'_> {
        let first = self.sequence.get().wrapping_add(1);
        Requests {
            transport: self,
            bytes: Vec::new(),
            first,
            next: first,
            acknowledged: first,
        }
    }

    /// Sends requests, the last of which asks for an acknowledgement (`NLM_F_ACK`), and hands each object that
    /// comes back to `take`.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] for the first request that was refused. The kernel goes on with those after it,
    /// except in a transaction of nftables.
    pub(crate) fn transact(
        &self,
        requests: &Requests<'_>,
        mut take: impl FnMut(&NetlinkHeader, &[u8]),
    ) -> Result<(), NetlinkError> {
        if requests.len() == 0 {
            return Ok(());
        }
        self.make_room_for_statuses(requests.len());
        let mut refusal = None;
        let outcome = self.exchange(requests, |reply| {
            match reply.content {
                Content::Object(payload) => take(&reply.header, payload),
                Content::Status(status) => {
                    if let Some(refused) = requests.refusal(&reply.header, status) {
                        refusal.get_or_insert(refused);
                    }
                    if reply.header.sequence_number == requests.acknowledged {
                        return ControlFlow::Break(());
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        match refusal {
            // One status always fits into an empty receive buffer, so what overruns it is errors: something was
            // refused, and the first errors are there to say why.
            Some(refusal) => Err(NetlinkError::Refused(refusal)),
            None if outcome.complete && !outcome.overrun => Ok(()),
            // The kernel had no memory for a status, which may have been an error or not.
            None => Err(NetlinkError::Unanswered),
        }
    }

    /// Makes one request that is answered with an object, and gives what `read` makes of it. No acknowledgement
    /// is asked for.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`], with `ENODEV` or `ENOENT` when there is no such object.
    pub(crate) fn get<T>(
        &self,
        requests: &Requests<'_>,
        read: impl FnOnce(&NetlinkHeader, &[u8]) -> T,
    ) -> Result<T, NetlinkError> {
        self.first_reply(requests, read)?
            .ok_or(NetlinkError::Unanswered)
    }

    /// Begins a listing and gives what `read` makes of its first object; none when the listing is empty. The rest is
    /// thrown away.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub(crate) fn first<T>(
        &self,
        requests: &Requests<'_>,
        read: impl FnOnce(&NetlinkHeader, &[u8]) -> T,
    ) -> Result<Option<T>, NetlinkError> {
        let first = self.first_reply(requests, read);
        self.stale.set(true);
        first
    }

    fn first_reply<T>(
        &self,
        requests: &Requests<'_>,
        read: impl FnOnce(&NetlinkHeader, &[u8]) -> T,
    ) -> Result<Option<T>, NetlinkError> {
        let (mut read, mut first) = (Some(read), Err(NetlinkError::Unanswered));
        self.exchange(requests, |reply| {
            match reply.content {
                Content::Object(payload) => {
                    first = Ok(read.take().map(|read| read(&reply.header, payload)));
                }
                Content::Done(status) | Content::Status(status) => {
                    let refusal = requests.refusal(&reply.header, status);
                    first = refusal.map_or(Ok(None), |refusal| Err(NetlinkError::Refused(refusal)));
                }
                Content::Other => return ControlFlow::Continue(()),
            }
            ControlFlow::Break(())
        })?;
        first
    }

    /// Lists objects: hands each one to `take`, from the start again, with nothing seen so far, when the listing
    /// was interrupted by a change.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`]; [`NetlinkError::Interrupted`] when changes never ceased.
    pub(crate) fn dump<M, T>(
        &self,
        message: &M,
        mut take: impl FnMut(&mut Vec<T>, &NetlinkHeader, &[u8]),
    ) -> Result<Vec<T>, NetlinkError>
    where
        M: NetlinkSerializable + Clone,
        NetlinkPayload<M>: From<M>,
    {
        for _ in 0..DUMP_ATTEMPTS {
            let mut seen = Vec::new();
            let mut requests = self.requests();
            requests.push(message.clone(), NLM_F_DUMP);
            if self.dump_once(&requests, |header, payload| {
                take(&mut seen, header, payload)
            })? {
                return Ok(seen);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// One attempt at a listing; false when it is not consistent.
    fn dump_once(
        &self,
        requests: &Requests<'_>,
        mut take: impl FnMut(&NetlinkHeader, &[u8]),
    ) -> Result<bool, NetlinkError> {
        let (mut interrupted, mut refusal) = (false, None);
        let outcome = self.exchange(requests, |reply| {
            interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            match reply.content {
                Content::Object(payload) => {
                    take(&reply.header, payload);
                    return ControlFlow::Continue(());
                }
                Content::Done(status) | Content::Status(status) => {
                    refusal = requests.refusal(&reply.header, status);
                }
                Content::Other => return ControlFlow::Continue(()),
            }
            ControlFlow::Break(())
        })?;
        match refusal {
            // How listings of some kinds end when they were interrupted.
            Some(Refusal {
                errno: Errno::EINTR | Errno::ENOBUFS,
                ..
            }) => Ok(false),
            Some(refusal) => Err(NetlinkError::Refused(refusal)),
            None if outcome.overrun => Ok(false),
            None if outcome.complete => Ok(!interrupted),
            None => Err(NetlinkError::Unanswered),
        }
    }

    /// Sends requests and passes each reply on until `handle` has what it needs.
    fn exchange(
        &self,
        requests: &Requests<'_>,
        mut handle: impl FnMut(Reply<'_>) -> ControlFlow<()>,
    ) -> Result<Exchange, NetlinkError> {
        if self.stale.get() {
            self.discard().map_err(NetlinkError::Io)?;
        }
        self.send(&requests.bytes).map_err(NetlinkError::Io)?;
        self.stale.set(true);
        let mut overrun = false;
        let complete = with_inbox(|inbox| {
            loop {
                match self.receive(inbox).map_err(NetlinkError::Io)? {
                    Received::Datagram => {}
                    Received::Overrun => {
                        overrun = true;
                        continue;
                    }
                    Received::Nothing => return Ok(false),
                }
                for reply in Replies(inbox) {
                    let reply = reply?;
                    if requests.is_answered_by(&reply.header) && handle(reply).is_break() {
                        return Ok(true);
                    }
                }
            }
        })?;
        self.stale.set(false);
        Ok(Exchange { complete, overrun })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > QUOTED_AT_MOST {
            let _ = self.socket.set_cap_ack(true);
        }
        let mut may_grow = true;
        loop {
            let Err(error) = self.socket.send(bytes, 0) else {
                return Ok(());
            };
            match errno_of(&error) {
                Errno::EINTR => {}
                Errno::EMSGSIZE if may_grow => {
                    may_grow = false;
                    self.make_room_to_send(bytes.len());
                }
                _ => return Err(error),
            }
        }
    }

    /// Lets a message of so many bytes through: the kernel takes none that is longer than the send buffer
    /// (`netlink_sendmsg`). Beyond net.core.wmem_max that needs CAP_NET_ADMIN of the host.
    fn make_room_to_send(&self, bytes: usize) {
        if setsockopt(&self.socket, sockopt::SndBufForce, &bytes).is_err() {
            // What it comes to shows when the message is sent.
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &bytes);
        }
    }

    /// Lets the receive buffer hold an error for each of so many requests, where the usual size may not.
    fn make_room_for_statuses(&self, requests: usize) {
        if requests > STATUSES_THAT_FIT {
            let bytes = requests.min(STATUSES_AT_MOST) * STATUS_MEMORY;
            // Where this is not permitted, the first errors are enough.
            let _ = setsockopt(&self.socket, sockopt::RcvBufForce, &bytes);
        }
    }

    /// Reads the next datagram.
    fn receive(&self, inbox: &mut Vec<u8>) -> io::Result<Received> {
        loop {
            inbox.clear();
            let Err(error) = self.socket.recv(inbox, libc::MSG_DONTWAIT) else {
                return Ok(Received::Datagram);
            };
            match errno_of(&error) {
                Errno::EINTR => {}
                Errno::EAGAIN => return Ok(Received::Nothing),
                Errno::ENOBUFS => return Ok(Received::Overrun),
                _ => return Err(error),
            }
        }
    }

    /// Throws away whatever waits in the socket.
    pub(crate) fn discard(&self) -> io::Result<()> {
        with_inbox(|inbox| {
            while !matches!(self.receive(inbox)?, Received::Nothing) {}
            self.stale.set(false);
            Ok(())
        })
    }

    /// Subscribes to a multicast group, `RTNLGRP_*`. Meanwhile a reply to a request may get lost among
    /// notifications, which share the receive buffer with it: [`NetlinkError::Unanswered`].
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn subscribe(&self, group: u32) -> io::Result<()> {
        // Without CAP_NET_ADMIN in the first user namespace the buffer stays small.
        let _ = setsockopt(&self.socket, sockopt::RcvBufForce, &SUBSCRIBED_BUFFER);
        self.socket.add_membership(group)?;
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        if address.port_number() == 0 {
            // What has no number yet is told nothing: the kernel sends to all but 0, itself (`do_one_broadcast`).
            let any = NetlinkAddr::new(0, 0);
            bind(self.socket.as_raw_fd(), &any)?;
            self.socket.add_membership(group)?;
            self.socket.get_address(&mut address)?;
        }
        self.subscriber.set(Some(address.port_number()));
        Ok(())
    }

    /// Ends a subscription. What fails here costs no more than messages that nobody reads.
    pub(crate) fn unsubscribe(&self, group: u32) {
        let _ = self.socket.drop_membership(group);
        let _ = self.discard();
        self.subscriber.set(None);
    }

    /// Waits for a notification that `is_wanted`; a lost one may have been. False when there is none in time.
    ///
    /// Notifications that came before the reply to a request are gone: the reply is younger than they are.
    ///
    /// # Errors
    /// [`NetlinkError::Io`], [`NetlinkError::Malformed`].
    pub(crate) fn wait_for_notification(
        &self,
        deadline: Instant,
        is_wanted: impl Fn(&NetlinkHeader, &[u8]) -> bool,
    ) -> Result<bool, NetlinkError> {
        with_inbox(|inbox| {
            loop {
                match self.receive(inbox).map_err(NetlinkError::Io)? {
                    Received::Overrun => return Ok(true),
                    Received::Nothing => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Ok(false);
                        }
                        self.wait_until_readable(left).map_err(NetlinkError::Io)?;
                        continue;
                    }
                    Received::Datagram => {}
                }
                for reply in Replies(inbox) {
                    let Reply { header, content } = reply?;
                    if matches!(content, Content::Object(payload) if is_wanted(&header, payload)) {
                        return Ok(true);
                    }
                }
            }
        })
    }

    fn wait_until_readable(&self, bound: Duration) -> io::Result<()> {
        // Rounded up, so that it doesn't come back a little early again and again.
        let bound = PollTimeout::try_from(bound + Duration::from_millis(1));
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut socket, bound.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Requests<'_> {
    /// Appends a request, with `NLM_F_*` beside `NLM_F_REQUEST`.
    pub(crate) fn push<M>(&mut self, message: M, flags: u16)
    where
        M: NetlinkSerializable,
        NetlinkPayload<M>: From<M>,
    {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1);
        if flags & NLM_F_ACK != 0 {
            self.acknowledged = sequence;
        }
        self.transport.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let (start, length) = (self.bytes.len(), message.buffer_len());
        self.bytes.resize(start + length.next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[start..start + length]);
    }

    fn len(&self) -> usize {
        usize::try_from(self.next.wrapping_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Whether a message belongs to one of these. Notifications of what others did carry their numbers and ports.
    fn is_answered_by(&self, header: &NetlinkHeader) -> bool {
        let place = header.sequence_number.wrapping_sub(self.first);
        let subscriber = self.transport.subscriber.get();
        place < self.next.wrapping_sub(self.first)
            && subscriber.is_none_or(|port| port == header.port_number)
    }

    fn refusal(&self, header: &NetlinkHeader, status: Status) -> Option<Refusal> {
        let position = header.sequence_number.wrapping_sub(self.first);
        Some(Refusal {
            errno: status.errno?,
            detail: status.detail,
            position: usize::try_from(position).unwrap_or(usize::MAX),
            offset: status.offset,
        })
    }
}

/// The messages of a datagram.
struct Replies<'a>(&'a [u8]);

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((reply, length)) = parse_reply(self.0) else {
            self.0 = &[];
            return Some(Err(NetlinkError::Malformed));
        };
        self.0 = self.0.get(length..).unwrap_or_default();
        Some(Ok(reply))
    }
}

/// Lends the thread's buffer for datagrams, or a new one where it is lent already.
fn with_inbox<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut inbox = INBOX.take();
    inbox.clear();
    inbox.reserve(DATAGRAM);
    let result = work(&mut inbox);
    INBOX.set(inbox);
    result
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
