//! What the server knows, and how it behaves.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

/// How the server behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    #[default]
    Well,
    /// It closes every connection.
    Away,
    /// It takes requests and answers none.
    Silent,
    /// It answers with 500.
    Failing,
    /// It ends each listing after the first page.
    Breaking,
}

/// What was asked of the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) lists: usize,
    pub(crate) pages: usize,
    pub(crate) watches: usize,
    pub(crate) gone: usize,
    pub(crate) events: Vec<Value>,
    /// The path and the body.
    pub(crate) patches: Vec<(String, Value)>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) version: u64,
    pub(super) nodes: BTreeMap<String, Value>,
    /// Changes since `oldest`: the version, the type and the object.
    pub(super) changes: Vec<(u64, &'static str, Value)>,
    pub(super) oldest: u64,
    pub(super) mood: Mood,
    /// Goes up with every change of the mood, for those that are being served.
    pub(super) epoch: u64,
    pub(super) seen: Seen,
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The state after the next change, or a moment later.
    pub(super) fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let moment = Duration::from_millis(200);
        self.changed.wait_timeout(state, moment).unwrap().0
    }

    pub(super) fn put(&self, mut node: Value) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        node["metadata"]["resourceVersion"] = version.to_string().into();
        let known = state.nodes.insert(name, node.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        state.changes.push((version, kind, node));
        self.changed.notify_all();
    }

    pub(super) fn delete(&self, name: &str) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        if let Some(mut node) = state.nodes.remove(name) {
            node["metadata"]["resourceVersion"] = version.to_string().into();
            state.changes.push((version, "DELETED", node));
        }
        self.changed.notify_all();
    }

    pub(super) fn behave(&self, mood: Mood) {
        let mut state = self.lock();
        state.mood = mood;
        state.epoch += 1;
        self.changed.notify_all();
    }

    pub(super) fn compact(&self) {
        let mut state = self.lock();
        // One version is lost on everybody who has not seen it.
        state.version += 1;
        state.oldest = state.version;
        state.changes.clear();
        state.epoch += 1;
        self.changed.notify_all();
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    pub(super) fn node(&self, name: &str) -> Option<Value> {
        self.lock().nodes.get(name).cloned()
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.epoch += 1;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    /// The error object of the API.
    pub(super) fn status(code: u16, reason: &str) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
            "reason": reason, "code": code})
    }

    /// Changes a Node as a patch of it or of its status says. The code, and the answer.
    pub(super) fn patch(&mut self, name: &str, of_status: bool, patch: &Value) -> (u16, Value) {
        let Some(mut node) = self.nodes.get(name).cloned() else {
            return (404, Self::status(404, "NotFound"));
        };
        let expected = patch["metadata"]["resourceVersion"].as_str();
        if expected.is_some_and(|it| node["metadata"]["resourceVersion"] != it) {
            return (409, Self::status(409, "Conflict"));
        }
        match of_status {
            true => merge_conditions(&mut node, &patch["status"]["conditions"]),
            false => node["spec"]["taints"] = patch["spec"]["taints"].clone(),
        }
        self.version += 1;
        let version = self.version;
        node["metadata"]["resourceVersion"] = version.to_string().into();
        self.nodes.insert(name.to_owned(), node.clone());
        self.changes.push((version, "MODIFIED", node.clone()));
        (200, node)
    }
}

/// A strategic merge: conditions are told apart by their type.
fn merge_conditions(node: &mut Value, conditions: &Value) {
    let mut kept = node["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for condition in conditions.as_array().into_iter().flatten() {
        kept.retain(|it| it["type"] != condition["type"]);
        kept.push(condition.clone());
    }
    node["status"]["conditions"] = kept.into();
}
