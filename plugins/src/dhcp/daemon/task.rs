//! One attachment's lease: the machine, the record, and the way to the interface.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use cni_conf::error::{Code, Error};
use cni_conf::names::IfName;
use ipam::store::Origin;

use super::super::conf::Wishes;
use super::super::frame;
use super::super::machine::{Machine, Millis, Patience, Send, Step};
use super::super::message::{Client, Reply};
use super::super::protocol::Answer;
use super::super::store::Record;
use super::clock;
use crate::attach::liveness::KernelLiveness;
use crate::host::packet::PacketSocket;
use crate::host::rtnl::{Link, LinkChange};
use crate::host::{HostError, NetNs, Rtnl};
use crate::owner::Owner;

/// The largest packet that is read, in bytes: far more than a client lets a server send.
const PACKET_MAX: usize = 8 << 10;

/// The most packets that are read in one go, so that nobody who sends without end is listened to alone.
const PACKETS: usize = 16;

/// Why an interface can't be reached.
#[derive(Debug)]
pub(super) enum Unreachable {
    /// Its namespace is gone.
    Namespace,
    /// It is gone, or another one has its name.
    Interface(String),
    /// Something else, which may pass.
    Passing(String),
}

/// What became of a lease.
#[derive(Debug)]
pub(super) enum Event {
    /// Nothing that anybody has to know.
    None,
    /// It is there, or lasts longer.
    Bound,
    /// It can't be had.
    Failed(String),
    /// It is lost.
    Lost(String),
    /// The container is gone, and nobody needs it any more.
    Gone,
    /// An attempt came to nothing; there will be others.
    Trouble(String),
}

/// A lease, or the search for one.
pub(super) struct Task {
    pub(super) record: Record,
    machine: Machine,
    socket: Option<PacketSocket>,
    /// Who waits for it.
    pub(super) waiting: Option<u64>,
}

/// Whom an ADD is for.
pub(super) struct Wanted<'a> {
    pub(super) owner: &'a Owner,
    pub(super) netns: PathBuf,
    pub(super) wishes: Wishes,
    pub(super) broadcast: bool,
    pub(super) patience: Patience,
    /// Who waits for it.
    pub(super) visitor: u64,
}

impl Task {
    /// Begins to look for a lease.
    pub(super) fn begin(wanted: Wanted<'_>) -> Result<Self, Error> {
        let Wanted { owner, wishes, .. } = wanted;
        let origin = Origin::now(Some(&wanted.netns), &KernelLiveness)
            .ok_or_else(|| Error::new(Code::Io, "the kernel does not tell its boot ID"))?;
        let netns = NetNs::open(&wanted.netns)?;
        let rtnl = Rtnl::in_netns(&netns)?;
        let Some(link) = rtnl.link_by_name(owner.ifname.as_str())? else {
            return Err(Error::new(
                Code::Conflict,
                format!("there is no interface {} in {}", owner.ifname, wanted.netns.display()),
            )
            .with_details("dhcp asks by the container's interface: the plugin has to make it before it asks for addresses"));
        };
        let Some(mac) = link.mac else {
            return Err(Error::config(format!(
                "interface {} has no hardware address to ask a DHCP server with",
                owner.ifname
            )));
        };
        if !link.up {
            rtnl.set_link(link.index, &LinkChange::up())?;
        }
        let client = Client {
            mac,
            id: client_id(owner),
            provide: wishes.provide.clone(),
            request: wishes.request.clone(),
            broadcast: wanted.broadcast || shares_hardware_address(&link),
            size: u16::try_from(link.mtu).unwrap_or(u16::MAX).min(1500),
        };
        let machine = Machine::acquire(client.clone(), wanted.patience, random(), clock::now());
        let record = Record::new(owner, origin, link.index, client, wishes);
        Ok(Self {
            record,
            machine,
            socket: None,
            waiting: Some(wanted.visitor),
        })
    }

    /// Goes on with what a former daemon wrote down; none where no lease is left of it.
    pub(super) fn resume(record: Record, patience: Patience) -> Option<Self> {
        let held = record.v4.clone()?;
        let machine = Machine::resume(record.client.clone(), patience, random(), held);
        Some(Self {
            record,
            machine,
            socket: None,
            waiting: None,
        })
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Millis {
        self.machine.due()
    }

    /// What is listened to, while an answer is waited for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) -> Event {
        let step = self.machine.tick(clock::now(), random());
        self.follow(step)
    }

