//! A host with two pods on a bridge and an outside in front of it, calls of the plugin, and traffic.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, CniArgs, Request};
use cni_conf::result::{CniResult, Interface, IpConfig};
use cni_conf::version::SpecVersion;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, listen,
    socket,
};
use plugins::portmap::Portmap;
use serde_json::{Value, json};

use crate::scratch;
use testbed::Node;

/// How long an answer may take that is expected.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long it takes to believe that none comes.
const NO_ANSWER_LIMIT: Duration = Duration::from_millis(400);

/// Whether this kernel has SCTP.
pub(crate) fn has_sctp() -> bool {
    sctp_socket().is_ok()
}

/// A socket of the one-to-one style, which is used like one of TCP (RFC 6458, section 4).
fn sctp_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Sctp,
    )
}

/// Answers everybody who asks over SCTP.
pub(crate) fn serve_sctp(node: &Node, address: &str) {
    let address: SocketAddrV4 = address.parse().expect("success");
    let listener = node.run(move || {
        let socket = sctp_socket().expect("success");
        bind(socket.as_raw_fd(), &SockaddrIn::from(address)).expect("success");
        listen(&socket, Backlog::new(8).expect("success")).expect("success");
        TcpListener::from(socket)
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"sctp");
        }
    });
}

/// The answer to a question over SCTP.
pub(crate) fn ask_sctp(node: &Node, to: &str) -> io::Result<String> {
    let to: SocketAddrV4 = to.parse().expect("success");
    node.run(move || {
        let socket = sctp_socket()?;
        connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(TIME_LIMIT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// Who carries the rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Nftables,
    Iptables,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Everything that the backends may leave, rules of iptables and of nftables. Chains that come with a table of iptables
/// don't count.
pub(crate) fn state_of(node: &Node) -> String {
    node.sh(
        "nft list tables | grep -q 'inet trestle' && nft -s list table inet trestle || true
        for tables in iptables ip6tables; do for table in raw nat; do
            $tables -t $table -S | grep -v '^-P' | sed \"s/^/$tables $table /\" || true
        done; done",
    )
}

/// The transport protocol of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Udp,
}

/// One call's circumstances.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) network: &'static str,
    pub(crate) container: String,
    pub(crate) ifname: String,
    pub(crate) conf: Value,
    pub(crate) addresses: Vec<&'static str>,
    /// The container's namespace.
    pub(crate) netns: Option<PathBuf>,
}

impl Call {
    /// A container of network `podnet` with the first pod's addresses.
    pub(crate) fn new(backend: Backend, container: &str, mappings: Value) -> Self {
        Self {
            network: "podnet",
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
            conf: json!({
                "backend": backend.name(),
                "dataDir": scratch::shared(),
                "runtimeConfig": {"portMappings": mappings},
            }),
            addresses: vec!["10.1.0.5/24", "fd00:1::5/64"],
            netns: None,
        }
    }

    pub(crate) fn inside(mut self, node: &Node) -> Self {
        self.netns = Some(scratch::netns(node));
        self
    }

    pub(crate) fn on(mut self, network: &'static str) -> Self {
        self.network = network;
        self
    }

    pub(crate) fn at(mut self, addresses: &[&'static str]) -> Self {
        self.addresses = addresses.to_vec();
        self
    }

    pub(crate) fn by(mut self, ifname: &str) -> Self {
        ifname.clone_into(&mut self.ifname);
        self
    }

    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    pub(crate) fn result(&self) -> CniResult {
        CniResult {
            interfaces: vec![
                Interface {
                    name: "br0".into(),
                    ..Interface::default()
                },
                Interface {
                    name: self.ifname.clone(),
                    sandbox: "/run/netns/pod".into(),
                    ..Interface::default()
                },
            ],
            ips: self
                .addresses
                .iter()
                .map(|address| IpConfig {
                    interface: Some(1),
                    address: address.parse().expect("success"),
                    gateway: None,
                })
                .collect(),
            ..CniResult::default()
        }
    }

    fn request(&self) -> Request {
        Request {
            version: SpecVersion::LATEST,
            network: self.network.try_into().expect("success"),
            plugin: "portmap".try_into().expect("success"),
            conf: self.conf.clone(),
            cni_path: Vec::new(),
            prev_result: Some(self.result()),
        }
    }

    fn attachment(&self) -> Attachment {
        Attachment {
            container: self.container.as_str().try_into().expect("success"),
            ifname: self.ifname.as_str().try_into().expect("success"),
            netns: self.netns.clone(),
            args: CniArgs::default(),
            netns_override: false,
        }
    }

    /// These run in the namespace that the calling thread is in.
    pub(crate) fn add(&self) -> Result<CniResult, Error> {
        Portmap.add(&self.request(), &self.attachment())
    }

    pub(crate) fn del(&self) -> Result<(), Error> {
        Portmap.del(&self.request(), &self.attachment())
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        Portmap.check(&self.request(), &self.attachment())
    }

    pub(crate) fn gc(&self, valid: &[&str]) -> Result<(), Error> {
        let valid: Vec<_> = valid.iter().map(|container| (*container, "eth0")).collect();
        self.gc_but(&valid)
    }

    /// GC with these containers and interfaces as the valid ones.
    pub(crate) fn gc_but(&self, valid: &[(&str, &str)]) -> Result<(), Error> {
        let valid: Vec<AttachmentId> = valid
            .iter()
            .map(|(container, ifname)| AttachmentId {
                container: (*container).try_into().expect("success"),
                ifname: (*ifname).try_into().expect("success"),
            })
            .collect();
        Portmap.gc(&self.request(), &valid)
    }
}

pub(crate) struct Scene {
    pub(crate) host: Node,
    pub(crate) pod: Node,
    pub(crate) neighbour: Node,
    pub(crate) outside: Node,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (host, pod, neighbour, outside) = (Node::new(), Node::new(), Node::new(), Node::new());
        host.sh("ip link add br0 type bridge; ip link set br0 up
            ip addr add 10.1.0.1/24 dev br0; ip addr add fd00:1::1/64 dev br0 nodad
            echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done");
        for (node, name, last) in [(&pod, "pod", 5), (&neighbour, "near", 6)] {
            host.sh(&format!(
                "ip link add {name} type veth peer name eth0 netns {}; ip link set {name} master br0 up",
                node.netns()
            ));
            node.sh(&format!(
                "ip addr add 10.1.0.{last}/24 dev eth0; ip addr add fd00:1::{last}/64 dev eth0 nodad
                 ip link set eth0 up; ip route add default via 10.1.0.1; ip route add default via fd00:1::1"
            ));
        }
        host.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {}; ip link set up0 up
             ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad
             ip addr add 192.0.2.9/24 dev up0",
            outside.netns()
        ));
        outside.sh(
            "ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
            ip link set eth0 up
            ip route add 10.1.0.0/24 via 192.0.2.1; ip route add fd00:1::/64 via 2001:db8::1",
        );
        Self {
            host,
            pod,
            neighbour,
            outside,
        }
    }

    pub(crate) fn add(&self, call: &Call) {
        self.try_add(call).expect("success");
    }

    pub(crate) fn try_add(&self, call: &Call) -> Result<CniResult, Error> {
        let call = call.clone();
        self.host.run(move || call.add())
    }

    pub(crate) fn del(&self, call: &Call) {
        let call = call.clone();
        self.host.run(move || call.del()).expect("success");
    }

    pub(crate) fn ruleset(&self) -> String {
        self.host.sh("nft -s list ruleset")
    }

    pub(crate) fn check(&self, call: &Call) -> Result<(), Error> {
        let call = call.clone();
        self.host.run(move || call.check())
    }

    pub(crate) fn gc(&self, call: &Call, valid: &'static [(&'static str, &'static str)]) {
        let call = call.clone();
        self.host.run(move || call.gc_but(valid)).expect("success");
    }

    /// See [`state_of`].
    pub(crate) fn state(&self) -> String {
        state_of(&self.host)
    }

    pub(crate) fn route_localnet(&self) -> String {
        self.host
            .sh("cat /proc/sys/net/ipv4/conf/br0/route_localnet")
            .trim()
            .to_owned()
    }
}

/// Answers everybody who asks at `address`, over both protocols, with its own name and who asked, for as long as the
/// test runs.
pub(crate) fn serve(node: &Node, name: &'static str, address: &str) {
    let address: SocketAddr = address.parse().expect("success");
    let (tcp, udp) = node.run(move || {
        (
            TcpListener::bind(address).expect("success"),
            UdpSocket::bind(address).expect("success"),
        )
    });
    let answer = move |peer: SocketAddr| format!("{name} {}", peer.ip());
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let peer = stream.peer_addr().map(answer);
            if let Ok(text) = peer {
                let _ = (&stream).write_all(text.as_bytes());
            }
        }
    });
    thread::spawn(move || {
        while let Ok((_, peer)) = udp.recv_from(&mut [0; 64]) {
            let _ = udp.send_to(answer(peer).as_bytes(), peer);
        }
    });
}

