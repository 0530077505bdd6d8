//! Finding and running the few programs that are used where the kernel offers no sensible interface:
//! `nft`, `iptables` and `modprobe`.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::HostError;

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

    /// Runs the program with `input` on its standard input and gives what it printed.
    ///
    /// The child is in the network namespace the calling thread is in. It does not see standard output
    /// of this process, which belongs to the protocol.
    ///
    /// # Errors
    /// [`HostError::ProgramMissing`]; [`HostError::System`] when it can't be started;
    /// [`HostError::ProgramFailed`] with what it wrote to standard error when it reports failure.
    pub fn run(
        self,
        purpose: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Result<String, HostError> {
        let refused = |source| HostError::System {
            operation: format!("{purpose}: run {}", self.name),
            source,
        };
        let mut child = Command::new(self.find(purpose)?)
            .args(args)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(refused)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that ends early closes the pipe; its own message is the better one.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(refused)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(HostError::ProgramFailed {
            operation: purpose.to_owned(),
            program: self.name,
            complaint: complaint.trim().to_owned(),
        })
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
