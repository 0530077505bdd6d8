//! `trestle trace`: a packet's way through the node, there and back.
//!
//! One packet is sent from the pod's namespace (or one of somebody else's waited for), and the kernel tells of it and of its
//! answer at every hook and every rule that applies ([`crate::host::nft::trace`]). What is seen is that: nftables, the
//! rules of iptables-nft among it, translation, routes and bridges. Drops elsewhere show in where the way ends.

mod dns;
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

pub(crate) use self::resolve::Destination;
pub(crate) use self::step::Step;
pub(crate) use self::verdict::Verdict;

use self::path::{Direction, paths};
use self::resolve::Pod;
use self::step::Teller;
use self::verdict::Case;
use super::kernel::Kernel;
use super::report::Finding;
use super::survey::Survey;
use crate::host::nft::{Family, Nft, TableRef};
use crate::host::probe::Kind;
use crate::host::{HostError, Rtnl};

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
    /// The host's interface that the packet comes from, in place of the container.
    pub(crate) from: Option<String>,
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
    #[error("there is no interface called {0}, or it has no address like the destination")]
    NoInterface(String),
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
            Some(53) => Protocol::Udp,
            Some(_) => Protocol::Tcp,
        });
        if protocol != Protocol::Icmp && to.port.is_none() {
            return Err(CannotLook::NoPort(to.address));
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
            Protocol::Udp => Kind::Udp(b"trestle trace\n".to_vec()),
            Protocol::Icmp => Kind::Icmp,
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
pub(crate) fn run(survey: &Survey, request: &Request) -> Result<Trace, CannotLook> {
    let asked = Asked::new(request)?;
    may_look()?;
    let kernel = survey.kernel().map_err(CannotLook::Survey)?;
    let firewall = survey.firewall().map_err(CannotLook::Survey)?;
    let pod = resolve::pod(survey, &request.container, request.to.address)?;
    let tracked = send::translates(firewall);
    let (began, watched, sent, tracer) = match request.live {
        true => send::live(kernel, &asked, &pod, tracked)?,
        false => match send::probe(kernel, &asked, &pod, tracked)? {
            Ok(probed) => probed,
            Err(error) => return unroutable(survey, &asked, &pod, kernel, &error),
        },
    };
    let own = |event: &_| tracer.as_ref().and_then(|tracer| tracer.own_chain(event));
    let paths = paths(&watched.events, &began, own);
    let mut teller = Teller::new(kernel, Rtnl::new()?, Nft::open()?);
    let mut steps = tell::begin(&asked, &pod, &teller);
    steps.extend(teller.tell(Direction::There, &paths.there));
    steps.extend(teller.tell(Direction::Back, &paths.back));
    let case = Case {
        began,
        paths: &paths,
        watched: &watched,
        expected: asked.expected,
        live: request.live,
        sent,
        unanswered: send::unanswered(&asked, &pod),
    };
    let mut verdict = case.judge(&teller);
    verdict.step = verdict::place(&verdict, &steps);
    Ok(Trace {
        probe: tell::title(&asked, &pod, &began),
        findings: tell::findings(survey, &pod, &verdict),
        unseen: tell::unseen(firewall, &paths, tracer.as_ref(), &watched),
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
    Nft::open()?.chain(table.object("first")).map(drop)
}

/// The pod's own routes lead nowhere.
fn unroutable(
    survey: &Survey,
    asked: &Asked<'_>,
    pod: &Pod,
    kernel: &Kernel,
    error: &HostError,
) -> Result<Trace, CannotLook> {
    let teller = Teller::new(kernel, Rtnl::new()?, Nft::open()?);
    let steps = tell::begin(asked, pod, &teller);
    let text = format!(
        "the pod has no route to {}: {error}",
        asked.request.to.address
    );
    let mut verdict = Verdict::new("not-sent", text, &["route-missing"]);
    verdict.step = verdict::place(&verdict, &steps);
    Ok(Trace {
        probe: format!(
            "{} from {} to {}",
            asked.word(),
            pod.label,
            asked.request.to.address
        ),
        findings: tell::findings(survey, pod, &verdict),
        unseen: Vec::new(),
        steps,
        verdict,
    })
}
