//! The command line: what a person types. Plugins never come here.

mod beside;
mod doctor;
mod gc;
mod install;
mod list;
mod map;
mod metrics;
mod repair;
mod trace;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use cni_conf::version::SpecVersion;
use thiserror::Error;

use self::doctor::{DoctorArgs, LintArgs};
use self::list::{ListArgs, ShowArgs};
use self::map::MapArgs;
use self::metrics::MetricsArgs;
use self::repair::RepairArgs;
use crate::dhcp;
use crate::explain::list::ListError;
use crate::registry;

/// Container networking: CNI plugins in one binary.
#[derive(Parser)]
#[command(
    name = "trestle",
    version,
    about = "Container networking: CNI plugins in one binary",
    after_help = "Container runtimes run the plugins by their own names (bridge, host-local, …), with the request in \
                  the environment and the network configuration on stdin."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the binary and a link for each plugin into a directory
    Install(InstallArgs),
    /// Remove what `install` wrote
    Uninstall(UninstallArgs),
    /// Remove what containers left behind that are gone, for runtimes that don't call GC
    Gc(GcArgs),
    /// Put back what somebody has flushed or switched off: what CHECK of each living attachment finds missing
    Repair(RepairArgs),
    /// Say what is wrong on this node, why, and what to do about it; changes nothing
    ///
    /// The exit status is 0 when all is well, 1 for warnings, 2 for failures, 3 when something could not be looked at.
    Doctor(DoctorArgs),
    /// Check network configurations, without a host; exits like `doctor`
    Lint(LintArgs),
    /// List the attachments of this node
    List(ListArgs),
    /// Show everything about one container
    Show(ShowArgs),
    /// Print the state of this node for Prometheus: node_exporter's textfile collector
    Metrics(MetricsArgs),
    /// Draw this node: uplinks, bridges, containers, ports and routes
    Map(MapArgs),
    /// Follow a packet of a container through this node, there and back, and say what becomes of it
    ///
    /// The exit status is 0 when it is answered or delivered, 2 otherwise, 3 when nothing could be traced.
    Trace(trace::TraceArgs),
    /// The leases of the plugin dhcp, and the daemon that holds them
    #[command(subcommand)]
    Dhcp(DhcpCommand),
    /// Print the version, the plugins and the CNI versions they speak
    Version,
}

#[derive(Subcommand)]
enum DhcpCommand {
    /// Hold leases, and extend them for as long as their containers live
    Daemon {
        /// -socketpath, -pidfile, -hostprefix, -broadcast, -timeout, -resendmax, -resendtimeout, -statedir; see -h
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "FLAGS"
        )]
        flags: Vec<OsString>,
    },
    /// List the leases
    List,
}

#[derive(Args)]
struct InstallArgs {
    /// Directory for the plugins, usually /opt/cni/bin
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Also write a default network configuration into this directory, usually /etc/cni/net.d
    #[arg(long, value_name = "DIR")]
    conf_dir: Option<PathBuf>,
    /// Only these plugins
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    plugins: Vec<String>,
    /// Overwrite a configuration file that differs
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct UninstallArgs {
    /// Directory that `install` was given
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Also remove the default network configuration from this directory, unless it was changed
    #[arg(long, value_name = "DIR")]
    conf_dir: Option<PathBuf>,
}

#[derive(Args)]
struct GcArgs {
    /// The network's configuration, a .conf or .conflist in /etc/cni/net.d
    #[arg(long, value_name = "FILE", required_unless_present_any = ["network", "all"])]
    conf: Option<PathBuf>,
    /// A network whose configuration is gone, by name: what the runtime remembers of it stands for it, or else trestle's
    /// plugins with their defaults
    #[arg(long, value_name = "NAME", conflicts_with = "conf")]
    network: Option<String>,
    /// Every network of --conf-dir, and those without a configuration that the runtime remembers
    #[arg(long, conflicts_with_all = ["conf", "network"])]
    all: bool,
    /// Directory of the network configurations, for --all
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Directory in which the runtime's CNI library keeps its cache
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni")]
    cache_dir: PathBuf,
    /// Directory of the plugins; that of this program unless given
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// A failure of the command line.
#[derive(Debug, Error)]
enum CliError {
    #[error("{operation} {}: {source}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0:?} is no plugin of trestle; the plugins are {names}", names = names())]
    UnknownPlugin(String),
    #[error(
        "{} exists and differs from what would be written: nothing was installed. Keep it by leaving out --conf-dir, or \
         overwrite it with --force",
        .0.display()
    )]
    ConfDiffers(PathBuf),
    #[error("no container, and no pod, is called {0}; see `trestle list`")]
    NoSuchContainer(String),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Plugin(#[from] cni_conf::error::Error),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<CliError>),
    #[error("write to stdout: {0}")]
    Stdout(#[from] io::Error),
}

/// Wraps the error of an operation on a file.
fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError + use<> {
    let path = path.to_owned();
    move |source| CliError::File {
        operation,
        path,
        source,
    }
}

fn names() -> String {
    let names: Vec<_> = registry::ALL.iter().map(|built_in| built_in.name).collect();
    names.join(", ")
}

/// The definition of the command line, for man pages and completions.
#[doc(hidden)]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line. The exit status is 0, 1 for a failure, 2 for wrong usage; `doctor` and `lint` have their own.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout with status 0, everything else to stderr with status 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut out = io::stdout().lock();
    let outcome = match cli.command {
        Command::Install(args) => install::install(&args, &mut out).map(done),
        Command::Uninstall(args) => install::uninstall(&args, &mut out).map(done),
        Command::Gc(args) => gc::gc(&args, &mut out).map(done),
        Command::Repair(args) => repair::repair(&args, &mut out),
        Command::Doctor(args) => doctor::doctor(&args, &mut out),
        Command::Lint(args) => doctor::lint(&args, &mut out),
        Command::List(args) => list::list(&args, &mut out),
        Command::Show(args) => list::show(&args, &mut out),
        Command::Metrics(args) => metrics::metrics(&args, &mut out).map(done),
        Command::Map(args) => map::map(&args, &mut out).map(done),
        Command::Trace(args) => trace::trace(&args, &mut out),
        Command::Dhcp(DhcpCommand::Daemon { flags }) => {
            return dhcp::daemon::run(flags.into_iter());
        }
        Command::Dhcp(DhcpCommand::List) => dhcp::list::run(&mut out).map_err(CliError::from),
        Command::Version => version(&mut out).map(done),
    };
    match outcome {
        Ok(status) => status,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Writes an error for people to stderr.
pub fn report(error: &dyn std::error::Error) {
    // Nothing sensible is left to do when stderr is closed.
    let _ = writeln!(io::stderr(), "trestle: {error}");
}

fn version(out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "trestle {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "plugins: {}", names())?;
    writeln!(out, "CNI versions: {}", SpecVersion::list())?;
    Ok(())
}
