//! Packets: how many, how fast, and what they cost the host, from pod to pod, out of a pod and in through a host's port.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conformance::{Place, Pod};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::burst::attach_all;
use crate::network::{SLICE, World, forget_at_close, processor_time, wait_for_quiet};
use crate::options::Options;
use crate::report::{Report, section};
use crate::stats::{Effort, Figures, Series, interleave};
use crate::subject::{Attached, Implementation, Kind, Network, Subject};
use crate::{patient, say};

/// How many containers there are.
const LEVELS: [usize; 2] = [2, 100];
const WORKERS: usize = 4;

/// What the port mappings of [`Kind::List`] lead to.
const PORT: u16 = 80;

/// How often processor_time counts in a second.
const TICKS: f64 = 100.0;

/// A host with pods and an outside.
struct Site {
    network: Network,
    pods: Vec<Pod>,
    attached: Vec<Attached>,
    world: World,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From pod to pod, seen by the host's IP rules.
    Filtered,
    /// From pod to pod, not seen by them.
    Bridged,
    /// From a pod to the outside, masqueraded.
    Out,
    /// From the outside to a port of the host's that is mapped.
    In,
}

type Measure = fn(&Ends) -> io::Result<Figures>;

/// What is measured, with its unit.
const MEASURES: [(&str, Measure); 3] = [
    ("Gb/s", throughput),
    ("1/s", connections),
    ("k/s", datagrams),
];

/// A client, a server and how the one reaches the other.
struct Ends {
    client: Place,
    server: Place,
    to: SocketAddr,
}

pub(crate) fn measure(subjects: &[Subject], options: &Options, report: &mut Report) {
    let mut sites = Vec::new();
    for subject in subjects {
        if subject.who == Implementation::Floor {
            continue;
        }
        for level in LEVELS {
            let what = format!("{} with {level} containers", subject.who.name());
            say(&format!("preparing {what}"));
            match Site::new(subject, level) {
                Ok(site) => sites.push((site, level)),
                Err(reason) => report.skip(format!("traffic, {what}: {reason}")),
            }
        }
    }
    wait_for_quiet();
    for (unit, take) in MEASURES {
        let mut all_series = Vec::new();
        for (site, level) in &sites {
            for way in [Way::Filtered, Way::Bridged, Way::Out, Way::In] {
                let case = format!("{}, {level} containers", way.name());
                if options.wants_case(&case) {
                    let who = site.network.subject.who.name();
                    all_series.push(Series::new(case, who, move || site.take(way, take)));
                }
            }
        }
        let effort = Effort {
            warm_up: 0,
            ..patient(options.rounds.div_ceil(14), 3)
        };
        interleave(&mut all_series, effort);
        report.take(section::TRAFFIC, unit, &all_series);
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Filtered => "pod to pod, bridge netfilter",
            Self::Bridged => "pod to pod",
            Self::Out => "pod to outside",
            Self::In => "outside to host port",
        }
    }
}

impl Site {
    fn new(subject: &Subject, level: usize) -> Result<Self, String> {
        let network = Network::new(subject, Kind::List)?;
        let names = (0..level).map(|number| format!("pod-{number}"));
        let mut pods: Vec<_> = names.map(|name| network.host.pod(&name)).collect();
        let attached = attach_all(&network, &pods, WORKERS)?;
        // In the order in which they were attached.
        pods.sort_by_key(|pod| {
            attached
                .iter()
                .position(|one| one.container == pod.name)
                .unwrap_or(level)
        });
        let world = World::beside(&network.host);
        Ok(Self {
            network,
            pods,
            attached,
            world,
        })
    }

    fn take(&self, way: Way, take: Measure) -> Result<Figures, String> {
        let filtered = if way == Way::Filtered { "1" } else { "0" };
        let host = &self.network.host;
        if host
            .read("/proc/sys/net/bridge/bridge-nf-call-iptables")
            .is_some()
        {
            host.set_sysctl("net.bridge.bridge-nf-call-iptables", filtered);
        } else if way == Way::Filtered {
            return Err("the kernel has no bridge netfilter".to_owned());
        }
        take(&self.ends(way)?).map_err(|error| format!("{}: {error}", way.name()))
    }

