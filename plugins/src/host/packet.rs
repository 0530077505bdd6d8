//! Packet sockets: UDP over IPv4 on an interface that has no address yet. See packet(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::error::HostError;
use super::rtnl::Mac;

/// The hardware address that every neighbour listens to.
pub const BROADCAST: Mac = [0xff; 6];

/// A socket that sends IPv4 packets on one interface and receives those of UDP to one port. The kernel adds and takes off
/// what the link wants in front of them.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    link: u32,
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PacketSocket {
    /// A socket in the namespace that the calling thread is in, on the link of this index, for UDP to `port`. It never blocks.
    ///
    /// # Errors
    /// [`HostError::System`], also where the link is missing.
    pub fn open(link: u32, port: u16) -> Result<Self, HostError> {
        let failed = |errno: Errno| HostError::System {
            operation: format!("open a packet socket on link {link}"),
            source: errno.into(),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol nothing is received before the filter is there and the link is chosen.
        let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, None).map_err(failed)?;
        let socket = Self { fd, link };
        socket.filter(port).map_err(failed)?;
        socket.bind().map_err(failed)?;
        Ok(socket)
    }

    /// Sends an IPv4 packet to a neighbour.
    ///
    /// # Errors
    /// The kernel's: the link is down or gone, or its queue is full.
    pub fn send(&self, to: Mac, packet: &[u8]) -> io::Result<()> {
        let address = self.address(Some(to));
        send_to(&self.fd, packet, &address)?;
        Ok(())
    }

    /// Receives a packet, of which no more is kept than fits `buffer`: how much that is, and the neighbour's hardware address.
    /// None where there is nothing to receive.
    ///
    /// # Errors
    /// The kernel's: the link went down or is gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Mac)>> {
        match receive_from(&self.fd, buffer) {
            Ok(received) => Ok(Some(received)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn address(&self, to: Option<Mac>) -> libc::sockaddr_ll {
        let mut hardware = [0; 8];
        hardware[..6].copy_from_slice(&to.unwrap_or_default());
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_IP as u16).to_be(),
            sll_ifindex: self.link.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: if to.is_some() { 6 } else { 0 },
            sll_addr: hardware,
        }
    }

    #[expect(unsafe_code, reason = "nix has no way to fill in an address of a link")]
    fn bind(&self) -> Result<(), Errno> {
        let address = self.address(None);
        // SAFETY: the pointer is to a live address of the family's type, and the length is its size.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Has the kernel drop everything but whole UDP datagrams to `port`.
    #[expect(unsafe_code, reason = "nix has no such socket option")]
    fn filter(&self, port: u16) -> Result<(), Errno> {
        let mut program = program(port);
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the option takes a `sock_fprog`, whose pointer is to as many instructions as it says; the kernel copies
        // them before it returns.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                size_of_val(&filter) as libc::socklen_t,
            )
        };
        Errno::result(result).map(drop)
    }
}

/// Classic BPF (Documentation/networking/filter.rst) on packets that begin with the IPv4 header.
fn program(port: u16) -> [libc::sock_filter; 9] {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    [
        // The protocol is UDP,
        step(load | libc::BPF_B, 0, 0, 9),
        step(equal, 0, 5, libc::IPPROTO_UDP as u32),
        // it is no later fragment,
        step(load | libc::BPF_H, 0, 0, 6),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 3, 0, 0x1fff),
        // and behind the header, the destination port is this one.
        step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
        step(equal, 1, 0, u32::from(port)),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ]
}

#[expect(unsafe_code, reason = "nix has no way to fill in an address of a link")]
fn send_to(fd: &OwnedFd, packet: &[u8], to: &libc::sockaddr_ll) -> Result<(), Errno> {
    // SAFETY: both pointers are to live memory of the lengths that are given.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            std::ptr::from_ref(to).cast(),
            size_of_val(to) as libc::socklen_t,
        )
    };
    Errno::result(sent).map(drop)
}

#[expect(unsafe_code, reason = "nix keeps the bytes of an address to itself")]
fn receive_from(fd: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Mac), Errno> {
    // SAFETY: all-zero bytes are a valid value of this structure of integers.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&from) as libc::socklen_t;
    // SAFETY: the pointers are to live memory of the lengths that are given; the kernel writes no more than that.
    let received = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    let received = Errno::result(received)?.cast_unsigned();
    let [a, b, c, d, e, f, ..] = from.sll_addr;
    Ok((received, [a, b, c, d, e, f]))
}
