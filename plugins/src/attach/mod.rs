//! Steps that several plugins share: delegation to IPAM, configuring a container's interface,
//! comparing it with a result, and undoing.

pub mod bridge_label;
pub mod bridge_netfilter;
pub mod chained;
pub mod check;
pub mod collect;
pub mod container;
pub mod detach;
pub mod errors;
pub mod forwarding;
pub mod gateway;
pub mod host_route;
pub mod interface;
pub mod ip_forward;
pub mod ipam;
pub mod ipv6;
pub mod isolation;
pub mod list;
pub mod liveness;
pub mod mac;
pub mod masq;
pub mod masquerade;
pub mod parent;
pub mod readiness;
pub mod record;
pub mod settings;
mod siblings;
pub mod undo;
pub mod veth;
