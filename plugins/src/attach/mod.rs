//! Steps that several plugins share: who owns what, delegation to IPAM, configuring a container's interface,
//! comparing it with a result, and undoing.

pub mod bridge_netfilter;
pub mod chained;
pub mod check;
pub mod collect;
pub mod comment;
pub mod container;
pub mod detach;
pub mod errors;
pub mod forward;
pub mod forwarding;
pub mod gateway;
pub mod ipam;
pub mod list;
pub mod liveness;
pub mod mac;
pub mod masq;
pub mod masquerade;
pub mod nat_table;
pub mod owner;
pub mod record;
pub mod reference;
pub mod rules_lock;
pub mod settings;
pub mod table;
pub mod undo;
pub mod veth;
