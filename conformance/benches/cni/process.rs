//! One process from its start to its end, timed.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// A program with its whole environment and input.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The program, and what comes before it if it is run by another.
    pub(crate) command: Vec<PathBuf>,
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) stdin: Vec<u8>,
}

/// How a call went.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) took: Duration,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    problem: Option<String>,
}

impl Done {
    /// The same if the program says it succeeded.
    pub(crate) fn succeeded(self) -> Result<Self, String> {
        match self.problem {
            Some(problem) => Err(problem),
            None => Ok(self),
        }
    }
}

impl Call {
    /// Runs it in the namespaces of this thread. Input and output are files in memory, so nobody but the program
    /// and the kernel does anything while the clock runs.
    pub(crate) fn run(&self) -> Result<Done, String> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("no program".to_owned());
        };
        let failed = |error: std::io::Error| format!("{}: {error}", program.display());
        let mut stdin = memory().map_err(failed)?;
        stdin.write_all(&self.stdin).map_err(failed)?;
        stdin.rewind().map_err(failed)?;
        let (mut stdout, mut stderr) = (memory().map_err(failed)?, memory().map_err(failed)?);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.env.iter().map(|(name, value)| (*name, value)))
            .stdin(stdin)
            .stdout(Stdio::from(stdout.try_clone().map_err(failed)?))
            .stderr(Stdio::from(stderr.try_clone().map_err(failed)?));
        let start = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let status = child.wait().map_err(failed)?;
        let took = start.elapsed();
        let stdout = written(&mut stdout);
        let stderr = String::from_utf8_lossy(&written(&mut stderr)).into_owned();
        let problem = (!status.success()).then(|| {
            let said = String::from_utf8_lossy(&stdout);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            format!("{name}: {status}: {said} {}", stderr.trim())
        });
        Ok(Done {
            took,
            stdout,
            stderr,
            problem,
        })
    }
}

fn memory() -> std::io::Result<File> {
    Ok(memfd_create("bench", MFdFlags::MFD_CLOEXEC)?.into())
}

fn written(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.read_to_end(&mut bytes);
    bytes
}
