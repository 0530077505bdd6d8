//! `trestle trace`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::CliError;
use super::doctor::{DirectoryArgs, paint};
use crate::explain::trace::{self, Destination, Protocol, Request};

/// The exit status when nothing could be traced.
const COULD_NOT_LOOK: u8 = 3;

#[derive(Args)]
pub(super) struct TraceArgs {
    /// The container's ID, or the beginning of it; the pod's name, or NAMESPACE/NAME; or the path of a network namespace
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Where the packet goes: ADDRESS or ADDRESS:PORT, [ADDRESS]:PORT with IPv6
    #[arg(value_name = "DST")]
    to: Destination,
    /// Begin a TCP connection (the default with a port)
    #[arg(long, conflicts_with_all = ["udp", "icmp"])]
    tcp: bool,
    /// Send a UDP datagram; a DNS question for port 53 (the default there)
    #[arg(long, conflicts_with = "icmp")]
    udp: bool,
    /// Send an echo request (the default without a port)
    #[arg(long)]
    icmp: bool,
    /// Have the packet come in by this interface of the host, as from outside, not from the container; with --live, wait for
    /// one that does
    #[arg(long, value_name = "INTERFACE")]
    from: Option<String>,
    /// Send a packet of this length, its IP header included, that may not be fragmented: a datagram, or an echo request
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["tcp", "live"])]
    size: Option<u16>,
    /// Send nothing, and wait for somebody's packet like this one
    #[arg(long)]
    live: bool,
    /// How long to wait for the answer, or with --live for the packet
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    directories: DirectoryArgs,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

impl TraceArgs {
    fn request(&self) -> Request {
        let protocol = match (self.tcp, self.udp, self.icmp) {
            (true, _, _) => Some(Protocol::Tcp),
            (_, true, _) => Some(Protocol::Udp),
            (_, _, true) => Some(Protocol::Icmp),
            _ => None,
        };
        Request {
            container: self.container.clone(),
            to: self.to,
            protocol,
            from: self.from.clone(),
            size: self.size,
            live: self.live,
            timeout: Duration::from_secs(self.timeout),
        }
    }
}

pub(super) fn trace(args: &TraceArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let trace = match trace::run(&args.directories.directories(), &args.request()) {
        Ok(trace) => trace,
        Err(error) => {
            super::report(&error);
            return Ok(ExitCode::from(COULD_NOT_LOOK));
        }
    };
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&trace).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        }
        false => write!(out, "{}", trace.text(paint()))?,
    }
    Ok(ExitCode::from(trace.status()))
}
