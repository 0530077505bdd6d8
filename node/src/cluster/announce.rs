//! What the agent tells the API server: events, and that the node's network is there.
//!
//! The routes don't wait for it. What could not be told is tried again, and only the newest of a kind is kept, so that an
//! API server that is slow or away costs nothing but that.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Node, OwnNode};
use crate::args::Args;
use crate::log::say;

/// Between two events of the same reason, and two attempts.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The most that an event's note may have is 1 kB.
const NOTE_MAX: usize = 1000;

/// What is to be told.
#[derive(Debug)]
enum Message {
    Warning {
        own: OwnNode,
        reason: &'static str,
        note: String,
    },
    /// The node's network works, and this is what its object looked like then.
    Ready(OwnNode),
}

/// Where to leave what is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    messages: mpsc::Sender<Message>,
}

impl Announcer {
    /// Begins to tell, beside everything else.
    pub(crate) fn start(client: Client, args: &Args) -> Self {
        let (messages, inbox) = mpsc::channel(64);
        let teller = Teller {
            recorder: Recorder::new(client.clone(), reporter(&args.node_name)),
            nodes: Api::all(client),
            name: args.node_name.clone(),
            remove_taints: args.remove_taints.clone(),
            set_available: args.set_network_available.is_on(),
            wanted: BTreeMap::new(),
            told: BTreeMap::new(),
            ready: None,
        };
        tokio::spawn(teller.run(inbox));
        Self { messages }
    }

    /// A warning about the own node. The same one again is told once.
    pub(crate) fn warn(&self, own: &OwnNode, reason: &'static str, note: String) {
        let own = own.clone();
        // Where the inbox is full there is no API server, and this one is offered again.
        let _ = self
            .messages
            .try_send(Message::Warning { own, reason, note });
    }

    /// The node's network works.
    pub(crate) fn ready(&self, own: &OwnNode) {
        let _ = self.messages.try_send(Message::Ready(own.clone()));
    }
}

fn reporter(node: &str) -> Reporter {
    Reporter {
        controller: "trestle-node".into(),
        instance: Some(node.to_owned()),
    }
}

struct Teller {
    recorder: Recorder,
    nodes: Api<Node>,
    name: String,
    remove_taints: Vec<String>,
    set_available: bool,
    /// The newest note of each reason that has not been told, and whom it is about.
    wanted: BTreeMap<&'static str, (OwnNode, String)>,
    told: BTreeMap<&'static str, (String, Instant)>,
    ready: Option<OwnNode>,
}

impl Teller {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut clock = interval(PAUSE);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                _ = clock.tick() => {}
            }
            self.tell_events().await;
            self.tell_ready().await;
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ready(own) => self.ready = Some(own),
            Message::Warning { own, reason, note } => {
                if self.told.get(reason).is_none_or(|(told, _)| *told != note) {
                    self.wanted.insert(reason, (own, note));
                }
            }
        }
    }

    async fn tell_events(&mut self) {
        let due = |reason: &&'static str| {
            let last = self.told.get(*reason);
            last.is_none_or(|(_, at)| at.elapsed() >= PAUSE)
        };
        let due: Vec<_> = self.wanted.keys().copied().filter(due).collect();
        for reason in due {
            let Some((own, note)) = self.wanted.remove(reason) else {
                continue;
            };
            let event = Event {
                type_: EventType::Warning,
                reason: reason.into(),
                note: Some(cut(&note).to_owned()),
                action: "Reconcile".into(),
                secondary: None,
            };
            let about = self.reference(&own);
            match patiently(self.recorder.publish(&event, &about)).await {
                Ok(()) => {
                    self.told.insert(reason, (note, Instant::now()));
                }
                Err(problem) => {
                    say(format_args!("publish the event {reason}: {problem}"));
                    self.wanted.entry(reason).or_insert((own, note));
                    return;
                }
            }
        }
    }

    fn reference(&self, own: &OwnNode) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.name.clone()),
            uid: Some(own.uid.clone()),
            ..ObjectReference::default()
        }
    }

    async fn tell_ready(&mut self) {
        let Some(own) = self.ready.take() else {
            return;
        };
        let outcome = match self.set_condition(&own).await {
            Ok(()) => self.remove_taints(&own).await,
            failed => failed,
        };
        if let Err(problem) = outcome {
            say(format_args!(
                "tell that the network of node {} works: {problem}",
                self.name
            ));
            self.ready.get_or_insert(own);
        }
    }

    async fn set_condition(&self, own: &OwnNode) -> Result<(), String> {
        if !self.set_available || own.network_unavailable == Some(false) {
            return Ok(());
        }
        let params = PatchParams::default();
        let patch = Patch::Strategic(condition(&Time(Timestamp::now())));
        let call = self.nodes.patch_status(&self.name, &params, &patch);
        patiently(call).await.map(|_| ())
    }

    async fn remove_taints(&self, own: &OwnNode) -> Result<(), String> {
        let Some(patch) = without_taints(own, &self.remove_taints) else {
            return Ok(());
        };
        let params = PatchParams::default();
        let patch = Patch::Merge(patch);
        let call = self.nodes.patch(&self.name, &params, &patch);
        match timeout(PATIENCE, call).await {
            // Somebody else has changed it meanwhile, of which the watch will tell.
            Ok(Err(Error::Api(status))) if status.code == 409 => Ok(()),
            Ok(outcome) => outcome.map(|_| ()).map_err(|error| error.to_string()),
            Err(_) => Err(too_slow()),
        }
    }
}

async fn patiently<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(PATIENCE, call).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> String {
    format!("no answer in {} seconds", PATIENCE.as_secs())
}

fn condition(now: &Time) -> Value {
    json!({"status": {"conditions": [{
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "TrestleIsReady",
        "message": "trestle-node has written the list and the routes",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }]}})
}

/// The change that takes away the taints with these keys; none if the node has none of them. It is refused where the node is
/// not what it was, because the list of taints is replaced as a whole.
fn without_taints(own: &OwnNode, keys: &[String]) -> Option<Value> {
    let goes = |taint: &&Value| {
        let key = taint["key"].as_str().unwrap_or_default();
        keys.iter().any(|it| it == key)
    };
    let kept: Vec<&Value> = own.taints.iter().filter(|taint| !goes(taint)).collect();
    (kept.len() < own.taints.len()).then(|| {
        json!({
            "metadata": {"resourceVersion": own.resource_version},
            "spec": {"taints": kept},
        })
    })
}

/// The beginning of a text that fits into a note.
fn cut(note: &str) -> &str {
    let mut end = note.len().min(NOTE_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    &note[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_taints_that_were_named_go() {
        let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
        let own = OwnNode {
            resource_version: "7".into(),
            taints: vec![taint("a"), taint("example.org/not-ready"), taint("b")],
            ..OwnNode::default()
        };
        assert_eq!(without_taints(&own, &[]), None);
        assert_eq!(without_taints(&own, &["c".into()]), None);
        let patch = without_taints(&own, &["example.org/not-ready".into()]).unwrap();
        assert_eq!(patch["spec"]["taints"], json!([taint("a"), taint("b")]));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ä".repeat(600)).len(), 1000);
        assert_eq!(cut(&format!("x{}", "ä".repeat(600))).len(), 999);
    }
}
