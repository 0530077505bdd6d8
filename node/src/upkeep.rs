//! What is done at the start and then on a schedule: the plugins are installed and kept current, and what is left of
//! containers that are gone is collected.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use plugins::registry;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::args::Args;
use crate::log::say;
use crate::metrics::Metrics;
use crate::status::{Part, Status};
use crate::trestle::Trestle;

/// Until an installation that failed is tried again.
const RETRY: Duration = Duration::from_secs(15);

/// Does it, for ever. `installed` is told when there are plugins.
pub(crate) async fn keep(
    args: &Args,
    trestle: &Trestle,
    metrics: &Metrics,
    status: &Status,
    installed: watch::Sender<bool>,
) {
    loop {
        while args.install.is_on() && !install(trestle, metrics, status).await {
            sleep(RETRY).await;
        }
        // Whoever waited for it may have ended.
        let _ = installed.send(true);
        if args.gc.is_on() {
            gc(trestle, metrics).await;
        }
        match args.gc_every() {
            Some(pause) => sleep(pause).await,
            None => std::future::pending().await,
        }
    }
}

/// Installs the plugins unless they are what they should be. True when they are.
async fn install(trestle: &Trestle, metrics: &Metrics, status: &Status) -> bool {
    if is_current(trestle.bundled(), &trestle.installed_here()) {
        status.set(Part::Plugins, Ok(()));
        return true;
    }
    let outcome = trestle.install().await;
    let label = if outcome.is_ok() { "ok" } else { "failed" };
    metrics.installs.get_or_create(&[("outcome", label)]).inc();
    match &outcome {
        Ok(()) => say(format_args!(
            "installed {}",
            trestle.installed_here().display()
        )),
        Err(error) => say(format_args!("{error}")),
    }
    let done = outcome.is_ok();
    status.set(Part::Plugins, outcome.map_err(|error| error.to_string()));
    done
}

/// Whether the installed binary is the bundled one, and every plugin leads to it.
fn is_current(bundled: &Path, installed: &Path) -> bool {
    let (Ok(new), Ok(old)) = (fs::metadata(bundled), fs::metadata(installed)) else {
        return false;
    };
    // Read only where it may be the same.
    let same = new.len() == old.len() && {
        let (new, old) = (fs::read(bundled), fs::read(installed));
        matches!((new, old), (Ok(new), Ok(old)) if new == old)
    };
    let leads_there = |name: &str| {
        let plugin = fs::metadata(installed.with_file_name(name));
        plugin.is_ok_and(|it| (it.dev(), it.ino()) == (old.dev(), old.ino()))
    };
    same && registry::ALL.iter().all(|plugin| leads_there(plugin.name))
}

async fn gc(trestle: &Trestle, metrics: &Metrics) {
    let outcome = match trestle.call("gc", &["--all"]).await {
        Ok(said) => {
            for line in said.stdout.lines() {
                say(format_args!("gc: {line}"));
            }
            said.status == Some(0)
        }
        Err(error) => {
            say(format_args!("{error}"));
            false
        }
    };
    let label = if outcome { "ok" } else { "failed" };
    metrics.gc.get_or_create(&[("outcome", label)]).inc();
}
