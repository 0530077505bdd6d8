//! A `NETLINK_NETFILTER` socket.
//!
//! A thread keeps its sockets when it is done with them and uses them again in the same network namespace. Closing one
//! makes the kernel finish what transactions have removed (`nft_rcv_nl_event` in net/netfilter/nf_tables_api.c), which
//! takes an RCU grace period, ten milliseconds or more, whoever's socket it is. A process that has removed something
//! therefore leaves closing them to the kernel ([`leave_to_kernel`]).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Instant;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkHeader};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attributes::Attributes;
use super::{NetlinkError, Transport, handover};
use crate::host::{HostError, NetNs};

/// The length of a netfilter header (`struct nfgenmsg`).
const NETFILTER_HEADER: usize = 4;

/// The subsystem number that opens and closes an nftables batch (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM_NFTABLES: u16 = 10;

/// One message of a request.
pub(crate) struct Outgoing {
    /// The family, subsystem and body.
    pub(crate) message: NetfilterMessage,
    /// `NLM_F_*` beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) flags: u16,
}

/// An object in a reply.
pub(crate) struct Object<'a> {
    /// Subsystem in the upper, message in the lower byte.
    pub(crate) kind: u16,
    /// The address family.
    pub(crate) family: NetfilterProtoFamily,
    /// What is told of it.
    pub(crate) attributes: Attributes<'a>,
}

impl<'a> Object<'a> {
    fn new(header: &NetlinkHeader, payload: &'a [u8]) -> Self {
        let family = payload.first().copied().unwrap_or_default();
        Self {
            kind: header.message_type,
            family: family.into(),
            attributes: Attributes::new(payload.get(NETFILTER_HEADER..).unwrap_or_default()),
        }
    }
}

/// A netfilter socket. It belongs to the network namespace the thread was in when it was opened.
pub(crate) struct NetfilterSocket {
    shared: Rc<Shared>,
}

/// What outlives the one who uses it.
struct Shared {
    transport: Transport,
    /// The namespace that it belongs to and keeps alive; none if /proc does not tell.
    netns: Option<(u64, u64)>,
}

thread_local! {
    static KEPT: RefCell<Vec<Rc<Shared>>> = const { RefCell::new(Vec::new()) };
    /// Whether this thread has committed a transaction that removed something.
    static REMOVED: Cell<bool> = const { Cell::new(false) };
}

/// At the end of a process: lets the kernel close the sockets that the calling thread has kept, if something was removed,
/// so that the process does not wait for the grace period. What was removed has been out of effect since its
/// transaction; only its memory is still to be freed. docs/decisions/chains-and-grace-periods.md says more.
pub(crate) fn leave_to_kernel() {
    if REMOVED.take() {
        let kept = KEPT.take();
        // Where that is impossible they are closed here, which only takes longer.
        let _ = handover::leave_to_kernel(kept);
    }
}

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.transport.as_fd().as_raw_fd()
    }
}

impl Shared {
    /// One that the thread has kept, if it leads to the namespace that the thread is in and nobody uses it. Those that
    /// lead elsewhere are given up.
    fn kept() -> Option<Rc<Self>> {
        if KEPT.with_borrow(|kept| kept.iter().all(|shared| Rc::strong_count(shared) > 1)) {
            return None;
        }
        let here = NetNs::current_id().ok();
        KEPT.with_borrow_mut(|kept| {
            kept.retain(|shared| here.is_some() && shared.netns == here);
            let mut free = kept.iter().filter(|shared| Rc::strong_count(shared) == 1);
            free.next().map(Rc::clone)
        })
    }

    fn open() -> Result<Self, HostError> {
        let transport = Transport::open(NETLINK_NETFILTER).map_err(|source| HostError::System {
            operation: "open netfilter netlink socket".into(),
            source,
        })?;
        Ok(Self {
            transport,
            netns: NetNs::current_id().ok(),
        })
    }
}

impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.transport.as_fd()
    }
}

