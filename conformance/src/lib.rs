//! Black-box conformance tests: they execute binaries and look at the kernel with its own tools.
//!
//! Nothing here shares code with the plugins. A test gives network configurations to the real `cnitool`, or
//! calls a plugin as a runtime does (environment and standard input), in a host of its own ([`Host`]: a network
//! and a mount namespace that vanish with the test), and judges by what `ip`, `bridge`, `nft` and real sockets
//! say. So the same test can be put to another implementation: `TRESTLE_SUBJECT=go` runs the suite against the
//! Go reference plugins, which is how the tests themselves are tested.
//!
//! Environment: `TRESTLE_BIN` (the binary under test; else `trestle` beside the test executables),
//! `TRESTLE_TOOLS` (where `tools/obtain.sh` puts what it fetches), `TRESTLE_SUBJECT` (`trestle` or `go`).

mod cnitool;
mod dhcp;
pub mod differential;
mod dns;
mod exec;
mod host;
mod kube_proxy;
mod lab;
mod machine;
mod network;
mod observe;
mod place;
mod plugin;
mod result;
mod suite;
mod traffic;
mod workspace;

pub use cnitool::Cnitool;
pub use dhcp::Background;
pub use exec::{Output, Program};
pub use host::{Host, Pod};
pub use kube_proxy::{ProxyMode, Service};
pub use lab::{Containerd, Lab, Need, Subject, obtain_runtimes};
pub use machine::Machine;
pub use network::{bridge, host_local, ipam_network, layer2, with};
pub use observe::Snapshot;
pub use place::Place;
pub use plugin::{Call, Plugin, with_prev_result};
pub use result::{address, addresses, network, sandbox_interface};
pub use suite::{Case, run};
pub use traffic::{EchoServer, Protocol};
pub use workspace::workspace;
