//! A host that is full already, and what connections out of it cost.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use conformance::{Host, Place, Pod};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::burst::{attach_all, attach_all_by};
use crate::stats::Series;
use crate::subject::{Attached, Implementation, Kind, Network, Subject};

/// How many containers are attached already. A bridge takes no more than 1,023.
pub(crate) const LEVELS: [usize; 3] = [1, 100, 1_000];

/// What a full host is filled with.
pub(crate) fn kinds(who: Implementation) -> &'static [Kind] {
    match who {
        Implementation::Floor => &[Kind::Bridge, Kind::DualStack],
        Implementation::Trestle => &[Kind::Nftables, Kind::DualStack],
        Implementation::Go => &[Kind::Nftables],
    }
}

const WORKERS: usize = 4;
const PORT: u16 = 8080;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const SLICE: Duration = Duration::from_millis(300);

/// How long a machine may take to become quiet.
const LOAD_LIMIT: Duration = Duration::from_secs(90);

/// Waits until the processors have little to do: new containers solicit routers, in waves that take longer and longer, and
/// on a full bridge each of these packets goes to everybody.
pub(crate) fn wait_for_quiet() {
    let start = Instant::now();
    let mut before = processor_time();
    while start.elapsed() < LOAD_LIMIT {
        thread::sleep(Duration::from_secs(2));
        let now = processor_time();
        let spent = |at: usize| now[at].saturating_sub(before[at]);
        let all: u64 = (0..now.len()).map(spent).sum();
        if spent(IDLE) * 100 >= all * 85 {
            return;
        }
        before = now;
    }
}

/// The place of the time without work among those of [`processor_time`].
const IDLE: usize = 3;

/// What the processors have spent their time with since the machine was started, in ticks: the first line of
/// proc_stat(5).
pub(crate) fn processor_time() -> [u64; 8] {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut figures = text.split_whitespace().skip(1);
    [(); 8].map(|()| {
        figures
            .next()
            .and_then(|figure| figure.parse().ok())
            .unwrap_or(0)
    })
}

/// A network with containers attached, one of them at hand, and a pod for one more.
pub(crate) struct Populated {
    pub(crate) network: Network,
    pub(crate) level: usize,
    pub(crate) spare: Pod,
    /// Those that are attached, with what ADD said.
    pub(crate) attached: Vec<Attached>,
    pods: Vec<Pod>,
    _world: World,
}

impl Populated {
    /// Attaches `level` containers.
    pub(crate) fn new(subject: &Subject, kind: Kind, level: usize) -> Result<Self, String> {
        let network = Network::new(subject, kind)?;
        let pods: Vec<_> = (1..level)
            .map(|number| network.host.pod(&format!("pod-{number}")))
            .collect();
        let attached = fill(&network, &pods)?;
        let world = World::beside(&network.host);
        Ok(Self {
            spare: network.host.pod("spare"),
            network,
            level,
            attached,
            pods,
            _world: world,
        })
    }

    /// A series that opens connections from a container to a machine elsewhere, one after the other; per second.
    pub(crate) fn connections(&self, case: String) -> Series<'_> {
        Series::new(case, self.network.subject.who.name(), move || {
            // Whose rules, if there is one for each container, come last.
            let pod = self.pods.last().unwrap_or(&self.network.resident);
            let (count, took) = pod
                .enter(connect_for_a_while)
                .map_err(|error| format!("connect out of a pod: {error}"))?;
            Ok(vec![(
                "connections".to_owned(),
                f64::from(count) / took.as_secs_f64(),
            )])
        })
    }
}

/// Attaches many at once. Where Go's masquerades by nftables, its rules are written together: one by one, a thousand take
/// minutes.
fn fill(network: &Network, pods: &[Pod]) -> Result<Vec<Attached>, String> {
    if network.subject.who != Implementation::Go || network.kind != Kind::Nftables {
        return attach_all(network, pods, WORKERS);
    }
    let attached = attach_all_by(&Kind::Bridge.plugins(), network, pods, WORKERS)?;
    let mut rules = String::new();
    for one in &attached {
        let address = one.result["ips"][0]["address"].as_str();
        let address = address.and_then(|address| address.split('/').next());
        let address = address.ok_or_else(|| format!("no address: {}", one.result))?;
        // As its ADD does, but for two hashes at the beginning of the comment.
        rules += &format!(
            "add rule inet cni_plugins_masquerade masq_checks ip saddr {address} ip daddr != 10.88.0.0/16 masquerade \
             comment \"0123456789abcdef-0123456789abcdef, net: bench, if: eth0, id: {}\"\n",
            one.container
        );
    }
    network.host.write("/run/rules.nft", rules);
    network.host.sh("nft -f /run/rules.nft");
    Ok(attached)
}

fn connect_for_a_while() -> io::Result<(u32, Duration)> {
    let (start, mut count) = (Instant::now(), 0);
    let to = SocketAddr::from((OUTSIDE, PORT));
    while start.elapsed() < SLICE {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        forget_at_close(&stream)?;
        count += 1;
    }
    Ok((count, start.elapsed()))
}

/// Close with a reset, so that no port is kept waiting.
pub(crate) fn forget_at_close(stream: &TcpStream) -> io::Result<()> {
    let now = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(&stream.as_fd(), sockopt::Linger, &now)?)
}

/// A machine at the other end of the host's cable that doesn't know where the pods are, with a server.
pub(crate) struct World {
    host: Host,
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl World {
    /// Its address, and that of the host.
    pub(crate) const OUTSIDE: Ipv4Addr = OUTSIDE;
    pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    /// The machine.
    pub(crate) fn place(&self) -> Place {
        (*self.host).clone()
    }

    pub(crate) fn beside(host: &Host) -> Self {
        let world = Host::new();
        host.cable("wan0", &world, "wan0");
        host.ip("addr add 192.0.2.1/24 dev wan0");
        world.ip("addr add 192.0.2.2/24 dev wan0");
        let listener = world.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
        let listener = listener.expect("listen in the world");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let server = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = listener.accept();
            }
        });
        Self {
            host: world,
            stop,
            address: SocketAddr::from((OUTSIDE, PORT)),
            server: Some(server),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it up, from its own machine.
        let address = self.address;
        self.host
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}