    /// Reads what came.
    pub(super) fn hear(&mut self) -> Event {
        let mut buffer = [0; PACKET_MAX];
        for _ in 0..PACKETS {
            let Some(socket) = &self.socket else { break };
            let (length, via) = match socket.receive(&mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    // The next message opens another one.
                    self.socket = None;
                    return Event::Trouble(format!("hear: {error}"));
                }
            };
            let message = frame::message(&buffer[..length]);
            let Some(reply) = message.and_then(|message| Reply::read(message, via)) else {
                continue;
            };
            let step = self.machine.hear(&reply, clock::now());
            match self.follow(step) {
                Event::None => {}
                event => return event,
            }
        }
        Event::None
    }

    /// Gives the lease back, if it can.
    pub(super) fn release(&mut self) -> Event {
        match self.machine.release(random()) {
            Some(message) => self.send(&message),
            None => Event::None,
        }
    }

    /// What is held, for a result.
    pub(super) fn answer(&self) -> Answer {
        let Some(held) = self.machine.held() else {
            let lost = self.record.lost.as_deref();
            let reason = lost.unwrap_or("none was had yet");
            let error = Error::new(
                Code::CheckFailed,
                format!(
                    "the lease of {} is lost: {reason}",
                    self.record.owner().ifname
                ),
            );
            return error
                .with_details("run DEL and ADD for this container")
                .into();
        };
        let mut routes = held.lease.routes.clone();
        for route in &mut routes {
            route.priority = self.record.wishes.priority;
        }
        Answer::Leased {
            ips: vec![held.lease.ip()],
            routes,
            dns: held.lease.dns.clone(),
        }
    }

    /// Takes the interface down, whose address is no longer the container's.
    pub(super) fn take_down(&self) -> Result<(), Unreachable> {
        let (rtnl, link) = self.reach()?;
        let down = LinkChange {
            up: Some(false),
            ..LinkChange::default()
        };
        let done = rtnl.set_link(link.index, &down);
        done.map_err(|error| Unreachable::Passing(error.to_string()))
    }

    fn follow(&mut self, step: Step) -> Event {
        let event = match step {
            Step::Wait => Event::None,
            Step::Send(message) => self.send(&message),
            Step::Bound => Event::Bound,
            Step::Failed(reason) => Event::Failed(reason),
            Step::Lost(reason) => Event::Lost(reason),
        };
        self.record.v4 = self.machine.held().cloned();
        if !self.machine.listens() {
            self.socket = None;
        }
        event
    }

    fn send(&mut self, message: &Send) -> Event {
        if self.socket.is_none() {
            match self.open() {
                Ok(socket) => self.socket = Some(socket),
                Err(Unreachable::Namespace) => return Event::Gone,
                Err(Unreachable::Interface(what)) => return Event::Lost(what),
                Err(Unreachable::Passing(what)) => return Event::Trouble(what),
            }
        }
        let packet = frame::packet(message.from, message.to, &message.message);
        let sent = self.socket.as_ref().map(|it| it.send(message.via, &packet));
        match sent {
            Some(Err(error)) => {
                // It may be that the interface is another one by now.
                self.socket = None;
                Event::Trouble(format!("send: {error}"))
            }
            _ => Event::None,
        }
    }

    fn open(&self) -> Result<PacketSocket, Unreachable> {
        let (_, link) = self.reach()?;
        let netns = self.netns()?;
        let opened = netns.enter(|| PacketSocket::open(link.index, frame::CLIENT));
        opened
            .and_then(|socket| socket)
            .map_err(|error| Unreachable::Passing(error.to_string()))
    }

    /// The interface, if it is still the one that the lease is for. What a container gives another interface's name to is not.
    fn reach(&self) -> Result<(Rtnl, Link), Unreachable> {
        let passing = |error: HostError| Unreachable::Passing(error.to_string());
        let name = self.ifname();
        let rtnl = Rtnl::in_netns(&self.netns()?).map_err(passing)?;
        let link = rtnl.link_by_name(name.as_str()).map_err(passing)?;
        let Some(link) = link else {
            return Err(Unreachable::Interface(format!("interface {name} is gone")));
        };
        if link.index != self.record.link || link.mac != Some(self.record.client.mac) {
            let what = format!("interface {name} is another one, or has another hardware address");
            return Err(Unreachable::Interface(what));
        }
        Ok((rtnl, link))
    }

    fn netns(&self) -> Result<NetNs, Unreachable> {
        let origin = &self.record.origin;
        let netns = origin.netns.as_ref();
        let netns = netns.filter(|_| origin.is_current(&KernelLiveness));
        let Some(netns) = netns else {
            return Err(Unreachable::Namespace);
        };
        NetNs::open(&netns.path).map_err(|error| match error {
            HostError::NetNsMissing { .. } | HostError::NotANetNs { .. } => Unreachable::Namespace,
            error => Unreachable::Passing(error.to_string()),
        })
    }

    fn ifname(&self) -> IfName {
        self.record.owner().ifname
    }
}

/// Interfaces of these kinds have the hardware address of the one below, which gives them what is for their IP addresses:
/// before they have one, only broadcasts.
fn shares_hardware_address(link: &Link) -> bool {
    link.kind.as_deref() == Some("ipvlan")
}

/// The identifier that the Go plugin forms: type 0, then `CONTAINERID/NETWORK/IFNAME`. Where that is longer than an option
/// holds it ends in `~` and a hash of the whole, so that no two are the same.
fn client_id(owner: &Owner) -> Vec<u8> {
    const LONGEST: usize = 254;
    let whole = format!("{}/{}/{}", owner.container, owner.network, owner.ifname);
    let mut id = vec![0];
    if whole.len() <= LONGEST {
        id.extend(whole.as_bytes());
    } else {
        let hash = crate::owner::digest::digest(&whole);
        id.extend(&whole.as_bytes()[..LONGEST - 1 - hash.len()]);
        id.push(b'~');
        id.extend(hash.as_bytes());
    }
    id
}

/// A number that nobody who has not seen it can guess, by the keys that the standard library gets from the kernel.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, container: &str) -> Owner {
        Owner {
            network: network.try_into().unwrap(),
            container: container.try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        }
    }

    #[test]
    fn the_identifier_is_the_go_plugins_where_it_fits() {
        assert_eq!(client_id(&owner("net", "c1")), b"\0c1/net/eth0");
        let (network, container) = ("n".repeat(240), "x".repeat(254 - 246));
        let id = client_id(&owner(&network, &container));
        assert_eq!(id, format!("\0{container}/{network}/eth0").into_bytes());
    }

    #[test]
    fn long_names_that_differ_at_the_end_are_different_clients() {
        let (network, long) = ("n".repeat(240), "x".repeat(239));
        let ids = [1, 2].map(|last| client_id(&owner(&format!("{}{last}", &network[1..]), &long)));
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.len() == 255));
    }

    #[test]
    fn numbers_are_not_the_same_twice() {
        let mut numbers: Vec<u32> = (0..100).map(|_| random()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() > 98);
    }
}
