//! Where the plugin comes in: the listening socket, and conversations of one line each way.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_conf::error::Code;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};

use super::super::protocol::{Answer, Ask, LINE_MAX};
use crate::host::activation;

/// How long a plugin may take to take its answer, which fits the socket's buffer. It is there before it is needed.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// What the Go plugin begins with, and what it is told.
const OF_GO: &[u8] = b"CONNECT ";
const TO_GO: &[u8] =
    b"HTTP/1.0 501 this daemon is trestle's: install trestle's dhcp plugin\r\n\r\n";

/// The listening socket.
pub(super) struct Door {
    listener: UnixListener,
    /// What is to be removed in the end: nothing, if somebody else made it.
    path: Option<PathBuf>,
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl Door {
    /// Listens on the socket that this process was started with, or at `path`, where only root comes in.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (listener, path) = match activation::listener() {
            Some(listener) => (listener, None),
            None => (bind(path)?, Some(path.to_owned())),
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// The next who comes in; none if nobody waits. One that is not root is sent away.
    pub(super) fn admit(&self) -> Option<Visitor> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            let own = nix::unistd::Uid::effective().as_raw();
            let theirs = getsockopt(&stream, sockopt::PeerCredentials).map(|it| it.uid());
            let ready = stream.set_nonblocking(true);
            if theirs.is_ok_and(|uid| uid == 0 || uid == own) && ready.is_ok() {
                return Some(Visitor {
                    stream,
                    line: Vec::new(),
                });
            }
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon listens there, trestle's or the Go plugins'",
        ));
    }
    // A daemon that was killed leaves its socket.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // There is no moment in which others could connect.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// A plugin that is being listened to.
pub(super) struct Visitor {
    stream: UnixStream,
    line: Vec<u8>,
}

impl AsFd for Visitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What a visitor has said so far.
pub(super) enum Said {
    /// Not all of it yet.
    Part,
    /// All of it.
    Whole(Box<Ask>),
    /// It is gone, or talks nonsense and was told so.
    Bye,
}

impl Visitor {
    /// Listens once more.
    pub(super) fn listen(&mut self) -> Said {
        let mut buffer = [0; 16 << 10];
        match (&self.stream).read(&mut buffer) {
            Ok(0) => return Said::Bye,
            Ok(length) => self.line.extend_from_slice(&buffer[..length]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Said::Part;
            }
            Err(_) => return Said::Bye,
        }
        if self.line.starts_with(OF_GO) {
            let _ = (&self.stream).write_all(TO_GO);
            return Said::Bye;
        }
        let Some(end) = self.line.iter().position(|byte| *byte == b'\n') else {
            return match self.line.len() {
                0..=LINE_MAX => Said::Part,
                _ => Said::Bye,
            };
        };
        match Ask::read(&self.line[..end]) {
            Ok(ask) => {
                self.line = Vec::new();
                Said::Whole(Box::new(ask))
            }
            Err(problem) => self.refuse(&problem),
        }
    }

    fn refuse(&self, problem: &str) -> Said {
        self.answer(&Answer::Failed {
            code: Code::Decoding.number(),
            msg: format!("the DHCP daemon does not understand the question: {problem}"),
            details: "start the daemon again, so that it is of the plugin's release".into(),
        });
        Said::Bye
    }

    /// Gives the answer. Whether it is heard is the visitor's business.
    pub(super) fn answer(&self, answer: &Answer) {
        let line = answer.write() + "\n";
        let patient = self
            .stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(Some(WRITE_LIMIT)));
        if patient.is_ok() {
            let _ = (&self.stream).write_all(line.as_bytes());
        }
    }
}
