//! Being told what transactions remove from nftables, and whose they were.
//!
//! The kernel tells of each object that a transaction adds or removes, and closes with the generation that it made, which
//! names the process (`nf_tables_commit` in net/netfilter/nf_tables_api.c). What goes with a table or a chain is not told of
//! one by one where the table or chain goes as a whole.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Family;
use crate::host::HostError;
use crate::host::netlink::netfilter::{NetfilterSocket, Object};

/// The multicast group of changes: `NFNLGRP_NFTABLES`.
const NFNLGRP_NFTABLES: u32 = 7;

const SUBSYSTEM: u16 = 10 << 8;
const DELTABLE: u16 = SUBSYSTEM | 2;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const DELRULE: u16 = SUBSYSTEM | 8;
const DELSET: u16 = SUBSYSTEM | 11;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const NEWGEN: u16 = SUBSYSTEM | 15;

/// The name of the table in the messages of all of these.
const NFTA_TABLE: u16 = 1;
/// The chain's name in the message of a rule, and the set's in that of elements.
const NFTA_RULE_CHAIN: u16 = 2;
/// A chain's own name.
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_GEN_PROC_NAME: u16 = 3;

/// Something that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The family of its table.
    pub family: Family,
    /// The name of its table.
    pub table: String,
    /// What it was.
    pub what: Removed,
}

/// The kinds of things that are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The table itself, with all that was in it.
    Table,
    /// A chain, by name.
    Chain(String),
    /// A rule of the chain of this name.
    Rule(String),
    /// A set or map.
    Set,
    /// Elements of a set or map.
    Elements,
}

/// A transaction that removed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The name of the process that made it (`comm`, at most 15 bytes); empty if the kernel did not tell.
    pub process: String,
    /// What it removed.
    pub removals: Vec<Removal>,
}

/// What there is to say after a wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Transactions that are complete.
    pub transactions: Vec<Transaction>,
    /// Whether notifications were lost: anything may have been removed.
    pub lost: bool,
}

/// A socket that listens to changes of nftables in the namespace that it was opened in.
pub struct Monitor {
    socket: NetfilterSocket,
    /// Of a transaction whose end has not come yet.
    pending: Vec<Removal>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// Listens from now on, in the calling thread's namespace.
    ///
    /// # Errors
    /// [`HostError::System`]; with `EPROTONOSUPPORT` on a kernel without nfnetlink.
    pub fn begin() -> Result<Self, HostError> {
        let socket = NetfilterSocket::open_alone()?;
        socket
            .subscribe(NFNLGRP_NFTABLES)
            .map_err(|source| HostError::System {
                operation: "listen to changes of nftables".into(),
                source,
            })?;
        Ok(Self {
            socket,
            pending: Vec::new(),
        })
    }

    /// Waits until something is told, at most for `bound`, and says what was removed.
    ///
    /// # Errors
    /// [`HostError::System`].
    pub fn wait(&mut self, bound: Duration) -> Result<Heard, HostError> {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let bound = PollTimeout::try_from(bound).unwrap_or(PollTimeout::MAX);
        match poll(&mut socket, bound) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(HostError::System {
                    operation: "wait for changes of nftables".into(),
                    source: errno.into(),
                });
            }
        }
        let (mut heard, pending) = (Heard::default(), &mut self.pending);
        let take = |object: &Object<'_>| match object.kind {
            NEWGEN => {
                let process = object.attributes.text(NFTA_GEN_PROC_NAME);
                if !pending.is_empty() {
                    heard.transactions.push(Transaction {
                        process: process.unwrap_or_default(),
                        removals: std::mem::take(pending),
                    });
                }
            }
            _ => {
                let removed = removal(object).filter(|it| pending.last() != Some(it));
                pending.extend(removed);
            }
        };
        let lost = self
            .socket
            .notified(take)
            .map_err(|error| error.during("read changes of nftables"))?;
        heard.lost = lost;
        Ok(heard)
    }
}

fn removal(object: &Object<'_>) -> Option<Removal> {
    let name = |attribute| object.attributes.text(attribute).unwrap_or_default();
    let what = match object.kind {
        DELTABLE => Removed::Table,
        DELCHAIN => Removed::Chain(name(NFTA_CHAIN_NAME)),
        DELRULE => Removed::Rule(name(NFTA_RULE_CHAIN)),
        DELSET => Removed::Set,
        DELSETELEM => Removed::Elements,
        _ => return None,
    };
    Some(Removal {
        family: object.family,
        table: name(NFTA_TABLE),
        what,
    })
}