/// The answer to a question from `node` to `to`.
pub(crate) fn ask(node: &Node, over: Over, to: &str) -> Option<String> {
    try_ask(node, over, to, TIME_LIMIT)
}

/// The answer to a question of which none is expected.
pub(crate) fn ask_without_answer(node: &Node, over: Over, to: &str) -> Option<String> {
    try_ask(node, over, to, NO_ANSWER_LIMIT)
}

fn try_ask(node: &Node, over: Over, to: &str, patience: Duration) -> Option<String> {
    let to: SocketAddr = to.parse().expect("success");
    node.run(move || match over {
        Over::Tcp => tcp_ask(to, patience),
        Over::Udp => udp_ask(to, patience),
    })
}

fn tcp_ask(to: SocketAddr, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_read_timeout(Some(patience)).expect("success");
    let mut text = String::new();
    stream
        .set_nodelay(true)
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
        .ok()?;
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn udp_ask(to: SocketAddr, patience: Duration) -> Option<String> {
    let socket = udp_socket(to)?;
    udp_exchange(&socket, patience)
}

/// Connected: an answer from another address than was asked doesn't count.
fn udp_socket(to: SocketAddr) -> Option<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).expect("success");
    socket.connect(to).ok()?;
    Some(socket)
}

fn udp_exchange(socket: &UdpSocket, patience: Duration) -> Option<String> {
    socket.set_read_timeout(Some(patience)).expect("success");
    socket.send(b"?").ok()?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Somebody who asks over UDP again and again from one port.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) fn new(node: &Node, to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("success");
        Self(node.run(move || udp_socket(to)).expect("success"))
    }

    pub(crate) fn ask(&self) -> Option<String> {
        // The refusal of an earlier question may be reported at the next one, and even while that waits.
        let mut answers = (0..3).map(|_| {
            let _ = self.0.take_error();
            udp_exchange(&self.0, TIME_LIMIT)
        });
        answers.find_map(|answer| answer)
    }

    pub(crate) fn ask_without_answer(&self) -> Option<String> {
        let _ = self.0.take_error();
        udp_exchange(&self.0, NO_ANSWER_LIMIT)
    }
}
