//! Which backends serve an attachment.
//!
//! | `backend`   | what is used                                                                              |
//! |-------------|-------------------------------------------------------------------------------------------|
//! | `iptables`  | the filter tables of `iptables` and `ip6tables`, both kinds where the old one is in use   |
//! | `nftables`  | the base chains of nftables that drop, without those of iptables                          |
//! | `firewalld` | firewalld's zone                                                                          |
//! | (absent)    | all that guard this host: firewalld if it runs; iptables if its filter table exists, or if the configuration names an administrator's chain; nftables if one of its chains drops, or if there is nothing else |
//!
//! Where nothing drops forwarded packets there is nothing to do, whichever backend is chosen: kube-proxy's tables of
//! iptables have a chain FORWARD that accepts. Whoever sets its policy to DROP later is noticed by CHECK and by the next
//! ADD, which serves the containers that are there already. Rules of the administrator count in any case, so a chain of
//! theirs that has some, or that the configuration names, is reason enough, and so is an `ingressPolicy`.

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;

use super::conf::{Choice, Policy, Settings};
use super::firewalld::{self, Firewalld};
use super::warn_of_guard;
use crate::attach::readiness;
use crate::host::HostError;
use crate::host::iptables::command;
use crate::host::nft::Nft;
use crate::netfilter::forward_hook::guard::{self, Context, Guard, Seen};
use crate::netfilter::iptables::FilterTable;

