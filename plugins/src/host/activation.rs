//! Sockets that systemd hands over to the process it starts; see sd_listen_fds(3).

use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;

/// The first descriptor that is handed over.
const FIRST: i32 = 3;

/// The listening socket that this process was started with, if it was started by one. To be called once, and before other
/// files are opened.
#[expect(unsafe_code, reason = "a descriptor comes as a number")]
pub fn listener() -> Option<UnixListener> {
    let number = |name: &str| -> Option<u32> { std::env::var(name).ok()?.parse().ok() };
    if number("LISTEN_PID")? != std::process::id() || number("LISTEN_FDS")? == 0 {
        return None;
    }
    // SAFETY: by the protocol the descriptor is open, this process's own, and nobody else's in it.
    Some(unsafe { UnixListener::from_raw_fd(FIRST) })
}