    /// The pods that were attached last: where there is a rule for each container, theirs come late.
    fn ends(&self, way: Way) -> Result<Ends, String> {
        let place = |number: usize| -> Result<(Place, &Attached), String> {
            let at = self.pods.len().checked_sub(number).ok_or("too few pods")?;
            Ok(((*self.pods[at]).clone(), &self.attached[at]))
        };
        let ((one, first), (other, second)) = (place(1)?, place(2)?);
        let (client, server, to) = match way {
            Way::Filtered | Way::Bridged => (one, other, (address(second)?, PORT)),
            Way::Out => (one, self.world.place(), (World::OUTSIDE.into(), PORT)),
            Way::In => (self.world.place(), one, (World::HOST.into(), first.port)),
        };
        Ok(Ends {
            client,
            server,
            to: to.into(),
        })
    }
}

/// The IPv4 address that ADD gave.
fn address(attached: &Attached) -> Result<IpAddr, String> {
    let text = attached.result["ips"][0]["address"].as_str();
    let address = text.and_then(|text| text.split('/').next()?.parse().ok());
    address.ok_or_else(|| format!("no address: {}", attached.result))
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);

fn connect(ends: &Ends) -> io::Result<TcpStream> {
    ends.client
        .enter(|| TcpStream::connect_timeout(&ends.to, Duration::from_secs(3)))
}

/// One stream of TCP, and the time of all processors together that it takes.
fn throughput(ends: &Ends) -> io::Result<Figures> {
    let listener = ends.server.enter(|| TcpListener::bind(ANY))?;
    let mut sender = connect(ends)?;
    let (mut receiver, _) = listener.accept()?;
    let received = AtomicU64::new(0);
    let (begun, before) = (Instant::now(), processor_time());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(length @ 1..) = receiver.read(&mut buffer) {
                received.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        let buffer = vec![0; 256 << 10];
        let mut sent = Ok(());
        while begun.elapsed() < SLICE && sent.is_ok() {
            sent = sender.write_all(&buffer);
        }
        drop(sender);
        sent
    })?;
    let (took, after) = (begun.elapsed(), processor_time());
    let spent: Vec<u64> = after
        .iter()
        .zip(before)
        .map(|(one, other)| one - other)
        .collect();
    // Without the idle and the waiting ones, numbers 3 and 4.
    let busy = spent.iter().sum::<u64>() - spent[3] - spent[4];
    let bytes = received.load(Ordering::Relaxed) as f64;
    Ok(vec![
        (
            "throughput".to_owned(),
            bytes * 8.0 / 1e9 / took.as_secs_f64(),
        ),
        (
            "throughput per busy processor".to_owned(),
            bytes * 8.0 / 1e9 / (busy as f64 / TICKS).max(1.0 / TICKS),
        ),
    ])
}

/// Connections that are opened one after the other.
fn connections(ends: &Ends) -> io::Result<Figures> {
    let listener = ends.server.enter(|| TcpListener::bind(ANY))?;
    // So that it looks whether it should stop.
    setsockopt(
        &listener,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(20),
    )?;
    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let count = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = listener.accept();
            }
        });
        let count = ends.client.enter(|| {
            let mut count = 0_u32;
            while begun.elapsed() < SLICE {
                let stream = TcpStream::connect_timeout(&ends.to, Duration::from_secs(3))?;
                forget_at_close(&stream)?;
                count += 1;
            }
            io::Result::Ok(count)
        });
        stop.store(true, Ordering::Relaxed);
        count
    })?;
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    Ok(vec![("connections".to_owned(), rate)])
}

/// Datagrams of 64 bytes that arrive, in thousands.
fn datagrams(ends: &Ends) -> io::Result<Figures> {
    // The mapping is TCP's.
    if ends.to.port() != PORT {
        return Ok(Vec::new());
    }
    let receiver = ends.server.enter(|| UdpSocket::bind(ANY))?;
    receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
    let sender = ends.client.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(ends.to)?;
        io::Result::Ok(socket)
    })?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut buffer).is_ok() {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        while begun.elapsed() < SLICE {
            // One that finds no room is one that did not arrive.
            let _ = sender.send(&[0; 64]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let rate = received.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    Ok(vec![("datagrams".to_owned(), rate / 1e3)])
}
