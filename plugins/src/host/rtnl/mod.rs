//! Route netlink: links, bridges, addresses and routes, by blocking calls.
//!
//! An [`Rtnl`] is one socket, and a netlink socket belongs for good to the network namespace it was
//! opened in (netlink(7)); a thread can thus hold one for the host and one for a container and use
//! both from where it is. Each operation is one request and one answer. Objects are asked for by
//! name or index, or listed with a filter that the kernel applies.
//!
//! Requests that need a privilege need it in the user namespace that owns the network namespace.

mod address;
mod bands;
mod bridge;
mod bridge_vlan;
mod build;
mod changes;
mod counters;
mod exchange;
mod fdb;
mod kinds;
mod link;
mod link_change;
mod lookup;
mod monitor;
mod neighbour;
mod netns_id;
mod new_route;
mod qdisc;
mod route;
mod route_lookup;
mod rule;
mod veth;
mod vlan;
mod watch;
mod whole;

pub use address::{Address, AddressFlags, AddressOptions, AddressScope};
pub use bands::{Band, Side};
pub use bridge::{BridgeChange, BridgeInfo, NewBridge, PortChange, PortInfo, PortState};
pub use bridge_vlan::{BridgeVlan, VlanOwner};
pub use changes::Change;
pub use counters::Counters;
pub use exchange::Rtnl;
pub use fdb::Behind;
pub use kinds::{IpvlanMode, Kind, MacvlanMode, NewLink};
pub use link::{ALIAS_MAX, Link, Mac, NAME_MAX};
pub use link_change::LinkChange;
pub use new_route::NewRoute;
pub use qdisc::TokenBucket;
pub use route::{DefaultRoute, Family, Route, RouteFilter, RouteProtocol, RouteScope, TABLE_MAIN};
pub use route_lookup::RouteLookup;
pub use rule::RoutingRule;
pub use veth::{NewVeth, VethEnd, VethPair};
pub use vlan::NewVlan;
pub use watch::RouteWatch;
pub use whole::Neighbour;
