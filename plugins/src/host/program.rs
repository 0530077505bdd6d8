//! Finding and running the few programs that are used where the kernel offers no sensible interface:
//! `nft`, `iptables` and `modprobe`.
//!
//! They have half a minute. One that hangs, which may hold a lock of ours or of its own, is killed, so that those who wait for
//! the lock get it while they still wait.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;

use super::child::{self, End};
use super::error::HostError;

/// How long a program may take: less than those wait who want a lock that is held meanwhile.
const LIMIT: Duration = Duration::from_secs(30);

/// Where system programs are when `PATH` does not say so: a runtime may be started with a short one.
const SYSTEM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// A program that trestle may need and the package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The file name.
    pub name: &'static str,
    /// What a person does to get it; shown as the remedy when it is missing.
    pub remedy: &'static str,
}

impl Program {
    /// The full path of the program, looked for in `PATH` first.
    ///
    /// # Errors
    /// [`HostError::ProgramMissing`].
    pub fn find(self, purpose: &str) -> Result<PathBuf, HostError> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
            .map(|dir| dir.join(self.name))
            .find(|file| is_executable(file))
            .ok_or_else(|| HostError::ProgramMissing {
                operation: purpose.to_owned(),
                program: self.name,
                remedy: self.remedy,
            })
    }

    /// Whether the host has the program, also where this process has a root of its own, as in a container with the host's
    /// process IDs: the first process's root is the host's then. A symbolic link there counts as it stands, since from here it
    /// leads elsewhere.
    pub fn is_installed(self) -> bool {
        let in_root = |root: PathBuf| {
            let mut dirs = SYSTEM_DIRS.iter().map(|dir| root.join(&dir[1..]));
            dirs.any(|dir| dir.join(self.name).symlink_metadata().is_ok())
        };
        self.find("look").is_ok() || other_root().is_some_and(in_root)
    }

    /// Runs the program with `input` on its standard input and gives what it printed.
    ///
    /// The child is in the network namespace the calling thread is in. It does not see standard output
    /// of this process, which belongs to the protocol.
    ///
    /// # Errors
    /// [`HostError::ProgramMissing`]; [`HostError::System`] when it can't be started;
    /// [`HostError::ProgramFailed`] with what it wrote to standard error when it reports failure;
    /// [`HostError::ProgramHung`].
    pub fn run(
        self,
        purpose: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Result<String, HostError> {
        self.run_within(LIMIT, purpose, args, input)
    }

    fn run_within(
        self,
        limit: Duration,
        purpose: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Result<String, HostError> {
        let refused = |source| HostError::System {
            operation: format!("{purpose}: run {}", self.name),
            source,
        };
        let mut command = Command::new(self.find(purpose)?);
        command.args(args).env("LC_ALL", "C").stderr(Stdio::piped());
        let end = child::run(&mut command, input.as_bytes(), limit).map_err(refused)?;
        let End::Exited { output, received } = end else {
            return Err(HostError::ProgramHung {
                operation: purpose.to_owned(),
                program: self.name,
                waited: limit,
            });
        };
        // A child that fails and closes the pipe early says why; one that succeeded has done so with half its input.
        if output.status.success() && !received {
            return Err(refused(Errno::EPIPE.into()));
        }
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(HostError::ProgramFailed {
            operation: purpose.to_owned(),
            program: self.name,
            complaint: complaint(&output),
        })
    }
}

/// The root directory of the first process that is seen, if it is not this process's own.
fn other_root() -> Option<PathBuf> {
    let root = PathBuf::from("/proc/1/root");
    let id = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    (id(&root)? != id(Path::new("/"))?).then_some(root)
}

/// What a program that failed said, or else how it ended.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let by_signal = output.status.signal().is_some();
    match (text.is_empty(), by_signal) {
        (true, _) => format!("it said nothing ({})", output.status),
        (false, true) => format!("{text} ({})", output.status),
        (false, false) => text.to_owned(),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Program = Program {
        name: "sh",
        remedy: "",
    };

    fn error(script: &str, limit: Duration) -> HostError {
        let run = SHELL.run_within(limit, "try", ["-c", script], "");
        run.unwrap_err()
    }

    #[test]
    fn a_program_that_ends_without_a_word_is_still_said_how() {
        let said = |script| error(script, LIMIT).to_string();
        let killed = said("kill -KILL $$");
        assert_eq!(
            killed,
            "try: sh failed: it said nothing (signal: 9 (SIGKILL))"
        );
        assert!(said("echo lost >&2; kill -SEGV $$").contains("lost (signal: 11 (SIGSEGV)"));
        assert!(said("exit 3").contains("exit status: 3"));
        assert_eq!(said("echo why >&2; exit 3"), "try: sh failed: why");
    }

    #[test]
    fn a_program_that_hangs_is_an_error_of_its_own() {
        let error = error("sleep 1000", Duration::from_millis(100));
        assert!(matches!(error, HostError::ProgramHung { .. }), "{error}");
    }
}
