//! The CNI plugins of trestle and the kernel side they stand on.
//!
//! Dependencies point one way: [`host`] (the kernel, knows no CNI) <- [`owner`] (whose a thing is) <-
//! [`netfilter`] (their rules) <- [`attach`] (steps that plugins share) <- one module per plugin <-
//! [`registry`] <- [`explain`] (what is known of a node) <- [`cli`] and [`process`].

pub mod attach;
pub mod bandwidth;
pub mod bridge;
pub mod cli;
pub mod dhcp;
pub mod dummy;
pub mod explain;
pub mod firewall;
pub mod host;
pub mod host_device;
pub mod ipvlan;
pub mod log;
pub mod loopback;
pub mod macvlan;
pub mod netfilter;
pub mod owner;
pub mod portmap;
pub mod process;
pub mod ptp;
pub mod registry;
pub mod sbr;
pub mod tap;
pub mod tuning;
pub mod vlan;
pub mod vrf;
