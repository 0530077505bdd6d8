//! `trestle trace`: a packet's way through the node, there and back.
//!
//! One packet is sent from the pod's namespace (or one of somebody else's waited for), and the kernel tells of it and of its
//! answer at every hook and every rule that applies ([`crate::host::nft::trace`]). What is seen is that: nftables, the
//! rules of iptables-nft among it, translation, routes and bridges. Drops elsewhere show in where the way ends.

mod counted;
mod dns;
mod from;
mod links;
mod lost;
mod path;
mod resolve;
mod send;
mod step;
mod tell;
mod verdict;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

pub(crate) use self::counted::Counted;
pub(crate) use self::resolve::Destination;
pub(crate) use self::step::Step;
pub(crate) use self::verdict::Verdict;

use self::links::Links;
use self::path::{Direction, paths};
use self::resolve::Pod;
use self::send::Surroundings;
use self::step::Teller;
use self::verdict::Case;
use super::directories::Directories;
use super::report::Finding;
use crate::host::HostError;
use crate::host::nft::{Family, Nft, TableRef, trace};
use crate::host::probe::Kind;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// What is to be traced.
pub(crate) struct Request {
    pub(crate) container: String,
    pub(crate) to: Destination,
    /// None for what fits the destination: a DNS question for port 53, else TCP, an echo request without a port.
    pub(crate) protocol: Option<Protocol>,
    /// The host's interface that the packet comes in by, in place of the container's.
    pub(crate) from: Option<String>,
    /// The length of the IP packet in bytes, which may not be fragmented.
    pub(crate) size: Option<u16>,
    /// Wait for somebody else's packet.
    pub(crate) live: bool,
    pub(crate) timeout: Duration,
}

/// Why nothing could be traced.
#[derive(Debug, Error)]
pub(crate) enum CannotLook {
    #[error(
        "no container, and no pod, is called {0}; see `trestle list`, or give the path of a network namespace"
    )]
    NoSuchContainer(String),
    #[error("{name} may be any of {}: give more of the ID", among.join(", "))]
    Ambiguous { name: String, among: Vec<String> },
    #[error(
        "the network namespace of {0} is gone, or the runtime's cache does not tell where it is; see `trestle list`"
    )]
    NoNamespace(String),
    #[error(
        "there is no interface called {0}, or the container has no address like the destination"
    )]
    NoInterface(String),
    #[error(
        "no packet can be made to come in by {name}: {why}; with --live one of somebody else's is waited for"
    )]
    NoWayIn {
        /// The interface.
        name: String,
        /// Why.
        why: String,
    },
    #[error("a packet of {size} bytes has no room for its headers, which take {least}")]
    TooSmall {
        /// What was asked for.
        size: u16,
        /// What it takes.
        least: u16,
    },
    #[error("what begins a TCP connection has no size; take --udp or --icmp")]
    NoSize,
    #[error("{} needs a port: write it as {}", .0, SocketAddr::new(*.0, 80))]
    NoPort(IpAddr),
    #[error("look at this node: {0}")]
    Survey(String),
    #[error("{}{}", .0, remedy(.0))]
    Host(#[from] HostError),
}

fn remedy(error: &HostError) -> String {
    error
        .remedy()
        .map_or_else(String::new, |it| format!(". {it}"))
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Trace {
    /// What was sent or waited for.
    pub(crate) probe: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) verdict: Verdict,
    pub(crate) findings: Vec<Finding>,
    /// Counters of drops and errors that rose meanwhile, by whomsoever; only when it was lost.
    pub(crate) counters: Vec<Counted>,
    /// What could not be seen.
    pub(crate) unseen: Vec<String>,
}

/// A request with what belongs to it.
struct Asked<'r> {
    request: &'r Request,
    protocol: Protocol,
    /// Whether an answer is to be expected.
    expected: bool,
}

impl<'r> Asked<'r> {
    fn new(request: &'r Request) -> Result<Self, CannotLook> {
        let to = request.to;
        let protocol = request.protocol.unwrap_or(match to.port {
            None => Protocol::Icmp,
            Some(_) if request.size.is_some() => Protocol::Udp,
            Some(53) => Protocol::Udp,
            Some(_) => Protocol::Tcp,
        });
        if protocol != Protocol::Icmp && to.port.is_none() {
            return Err(CannotLook::NoPort(to.address));
        }
        if let Some(size) = request.size {
            let headers = if to.address.is_ipv4() { 28 } else { 48 };
            let question = if to.port == Some(53) { 17 } else { 0 };
            let least = headers + question;
            match protocol {
                Protocol::Tcp => return Err(CannotLook::NoSize),
                _ if size < least => return Err(CannotLook::TooSmall { size, least }),
                _ => {}
            }
        }
        let expected = protocol != Protocol::Udp || to.port == Some(53);
        Ok(Self {
            request,
            protocol,
            expected,
        })
    }

