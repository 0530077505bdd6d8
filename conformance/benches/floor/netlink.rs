//! rtnetlink by hand: messages put together byte by byte, several in one datagram, one acknowledgement.
//!
//! Layouts and numbers are those of `linux/netlink.h`, `rtnetlink.h`, `if_link.h` and `if_addr.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// The message is acknowledged.
pub(crate) const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 0x8000;

/// `NLM_F_CREATE | NLM_F_EXCL`
pub(crate) const CREATE: u16 = 0x600;
/// Just a request.
pub(crate) const CHANGE: u16 = 0;

/// Where an open message or attribute starts, to fill its length in later.
#[derive(Clone, Copy)]
pub(crate) struct Start(usize);

/// Messages that go to the kernel together. It works through them in order and answers errors, and an
/// acknowledgement of the last.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    last: usize,
}

impl Batch {
    /// A message of this type, with its fixed part.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) {
        self.last = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.fixed(fixed);
        self.close_message();
    }

    /// Bytes that are no attribute, such as the interface header inside the description of a peer.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.close_message();
    }

    /// An attribute that is text with its final zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    pub(crate) fn open(&mut self, kind: u16) -> Start {
        let start = Start(self.bytes.len());
        self.attribute(kind | NLA_F_NESTED, &[]);
        start
    }

    pub(crate) fn close(&mut self, start: Start) {
        let length = u16::try_from(self.bytes.len() - start.0).unwrap_or(u16::MAX);
        self.bytes[start.0..start.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.close_message();
    }

    fn close_message(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.last).unwrap_or(u32::MAX);
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn acknowledged(mut self) -> Vec<u8> {
        self.bytes[self.last + 6] |= NLM_F_ACK.to_ne_bytes()[0];
        self.bytes
    }
}

/// A socket in the network namespace that the thread was in when it was opened.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
        Ok(Self(socket(
            family,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?))
    }

    /// The same of `NETLINK_NETFILTER`.
    pub(crate) fn open_netfilter() -> io::Result<Self> {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(family, SockType::Raw, flags, protocol)?))
    }

    /// Sends messages that ask for an acknowledgement themselves, and waits for it.
    pub(crate) fn transact(&self, batch: &Batch) -> io::Result<()> {
        self.exchange(&batch.bytes, &mut [0; 4096]).map(drop)
    }

    /// Sends the messages and waits for what the kernel says.
    pub(crate) fn apply(&self, batch: Batch) -> io::Result<()> {
        let mut buffer = [0; 4096];
        self.exchange(&batch.acknowledged(), &mut buffer)?;
        Ok(())
    }

    /// Asks for one thing; the message that answers.
    pub(crate) fn ask(&self, batch: Batch) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 8192];
        let length = self.exchange(&batch.bytes, &mut buffer)?;
        Ok(buffer[..length].to_vec())
    }

    fn exchange(&self, bytes: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::empty())?;
        let length = recv(self.0.as_raw_fd(), buffer, MsgFlags::empty())?;
        let word = |at: usize| -> [u8; 4] { buffer[at..at + 4].try_into().unwrap_or_default() };
        if length >= HEADER + 4 && buffer[4..6] == NLMSG_ERROR.to_ne_bytes() {
            match i32::from_ne_bytes(word(HEADER)) {
                0 => {}
                error => return Err(io::Error::from_raw_os_error(-error)),
            }
        }
        Ok(length)
    }
}

/// `struct ifinfomsg`
pub(crate) fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}
