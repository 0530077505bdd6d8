//! The system message bus: asking a service of this machine, such as firewalld.
//!
//! As much of the D-Bus specification (version 0.43) as that takes: a socket of the local machine, the authentication
//! mechanism EXTERNAL, by which the bus takes the kernel's word for who is calling, and calls of methods that take texts
//! and answer with texts or a truth value (`message`). A general D-Bus library would outweigh most plugins, and a
//! program that asks (`busctl`, `dbus-send`) is a child process for each question and not installed everywhere.

mod message;

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use nix::unistd::geteuid;

use self::message::{HEADER, Message, length_of};
use super::error::HostError;

pub use message::{Call, Value};

/// Where the system bus listens unless the environment says otherwise ("System message bus" of the specification
/// says `/var/run`, which is `/run` on Linux).
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// How long an answer may take: the bus libraries' usual patience.
const TIME_LIMIT: Duration = Duration::from_secs(25);

/// The bus itself, as a service on the bus.
const BUS: &str = "org.freedesktop.DBus";

/// A connection to the system bus.
#[derive(Debug)]
pub struct SystemBus {
    stream: UnixStream,
    serial: u32,
}

impl SystemBus {
    /// Connects to the bus that `DBUS_SYSTEM_BUS_ADDRESS` names, or to the machine's usual one. `None` where there is
    /// no such bus.
    ///
    /// # Errors
    /// [`HostError::System`], [`HostError::Protocol`] or [`HostError::Timeout`] when there is one, and it does not
    /// let us in.
    pub fn connect() -> Result<Option<Self>, HostError> {
        let address = env::var_os("DBUS_SYSTEM_BUS_ADDRESS").filter(|address| !address.is_empty());
        let address = address.unwrap_or_else(|| SYSTEM_BUS.into());
        let purpose = format!("connect to the system bus at {}", address.display());
        let failed = |error| failed(&purpose, error);
        let stream = match open(&address) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bus = Self { stream, serial: 0 };
        bus.log_in().map_err(failed)?;
        bus.ask(&purpose, "Hello", &[])?;
        Ok(Some(bus))
    }

    /// Whether a service of that name runs.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn has(&mut self, service: &str) -> Result<bool, HostError> {
        let purpose = format!("look for {service} on the system bus");
        Ok(self.ask(&purpose, "NameHasOwner", &[service])? == Value::Truth(true))
    }

    /// The process that has this service, by its ID as the bus sees it.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn process(&mut self, service: &str) -> Result<u32, HostError> {
        let purpose = format!("ask the system bus for the process of {service}");
        match self.ask(&purpose, "GetConnectionUnixProcessID", &[service])? {
            Value::Number(id) => Ok(id),
            _ => Err(unexpected(&purpose)),
        }
    }

    /// Asks the bus itself.
    fn ask(&mut self, purpose: &str, method: &str, arguments: &[&str]) -> Result<Value, HostError> {
        let call = Call::new(BUS, "/org/freedesktop/DBus", BUS, method, arguments);
        self.call(purpose, &call)
    }

    /// Calls a method and waits for its answer. No service is started by that.
    ///
    /// # Errors
    /// [`HostError::ServiceRefused`] with what the service, or the bus in its place, says; [`HostError::System`],
    /// [`HostError::Protocol`] or [`HostError::Timeout`] when no answer comes. `purpose` is operation and object.
    pub fn call(&mut self, purpose: &str, call: &Call<'_>) -> Result<Value, HostError> {
        self.serial += 1;
        let failed = |error| failed(purpose, error);
        self.stream
            .write_all(&call.message(self.serial))
            .map_err(failed)?;
        loop {
            let message = self.read().map_err(failed)?;
            // Signals and the like are none of ours.
            if message.reply_to != Some(self.serial) {
                continue;
            }
            return message
                .outcome
                .map_err(|complaint| HostError::ServiceRefused {
                    operation: purpose.to_owned(),
                    complaint,
                });
        }
    }

    /// The authentication conversation ("Authentication Protocol"): lines of text before the first message.
    fn log_in(&mut self) -> io::Result<()> {
        let user = geteuid().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        // The zero byte carries the credentials where the kernel needs a byte to carry them.
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            // Byte by byte, because nothing behind the line may be taken; it is a short one.
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
            if answer.len() > 512 {
                return Err(invalid("the answer to AUTH has no end"));
            }
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn read(&mut self) -> io::Result<Message> {
        let mut bytes = vec![0; HEADER];
        self.stream.read_exact(&mut bytes)?;
        let length = length_of(&bytes).ok_or_else(|| invalid("a message has a broken header"))?;
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[HEADER..])?;
        Message::parse(&bytes).ok_or_else(|| invalid("a message can't be read"))
    }
}

/// Tries the addresses of a list one after the other; the last one's error counts.
fn open(addresses: &OsString) -> io::Result<UnixStream> {
    let mut outcome = Err(io::Error::from(io::ErrorKind::NotFound));
    for address in addresses.as_bytes().split(|byte| *byte == b';') {
        outcome = socket(address).and_then(|address| UnixStream::connect_addr(&address));
        if outcome.is_ok() {
            break;
        }
    }
    let stream = outcome?;
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    Ok(stream)
}

/// The socket of an address such as `unix:path=/run/bus,guid=…` ("Server Addresses").
fn socket(address: &[u8]) -> io::Result<SocketAddr> {
    let unsupported = || {
        let problem = "only addresses that begin with unix:path= or unix:abstract= are supported";
        io::Error::new(io::ErrorKind::Unsupported, problem)
    };
    let keys = address.strip_prefix(b"unix:").ok_or_else(unsupported)?;
    for key in keys.split(|byte| *byte == b',') {
        if let Some(path) = key.strip_prefix(b"path=") {
            return SocketAddr::from_pathname(OsString::from_vec(unescape(path)));
        }
        if let Some(name) = key.strip_prefix(b"abstract=") {
            return SocketAddr::from_abstract_name(unescape(name));
        }
    }
    Err(unsupported())
}

/// Bytes that have a meaning of their own are written as `%` and two hexadecimal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let escaped = behind.get(..2).filter(|_| *first == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &behind[2..];
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// The error for an answer of another type than the method has.
pub fn unexpected(purpose: &str) -> HostError {
    HostError::Protocol {
        operation: purpose.to_owned(),
        problem: "the answer is of another type",
    }
}

fn failed(purpose: &str, error: io::Error) -> HostError {
    let operation = purpose.to_owned();
    match error.kind() {
        // What the kernel says when a socket's patience is at its end.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HostError::Timeout {
            operation,
            waited: TIME_LIMIT,
        },
        _ => HostError::System {
            operation,
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let path = |address: &str| {
            let socket = socket(address.as_bytes()).ok()?;
            socket.as_pathname().map(|path| path.display().to_string())
        };
        assert_eq!(path("unix:path=/run/bus"), Some("/run/bus".into()));
        assert_eq!(
            path("unix:guid=00ff,path=/run/a%2cb%20c"),
            Some("/run/a,b c".into())
        );
        assert_eq!(path("tcp:host=localhost,port=1"), None);
        assert_eq!(path("unix:tmpdir=/tmp"), None);
        let hidden = socket(b"unix:abstract=/tmp/dbus-1").unwrap();
        assert_eq!(hidden.as_abstract_name(), Some(&b"/tmp/dbus-1"[..]));
        // What is no escape stays as it is.
        assert_eq!(unescape(b"100%"), b"100%");
    }
}
