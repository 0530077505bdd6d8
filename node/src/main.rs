//! `trestle-node`: the agent that puts trestle on the nodes of a Kubernetes cluster.
//!
//! It installs the plugins, writes the node's list, and keeps the routes to the pods of the other nodes. Pods start and
//! stop without it: what it has done stays when it ends.
//!
//! [`cluster`] is what the API server says, [`routes`] and [`list`] make of that what the kernel and the runtime are told,
//! [`trestle`] calls the plugins' own command line, and [`agent`] is the loop that does each when it is time.

mod agent;
mod args;
mod cluster;
mod flushes;
mod list;
mod log;
mod metrics;
mod reconcile;
mod routes;
mod serve;
mod status;
mod trestle;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(outcome) = trestle::in_root(&arguments) {
        return outcome;
    }
    let args = args::Args::parse_from(arguments);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(agent::run(args)),
        Err(error) => Err(agent::AgentError::Start("start the runtime", error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::say(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}
