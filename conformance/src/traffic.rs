//! Real TCP and UDP traffic. A server answers every request with the address it saw it come from, which is how a
//! test knows whether the network changed the source; a client insists that the answer comes from where it
//! asked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::dns;
use crate::place::Place;

/// How long a client waits for an answer that should come.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// How long a client waits for an answer that should not come.
const NO_ANSWER_LIMIT: Duration = Duration::from_millis(600);

/// How often an idle server looks whether it should stop.
const TICK: Duration = Duration::from_millis(5);

/// What carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A connection, one answer on it.
    Tcp,
    /// A datagram each way.
    Udp,
    /// A question and an answer of the domain name system, over UDP.
    Dns,
}

/// Protocols for tests that want the same of them.
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
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// How many requests it has answered so far.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
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
        let (stop, served) = (Arc::default(), Arc::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&served));
        let started = match protocol {
            Protocol::Tcp => self
                .enter(|| retry_while_in_use(|| TcpListener::bind(address)))
                .and_then(|listener| {
                    let address = listener.local_addr()?;
                    listener.set_nonblocking(true)?;
                    let serve = move || serve_tcp(&listener, &stopped, &count);
                    Ok((address, thread::spawn(serve)))
                }),
            Protocol::Udp | Protocol::Dns => self
                .enter(|| retry_while_in_use(|| UdpSocket::bind(address)))
                .and_then(|socket| {
                    let address = socket.local_addr()?;
                    socket.set_read_timeout(Some(TICK))?;
                    let reply = if protocol == Protocol::Dns {
                        dns::answer
                    } else {
                        |_: &[u8], peer| Some(shown(peer))
                    };
                    let serve = move || serve_udp(&socket, &stopped, &count, reply);
                    Ok((address, thread::spawn(serve)))
                }),
        };
        match started {
            Ok((address, thread)) => EchoServer {
                address,
                stop,
                served,
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
        self.ask_within(protocol, to, TIME_LIMIT)
    }

    /// Whether asking gets no answer, waiting for a little over half a second.
    pub fn cannot_reach(&self, protocol: Protocol, to: SocketAddr) -> bool {
        self.ask_within(protocol, to, NO_ANSWER_LIMIT).is_err()
    }

    /// Send numbered datagrams to an address and see how often each arrives at a place: the highest count, once all
    /// have arrived and a little time has passed.
    ///
    /// # Errors
    /// When one doesn't arrive within three seconds.
    pub fn copies(&self, to: SocketAddr, at: &Self, bound: SocketAddr) -> io::Result<usize> {
        const DATAGRAMS: u8 = 16;
        let receiver = at.enter(|| retry_while_in_use(|| UdpSocket::bind(bound)))?;
        receiver.set_read_timeout(Some(TICK))?;
        let sender = self.enter(|| UdpSocket::bind(any(to)))?;
        let (mut arrived, begun) = ([0; DATAGRAMS as usize], Instant::now());
        let mut receive = || {
            let mut buffer = [0; 1];
            if receiver.recv(&mut buffer).is_ok() {
                arrived[usize::from(buffer[0])] += 1;
            }
            arrived.contains(&0)
        };
        for number in 0..DATAGRAMS {
            sender.send_to(&[number], to)?;
        }
        while receive() {
            if begun.elapsed() > TIME_LIMIT {
                return Err(io::Error::other(format!("not all arrived: {arrived:?}")));
            }
        }
        // A second copy takes no longer than the first.
        let complete = Instant::now();
        while complete.elapsed() < NO_ANSWER_LIMIT / 4 {
            receive();
        }
        Ok(arrived.into_iter().max().unwrap_or(0))
    }

    fn ask_within(&self, protocol: Protocol, to: SocketAddr, wait: Duration) -> io::Result<IpAddr> {
        self.enter(|| match protocol {
            Protocol::Tcp => ask_tcp(to, wait),
            Protocol::Udp => exchange(to, wait, |_| b"who am I".to_vec(), |_, answer| read(answer)),
            Protocol::Dns => exchange(to, wait, |id| dns::question(id, to), dns::read),
        })
    }
}

/// Bind, also where another socket was closed just now: a child that another test starts at that moment holds a copy
/// of it until it executes its program.
fn retry_while_in_use<S>(bind: impl Fn() -> io::Result<S>) -> io::Result<S> {
    let begun = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && begun.elapsed() < NO_ANSWER_LIMIT =>
            {
                thread::sleep(TICK);
            }
            outcome => return outcome,
        }
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool, served: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, peer)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        served.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(&shown(peer));
    }
}

fn serve_udp(
    socket: &UdpSocket,
    stop: &AtomicBool,
    served: &AtomicUsize,
    reply: fn(&[u8], SocketAddr) -> Option<Vec<u8>>,
) {
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(answer) = reply(&buffer[..length], peer) {
            served.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn shown(peer: SocketAddr) -> Vec<u8> {
    peer.ip().to_string().into_bytes()
}

fn read(answer: &[u8]) -> io::Result<IpAddr> {
    let text = String::from_utf8_lossy(answer);
    let parsed = text.parse();
    parsed.map_err(|_| io::Error::other(format!("the answer is {text:?}")))
}

fn ask_tcp(to: SocketAddr, wait: Duration) -> io::Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&to, wait)?;
    stream.set_read_timeout(Some(wait))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    read(&answer)
}

/// One datagram there and one back. The socket is not connected, so that an answer from elsewhere arrives and can be
/// told apart.
fn exchange(
    to: SocketAddr,
    wait: Duration,
    question: impl FnOnce(u16) -> Vec<u8>,
    read: fn(&[u8], &[u8]) -> io::Result<IpAddr>,
) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(any(to))?;
    socket.set_read_timeout(Some(wait))?;
    let question = question(socket.local_addr()?.port());
    socket.send_to(&question, to)?;
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if from != to {
        return Err(io::Error::other(format!(
            "asked {to}, was answered by {from}"
        )));
    }
    read(&question, &buffer[..length])
}

/// Any address of the family, any port.
fn any(to: SocketAddr) -> SocketAddr {
    if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0; 16], 0).into()
    }
}