impl NetfilterSocket {
    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`HostError::System`]; `EPROTONOSUPPORT` on a kernel without nfnetlink.
    pub(crate) fn open() -> Result<Self, HostError> {
        if let Some(shared) = Shared::kept() {
            return Ok(Self { shared });
        }
        let shared = Rc::new(Shared::open()?);
        KEPT.with_borrow_mut(|kept| kept.push(Rc::clone(&shared)));
        Ok(Self { shared })
    }

    /// A socket that nobody else uses and that is closed with this value: what the kernel ties to a socket ends then.
    ///
    /// # Errors
    /// As [`NetfilterSocket::open`].
    pub(crate) fn open_alone() -> Result<Self, HostError> {
        let shared = Rc::new(Shared::open()?);
        Ok(Self { shared })
    }

    /// Subscribes to a multicast group, `NFNLGRP_*`, for as long as the socket is open.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn subscribe(&self, group: u32) -> io::Result<()> {
        self.shared.transport.subscribe(group)
    }

    /// Hands all that was notified and not yet read to `take`, as [`Self::notified_until`].
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) fn notified(&self, mut take: impl FnMut(&Object<'_>)) -> Result<bool, NetlinkError> {
        self.notified_until(|object| {
            take(object);
            false
        })
    }

    /// Hands what was notified and not yet read to `take`, until that returns true. Waits for nothing. Returns true if
    /// something was lost, because it did not fit into the socket's buffer, or was left.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) fn notified_until(
        &self,
        take: impl FnMut(&Object<'_>) -> bool,
    ) -> Result<bool, NetlinkError> {
        let (take, mut lost, enough) = (RefCell::new(take), false, Cell::new(false));
        let pass_on = |header: &NetlinkHeader, payload: &[u8]| {
            enough.set(take.borrow_mut()(&Object::new(header, payload)));
            enough.get()
        };
        let transport = &self.shared.transport;
        while !enough.get() && transport.wait_for_notification(Instant::now(), pass_on)? {
            lost = true;
        }
        Ok(lost)
    }

    /// Sends `messages` as one nftables transaction: all of them take effect at once, or none does.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] for the first message the kernel refused. Its position counts from 1, and 0 is the
    /// transaction as a whole.
    pub(crate) fn transact(
        &self,
        messages: impl ExactSizeIterator<Item = Outgoing>,
    ) -> Result<(), NetlinkError> {
        let count = messages.len();
        let mut requests = self.shared.transport.requests();
        requests.push(batch_edge(ControlMessage::BatchBegin), 0);
        let mut removes = false;
        for (number, Outgoing { message, flags }) in (1..).zip(messages) {
            removes |= is_removal(&message);
            // Before Linux 6.10 the end of a batch can't be acknowledged, its last message can.
            let ack = if number == count { NLM_F_ACK } else { 0 };
            requests.push(message, flags | ack);
        }
        requests.push(batch_edge(ControlMessage::BatchEnd), 0);
        self.shared.transport.transact(&requests, |_, _| {})?;
        REMOVED.set(REMOVED.get() || removes);
        Ok(())
    }

    /// Sends one message and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel refused.
    pub(crate) fn request(&self, message: Outgoing, operation: &str) -> Result<(), HostError> {
        let mut requests = self.shared.transport.requests();
        requests.push(message.message, message.flags | NLM_F_ACK);
        self.shared
            .transport
            .transact(&requests, |_, _| {})
            .map_err(|error| error.during(operation))
    }

    /// Sends one message that is answered with a single object, and gives what `read` makes of it.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel refused, with `ENOENT` when there is no such object.
    pub(crate) fn get<T>(
        &self,
        message: NetfilterMessage,
        operation: &str,
        read: impl FnOnce(&Object<'_>) -> Option<T>,
    ) -> Result<Option<T>, HostError> {
        let mut requests = self.shared.transport.requests();
        requests.push(message, 0);
        self.shared
            .transport
            .get(&requests, |header, payload| {
                read(&Object::new(header, payload))
            })
            .map_err(|error| error.during(operation))
    }

    /// Lists objects: hands each one to `take`, from the start again, with nothing seen so far, when the
    /// listing was interrupted by a change.
    ///
    /// # Errors
    /// [`HostError::Netlink`] with `ENOENT` when the table, chain or set does not exist;
    /// [`HostError::DumpInterrupted`] when changes never ceased.
    pub(crate) fn dump<T>(
        &self,
        message: &NetfilterMessage,
        operation: &str,
        mut take: impl FnMut(&mut Vec<T>, &Object<'_>),
    ) -> Result<Vec<T>, HostError> {
        self.shared
            .transport
            .dump(message, |seen, header, payload| {
                take(seen, &Object::new(header, payload));
            })
            .map_err(|error| error.during(operation))
    }

    /// Begins a listing and hands only the first object to `read`; the rest is thrown away. None when the listing is
    /// empty. Good for telling an empty set from one with thousands of elements.
    ///
    /// # Errors
    /// As [`Self::dump`], except that an inconsistent listing is none.
    pub(crate) fn first<T>(
        &self,
        message: NetfilterMessage,
        operation: &str,
        read: impl FnOnce(&Object<'_>) -> T,
    ) -> Result<Option<T>, HostError> {
        let mut requests = self.shared.transport.requests();
        requests.push(message, NLM_F_DUMP);
        let first = self.shared.transport.first(&requests, |header, payload| {
            read(&Object::new(header, payload))
        });
        first.map_err(|error| error.during(operation))
    }
}

/// Whether the kernel has something to free when the transaction with this message is committed.
fn is_removal(message: &NetfilterMessage) -> bool {
    use NfTablesMessage::{DeleteChain, DeleteRule, DeleteSet, DeleteSetElement, DeleteTable};
    matches!(
        &message.inner,
        NetfilterMessageInner::NfTables(
            DeleteChain(_) | DeleteRule(_) | DeleteSet(_) | DeleteSetElement(_) | DeleteTable(_)
        )
    )
}

/// The message that opens or closes an nftables batch. Its `res_id` names the subsystem.
fn batch_edge(edge: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    NetfilterMessage::new(header, edge)
}
