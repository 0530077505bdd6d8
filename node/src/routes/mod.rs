//! Routes to the pods of other nodes.

mod claims;
mod host;
mod plan;
mod table;

pub(crate) use host::HostView;
pub(crate) use plan::{NextHop, Plan, Reason, Refusal, Situation, plan};
pub(crate) use table::{Applied, Table};
