//! A stand-in of the API server, as far as the agent sees it: Nodes are listed page by page and watched, with bookmarks and 410;
//! events are taken in, and Nodes are patched. It misbehaves when it is told to.

mod http;
mod serve;
mod state;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use conformance::Place;
use serde_json::Value;

use state::Shared;
pub(crate) use state::{Mood, Seen};

/// A server that serves as long as this value lives.
pub(crate) struct Api {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Api {
    /// Serves at a place, with this address.
    pub(crate) fn at(place: &Place, address: SocketAddr) -> Self {
        let listener = place.enter(|| TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if serving.is_closed() {
                    return;
                }
                let shared = Arc::clone(&serving);
                // Connections that break are the agent's affair.
                thread::spawn(move || serve::connection(&stream, &shared));
            }
        });
        Self { shared, address }
    }

    /// A kubeconfig for it.
    pub(crate) fn kubeconfig(&self) -> String {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        })
        .to_string()
    }

    /// Puts a Node, new or changed, and tells who watches.
    pub(crate) fn put(&self, node: Value) {
        self.shared.put(node);
    }

    /// Deletes a Node.
    pub(crate) fn delete(&self, name: &str) {
        self.shared.delete(name);
    }

    /// Behaves like that from now on, and breaks off what is under way.
    pub(crate) fn behave(&self, mood: Mood) {
        self.shared.behave(mood);
    }

    /// Forgets the past: whoever watches from a version before this one gets 410.
    pub(crate) fn compact(&self) {
        self.shared.compact();
    }

    /// What was asked of it.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen()
    }

    /// A Node as it is now.
    pub(crate) fn node(&self, name: &str) -> Option<Value> {
        self.shared.node(name)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shared.close();
    }
}
