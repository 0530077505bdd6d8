//! The tables of `iptables` and `ip6tables`: listing chains and changing several rules in one transaction.
//!
//! What iptables made with nftables underneath can be seen by netlink, so that looking for a chain that isn't there
//! starts no process; only where the kernel has a nat table of the old kind, which is not visible there, `iptables`
//! itself is asked.
//!
//! What is to change is decided from a listing, and iptables refuses all of it when somebody came in between; then it is
//! decided anew ([`Version::change`]). One process of ours does so at a time ([`crate::host::lock`]).

use std::fs;
use std::net::IpAddr;

use crate::host::iptables::{LOCK_WAIT, command, legacy_command, restore_command, words};
use crate::host::nft::{Family, Nft, TableRef};
use crate::host::program::Program;
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

    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Whether an address is of this version.
    pub fn is_of(self, address: IpAddr) -> bool {
        Self::of(address) == self
    }

    /// A table as nftables sees it.
    pub fn table(self, name: &str) -> TableRef<'_> {
        let family = match self {
            Self::V4 => Family::IPv4,
            Self::V6 => Family::IPv6,
        };
        TableRef { family, name }
    }

    /// The nat table as nftables sees it.
    pub fn nat(self) -> TableRef<'static> {
        self.table("nat")
    }

    /// The names of the tables of the old kind that the kernel has in this namespace.
    pub fn legacy_tables(self) -> Vec<String> {
        let list = match self {
            Self::V4 => "ip_tables_names",
            Self::V6 => "ip6_tables_names",
        };
        let names = fs::File::open(format!("/proc/thread-self/net/{list}")).and_then(procfs::read);
        let names = names.unwrap_or_default();
        names.lines().map(str::to_owned).collect()
    }

    /// Whether the kernel has a nat table of the old kind in this namespace.
    pub fn has_legacy_table(self) -> bool {
        self.legacy_tables().iter().any(|table| table == "nat")
    }

    /// Whether the nat table has a chain. None where that can't be seen without asking `iptables`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_chain(self, nft: &mut Nft, chain: &str) -> Result<Option<bool>, HostError> {
        self.has_chain_of(nft, "nat", chain)
    }

    /// The same of another table. A filter table of the old kind is left to whoever made it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_chain_of(
        self,
        nft: &mut Nft,
        table: &str,
        chain: &str,
    ) -> Result<Option<bool>, HostError> {
        match nft.chain(self.table(table).object(chain))? {
            Some(_) => Ok(Some(true)),
            None if table == "nat" && self.has_legacy_table() => Ok(None),
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
        self.rules_of(nft, "nat", chain, purpose)
    }

    /// The same of another table.
    ///
    /// # Errors
    /// What the kernel or the program says.
    pub fn rules_of(
        self,
        nft: &mut Nft,
        table: &str,
        chain: &str,
        purpose: &str,
    ) -> Result<Option<Vec<String>>, HostError> {
        let listing = match self.has_chain_of(nft, table, chain)? {
            Some(false) => return Ok(None),
            Some(true) => match self.list(table, &["-S", chain], purpose) {
                // Another process removed it between the two looks.
                Err(HostError::ProgramFailed { .. })
                    if self.has_chain_of(nft, table, chain)? == Some(false) =>
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
    pub fn restore(self, purpose: &str, tables: &[(&str, Vec<String>)]) -> Result<(), HostError> {
        restore(restore_command(self.is_v6()), purpose, tables)
    }

    /// Carries out what `plan` decides from a look at the tables, and decides anew where that is refused.
    ///
    /// # Errors
    /// What the kernel or the program says. A plan that is refused twice is at fault itself.
    pub fn change(
        self,
        purpose: &str,
        plan: impl FnMut() -> Result<Vec<(&'static str, Vec<String>)>, HostError>,
    ) -> Result<(), HostError> {
        change(restore_command(self.is_v6()), purpose, plan)
    }
}

/// A filter table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterTable {
    /// Whether it is that of IPv6.
    pub v6: bool,
    /// One of the old kind, beside the one that is kept in nftables.
    pub legacy: bool,
}

impl FilterTable {
    /// The command that lists it.
    pub fn command(self) -> Program {
        match self.legacy {
            true => legacy_command(self.v6),
            false => command(self.v6),
        }
    }

    /// The command that changes it.
    pub fn restore_command(self) -> Program {
        let name = match self.v6 {
            true => "ip6tables-legacy-restore",
            false => "iptables-legacy-restore",
        };
        let common = restore_command(self.v6);
        let legacy = Program { name, ..common };
        match self.legacy && legacy.find("").is_ok() {
            true => legacy,
            false => common,
        }
    }

    /// It as nftables knows it, unless it is a legacy one.
    pub fn filter(self) -> TableRef<'static> {
        match self.v6 {
            true => Version::V6.table("filter"),
            false => Version::V4.table("filter"),
        }
    }
}

/// See [`Version::change`]; `program` is the one that changes tables.
///
/// # Errors
/// See [`Version::change`].
pub fn change(
    program: Program,
    purpose: &str,
    mut plan: impl FnMut() -> Result<Vec<(&'static str, Vec<String>)>, HostError>,
) -> Result<(), HostError> {
    let mut refused = None;
    for _ in 1..ATTEMPTS {
        let planned = plan()?;
        match restore(program, purpose, &planned) {
            Err(HostError::ProgramFailed { .. }) if refused.as_ref() != Some(&planned) => {
                refused = Some(planned);
            }
            outcome => return outcome,
        }
    }
    restore(program, purpose, &plan()?)
}

fn restore(
    program: Program,
    purpose: &str,
    tables: &[(&str, Vec<String>)],
) -> Result<(), HostError> {
    let input: String = tables
        .iter()
        .filter(|(_, commands)| !commands.is_empty())
        .map(|(table, commands)| format!("*{table}\n{}\nCOMMIT\n", commands.join("\n")))
        .collect();
    if input.is_empty() {
        return Ok(());
    }
    let args = [LOCK_WAIT[0], LOCK_WAIT[1], "--noflush"];
    program.run(purpose, args, &input).map(drop)
}

/// How often a change that another process crossed is decided anew.
const ATTEMPTS: u32 = 10;

/// A table as `iptables -S` prints it.
#[derive(Debug, Default)]
pub struct Listing {
    /// Its chains.
    pub chains: Vec<String>,
    /// Those whose policy is to drop.
    pub dropping: Vec<String>,
    /// Its rules in their order: the chain, and the words behind `-A CHAIN`.
    pub rules: Vec<(String, Vec<String>)>,
}

impl Listing {
    /// Reads a listing. Lines that mean nothing are left out.
    pub fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        for line in text.lines() {
            let mut words = words(line).into_iter();
            match (words.next().as_deref(), words.next()) {
                (Some("-P"), Some(chain)) => {
                    if words.next().as_deref() == Some("DROP") {
                        listing.dropping.push(chain.clone());
                    }
                    listing.chains.push(chain);
                }
                (Some("-N"), Some(chain)) => listing.chains.push(chain),
                (Some("-A"), Some(chain)) => listing.rules.push((chain, words.collect())),
                _ => {}
            }
        }
        listing
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

/// The word behind an option of a rule.
pub fn after<'a>(words: &'a [String], option: &str) -> Option<&'a str> {
    let place = words.iter().position(|word| word == option)?;
    words.get(place + 1).map(String::as_str)
}
