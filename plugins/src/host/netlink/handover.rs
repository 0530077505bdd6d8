//! Descriptors that the kernel closes instead of this process.
//!
//! A file that is under way in the queue of a UNIX socket, where nobody can fetch it any more, is closed by the garbage
//! collector of these sockets (net/unix/garbage.c). Since Linux 6.9 that is a worker of the kernel. Before, it is whoever
//! closes a UNIX socket: this process then waits as if it had closed the file itself.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

/// Lets the kernel close what `files` are copies of, some milliseconds after they were dropped here.
///
/// # Errors
/// The system's. Then dropping them closes them, as ever.
pub(super) fn leave_to_kernel<T: AsRawFd>(files: Vec<T>) -> io::Result<()> {
    let (outer, inner) = pair()?;
    let mut descriptors: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    // The queue's own socket, so that nobody else holds what is in it.
    descriptors.push(inner.as_raw_fd());
    sendmsg::<()>(
        outer.as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    drop(files);
    drop(inner);
    // Closing a UNIX socket starts the collector.
    drop(outer);
    Ok(())
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
    Ok(socketpair(AddressFamily::Unix, kind, None, flags)?)
}
