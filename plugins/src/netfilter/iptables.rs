//! The tables of `iptables` and `ip6tables`: listing chains and changing several rules in one transaction.
//!
//! What iptables made with nftables underneath can be seen by netlink, so that looking for a chain that isn't there
//! starts no process; only where the kernel has a nat table of the old kind, which is not visible there, `iptables`
//! itself is asked.

use std::fs;
use std::net::IpAddr;

use crate::host::iptables::{LOCK_WAIT, command, restore_command};
use crate::host::nft::{Family, Nft, TableRef};
use crate::host::{HostError, procfs};

pub use crate::owner::printable;

/// A version of IP, each of which has a program and a nat table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether it is IPv6.
    pub fn is_v6(self) -> bool {
        self == Self::V6
    }

    /// Whether an address is of this version.
    pub fn is_of(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_v6()
    }

    /// The nat table as nftables sees it.
    pub fn nat(self) -> TableRef<'static> {
        TableRef {
            family: if self.is_v6() {
                Family::IPv6
            } else {
                Family::IPv4
            },
            name: "nat",
        }
    }

    /// Whether the kernel has a nat table of the old kind in this namespace.
    pub fn has_legacy_table(self) -> bool {
        let list = if self.is_v6() {
            "ip6_tables_names"
        } else {
            "ip_tables_names"
        };
        fs::File::open(format!("/proc/thread-self/net/{list}"))
            .and_then(procfs::read)
            .is_ok_and(|tables| tables.lines().any(|table| table == "nat"))
    }

    /// Whether the nat table has a chain. None where that can't be seen without asking `iptables`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_chain(self, nft: &mut Nft, chain: &str) -> Result<Option<bool>, HostError> {
        match nft.chain(self.nat().object(chain))? {
            Some(_) => Ok(Some(true)),
            None if self.has_legacy_table() => Ok(None),
            None => Ok(Some(false)),
        }
    }

    /// The rules of a chain of the nat table, as `iptables -S` prints them without the leading `-A CHAIN `. None
    /// where there is no such chain.
    ///
    /// # Errors
    /// What the kernel or the program says.
    pub fn rules(
        self,
        nft: &mut Nft,
        chain: &str,
        purpose: &str,
    ) -> Result<Option<Vec<String>>, HostError> {
        let listing = match self.has_chain(nft, chain)? {
            Some(false) => return Ok(None),
            Some(true) => match self.list("nat", &["-S", chain], purpose) {
                // Another process removed it between the two looks.
                Err(HostError::ProgramFailed { .. })
                    if self.has_chain(nft, chain)? == Some(false) =>
                {
                    return Ok(None);
                }
                listing => listing?,
            },
            None => self.listing(purpose)?,
        };
        Ok(declares(&listing, chain).then(|| rules_in(&listing, chain)))
    }

    /// The whole nat table as `iptables -S` prints it.
    ///
    /// # Errors
    /// What the program says.
    pub fn listing(self, purpose: &str) -> Result<String, HostError> {
        self.list("nat", &["-S"], purpose)
    }

    /// The rules of PREROUTING of the raw table, in the same form as those of [`Version::rules`].
    ///
    /// # Errors
    /// What the program says.
    pub fn raw_prerouting(self, purpose: &str) -> Result<Vec<String>, HostError> {
        let listing = self.list("raw", &["-S", "PREROUTING"], purpose)?;
        Ok(rules_in(&listing, "PREROUTING"))
    }

    fn list(self, table: &str, what: &[&str], purpose: &str) -> Result<String, HostError> {
        let args = [&[LOCK_WAIT[0], LOCK_WAIT[1], "-t", table], what].concat();
        command(self.is_v6()).run(purpose, args, "")
    }

    /// Carries out commands on tables, each table's in one transaction. A table without commands is left out.
    ///
    /// # Errors
    /// What the program says; the tables before the one that failed have changed.
    pub fn restore(self, purpose: &str, tables: &[(&str, &[String])]) -> Result<(), HostError> {
        let input: String = tables
            .iter()
            .filter(|(_, commands)| !commands.is_empty())
            .map(|(table, commands)| format!("*{table}\n{}\nCOMMIT\n", commands.join("\n")))
            .collect();
        if input.is_empty() {
            return Ok(());
        }
        let args = [LOCK_WAIT[0], LOCK_WAIT[1], "--noflush"];
        restore_command(self.is_v6())
            .run(purpose, args, &input)
            .map(drop)
    }
}

/// Whether a listing has a chain.
pub fn declares(listing: &str, chain: &str) -> bool {
    let (own, built_in) = (format!("-N {chain}"), format!("-P {chain} "));
    let mut lines = listing.lines();
    lines.any(|line| line == own || line.starts_with(&built_in))
}

/// The rules of a chain in a listing, without the leading `-A CHAIN `.
pub fn rules_in(listing: &str, chain: &str) -> Vec<String> {
    let prefix = format!("-A {chain} ");
    listing
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}
