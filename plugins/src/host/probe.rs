//! One packet of one's own, and what becomes of it: a TCP connection that is begun, a datagram or an echo request.
//!
//! The socket is made and bound in a namespace, so that source address and port are known before anything is sent.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, sock_extended_err, sockaddr_in6};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrStorage, bind, connect, getsockname, getsockopt, recv, recvmsg, send, socket, sockopt,
};

use super::conntrack::Tuple;
use super::error::HostError;
use super::inject::{checksum, padded};
use super::netns::NetNs;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A connection is begun.
    Tcp,
    /// A datagram with this content.
    Udp(Vec<u8>),
    /// An echo request.
    Icmp,
}

/// What became of it, as far as the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The connection came about, or an answer came.
    Answered,
    /// Somebody said that nobody listens there.
    Refused,
    /// The kernel or a router on the way said that it can't be delivered.
    Undeliverable(Errno),
}

/// A packet that is ready to be sent.
#[derive(Debug)]
pub struct Probe {
    socket: OwnedFd,
    kind: Kind,
    to: SocketAddr,
    tuple: Tuple,
    size: Option<usize>,
}

/// Who said that a packet can't be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// A router or the destination; none where it was the sender's own kernel.
    pub by: Option<IpAddr>,
    /// The MTU of the link that it was too large for, in bytes.
    pub mtu: Option<u32>,
}

impl Probe {
    /// Makes the socket in a namespace, the thread's own unless one is given, and finds out which address it sends from. With
    /// a size, the packet is so long in bytes, its IP header among them, and must not be fragmented on its way; TCP knows
    /// none.
    ///
    /// # Errors
    /// [`HostError::System`]: `ENETUNREACH` when the namespace has no route there.
    pub fn prepare(
        netns: Option<&NetNs>,
        kind: Kind,
        to: SocketAddr,
        size: Option<usize>,
    ) -> Result<Self, HostError> {
        let make = || Self::make(kind, to, size);
        let made = match netns {
            Some(netns) => netns.enter(make)?,
            None => make(),
        };
        made.map_err(|errno| HostError::System {
            operation: format!("prepare a packet to {to}"),
            source: errno.into(),
        })
    }

    fn make(kind: Kind, to: SocketAddr, size: Option<usize>) -> Result<Self, Errno> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (sort, protocol, number) = match (&kind, to.is_ipv4()) {
            (Kind::Tcp, _) => (SockType::Stream, SockProtocol::Tcp, 6),
            (Kind::Udp(_), _) => (SockType::Datagram, SockProtocol::Udp, 17),
            (Kind::Icmp, true) => (SockType::Raw, SockProtocol::Icmp, 1),
            (Kind::Icmp, false) => (SockType::Raw, SockProtocol::IcmpV6, 58),
        };
        let source = source_towards(to)?;
        let socket = socket(family, sort, flags, protocol)?;
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(source, 0)),
        )?;
        if size.is_some() {
            forbid_fragments(&socket, to.is_ipv6())?;
        }
        if kind != Kind::Tcp {
            let target = match kind {
                Kind::Icmp => SocketAddr::new(to.ip(), 0),
                _ => to,
            };
            connect(socket.as_raw_fd(), &SockaddrStorage::from(target))?;
        }
        let (source_port, destination_port) = match kind {
            Kind::Icmp => (echo_number(&socket), 0),
            _ => (own_address(socket.as_fd())?.port(), to.port()),
        };
        let tuple = Tuple {
            source,
            destination: to.ip(),
            protocol: number,
            source_port,
            destination_port,
        };
        Ok(Self {
            socket,
            kind,
            to,
            tuple,
            size,
        })
    }

    /// Where it comes from and goes. An echo request has its number for a source port.
    pub fn tuple(&self) -> Tuple {
        self.tuple
    }

    /// Sends it. Sent again, only a datagram or an echo request goes out: TCP repeats by itself.
    ///
    /// # Errors
    /// [`HostError::System`]; `ENETUNREACH` and others when it can't leave the namespace.
    pub fn send(&self) -> Result<(), HostError> {
        let to = SockaddrStorage::from(self.to);
        let sent = match &self.kind {
            Kind::Tcp => connect(self.socket.as_raw_fd(), &to),
            Kind::Udp(content) => self.send_bytes(&padded(content, self.size, &self.tuple, 8)),
            Kind::Icmp => self.send_bytes(&self.echo_request()),
        };
        match sent {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EALREADY | Errno::EISCONN) => Ok(()),
            // The answer to an earlier one; see `outcome`.
            Err(Errno::ECONNREFUSED) => Ok(()),
            Err(errno) => Err(HostError::System {
                operation: format!("send a packet to {}", self.to),
                source: errno.into(),
            }),
        }
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    /// Type, code, checksum, number, sequence. The kernel computes the checksum of ICMPv6.
    fn echo_request(&self) -> Vec<u8> {
        let v6 = self.to.is_ipv6();
        let [high, low] = self.tuple.source_port.to_be_bytes();
        let mut bytes = vec![if v6 { 128 } else { 8 }, 0, 0, 0, high, low, 0, 1];
        bytes.extend(padded(&[], self.size, &self.tuple, 8));
        if !v6 {
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Who said that a packet with a size can't be delivered, if somebody did.
    pub fn said(&self) -> Option<Said> {
        let mut inbox = [0; 128];
        let mut inbox = [IoSliceMut::new(&mut inbox)];
        let mut space = nix::cmsg_space!(sock_extended_err, sockaddr_in6);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let read = recvmsg::<()>(self.socket.as_raw_fd(), &mut inbox, Some(&mut space), flags);
        let read = read.ok()?;
        let (error, by) = read.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, by) => {
                let by = by.map(|it| Ipv4Addr::from(u32::from_be(it.sin_addr.s_addr)).into());
                Some((error, by))
            }
            ControlMessageOwned::Ipv6RecvErr(error, by) => Some((
                error,
                by.map(|it| Ipv6Addr::from(it.sin6_addr.s6_addr).into()),
            )),
            _ => None,
        })?;
        let too_large = error.ee_errno == Errno::EMSGSIZE as u32;
        Some(Said {
            by: by.filter(|_| error.ee_origin != libc::SO_EE_ORIGIN_LOCAL),
            mtu: too_large.then_some(error.ee_info),
        })
    }

    /// What is known by now; none as long as nothing came.
    ///
    /// # Errors
    /// [`HostError::System`].
    pub fn outcome(&self) -> Result<Option<Outcome>, HostError> {
        let failed = |errno: Errno| HostError::System {
            operation: format!("see what became of a packet to {}", self.to),
            source: errno.into(),
        };
        if self.kind == Kind::Tcp {
            let error = getsockopt(&self.socket, sockopt::SocketError).map_err(failed)?;
            if error != 0 {
                return Ok(Some(of_errno(Errno::from_raw(error))));
            }
            let connected =
                nix::sys::socket::getpeername::<SockaddrStorage>(self.socket.as_raw_fd());
            return Ok(connected.is_ok().then_some(Outcome::Answered));
        }
        loop {
            let mut buffer = [0; 2048];
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if self.is_answer(&buffer[..length]) => {
                    return Ok(Some(Outcome::Answered));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Ok(Some(of_errno(errno))),
            }
        }
    }

    fn is_answer(&self, bytes: &[u8]) -> bool {
        if self.kind != Kind::Icmp {
            return true;
        }
        // A raw socket of IPv4 gets the IP header, too.
        let (begin, reply) = match self.to.is_ipv4() {
            true => (
                usize::from(bytes.first().copied().unwrap_or(0) & 0xf) * 4,
                0,
            ),
            false => (0, 129),
        };
        let number = self.tuple.source_port.to_be_bytes();
        bytes.get(begin) == Some(&reply) && bytes.get(begin + 4..begin + 6) == Some(&number)
    }
}

