//! `trestle-node` on hosts of its own: network and mount namespaces that are joined by a LAN, with a stand-in of the API server
//! on it. The hosts' kernel, the plugins, `ip`, `nft` and `ping` are the real ones.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod api;
mod cluster;
mod kills;
mod node;
mod rules;
mod scale;
mod trouble;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    cases.extend(cluster::cases());
    cases.extend(node::cases());
    cases.extend(trouble::cases());
    cases.extend(rules::cases());
    cases.extend(kills::cases());
    cases.extend(scale::cases());
    conformance::run(cases)
}
