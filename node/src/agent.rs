//! The loop that does each thing when it is time.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugins::host::HostError;
use plugins::host::rtnl::RouteWatch;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, watch};

use crate::args::Args;
use crate::cluster::{self, Announcer, Watch};
use crate::log::say;
use crate::metrics::Metrics;
use crate::reconcile::Reconciler;
use crate::serve::{Served, serve};
use crate::status::{Part, Status};
use crate::trestle::Trestle;
use crate::{flushes, upkeep};

/// Why the agent can't begin.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    #[error("{0}: {1}")]
    Start(&'static str, io::Error),
    #[error("listen on {address}: {source}; choose another with --listen")]
    Listen {
        address: std::net::SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Connect(#[from] cluster::ConnectError),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Runs until SIGTERM or SIGINT. What was done stays: routes, list and plugins work without the agent.
pub(crate) async fn run(args: Args) -> Result<(), AgentError> {
    let on = |kind| signal(kind).map_err(|error| AgentError::Start("wait for signals", error));
    let (mut terminate, mut interrupt) =
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let client = cluster::connect(args.kubeconfig.as_deref()).await?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|source| AgentError::Listen {
        address: args.listen,
        source,
    })?;
    let metrics = Arc::new(Metrics::new());
    let status = Arc::new(Status::new(parts(&args)));
    let trestle = Trestle::new(&args);
    let served = Arc::new(Served {
        metrics: Arc::clone(&metrics),
        status: Arc::clone(&status),
        trestle: trestle.clone(),
        node: Mutex::default(),
    });
    let host_changed = listen_to_host()?;
    let announcer = Announcer::start(client.clone(), &args);
    let watch = Watch::new(client);
    let mut reconciler = Reconciler::new(&args, announcer, &metrics, &status)?;
    let (installed, wait_for_installed) = watch::channel(false);
    let flushed = flushed(&args);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = serve(listener, served) => {}
        () = reconciler.run(watch, host_changed) => {}
        () = upkeep::keep(&args, &trestle, &metrics, &status, installed) => {}
        () = flushes::keep(&trestle, &metrics, flushed, wait_for_installed), if args.repair.is_on() => {}
    }
    say(format_args!(
        "ends; plugins, list and routes stay as they are"
    ));
    Ok(())
}

fn parts(args: &Args) -> impl Iterator<Item = Part> {
    let all = [
        (Part::Plugins, args.install.is_on()),
        (Part::Nodes, true),
        (Part::List, args.list.is_on()),
        (Part::Routes, args.routes.is_on()),
    ];
    all.into_iter().filter_map(|(part, on)| on.then_some(part))
}

/// Is told when rules were removed. A kernel without nftables has none.
fn flushed(args: &Args) -> Arc<Notify> {
    if !args.repair.is_on() {
        return Arc::default();
    }
    flushes::listen().unwrap_or_else(|error| {
        say(format_args!(
            "{error}; flushes of the host's rules will not be noticed"
        ));
        Arc::default()
    })
}

/// Is told when routes, addresses or links of the host changed. A thread of its own listens.
fn listen_to_host() -> Result<Arc<Notify>, HostError> {
    let routes = RouteWatch::begin()?;
    let changed = Arc::new(Notify::new());
    let tell = Arc::clone(&changed);
    thread::spawn(move || {
        loop {
            match routes.wait(Duration::from_secs(3600)) {
                Ok(true) => tell.notify_one(),
                Ok(false) => {}
                Err(error) => {
                    say(format_args!("{error}; trying again"));
                    thread::sleep(Duration::from_secs(10));
                    tell.notify_one();
                }
            }
        }
    });
    Ok(changed)
}
