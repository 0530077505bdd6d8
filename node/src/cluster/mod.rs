//! What the API server says of the cluster's nodes, and what the agent tells it.

mod announce;
mod connect;
mod known;
mod node;

pub(crate) use announce::Announcer;
pub(crate) use connect::{ConnectError, Watch, connect};
pub(crate) use known::{Change, Known};
pub(crate) use node::{Facts, Node, OwnNode};
