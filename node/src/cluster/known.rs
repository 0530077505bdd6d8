//! The nodes that are known. What is said while a listing is under way counts when the listing is complete.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

use super::{Facts, Node, OwnNode};

/// Whether an event changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that matters here, such as a heartbeat.
    None,
    /// The nodes, or the agent's own.
    Nodes,
}

/// The nodes of the cluster by name, as of the last complete listing and what was told since.
#[derive(Debug)]
pub(crate) struct Known {
    own_name: String,
    nodes: BTreeMap<String, Facts>,
    own: Option<OwnNode>,
    /// A listing that is under way.
    pending: Option<Listing>,
    complete: bool,
}

#[derive(Debug, Default)]
struct Listing {
    nodes: BTreeMap<String, Facts>,
    own: Option<OwnNode>,
}

impl Known {
    pub(crate) fn new(own_name: &str) -> Self {
        Self {
            own_name: own_name.to_owned(),
            nodes: BTreeMap::new(),
            own: None,
            pending: None,
            complete: false,
        }
    }

    /// The nodes; none before the first complete listing.
    pub(crate) fn nodes(&self) -> Option<&BTreeMap<String, Facts>> {
        self.complete.then_some(&self.nodes)
    }

    /// The agent's own node, if the API server has it.
    pub(crate) fn own(&self) -> Option<(&OwnNode, &Facts)> {
        Some((self.own.as_ref()?, self.nodes.get(&self.own_name)?))
    }

    /// Takes in what the API server says.
    pub(crate) fn take(&mut self, event: Event<Node>) -> Change {
        match event {
            Event::Init => self.pending = Some(Listing::default()),
            Event::InitApply(node) => {
                let listing = self.pending.get_or_insert_default();
                if node.name() == self.own_name {
                    listing.own = Some(node.own());
                }
                listing.nodes.insert(node.name().to_owned(), node.facts());
            }
            Event::InitDone => return self.finish(),
            Event::Apply(node) => return self.put(&node),
            Event::Delete(node) => {
                if node.name() == self.own_name {
                    self.own = None;
                }
                if self.nodes.remove(node.name()).is_some() {
                    return Change::Nodes;
                }
            }
        }
        Change::None
    }

    fn finish(&mut self) -> Change {
        let Listing { nodes, own } = self.pending.take().unwrap_or_default();
        let same_own = match (&self.own, &own) {
            (Some(known), Some(own)) => known.is_like(own),
            (known, own) => known.is_none() && own.is_none(),
        };
        let same = self.complete && self.nodes == nodes && same_own;
        (self.nodes, self.own, self.complete) = (nodes, own, true);
        if same { Change::None } else { Change::Nodes }
    }

    fn put(&mut self, node: &Node) -> Change {
        let mut change = Change::None;
        if node.name() == self.own_name {
            let own = node.own();
            if !self.own.as_ref().is_some_and(|known| known.is_like(&own)) {
                change = Change::Nodes;
            }
            self.own = Some(own);
        }
        let facts = node.facts();
        if self.nodes.get(node.name()) != Some(&facts) {
            self.nodes.insert(node.name().to_owned(), facts);
            change = Change::Nodes;
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, subnet: &str) -> Node {
        let node = json!({"metadata": {"name": name}, "spec": {"podCIDRs": [subnet]}});
        serde_json::from_value(node).unwrap()
    }

    fn names(known: &Known) -> Vec<&str> {
        known.nodes().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn nothing_is_known_before_a_listing_is_complete() {
        let mut known = Known::new("a");
        known.take(Event::Init);
        assert_eq!(
            known.take(Event::InitApply(node("a", "10.0.0.0/24"))),
            Change::None
        );
        assert!(known.nodes().is_none());
        assert_eq!(known.take(Event::InitDone), Change::Nodes);
        assert_eq!(names(&known), ["a"]);
        assert!(known.own().is_some());
    }

    #[test]
    fn a_listing_that_breaks_off_takes_nobody_away() {
        let mut known = Known::new("a");
        for event in [
            Event::Init,
            Event::InitApply(node("a", "10.0.0.0/24")),
            Event::InitApply(node("b", "10.0.1.0/24")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(node("a", "10.0.0.0/24")),
        ] {
            known.take(event);
        }
        assert_eq!(names(&known), ["a", "b"]);
        // The next one is complete and lacks it.
        for event in [Event::Init, Event::InitApply(node("a", "10.0.0.0/24"))] {
            known.take(event);
        }
        assert_eq!(known.take(Event::InitDone), Change::Nodes);
        assert_eq!(names(&known), ["a"]);
    }

    #[test]
    fn heartbeats_change_nothing() {
        let mut known = Known::new("a");
        known.take(Event::Init);
        known.take(Event::InitDone);
        assert_eq!(
            known.take(Event::Apply(node("b", "10.0.1.0/24"))),
            Change::Nodes
        );
        assert_eq!(
            known.take(Event::Apply(node("b", "10.0.1.0/24"))),
            Change::None
        );
        assert_eq!(
            known.take(Event::Delete(node("b", "10.0.1.0/24"))),
            Change::Nodes
        );
        assert_eq!(
            known.take(Event::Delete(node("b", "10.0.1.0/24"))),
            Change::None
        );
    }
}
