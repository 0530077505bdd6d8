//! Answering requests.

use std::io::{self, BufReader};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::http::{self, Request};
use super::state::{Mood, Shared, State};

const NODES: &str = "/api/v1/nodes";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

pub(super) fn connection(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let (mood, epoch) = {
            let state = shared.lock();
            (state.mood, state.epoch)
        };
        match mood {
            Mood::Away => return Ok(()),
            Mood::Silent => {
                let mut state = shared.lock();
                while state.epoch == epoch {
                    state = shared.wait(state);
                }
                return Ok(());
            }
            Mood::Failing => {
                let status = State::status(500, "InternalError");
                http::respond(stream, 500, &status.to_string())?;
            }
            Mood::Well | Mood::Breaking => answer(stream, shared, &request, epoch)?,
        }
    }
    Ok(())
}

fn answer(stream: &TcpStream, shared: &Shared, request: &Request, epoch: u64) -> io::Result<()> {
    let watches = matches!(request.parameter("watch"), Some("true" | "1"));
    let (code, body) = match (request.method.as_str(), request.path.as_str()) {
        ("GET", NODES) if watches => return watch(stream, shared, request, epoch),
        ("GET", NODES) => list(shared, request),
        ("POST", EVENTS) => take_event(shared, request),
        ("PATCH", path) if path.starts_with(EVENTS) => take_event(shared, request),
        ("PATCH", path) if path.starts_with(NODES) => patch(shared, path, request),
        _ => (404, State::status(404, "NotFound")),
    };
    http::respond(stream, code, &body.to_string())
}

/// A page. The token says behind which name the next one begins.
fn list(shared: &Shared, request: &Request) -> (u16, Value) {
    let mut state = shared.lock();
    let behind = request.parameter("continue").unwrap_or("");
    state.seen.pages += 1;
    if behind.is_empty() {
        state.seen.lists += 1;
    } else if state.mood == Mood::Breaking {
        return (500, State::status(500, "InternalError"));
    }
    let limit = request.parameter("limit").and_then(|it| it.parse().ok());
    // Only a second page can be missing.
    let limit = if state.mood == Mood::Breaking {
        Some(1)
    } else {
        limit
    };
    let limit = limit.unwrap_or(usize::MAX);
    let rest = state
        .nodes
        .iter()
        .filter(|(name, _)| name.as_str() > behind);
    let page: Vec<_> = rest.take(limit).collect();
    let last = state.nodes.keys().next_back();
    let token = page.last().filter(|(name, _)| Some(*name) != last);
    let token = token.map_or("", |(name, _)| name.as_str());
    let items: Vec<Value> = page.iter().map(|(_, node)| (*node).clone()).collect();
    let metadata = json!({"resourceVersion": state.version.to_string(), "continue": token});
    (
        200,
        json!({"kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": items}),
    )
}

fn watch(stream: &TcpStream, shared: &Shared, request: &Request, epoch: u64) -> io::Result<()> {
    let from = request
        .parameter("resourceVersion")
        .and_then(|it| it.parse().ok());
    let mut sent: u64 = from.unwrap_or(0);
    let bookmarks = request.parameter("allowWatchBookmarks") == Some("true");
    http::begin(stream)?;
    let mut state = shared.lock();
    state.seen.watches += 1;
    if sent < state.oldest {
        state.seen.gone += 1;
        let error = json!({"type": "ERROR", "object": State::status(410, "Expired")});
        drop(state);
        http::piece(stream, &format!("{error}\n"))?;
        return http::piece(stream, "");
    }
    loop {
        let mut text = String::new();
        for (version, kind, node) in &state.changes {
            if *version > sent {
                text += &json!({"type": kind, "object": node}).to_string();
                text.push('\n');
            }
        }
        if bookmarks {
            let metadata = json!({"resourceVersion": state.version.to_string()});
            let object = json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata});
            text += &format!("{}\n", json!({"type": "BOOKMARK", "object": object}));
        }
        sent = state.version;
        drop(state);
        if !text.is_empty() {
            http::piece(stream, &text)?;
        }
        state = shared.wait(shared.lock());
        if state.epoch != epoch {
            // In the middle of the answer.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

fn take_event(shared: &Shared, request: &Request) -> (u16, Value) {
    let event: Value = serde_json::from_slice(&request.body).unwrap();
    shared.lock().seen.events.push(event.clone());
    (201, event)
}

fn patch(shared: &Shared, path: &str, request: &Request) -> (u16, Value) {
    let patch: Value = serde_json::from_slice(&request.body).unwrap();
    let name = path.trim_start_matches(NODES).trim_matches('/');
    let (name, of_status) = match name.strip_suffix("/status") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let kind = if of_status {
        "application/strategic-merge-patch+json"
    } else {
        "application/merge-patch+json"
    };
    assert_eq!(request.content_type, kind, "{path}");
    let mut state = shared.lock();
    state.seen.patches.push((path.to_owned(), patch.clone()));
    state.patch(name, of_status, &patch)
}
