//! IP address management: which address an attachment gets, and where that is written down.
//!
//! [`ranges`] is arithmetic without I/O, [`store`] is the state on the disk, and the plugins put the two together.

mod error;
pub mod ranges;
pub mod store;

pub use error::Error;
