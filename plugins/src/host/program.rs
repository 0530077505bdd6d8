//! Finding and running the few programs that are used where the kernel offers no sensible interface:
//! `nft`, `iptables` and `modprobe`.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(input.as_bytes()),
            None => Ok(()),
        };
        let output = finish(child).map_err(refused)?;
        if output.status.success() {
            // A child that fails and closes the pipe early says why; one that succeeded has done so with half its input.
            written.map_err(refused)?;
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

/// Takes in what a child prints until its end, and waits for that. `Child::wait_with_output` of the standard library panics
/// when a pipe can't be read.
///
/// # Errors
/// When a pipe can't be read, or the child not be waited for.
pub fn finish(mut child: Child) -> io::Result<Output> {
    let pipes = [
        child.stdout.take().map(OwnedFd::from),
        child.stderr.take().map(OwnedFd::from),
    ];
    let read = read_to_ends(pipes);
    // The pipes are closed by now: a child that prints on ends too.
    let status = child.wait()?;
    let [stdout, stderr] = read?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Everything that comes out of pipes, whichever has something first.
fn read_to_ends<const N: usize>(pipes: [Option<OwnedFd>; N]) -> io::Result<[Vec<u8>; N]> {
    let mut texts = [const { Vec::new() }; N];
    let mut open: Vec<(usize, File)> = pipes
        .into_iter()
        .enumerate()
        .filter_map(|(index, pipe)| Some((index, File::from(pipe?))))
        .collect();
    while !open.is_empty() {
        let ready = wait_for_any(&open)?;
        let mut still_open = Vec::new();
        for ((index, mut pipe), ready) in open.into_iter().zip(ready) {
            if !ready || read_some(&mut pipe, &mut texts[index])? {
                still_open.push((index, pipe));
            }
        }
        open = still_open;
    }
    Ok(texts)
}

/// Which of the pipes can be read from without waiting.
fn wait_for_any(pipes: &[(usize, File)]) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> = pipes
        .iter()
        .map(|(_, pipe)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
        .collect();
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            outcome => break outcome,
        }
    }?;
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect())
}

/// Takes in what there is. Returns false at the end.
fn read_some(pipe: &mut File, text: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 8 << 10];
    match pipe.read(&mut buffer) {
        Ok(length) => {
            text.extend_from_slice(&buffer[..length]);
            Ok(length > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(script: &str) -> Child {
        Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn everything_is_taken_in_whichever_pipe_it_comes_out_of() {
        // More than fits a pipe, on both.
        let output = finish(child(
            "head -c 300000 /dev/zero >&2; head -c 200000 /dev/zero; exit 3",
        ))
        .unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (200_000, 300_000)
        );
    }

    #[test]
    fn a_pipe_that_cant_be_read_is_an_error() {
        let directory = OwnedFd::from(File::open("/").unwrap());
        let error = read_to_ends([Some(directory)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