/// The descriptor becomes readable or writable when there is an outcome.
impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn of_errno(errno: Errno) -> Outcome {
    match errno {
        Errno::ECONNREFUSED | Errno::ECONNRESET => Outcome::Refused,
        errno => Outcome::Undeliverable(errno),
    }
}

/// Has a socket send packets whole, however large the way is known to be, and hear who refuses them.
fn forbid_fragments(socket: &OwnedFd, v6: bool) -> Result<(), Errno> {
    let on = libc::c_int::from(true);
    let options = match v6 {
        false => vec![
            (
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_PROBE,
            ),
            (libc::IPPROTO_IP, libc::IP_RECVERR, on),
        ],
        true => vec![
            (
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            ),
            (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, on),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, on),
        ],
    };
    options
        .into_iter()
        .try_for_each(|(level, name, value)| set(socket, level, name, value))
}

#[expect(
    unsafe_code,
    reason = "setsockopt(2) has no safe wrapper for these options"
)]
fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the kernel reads a number of that length, which lives for the duration of the call; the descriptor is open.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(answer).map(drop)
}

/// The address that packets there come from, by the namespace's routes. A datagram socket finds it out without sending.
fn source_towards(to: SocketAddr) -> Result<IpAddr, Errno> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let port = if to.port() == 0 { 9 } else { to.port() };
    let errno = |error: io::Error| match error.kind() {
        ErrorKind::NetworkUnreachable => Errno::ENETUNREACH,
        _ => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    };
    let socket = std::net::UdpSocket::bind((any, 0)).map_err(errno)?;
    socket.connect((to.ip(), port)).map_err(errno)?;
    Ok(socket.local_addr().map_err(errno)?.ip())
}

fn own_address(socket: BorrowedFd<'_>) -> Result<SocketAddr, Errno> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = address
        .as_sockaddr_in()
        .map(|it| SocketAddr::from((it.ip(), it.port())));
    let v6 = address
        .as_sockaddr_in6()
        .map(|it| SocketAddr::from((it.ip(), it.port())));
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}

/// A number that others hardly use at the moment.
fn echo_number(socket: &OwnedFd) -> u16 {
    let number = std::process::id().wrapping_mul(31) + socket.as_raw_fd().unsigned_abs();
    u16::try_from(number & 0xffff).unwrap_or(1).max(1)
}
