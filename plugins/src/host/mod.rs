//! The kernel's side: network namespaces, links, addresses, routes, sysctls and modules.
//!
//! Nothing here knows of CNI. Everything else in this crate talks to the kernel through this
//! module, which offers a blocking interface and is the only place with `unsafe` code.
//!
//! A [`netns::NetNs`] names a namespace and can be entered; an [`rtnl::Rtnl`] is a route netlink
//! socket that belongs to the namespace it was opened in, wherever the thread goes afterwards; a
//! [`sysctl::Sysctl`] is read and written in the namespace the calling thread is in. All failures
//! are [`error::HostError`]s that say operation, object and cause, and often a remedy.

pub mod activation;
pub mod child;
pub mod conntrack;
pub mod dbus;
pub mod device;
pub mod error;
pub mod inject;
pub mod iptables;
pub mod lock;
pub mod module;
mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod probe;
pub mod procfs;
pub mod program;
pub mod regular;
pub mod rtnl;
pub mod start;
pub mod stdio;
pub mod sysctl;
pub mod sysfs;
pub mod tap;

pub use error::HostError;
pub use netns::NetNs;
pub use procfs::Procfs;
pub use rtnl::Rtnl;
pub use sysctl::Sysctl;
