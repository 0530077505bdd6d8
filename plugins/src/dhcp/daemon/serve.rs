//! The loop, and what each question of a plugin does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cni_conf::error::{Code, Error};
use cni_conf::names::NetworkName;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::super::protocol::{Answer, Ask, Verb, Who};
use super::super::store::{Record, Store};
use super::door::{Door, Said, Visitor};
use super::flags::Flags;
use super::task::{Event, Task, Unreachable, Wanted};
use super::{clock, log};
use crate::attach::liveness::KernelLiveness;
use crate::owner::Owner;

/// The longest wait, in milliseconds: the clock that it goes by stands still while the machine sleeps.
const WAIT_MAX: u64 = 60_000;

/// The most plugins that are listened to at once. Others wait in the socket's queue.
const VISITORS_MAX: usize = 1024;

/// Everything that the daemon knows.
pub(super) struct Daemon {
    flags: Flags,
    store: Store,
    door: Door,
    signals: SignalFd,
    tasks: BTreeMap<Owner, Task>,
    visitors: BTreeMap<u64, Visitor>,
    next_visitor: u64,
}

/// What has something to read.
enum Ready {
    Signal,
    Door,
    Visitor(u64),
    Task(Owner),
}

impl Daemon {
    /// Goes on with the leases that are written down.
    pub(super) fn new(
        flags: Flags,
        store: Store,
        door: Door,
        signals: SignalFd,
    ) -> Result<Self, String> {
        let mut daemon = Self {
            flags,
            store,
            door,
            signals,
            tasks: BTreeMap::new(),
            visitors: BTreeMap::new(),
            next_visitor: 0,
        };
        let (records, problems) = daemon
            .store
            .load()
            .map_err(|error| format!("read the leases: {error}"))?;
        for problem in problems {
            log(format_args!("left alone: {problem}"));
        }
        for record in records {
            daemon.take_up(record);
        }
        log(format_args!(
            "listening at {}, with {} leases",
            daemon.flags.socket.display(),
            daemon.tasks.len()
        ));
        Ok(daemon)
    }

    /// Serves until a signal comes.
    pub(super) fn run(mut self) -> Result<(), String> {
        loop {
            self.do_what_is_due();
            for ready in self.wait()? {
                match ready {
                    Ready::Signal => return Ok(()),
                    Ready::Door => self.admit(),
                    Ready::Visitor(visitor) => self.listen(visitor),
                    Ready::Task(owner) => {
                        if let Some(task) = self.tasks.get_mut(&owner) {
                            let event = task.hear();
                            self.handle(&owner, event);
                        }
                    }
                }
            }
        }
    }

    fn take_up(&mut self, record: Record) {
        let owner = record.owner();
        if !record.origin.is_current(&KernelLiveness) {
            log(format_args!("{}: the container is gone", owner.path()));
            self.forget(&owner);
            return;
        }
        if let Some(task) = Task::resume(record, self.flags.patience) {
            self.tasks.insert(owner, task);
        }
    }

    fn do_what_is_due(&mut self) {
        let now = clock::now();
        let due = self.tasks.iter().filter(|(_, task)| task.due() <= now);
        let due: Vec<Owner> = due.map(|(owner, _)| owner.clone()).collect();
        for owner in due {
            if let Some(task) = self.tasks.get_mut(&owner) {
                let event = task.tick();
                self.handle(&owner, event);
            }
        }
    }

