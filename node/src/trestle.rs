//! Calling the plugins' command line, in the host's root.
//!
//! The agent may live in a container with an image of its own, while the programs that the plugins use (`nft`) and the paths that
//! they were told of belong to the host. So what is called there gets the host's file system for its root: this program is
//! started again, changes its root, and becomes the other.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::unistd::{chdir, chroot, execv};
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

use crate::args::Args;
use crate::log::say;

/// The first argument that has this program become another one.
const IN_ROOT: &str = "in-root";

/// How long a call may take: thousands of attachments and a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a call did not come to its end.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} took more than {} seconds", PATIENCE.as_secs())]
    TooSlow { program: String },
    #[error("{program}: {said}")]
    Failed { program: String, said: String },
}

/// Where the command line of the plugins is, and what it is told.
#[derive(Debug, Clone)]
pub(crate) struct Trestle {
    root: PathBuf,
    /// The one in the plugin directory, as the host sees it.
    installed: PathBuf,
    /// The one to install.
    bundled: PathBuf,
    bin_dir: PathBuf,
    conf_dir: PathBuf,
    cache_dir: PathBuf,
}

/// What a call said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    stderr: String,
}

impl Said {
    fn of(output: &std::process::Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Passes on what it wrote to stderr.
    fn pass_on(&self) {
        for line in self.stderr.lines() {
            say(format_args!("{line}"));
        }
    }

    /// What it said at last.
    fn last_words(&self) -> String {
        let last = self.stderr.lines().last().map(str::to_owned);
        last.unwrap_or_else(|| format!("it ended with status {:?}", self.status))
    }
}

impl Trestle {
    pub(crate) fn new(args: &Args) -> Self {
        let beside = || {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("trestle")
        };
        Self {
            root: args.host_root.clone(),
            installed: args.bin_dir.join("trestle"),
            bundled: args.trestle.clone().unwrap_or_else(beside),
            bin_dir: args.bin_dir.clone(),
            conf_dir: args.conf_dir.clone(),
            cache_dir: args.cache_dir.clone(),
        }
    }

    /// The binary to install.
    pub(crate) fn bundled(&self) -> &Path {
        &self.bundled
    }

    /// The installed binary, as this process sees it.
    pub(crate) fn installed_here(&self) -> PathBuf {
        let below = self.installed.strip_prefix("/").unwrap_or(&self.installed);
        self.root.join(below)
    }

    /// Installs the plugins.
    pub(crate) async fn install(&self) -> Result<(), CallError> {
        let dir = self.installed_here();
        let dir = dir.parent().unwrap_or(&self.root);
        let mut command = Command::new(&self.bundled);
        command.arg("install").arg("--bin-dir").arg(dir);
        let said = run("trestle install", command).await?;
        match said.status {
            Some(0) => Ok(()),
            _ => Err(CallError::Failed {
                program: "trestle install".into(),
                said: said.last_words(),
            }),
        }
    }

    /// Calls a subcommand that looks at the whole node, such as `gc --all`.
    pub(crate) async fn call(
        &self,
        subcommand: &'static str,
        more: &[&str],
    ) -> Result<Said, CallError> {
        let mut arguments: Vec<OsString> = vec![subcommand.into()];
        arguments.extend(more.iter().map(OsString::from));
        for (flag, dir) in [
            ("--conf-dir", &self.conf_dir),
            ("--cache-dir", &self.cache_dir),
            ("--bin-dir", &self.bin_dir),
        ] {
            arguments.extend([flag.into(), dir.into()]);
        }
        let said = run(&format!("trestle {subcommand}"), self.command(&arguments)).await?;
        said.pass_on();
        Ok(said)
    }

    fn command(&self, arguments: &[OsString]) -> Command {
        let mut command = match self.root == Path::new("/") {
            true => Command::new(&self.installed),
            false => {
                let mut command = Command::new("/proc/self/exe");
                command.arg(IN_ROOT).arg(&self.root).arg(&self.installed);
                command
            }
        };
        command.args(arguments);
        command
    }
}

async fn run(program: &str, mut command: Command) -> Result<Said, CallError> {
    let program = program.to_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // One that is given up on ends; what it was doing is safe to be cut off anywhere.
    command.kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => Ok(Said::of(&output)),
        Ok(Err(source)) => Err(CallError::Start { program, source }),
        Err(_) => Err(CallError::TooSlow { program }),
    }
}

/// Becomes another program in another root, if that is what the arguments say. Comes back only with a failure.
pub(crate) fn in_root(arguments: &[OsString]) -> Option<ExitCode> {
    let [_, word, root, program, rest @ ..] = arguments else {
        return None;
    };
    if word != IN_ROOT {
        return None;
    }
    let failure = become_other(root, program, rest).err();
    let problem = failure.map_or_else(String::new, |error| error.to_string());
    say(format_args!(
        "run {} in the root {}: {problem}",
        program.display(),
        root.display()
    ));
    Some(ExitCode::from(127))
}

fn become_other(root: &OsStr, program: &OsStr, rest: &[OsString]) -> io::Result<Infallible> {
    chroot(root)?;
    chdir("/")?;
    let all = std::iter::once(program).chain(rest.iter().map(OsString::as_os_str));
    let all: Result<Vec<_>, _> = all
        .map(|it| std::ffi::CString::new(it.as_bytes()))
        .collect();
    let all = all?;
    let path = std::ffi::CString::new(program.as_bytes())?;
    Ok(execv(&path, &all)?)
}
