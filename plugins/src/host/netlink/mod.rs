//! Netlink: one blocking transport for route and netfilter sockets.
//!
//! [`Transport`] sends requests and reads the replies, [`netfilter::NetfilterSocket`] adds what is particular to
//! netfilter, and [`Rtnl`](super::rtnl::Rtnl) does so for routes and links. Requests are written with the packet
//! crates of the rust-netlink project; what comes back is taken apart in [`reply`] and [`attributes`].

pub(crate) mod attributes;
mod error;
mod handover;
pub(crate) mod netfilter;
pub(crate) mod reply;
mod transport;

pub(crate) use error::NetlinkError;
pub(crate) use transport::Transport;