    fn to(&self) -> SocketAddr {
        let to = self.request.to;
        let port = match self.protocol {
            Protocol::Icmp => None,
            _ => to.port,
        };
        SocketAddr::new(to.address, port.unwrap_or(0))
    }

    fn kind(&self) -> Kind {
        match self.protocol {
            Protocol::Tcp => Kind::Tcp,
            Protocol::Udp if self.request.to.port == Some(53) => Kind::Udp(dns::question()),
            Protocol::Udp if self.request.size.is_some() => Kind::Udp(Vec::new()),
            Protocol::Udp => Kind::Udp(b"trestle trace\n".to_vec()),
            Protocol::Icmp => Kind::Icmp,
        }
    }

    fn size(&self) -> Option<usize> {
        self.request.size.map(usize::from)
    }

    /// How long an answer, or an error, may take.
    fn time_limit(&self) -> Duration {
        match self.expected {
            true => self.request.timeout,
            false => self.request.timeout.min(watch::DELIVERY),
        }
    }

    fn number(&self) -> u8 {
        match (self.protocol, self.request.to.address.is_ipv4()) {
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
            (Protocol::Icmp, true) => 1,
            (Protocol::Icmp, false) => 58,
        }
    }

    fn word(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "TCP connection",
            Protocol::Udp if self.request.to.port == Some(53) => "DNS question",
            Protocol::Udp => "UDP datagram",
            Protocol::Icmp => "echo request",
        }
    }
}

/// Traces.
///
/// # Errors
/// [`CannotLook`], when there is no such container, no permission or no nftables that can do it.
pub(crate) fn run(directories: &Directories, request: &Request) -> Result<Trace, CannotLook> {
    let asked = Asked::new(request)?;
    may_look()?;
    let links = Links::new()?;
    let pod = resolve::pod(directories, &links, &request.container, request.to.address)?;
    let around = Surroundings::look()?;
    let sent = match request.live {
        true => send::live(&links, &asked, &pod, &around)?,
        false => match send::probe(&links, &asked, &pod, &around)? {
            Ok(sent) => sent,
            Err(error) => return unroutable(directories, &asked, &pod, &links, &error),
        },
    };
    let own = |event: &_| sent.tracer.own_chain(event);
    let paths = paths(&sent.watched.events, &sent.began, own);
    let mut teller = Teller::new(&links, Nft::open()?);
    let mut steps = tell::begin(&asked, &pod, &teller);
    steps.extend(teller.tell(Direction::There, &paths.there));
    steps.extend(sent.watched.flow.as_ref().and_then(step::flow));
    steps.extend(teller.tell(Direction::Back, &paths.back));
    let legacy = sent.counted.iter().find(|it| it.of == counted::LEGACY);
    let inside = pod.inside.as_ref();
    let case = Case {
        began: sent.began,
        paths: &paths,
        watched: &sent.watched,
        expected: asked.expected,
        live: request.live || request.from.is_some(),
        sent: sent.count,
        unanswered: send::unanswered(&asked, &pod),
        inside: inside.map(|link| (link.name.as_str(), link.mtu)),
        legacy: legacy.map(|it| it.what.clone()),
    };
    let mut verdict = case.judge(&links);
    verdict.step = verdict::place(&verdict, &steps);
    Ok(Trace {
        probe: tell::title(&asked, &pod, &sent.began),
        findings: tell::findings(directories, &pod, &verdict),
        unseen: tell::unseen(&around.legacy, &paths, &pod, &sent, &teller),
        counters: match paths.explain(&verdict) {
            true => Vec::new(),
            false => sent.counted,
        },
        steps,
        verdict,
    })
}

/// Whether this process may look at nftables at all: who may not, may not ask for what isn't there either.
fn may_look() -> Result<(), HostError> {
    let table = TableRef {
        family: Family::Inet,
        name: "trestle-trace",
    };
    let looked = Nft::open().and_then(|mut nft| nft.chain(table.object("first")));
    match looked {
        Err(error) if trace::is_unknown(error.errno()) => Err(trace::unsupported()),
        other => other.map(drop),
    }
}

/// The pod's own routes lead nowhere.
fn unroutable(
    directories: &Directories,
    asked: &Asked<'_>,
    pod: &Pod,
    links: &Links,
    error: &HostError,
) -> Result<Trace, CannotLook> {
    let steps = tell::begin(asked, pod, &Teller::new(links, Nft::open()?));
    let to = asked.request.to.address;
    let text = format!("the pod has no route to {to}: {error}");
    let mut verdict = Verdict::new("not-sent", text, &["route-missing"]);
    verdict.step = verdict::place(&verdict, &steps);
    Ok(Trace {
        probe: format!("{} from {} to {to}", asked.word(), pod.label),
        findings: tell::findings(directories, pod, &verdict),
        counters: Vec::new(),
        unseen: Vec::new(),
        steps,
        verdict,
    })
}
