//! The connection to the API server, and the stream of what it says of nodes.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Config};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::Node;

/// How long the API server may take to accept a connection.
const CONNECTING: Duration = Duration::from_secs(10);

/// How long it may take for a page of a listing, before the listing is begun anew.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Nodes in a page: the response is held in memory as a whole, some kilobytes for each.
const PAGE: u32 = 250;

/// Why there is no client.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("read the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error(
        "find the API server: {0}; give a --kubeconfig, or run in a pod with a service account"
    )]
    Infer(#[from] kube::config::InferConfigError),
    #[error("prepare the connection to the API server: {0}")]
    Client(#[from] kube::Error),
}

/// A client for the API server. Connects when it is first used.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECTING);
    Ok(Client::try_from(config)?)
}

type Events = Pin<Box<dyn Stream<Item = Result<Event<Node>, watcher::Error>> + Send>>;

/// What the API server says of nodes, for ever: errors are passed on and tried again, less and less often.
pub(crate) struct Watch {
    client: Client,
    events: Events,
    /// When a listing that is under way is given up.
    deadline: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            events: begin(&client),
            client,
            deadline: Some(Instant::now() + PAGE_PATIENCE),
        }
    }

    /// The next event, or what keeps it from coming. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Event<Node>, String> {
        let event = match self.deadline {
            None => self.events.next().await,
            Some(deadline) => match timeout_at(deadline, self.events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    *self = Self::new(self.client.clone());
                    return Err(format!(
                        "list nodes: no answer in {} seconds",
                        PAGE_PATIENCE.as_secs()
                    ));
                }
            },
        };
        let soon = Instant::now() + PAGE_PATIENCE;
        match &event {
            Some(Ok(Event::Init | Event::InitApply(_))) => self.deadline = Some(soon),
            Some(Err(_)) => self.deadline = self.deadline.map(|_| soon),
            _ => self.deadline = None,
        }
        match event {
            Some(event) => event.map_err(|error| describe(&error)),
            None => {
                *self = Self::new(self.client.clone());
                Err("watch nodes: the stream ended".into())
            }
        }
    }
}

fn begin(client: &Client) -> Events {
    let config = watcher::Config::default().page_size(PAGE);
    watch(Api::<Node>::all(client.clone()), config)
        .default_backoff()
        .boxed()
}

/// An error with its causes, which the outer ones leave out.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text += &format!(": {inner_text}");
        }
        cause = inner.source();
    }
    text
}
