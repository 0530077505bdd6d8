//! Real TCP and UDP traffic. A server answers every request with the address it saw it come from, which is how a
//! test knows whether the network changed the source; a client insists that the answer comes from where it
//! asked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::place::Place;

/// How long a client waits for an answer that should come.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a client waits for an answer that should not come.
const DOUBT: Duration = Duration::from_millis(600);

/// How often an idle server looks whether it should stop.
const TICK: Duration = Duration::from_millis(5);

/// What carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A connection, one answer on it.
    Tcp,
    /// A datagram each way.
    Udp,
}

/// Both protocols, for tests that want the same of them.
impl Protocol {
    /// TCP, then UDP.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];
}

/// A server that tells clients their address, until it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Place {
    /// Serve on an address of this place.
    ///
    /// # Panics
    /// When the address can't be bound.
    #[track_caller]
    pub fn serve(&self, protocol: Protocol, ip: IpAddr, port: u16) -> EchoServer {
        let address = SocketAddr::new(ip, port);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let served = match protocol {
            Protocol::Tcp => self
                .enter(|| TcpListener::bind(address))
                .and_then(|listener| {
                    let address = listener.local_addr()?;
                    listener.set_nonblocking(true)?;
                    Ok((
                        address,
                        thread::spawn(move || serve_tcp(&listener, &stopped)),
                    ))
                }),
            Protocol::Udp => self.enter(|| UdpSocket::bind(address)).and_then(|socket| {
                let address = socket.local_addr()?;
                socket.set_read_timeout(Some(TICK))?;
                Ok((address, thread::spawn(move || serve_udp(&socket, &stopped))))
            }),
        };
        match served {
            Ok((address, thread)) => EchoServer {
                address,
                stop,
                thread: Some(thread),
            },
            Err(error) => panic!("serve {protocol:?} on {address}: {error}"),
        }
    }

    /// Ask a server from here; the address it saw the request come from.
    ///
    /// # Errors
    /// When no answer comes within three seconds, or one comes from another address than was asked.
    pub fn ask(&self, protocol: Protocol, to: SocketAddr) -> io::Result<IpAddr> {
        self.ask_within(protocol, to, PATIENCE)
    }

    /// Whether asking gets no answer, waiting for a little over half a second.
    pub fn cannot_reach(&self, protocol: Protocol, to: SocketAddr) -> bool {
        self.ask_within(protocol, to, DOUBT).is_err()
    }

    fn ask_within(&self, protocol: Protocol, to: SocketAddr, wait: Duration) -> io::Result<IpAddr> {
        let answer = self.enter(|| match protocol {
            Protocol::Tcp => ask_tcp(to, wait),
            Protocol::Udp => ask_udp(to, wait),
        })?;
        answer
            .parse()
            .map_err(|_| io::Error::other(format!("{to} answered {answer:?}")))
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, peer)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        let _ = stream.write_all(peer.ip().to_string().as_bytes());
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    }
}

fn ask_tcp(to: SocketAddr, wait: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, wait)?;
    stream.set_read_timeout(Some(wait))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The socket is not connected, so that an answer from elsewhere arrives and can be told apart.
fn ask_udp(to: SocketAddr, wait: Duration) -> io::Result<String> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0; 16], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(wait))?;
    socket.send_to(b"who am I", to)?;
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if from != to {
        return Err(io::Error::other(format!(
            "asked {to}, was answered by {from}"
        )));
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
