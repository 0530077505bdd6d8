//! IP address management: which address an attachment gets, and where that is written down.
//!
//! [`ranges`] is arithmetic without I/O, [`store`] is the state on the disk, and the plugins put the two together.
//! [`flock`] is how processes wait for each other.

mod conf;
mod error;
pub mod flock;
mod host_local;
mod lease_owner;
pub mod ranges;
mod static_ipam;
pub mod store;

pub use error::Error;
pub use host_local::{HostLocal, StoreState};
pub use static_ipam::Static;
