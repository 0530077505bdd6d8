//! Putting back what a flush of the host's rules took, when it happens.
//!
//! The kernel tells of every transaction that removes something from nftables, whether `nft`, `iptables-nft` or firewalld made
//! it. One that may have removed rules of containers has `trestle repair` called. On hosts where rules that look alike come and
//! go all the time, most of these calls find nothing to do; each such call makes the next one wait longer, and one that
//! repairs something ends that.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use plugins::host::HostError;
use plugins::host::nft::Family;
use plugins::host::nft::monitor::{Heard, Monitor, Removal, Removed, Transaction};
use plugins::registry;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::log::say;
use crate::metrics::Metrics;
use crate::trestle::{Said, Trestle};

/// A restart of a firewall is several transactions: the repair is for all of them.
const SETTLE: Duration = Duration::from_millis(200);

/// What the second repair in a row that finds nothing waits, and the last.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often a repair after which something is missing is tried again before the next flush.
const RETRIES: u32 = 3;

/// The kernel's name for a process is cut after so many bytes (`TASK_COMM_LEN`).
const COMM_MAX: usize = 15;

/// The tables of iptables-nft.
const IPTABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// Listens from now on, in the namespace of the calling thread, by a thread of its own.
pub(crate) fn listen() -> Result<Arc<Notify>, HostError> {
    let flushed = Arc::new(Notify::new());
    let tell = Arc::clone(&flushed);
    let (begun, outcome) = mpsc::channel();
    thread::spawn(move || {
        let monitor = Monitor::begin();
        let (monitor, outcome) = match monitor {
            Ok(monitor) => (Some(monitor), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Whoever asked waits for it.
        let _ = begun.send(outcome);
        if let Some(monitor) = monitor {
            watch_for_ever(monitor, &tell);
        }
    });
    match outcome.recv() {
        Ok(Err(error)) => Err(error),
        _ => Ok(flushed),
    }
}

fn watch_for_ever(mut monitor: Monitor, tell: &Notify) {
    loop {
        match monitor.wait(Duration::from_secs(3600)) {
            Ok(heard) if matters(&heard) => tell.notify_one(),
            Ok(_) => {}
            Err(error) => {
                say(format_args!("{error}; trying again"));
                thread::sleep(Duration::from_secs(10));
                tell.notify_one();
            }
        }
    }
}

/// Whether rules of containers may be gone.
fn matters(heard: &Heard) -> bool {
    heard.lost || heard.transactions.iter().any(may_have_flushed)
}

fn may_have_flushed(transaction: &Transaction) -> bool {
    !is_own(&transaction.process) && transaction.removals.iter().any(may_be_ours)
}

/// Whether a process is one of the plugins, by the name that it was called by.
fn is_own(process: &str) -> bool {
    let is = |name: &str| process == &name[..name.len().min(COMM_MAX)];
    is("trestle") || registry::ALL.iter().any(|plugin| is(plugin.name))
}

fn may_be_ours(removal: &Removal) -> bool {
    if removal.what == Removed::Table {
        return true;
    }
    let iptables = matches!(removal.family, Family::IPv4 | Family::IPv6)
        && IPTABLES.contains(&removal.table.as_str());
    let ours = removal.table.starts_with("trestle") || removal.table == "firewalld";
    let chain = match &removal.what {
        Removed::Chain(name) | Removed::Rule(name) => name.as_str(),
        _ => "",
    };
    // kube-proxy rewrites its own chains with every Service.
    (iptables && !chain.starts_with("KUBE-")) || ours
}

/// How long a repair waits.
#[derive(Debug, Default)]
struct Pace {
    pause: Duration,
}

impl Pace {
    /// Takes in what a repair came to.
    fn after(&mut self, outcome: Outcome) {
        self.pause = match outcome {
            Outcome::Repaired => Duration::ZERO,
            _ => (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX),
        };
    }
}

/// What became of a call of `trestle repair`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was missing.
    Fine,
    Repaired,
    /// Something is missing still.
    Broken,
    /// It could not be called, or could not look.
    Failed,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Repaired => "repaired",
            Self::Broken => "broken",
            Self::Failed => "failed",
        }
    }
}

/// Repairs, once when the plugins are installed and then after each flush, for ever.
pub(crate) async fn keep(
    trestle: &Trestle,
    metrics: &Metrics,
    flushed: Arc<Notify>,
    mut installed: watch::Receiver<bool>,
) {
    // The one who tells lives as long as this does.
    let _ = installed.wait_for(|installed| *installed).await;
    let mut pace = Pace::default();
    let mut first = true;
    loop {
        let mut outcome = repair(trestle, metrics).await;
        // It was not called because anything was removed.
        if !std::mem::take(&mut first) {
            pace.after(outcome);
        }
        for _ in 0..RETRIES {
            if matches!(outcome, Outcome::Fine | Outcome::Repaired) {
                break;
            }
            sleep(pace.pause.max(PAUSE_MIN)).await;
            outcome = repair(trestle, metrics).await;
            pace.after(outcome);
        }
        let ended = Instant::now();
        flushed.notified().await;
        sleep(SETTLE).await;
        sleep_until(ended + pace.pause).await;
    }
}

