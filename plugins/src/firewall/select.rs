//! Which backends serve an attachment.
//!
//! | `backend`   | what is used                                                                              |
//! |-------------|-------------------------------------------------------------------------------------------|
//! | `iptables`  | the filter tables of `iptables` and `ip6tables`, both kinds where the old one is in use   |
//! | `nftables`  | the base chains of nftables that drop, without those of iptables                          |
//! | `firewalld` | firewalld's zone                                                                          |
//! | (absent)    | all that guard this host: firewalld if it runs; iptables if its filter table exists, or if the configuration names an administrator's chain; nftables if one of its chains drops, or if there is nothing else |
//!
//! iptables is served whether its policy is DROP or not: whoever made the table (Docker, ufw, kube-proxy) may set the
//! policy later, and rules in the administrator's chain count in either case.

use cni_conf::error::Error;

use super::conf::{Choice, Settings};
use super::firewalld::{self, Firewalld};
use super::guard::{self, IpTable, Seen};
use super::warn_of_guard;
use crate::attach::readiness;
use crate::host::HostError;
use crate::host::iptables::command;
use crate::host::nft::Nft;

/// The backends to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backends {
    pub(super) nftables: bool,
    pub(super) iptables: Vec<IpTable>,
    pub(super) firewalld: bool,
    /// Whether the iptables command is there.
    pub(super) with_iptables: bool,
    /// What guards this host.
    seen: Seen,
}

impl Backends {
    /// Chooses for this host, as it is now.
    ///
    /// # Errors
    /// Where firewalld is asked for and does not run; else what the kernel says.
    pub(super) fn choose(settings: &Settings) -> Result<Self, Error> {
        let with_iptables = command(false).find("").is_ok();
        let seen = guard::look(&mut Nft::open()?, with_iptables)?;
        let firewalld = match settings.backend {
            Choice::Firewalld if Firewalld::find()?.is_none() => return Err(firewalld::missing()),
            Choice::Firewalld => true,
            Choice::Automatic => firewalld_guards(&seen)?,
            Choice::Iptables | Choice::Nftables => false,
        };
        Ok(decide(settings, seen, firewalld, with_iptables))
    }

    /// Says on stderr which chains drop although ADD did what it could.
    pub(super) fn warn_of_the_rest(&self) {
        let served = |table: &IpTable| self.iptables.contains(table);
        if self.firewalld {
            return;
        }
        if self.seen.firewalld {
            warn_of_guard("the table firewalld of nftables", "firewalld");
        }
        if self
            .seen
            .iptables
            .iter()
            .any(|forward| forward.drops && !served(&forward.table))
        {
            warn_of_guard("the chain FORWARD of iptables", "iptables");
        }
        if let Some(guard) = self.seen.native.first().filter(|_| !self.nftables) {
            let chain = format!("nft chain {} {}", guard.table(), guard.chain);
            warn_of_guard(&chain, "nftables");
        }
    }

    /// Whether everything needed is installed.
    pub(super) fn ready(&self) -> Result<(), Error> {
        let purpose = "let containers' traffic through";
        if self.nftables {
            readiness::require_nft(purpose)?;
        }
        for table in &self.iptables {
            readiness::require(command(table.v6), purpose)?;
        }
        Ok(())
    }
}

/// Whether firewalld guards this host. That it can't be asked is a reason to fail where its rules are there.
fn firewalld_guards(seen: &Seen) -> Result<bool, HostError> {
    match Firewalld::find() {
        Ok(None) => Ok(false),
        Ok(Some(mut firewalld)) => Ok(seen.firewalld || firewalld.may_be_here()),
        Err(error) if seen.firewalld => Err(error),
        Err(_) => Ok(false),
    }
}

/// The choice, given what was seen.
fn decide(settings: &Settings, seen: Seen, firewalld: bool, with_iptables: bool) -> Backends {
    let mut existing: Vec<IpTable> = seen.iptables.iter().map(|forward| forward.table).collect();
    let both = [false, true].map(|v6| IpTable { v6, legacy: false });
    let iptables = match settings.backend {
        Choice::Nftables | Choice::Firewalld => Vec::new(),
        Choice::Automatic if !settings.admin_is_named => existing,
        _ => {
            // The command itself may be of the old kind; then it makes no second table.
            for table in both {
                if !existing.iter().any(|other| other.v6 == table.v6) {
                    existing.push(table);
                }
            }
            existing
        }
    };
    let nftables = match settings.backend {
        // firewalld keeps no owners, so our own set does.
        Choice::Nftables | Choice::Firewalld => true,
        Choice::Iptables => false,
        Choice::Automatic => firewalld || !seen.native.is_empty() || iptables.is_empty(),
    };
    Backends {
        nftables,
        iptables,
        firewalld,
        with_iptables,
        seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::conf::Policy;
    use crate::firewall::guard::{Forward, Guard};
    use crate::host::nft::Family;

    fn settings(backend: Choice, admin_is_named: bool) -> Settings {
        Settings {
            backend,
            admin: "CNI-ADMIN".into(),
            admin_is_named,
            zone: "trusted".into(),
            policy: Policy::Open,
        }
    }

    const V4: IpTable = IpTable {
        v6: false,
        legacy: false,
    };
    const V6: IpTable = IpTable {
        v6: true,
        legacy: false,
    };
    const OLD: IpTable = IpTable {
        v6: false,
        legacy: true,
    };

    fn seen(iptables: &[IpTable], native: bool) -> Seen {
        let guard = Guard {
            family: Family::Inet,
            table: "filter".into(),
            chain: "forward".into(),
        };
        let forward = |table: &IpTable| Forward {
            table: *table,
            drops: true,
        };
        Seen {
            iptables: iptables.iter().map(forward).collect(),
            native: native.then_some(guard).into_iter().collect(),
            firewalld: false,
        }
    }

    #[test]
    fn everything_that_guards_is_served() {
        let automatic = settings(Choice::Automatic, false);
        for (seen, firewalld, nftables, iptables) in [
            (seen(&[], false), false, true, &[][..]),
            (seen(&[], true), false, true, &[]),
            (seen(&[V4], false), false, false, &[V4]),
            (seen(&[V4, V6, OLD], true), false, true, &[V4, V6, OLD]),
            (seen(&[], false), true, true, &[]),
            (seen(&[V4], true), true, true, &[V4]),
        ] {
            let chosen = decide(&automatic, seen.clone(), firewalld, true);
            assert_eq!(
                (chosen.nftables, chosen.iptables.as_slice()),
                (nftables, iptables),
                "{seen:?}"
            );
            assert_eq!(chosen.firewalld, firewalld);
        }
    }

    #[test]
    fn a_named_administrators_chain_asks_for_iptables() {
        let chosen = decide(
            &settings(Choice::Automatic, true),
            seen(&[], false),
            false,
            true,
        );
        assert_eq!((chosen.nftables, chosen.iptables), (false, vec![V4, V6]));
    }

    #[test]
    fn a_backend_by_name_is_used_alone() {
        let all = seen(&[V4], true);
        let chosen = decide(&settings(Choice::Iptables, false), all.clone(), false, true);
        assert_eq!((chosen.nftables, chosen.iptables), (false, vec![V4, V6]));
        let chosen = decide(&settings(Choice::Nftables, false), all.clone(), false, true);
        assert_eq!((chosen.nftables, chosen.iptables), (true, vec![]));
        let chosen = decide(
            &settings(Choice::Iptables, false),
            seen(&[OLD], false),
            false,
            true,
        );
        assert_eq!(chosen.iptables, [OLD, V6]);
    }
}