/// The backends to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backends {
    pub(super) nftables: bool,
    pub(super) iptables: Vec<FilterTable>,
    pub(super) firewalld: bool,
    /// Tables of iptables that it turned out not to be able to read. They are served as other nftables tables are.
    pub(super) unreadable: Vec<FilterTable>,
    /// Whether rules are wanted also where nothing is seen to drop forwarded packets.
    pub(super) always: bool,
    /// Whether the iptables command is there.
    with_iptables: bool,
    /// The administrator's chain.
    admin: String,
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
        let context = Context {
            with_iptables,
            unreadable: &[],
            admin: &settings.admin,
        };
        let seen = guard::look(&mut Nft::open()?, &context)?;
        let firewalld = match settings.backend {
            Choice::Firewalld if Firewalld::find()?.is_none() => return Err(firewalld::missing()),
            Choice::Firewalld => true,
            Choice::Automatic => firewalld_guards(&seen)?,
            Choice::Iptables | Choice::Nftables => false,
        };
        Ok(decide(settings, seen, firewalld, with_iptables))
    }

    /// The nftables base chains to serve, as they are now.
    pub(super) fn guards(&self, nft: &mut Nft) -> Result<Vec<Guard>, HostError> {
        let context = Context {
            with_iptables: self.with_iptables,
            unreadable: &self.unreadable,
            admin: &self.admin,
        };
        let mut guards = guard::look(nft, &context)?.native;
        guards.retain(|guard| self.nftables || guard.is_iptables());
        Ok(guards)
    }

    /// Whether nftables has anything to do.
    pub(super) fn uses_nftables(&self) -> bool {
        let of_iptables = |guard: &Guard| guard.is_iptables();
        self.nftables || !self.unreadable.is_empty() || self.seen.native.iter().any(of_iptables)
    }

    /// Says on stderr which chains drop although ADD did what it could.
    pub(super) fn warn_of_the_rest(&self) {
        let served = |table: &FilterTable| self.iptables.contains(table);
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
        let mut native = self.seen.native.iter();
        if let Some(guard) = native.find(|guard| !self.nftables && !guard.is_iptables()) {
            let chain = format!("nft chain {} {}", guard.table(), guard.chain);
            warn_of_guard(&chain, "nftables");
        }
    }

    /// Says on stderr what lets `ingressCIDRs` in through firewalld, whose policies are the administrator's, unless that
    /// was done.
    pub(super) fn warn_of_ingress(&self, settings: &Settings) {
        if !self.firewalld || settings.ingress.is_empty() {
            return;
        }
        let done = Firewalld::find().and_then(|found| match found {
            Some(mut firewalld) => firewalld.has_ingress_policy(),
            None => Ok(false),
        });
        if !done.unwrap_or(false) {
            let commands = firewalld::ingress_commands(&settings.ingress, &settings.zone);
            warn(format_args!(
                "firewalld lets \"ingressCIDRs\" in by a policy, which is the administrator's to make:\n{}",
                commands.join("\n")
            ));
        }
    }

    /// Whether everything needed is installed: what the configuration names, and what guards this host calls for.
    pub(super) fn ready(&self, settings: &Settings) -> Result<(), Error> {
        let purpose = "let containers' traffic through";
        let guards = self.always || self.firewalld || !self.seen.native.is_empty();
        if settings.backend == Choice::Nftables || (self.nftables && guards) {
            readiness::require_nft(purpose)?;
        }
        if settings.backend == Choice::Iptables {
            readiness::require(command(false), purpose)?;
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
    let always = settings.admin_is_named || settings.policy != Policy::Open;
    let served = seen.iptables.iter();
    let served = served.filter(|forward| always || forward.drops || forward.admin);
    let mut existing: Vec<FilterTable> = served.map(|forward| forward.table).collect();
    let all = settings.backend == Choice::Iptables && always;
    let named = settings.backend == Choice::Automatic && settings.admin_is_named;
    if all || named {
        // The command itself may be of the old kind; then it makes no second table.
        for table in [false, true].map(|v6| FilterTable { v6, legacy: false }) {
            if !existing.iter().any(|other| other.v6 == table.v6) {
                existing.push(table);
            }
        }
    }
    let iptables = match settings.backend {
        Choice::Nftables | Choice::Firewalld => Vec::new(),
        Choice::Automatic | Choice::Iptables => existing,
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
        unreadable: Vec::new(),
        always,
        with_iptables,
        admin: settings.admin.clone(),
        seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::nft::Family;
    use crate::netfilter::forward_hook::guard::Forward;

    fn settings(backend: Choice, admin_is_named: bool) -> Settings {
        Settings {
            backend,
            admin: "CNI-ADMIN".into(),
            admin_is_named,
            zone: "trusted".into(),
            policy: Policy::Open,
            ingress: Vec::new(),
        }
    }

    const V4: FilterTable = FilterTable {
        v6: false,
        legacy: false,
    };
    const V6: FilterTable = FilterTable {
        v6: true,
        legacy: false,
    };
    const OLD: FilterTable = FilterTable {
        v6: false,
        legacy: true,
    };

    fn seen(iptables: &[FilterTable], native: bool) -> Seen {
        let guard = Guard {
            family: Family::Inet,
            table: "filter".into(),
            chain: "forward".into(),
        };
        let forward = |table: &FilterTable| Forward {
            table: *table,
            drops: true,
            admin: false,
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
        assert_eq!((chosen.nftables, chosen.iptables), (false, vec![V4]));
        let chosen = decide(&settings(Choice::Nftables, false), all.clone(), false, true);
        assert_eq!((chosen.nftables, chosen.iptables), (true, vec![]));
        let isolated = Settings {
            policy: Policy::Isolated,
            ..settings(Choice::Iptables, false)
        };
        let chosen = decide(&isolated, seen(&[OLD], false), false, true);
        assert_eq!(chosen.iptables, [OLD, V6]);
    }

    #[test]
    fn a_table_that_accepts_is_served_for_the_administrators_rules_or_a_policy_alone() {
        let mut accepts = seen(&[V4, V6], false);
        for forward in &mut accepts.iptables {
            forward.drops = false;
        }
        let automatic = settings(Choice::Automatic, false);
        let chosen = decide(&automatic, accepts.clone(), false, true);
        assert_eq!((chosen.nftables, chosen.iptables), (true, vec![]));
        let mut with_rules = accepts.clone();
        with_rules.iptables[1].admin = true;
        let chosen = decide(&automatic, with_rules, false, true);
        assert_eq!(chosen.iptables, [V6]);
        let policy = Settings {
            policy: Policy::SameBridge,
            ..automatic
        };
        let chosen = decide(&policy, accepts, false, true);
        assert_eq!((chosen.nftables, chosen.iptables), (false, vec![V4, V6]));
    }
}
