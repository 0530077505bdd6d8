//! The plugin's end of the conversation with the daemon.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cni_conf::error::{Code, Error};
use cni_conf::names::NetworkName;
use cni_conf::result::CniResult;

use super::protocol::{Answer, Ask, LINE_MAX, Verb};

/// How long an answer may take: longer than a daemon with its defaults looks for a lease.
const LIMIT: Duration = Duration::from_secs(280);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody listens there.
    Absent(Error),
    /// Something else.
    Other(Error),
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Absent(error) | Trouble::Other(error) => error,
        }
    }
}

/// Asks the daemon that listens at `socket`.
pub(super) fn ask(socket: &Path, network: &NetworkName, verb: Verb) -> Result<CniResult, Trouble> {
    let stream = UnixStream::connect(socket).map_err(|error| absent(socket, &error))?;
    let failed = |operation: &str, error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Code::TryAgainLater,
            _ => Code::Io,
        };
        let text = format!(
            "{operation} the DHCP daemon at {}: {error}",
            socket.display()
        );
        Trouble::Other(Error::new(code, text))
    };
    let whole = Ask {
        network: network.clone(),
        verb,
    };
    let line = whole.write() + "\n";
    let limits = stream
        .set_read_timeout(Some(LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)));
    limits.map_err(|error| failed("set a limit for", &error))?;
    // One that speaks another language may hang up before it has heard all of it, and have said why.
    let written = (&stream).write_all(line.as_bytes());
    let mut answer = String::new();
    let read = BufReader::new((&stream).take(LINE_MAX as u64)).read_line(&mut answer);
    let fails = |error: io::Error| match error.kind() {
        // It hung up.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => None,
        _ => Some(error),
    };
    match (written.map_err(fails), read.map_err(fails)) {
        (_, Ok(1..)) => understand(socket, &answer),
        (Err(Some(error)), _) => Err(failed("ask", &error)),
        (_, Err(Some(error))) => Err(failed("hear", &error)),
        _ => Err(Trouble::Other(
            Error::new(
                Code::TryAgainLater,
                format!(
                    "the DHCP daemon at {} ended before it answered",
                    socket.display()
                ),
            )
            .with_details("it listens to root alone; see its log: journalctl -u trestle-dhcp"),
        )),
    }
}

fn understand(socket: &Path, line: &str) -> Result<CniResult, Trouble> {
    let socket = socket.display();
    if line.starts_with("HTTP/") {
        return Err(Trouble::Other(
            Error::new(
                Code::Delegate,
                format!("the DHCP daemon at {socket} is the Go plugins', which this plugin can't talk to"),
            )
            .with_details(
                "stop it and start trestle's: systemctl disable --now cni-dhcp.socket cni-dhcp.service; systemctl enable \
                 --now trestle-dhcp.socket",
            ),
        ));
    }
    let answer = Answer::read(line.as_bytes()).map_err(|problem| {
        let text = format!("the DHCP daemon at {socket} answered what is no answer: {problem}");
        Trouble::Other(Error::new(Code::Delegate, text))
    })?;
    answer.into_result().map_err(Trouble::Other)
}

fn absent(socket: &Path, error: &io::Error) -> Trouble {
    let nobody = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    );
    let text = format!("reach the DHCP daemon at {}: {error}", socket.display());
    if !nobody {
        return Trouble::Other(Error::new(Code::Io, text));
    }
    Trouble::Absent(Error::new(Code::TryAgainLater, text).with_details(
        "it is not running: start it by systemctl enable --now trestle-dhcp.socket, or by running `dhcp daemon` as root",
    ))
}