async fn repair(trestle: &Trestle, metrics: &Metrics) -> Outcome {
    let outcome = match trestle.call("repair", &["--all"]).await {
        Ok(said) => {
            let (outcome, repaired) = read(&said);
            if outcome != Outcome::Fine {
                for line in said.stdout.lines() {
                    say(format_args!("repair: {line}"));
                }
            }
            metrics.repaired_attachments.inc_by(repaired);
            outcome
        }
        Err(error) => {
            say(format_args!("{error}"));
            Outcome::Failed
        }
    };
    let label = [("outcome", outcome.label())];
    metrics.repairs.get_or_create(&label).inc();
    outcome
}

/// What a call came to, and how many attachments it repaired.
fn read(said: &Said) -> (Outcome, u64) {
    let (repaired, broken) = counts(&said.stdout);
    let outcome = match (said.status, repaired, broken) {
        (Some(0), 0, 0) => Outcome::Fine,
        (Some(0), _, 0) => Outcome::Repaired,
        (_, _, 1..) => Outcome::Broken,
        _ => Outcome::Failed,
    };
    (outcome, repaired)
}

/// How many attachments were repaired, and how many are still broken: the sum of the networks' lines.
fn counts(said: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in said.lines().filter(|line| line.starts_with("network ")) {
        let count = |word: &str| -> u64 {
            let mut parts = line.split(", ");
            let before = parts.find_map(|part| part.strip_suffix(word));
            before
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        sum = (sum.0 + count("repaired"), sum.1 + count("broken"));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(process: &str, family: Family, table: &str, what: Removed) -> Heard {
        let table = table.to_owned();
        let removals = vec![Removal {
            family,
            table,
            what,
        }];
        let process = process.to_owned();
        Heard {
            transactions: vec![Transaction { process, removals }],
            lost: false,
        }
    }

    #[test]
    fn flushes_are_told_from_what_plugins_and_kube_proxy_do() {
        let rule = |chain: &str| Removed::Rule(chain.into());
        for (heard, matter) in [
            (
                transaction("nft", Family::Inet, "trestle", Removed::Table),
                true,
            ),
            (
                transaction("nft", Family::Inet, "trestle", Removed::Elements),
                true,
            ),
            (
                transaction("bridge", Family::Inet, "trestle", Removed::Elements),
                false,
            ),
            (
                transaction("portmap", Family::Inet, "trestle", Removed::Elements),
                false,
            ),
            (
                transaction("trestle", Family::Inet, "trestle", Removed::Table),
                false,
            ),
            (
                transaction("iptables", Family::IPv4, "nat", rule("POSTROUTING")),
                true,
            ),
            (
                transaction("ip6tables", Family::IPv6, "filter", rule("FORWARD")),
                true,
            ),
            (
                transaction(
                    "iptables-restor",
                    Family::IPv4,
                    "nat",
                    rule("KUBE-SERVICES"),
                ),
                false,
            ),
            (
                transaction("nft", Family::IPv4, "kube-proxy", rule("services")),
                false,
            ),
            (
                transaction("nft", Family::IPv4, "kube-proxy", Removed::Table),
                true,
            ),
            (
                transaction("firewalld", Family::Inet, "firewalld", Removed::Table),
                true,
            ),
            (transaction("", Family::Inet, "trestle", Removed::Set), true),
            (
                Heard {
                    lost: true,
                    ..Heard::default()
                },
                true,
            ),
            (Heard::default(), false),
        ] {
            assert_eq!(matters(&heard), matter, "{heard:?}");
        }
    }

    #[test]
    fn the_networks_lines_are_summed() {
        let said = "container x, interface eth0: bridge: 10.0.0.1 is not masqueraded\n  put back\n\
            network a: 0 attachments fine, 2 repaired, 0 broken\nnetwork b: 7 attachments fine, 1 repaired, 4 broken\n";
        assert_eq!(counts(said), (3, 4));
        assert_eq!(counts(""), (0, 0));
    }

    #[test]
    fn repairs_that_find_nothing_come_ever_more_seldom() {
        let mut pace = Pace::default();
        assert_eq!(pace.pause, Duration::ZERO);
        let seconds: Vec<u64> = (0..8)
            .map(|_| {
                pace.after(Outcome::Fine);
                pace.pause.as_secs()
            })
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.after(Outcome::Repaired);
        assert_eq!(pace.pause, Duration::ZERO);
    }
}
