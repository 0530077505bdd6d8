//! What this process was started with, and the choice between a plugin and the command line.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use cni_conf::dispatch;
use cni_conf::error::{Code, Error};
use cni_conf::request::Environment;
use cni_conf::version::SpecVersion;

use crate::cli;
use crate::dhcp;
use crate::host::tap;
use crate::host::{start, stdio};
use crate::log;
use crate::registry::{self, BINARY, BuiltIn};

/// Arguments and environment of this process.
pub struct Process {
    args: Vec<OsString>,
    env: Environment,
}

impl Process {
    /// The running process, which was started with these arguments.
    pub fn from_os(args: Vec<OsString>) -> Self {
        stdio::ignore_file_size_limit();
        Self {
            args,
            env: Environment::from_os(),
        }
    }

    /// Serves the call: the plugin whose name is the base name of `argv[0]`, or the command line.
    pub fn run(self, registry: &'static [BuiltIn]) -> ExitCode {
        let called = self
            .args
            .first()
            .map(OsString::as_os_str)
            .unwrap_or_default();
        let name = Path::new(called).file_name().unwrap_or_default().to_owned();
        let built_in = name
            .to_str()
            .and_then(|name| registry::find(registry, name));
        let command = self.args.get(1).and_then(|word| word.to_str());
        match (built_in, command) {
            (Some(BuiltIn { name: "dhcp", .. }), Some("daemon")) => {
                dhcp::daemon::run(self.args.into_iter().skip(2))
            }
            (Some(BuiltIn { name: "dhcp", .. }), Some("list")) => {
                dhcp::list::run(&mut io::stdout().lock()).unwrap_or(ExitCode::FAILURE)
            }
            (Some(BuiltIn { name, plugin }), _) => {
                let since = Instant::now();
                dispatch::serve_and_log(
                    name,
                    plugin,
                    &self.env,
                    io::stdin().lock(),
                    &mut answers(),
                    &mut |served| log::call(served, since),
                )
            }
            (None, _) if name == tap::HELPER => make_tap(&self.args),
            (None, _) if self.env.get("CNI_COMMAND").is_some() => refuse(&name, registry),
            (None, _) if name == BINARY => cli::run(self.args),
            (None, _) => {
                cli::report(&no_such_plugin(&name, registry));
                ExitCode::FAILURE
            }
        }
    }
}

/// This process is there to make one TAP device. What it says is for the one that started it.
fn make_tap(args: &[OsString]) -> ExitCode {
    let arguments: Vec<String> = args
        .iter()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match tap::help(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Standard output, for answers of the protocol. One that was closed when the process started takes none.
fn answers() -> Box<dyn Write> {
    if start::stdout_was_closed() {
        Box::new(Closed)
    } else {
        Box::new(io::stdout().lock())
    }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("it is closed"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A runtime called the binary by a name that is no plugin's: answer in the protocol.
fn refuse(name: &OsStr, registry: &[BuiltIn]) -> ExitCode {
    dispatch::answer_error(
        &no_such_plugin(name, registry),
        SpecVersion::LATEST,
        &mut answers(),
    )
}

fn no_such_plugin(name: &OsStr, registry: &[BuiltIn]) -> Error {
    let names: Vec<_> = registry.iter().map(|built_in| built_in.name).collect();
    Error::new(
        Code::InvalidEnvironment,
        format!("trestle was called as {name:?}, which is no plugin of it"),
    )
    .with_details(format!(
        "install it under the plugins' own names with `trestle install`; they are {}",
        names.join(", ")
    ))
}