    fn wait(&self) -> Result<Vec<Ready>, String> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut whose = vec![Ready::Signal];
        if self.visitors.len() < VISITORS_MAX {
            fds.push(PollFd::new(self.door.as_fd(), PollFlags::POLLIN));
            whose.push(Ready::Door);
        }
        for (number, visitor) in &self.visitors {
            fds.push(PollFd::new(visitor.as_fd(), PollFlags::POLLIN));
            whose.push(Ready::Visitor(*number));
        }
        for (owner, task) in &self.tasks {
            if let Some(fd) = task.fd() {
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
                whose.push(Ready::Task(owner.clone()));
            }
        }
        let due = self.tasks.values().map(Task::due).min();
        let wait = due.map_or(WAIT_MAX, |due| {
            due.saturating_sub(clock::now()).min(WAIT_MAX)
        });
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, wait) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(format!("wait: {}", errno.desc())),
            Ok(_) => {}
        }
        let ready = fds.iter().zip(whose);
        Ok(ready
            .filter(|(fd, _)| fd.any().unwrap_or(true))
            .map(|(_, whose)| whose)
            .collect())
    }

    fn admit(&mut self) {
        while self.visitors.len() < VISITORS_MAX
            && let Some(visitor) = self.door.admit()
        {
            self.visitors.insert(self.next_visitor, visitor);
            self.next_visitor += 1;
        }
    }

    fn listen(&mut self, number: u64) {
        let Some(visitor) = self.visitors.get_mut(&number) else {
            return;
        };
        match visitor.listen() {
            Said::Part => {}
            Said::Whole(ask) => {
                if let Some(answer) = self.serve(*ask, number) {
                    self.answer(number, &answer);
                }
            }
            Said::Bye => {
                self.visitors.remove(&number);
                // Nobody waits for a lease that this one asked for, and that is not there yet.
                let of_this = |(_, task): &(&Owner, &Task)| task.waiting == Some(number);
                let left = self.tasks.iter().find(of_this);
                if let Some(owner) = left.map(|(owner, _)| owner.clone()) {
                    let path = owner.path();
                    log(format_args!(
                        "{path}: the plugin left before there was a lease"
                    ));
                    self.tasks.remove(&owner);
                }
            }
        }
    }

    /// The answer, if there is one already.
    fn serve(&mut self, ask: Ask, visitor: u64) -> Option<Answer> {
        let Ask { network, verb, .. } = ask;
        match verb {
            Verb::Add { who, netns, wishes } => {
                let owner = who.owner(&network);
                let wanted = Wanted {
                    owner: &owner,
                    netns: prefixed(&self.flags.hostprefix, &netns),
                    wishes,
                    broadcast: self.flags.broadcast,
                    patience: self.flags.patience,
                    visitor,
                };
                self.end_search(&owner);
                match Task::begin(wanted) {
                    Err(error) => return Some(error.into()),
                    Ok(task) => self.tasks.insert(owner.clone(), task),
                };
                let event = self.tasks.get_mut(&owner)?.tick();
                self.handle(&owner, event);
                None
            }
            Verb::Del { who } => Some(self.release(&who.owner(&network))),
            Verb::Check { who } => Some(match self.tasks.get(&who.owner(&network)) {
                Some(task) => task.answer(),
                None => self.unknown(&who.owner(&network)),
            }),
            Verb::Gc { valid } => Some(self.collect(&network, &valid)),
            Verb::Status => Some(Answer::Done),
        }
    }

    /// An ADD that another one for the same interface overtakes.
    fn end_search(&mut self, owner: &Owner) {
        let waiting = self
            .tasks
            .get_mut(owner)
            .and_then(|task| task.waiting.take());
        if let Some(visitor) = waiting {
            let text = format!("another ADD for {} came meanwhile", owner.path());
            self.answer(visitor, &Error::new(Code::TryAgainLater, text).into());
        }
    }

    fn unknown(&self, owner: &Owner) -> Answer {
        // A lease that was lost before the daemon was started has left its record.
        let lost = self.store.load().ok().and_then(|(records, _)| {
            let mut records = records.into_iter();
            records.find(|record| record.owner() == *owner)?.lost
        });
        let reason = lost.map_or("the DHCP daemon knows of none".to_owned(), |it| it);
        let text = format!("there is no lease for {}: {reason}", owner.path());
        let error = Error::new(Code::CheckFailed, text);
        error
            .with_details("run DEL and ADD for this container")
            .into()
    }

    fn release(&mut self, owner: &Owner) -> Answer {
        self.end_search(owner);
        if let Some(mut task) = self.tasks.remove(owner) {
            match task.release() {
                Event::Trouble(reason) => log(format_args!(
                    "{}: the server is not told that the lease is given back: {reason}",
                    owner.path()
                )),
                _ => log(format_args!("{}: given back", owner.path())),
            }
        }
        match self.store.remove(owner) {
            Ok(()) => Answer::Done,
            Err(error) => {
                let text = format!("forget the lease of {}: {error}", owner.path());
                Error::new(Code::Io, text).into()
            }
        }
    }

    fn collect(&mut self, network: &NetworkName, valid: &[Who]) -> Answer {
        let keep: Vec<Owner> = valid.iter().map(|who| who.owner(network)).collect();
        let records = self.store.load().map(|(records, _)| records);
        let recorded = records.unwrap_or_default().into_iter();
        let mut owners: Vec<Owner> = recorded.map(|record| record.owner()).collect();
        owners.extend(self.tasks.keys().cloned());
        owners.sort_unstable();
        owners.dedup();
        let dead = owners
            .into_iter()
            .filter(|owner| owner.network == *network && !keep.contains(owner));
        let answers: Vec<Answer> = dead.map(|owner| self.release(&owner)).collect();
        let mut failed = answers.into_iter().filter(|answer| *answer != Answer::Done);
        failed.next().unwrap_or(Answer::Done)
    }

    fn handle(&mut self, owner: &Owner, event: Event) {
        match event {
            Event::None => {}
            Event::Trouble(reason) => log(format_args!("{}: {reason}", owner.path())),
            Event::Bound => self.bound(owner),
            Event::Failed(reason) => {
                let task = self.tasks.remove(owner);
                log(format_args!("{}: {reason}", owner.path()));
                if let Some(visitor) = task.and_then(|task| task.waiting) {
                    let text = format!("lease an address for {}: {reason}", owner.ifname);
                    let error = Error::new(Code::TryAgainLater, text).with_details(
                        "see whether a DHCP server is on that network, and lets this client have an address",
                    );
                    self.answer(visitor, &error.into());
                }
            }
            Event::Lost(reason) => self.lost(owner, reason),
            Event::Gone => {
                log(format_args!("{}: the container is gone", owner.path()));
                self.end_search(owner);
                self.tasks.remove(owner);
                self.forget(owner);
            }
        }
    }

    fn bound(&mut self, owner: &Owner) {
        let Some(task) = self.tasks.get_mut(owner) else {
            return;
        };
        // First it is written down: the plugin may end, and the daemon may be killed, with the answer on its way.
        if let Err(error) = self.store.save(&task.record) {
            log(format_args!(
                "{}: the lease can't be written down, and will be lost when the daemon ends: {error}",
                owner.path()
            ));
        }
        let Some(visitor) = task.waiting.take() else {
            return;
        };
        let answer = task.answer();
        if let Some(held) = &task.record.v4 {
            let lease = &held.lease;
            log(format_args!(
                "{}: {} of the server at {}",
                owner.path(),
                lease.address,
                lease.server
            ));
        }
        self.answer(visitor, &answer);
    }

    fn lost(&mut self, owner: &Owner, reason: String) {
        log(format_args!(
            "{}: the lease is lost: {reason}",
            owner.path()
        ));
        let Some(task) = self.tasks.get_mut(owner) else {
            return;
        };
        if let Some(visitor) = task.waiting.take() {
            let text = format!("lease an address for {}: {reason}", owner.ifname);
            self.tasks.remove(owner);
            return self.answer(visitor, &Error::new(Code::Conflict, text).into());
        }
        task.record.lost = Some(reason);
        match task.take_down() {
            Ok(()) => log(format_args!("{}: {} is down", owner.path(), owner.ifname)),
            Err(Unreachable::Namespace | Unreachable::Interface(_)) => {}
            Err(Unreachable::Passing(error)) => {
                log(format_args!(
                    "{}: set {} down: {error}",
                    owner.path(),
                    owner.ifname
                ));
            }
        }
        if let Err(error) = self.store.save(&task.record) {
            log(format_args!("{}: write that down: {error}", owner.path()));
        }
    }

    fn forget(&self, owner: &Owner) {
        if let Err(error) = self.store.remove(owner) {
            log(format_args!("{}: forget the lease: {error}", owner.path()));
        }
    }

    fn answer(&mut self, visitor: u64, answer: &Answer) {
        if let Some(visitor) = self.visitors.remove(&visitor) {
            visitor.answer(answer);
        }
    }
}

/// The path as this process sees it, where the host's root is elsewhere.
fn prefixed(prefix: &OsString, path: &Path) -> PathBuf {
    let mut whole = prefix.clone();
    whole.push(path);
    whole.into()
}
