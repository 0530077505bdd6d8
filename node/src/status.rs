//! Whether the node is ready, and what is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A part of the agent's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The plugins are installed.
    Plugins,
    /// The nodes of the cluster are known, this one among them.
    Nodes,
    /// The list is written.
    List,
    /// There was a complete set of routes once.
    Routes,
}

/// What each part lacks. What nobody spoke of is not there yet.
#[derive(Debug)]
pub(crate) struct Status {
    parts: Mutex<BTreeMap<Part, Result<(), String>>>,
}

impl Status {
    /// None of these is done.
    pub(crate) fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        let parts = parts
            .into_iter()
            .map(|part| (part, Err(part.not_yet().to_owned())));
        Self {
            parts: Mutex::new(parts.collect()),
        }
    }

    /// A part is done, or lacks this. One that was not asked for at the start is nobody's concern.
    pub(crate) fn set(&self, part: Part, outcome: Result<(), String>) {
        if let Some(entry) = self.lock().get_mut(&part) {
            *entry = outcome;
        }
    }

    /// What is missing; empty if the node is ready.
    pub(crate) fn missing(&self) -> Vec<String> {
        let parts = self.lock();
        parts
            .values()
            .filter_map(|it| it.as_ref().err().cloned())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, Result<(), String>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn not_yet(self) -> &'static str {
        match self {
            Self::Plugins => "the plugins are not installed yet",
            Self::Nodes => "the API server has not listed the nodes yet",
            Self::List => "the list is not written yet",
            Self::Routes => "the routes to the other nodes are not there yet",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_all_that_was_asked_for_is_done() {
        let status = Status::new([Part::Nodes, Part::List]);
        assert_eq!(status.missing().len(), 2);
        status.set(Part::Nodes, Ok(()));
        status.set(Part::Routes, Err("nobody asked".into()));
        assert_eq!(status.missing(), ["the list is not written yet"]);
        status.set(Part::List, Ok(()));
        assert!(status.missing().is_empty());
        status.set(Part::List, Err("gone".into()));
        assert_eq!(status.missing(), ["gone"]);
    }
}
