//! The image that `e2e/image.sh` makes, and its server.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use conformance::Place;

/// Its name.
pub(crate) const IMAGE: &str = "localhost/busybox:e2e";

/// The command that serves HTTP on port 80, on every address of both families.
pub(crate) const SERVER: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/www"];

/// What the server answers to this with the address it saw the request come from.
pub(crate) const WHOAMI: &str = "/cgi-bin/whoami";

/// How long a client waits for an answer.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// A client of the server.
pub(crate) trait Http {
    /// Ask the server; the address it saw the request come from. An error when there is no answer within three
    /// seconds.
    fn http(&self, ip: IpAddr, port: u16) -> io::Result<IpAddr>;
}

impl Http for Place {
    fn http(&self, ip: IpAddr, port: u16) -> io::Result<IpAddr> {
        let to = SocketAddr::new(ip, port);
        let answer = self.enter(|| {
            let mut stream = TcpStream::connect_timeout(&to, TIME_LIMIT)?;
            stream.set_read_timeout(Some(TIME_LIMIT))?;
            stream.write_all(format!("GET {WHOAMI} HTTP/1.0\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            io::Result::Ok(answer)
        })?;
        let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
        parse_whoami(body).map_err(io::Error::other)
    }
}

/// The address in an answer. The server has one socket for both families and so writes IPv4 addresses as IPv6 ones.
pub(crate) fn parse_whoami(body: &str) -> Result<IpAddr, String> {
    let text = body.trim().trim_start_matches('[').trim_end_matches(']');
    let address: Result<IpAddr, _> = text.parse();
    address
        .map(|it| it.to_canonical())
        .map_err(|_| format!("{body:?} is no address"))
}
