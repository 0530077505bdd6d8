//! Running a child process to its end, or to the end of its time.
//!
//! A child gets a process group of its own, so that one that hangs is killed with what it has started. It is through when it
//! has ended, whoever else may still hold its pipes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

/// How often a child is looked after where the kernel can't tell of its end (pidfd_open(2) came with Linux 5.3).
const LOOK: Duration = Duration::from_millis(5);

/// How long a killed child is waited for. One that the kernel does not let go of is left to it.
const KILLED: Duration = Duration::from_secs(1);

/// How it went with a child.
#[derive(Debug)]
pub enum End {
    /// It ended by itself.
    Exited {
        /// Its status and what it printed.
        output: Output,
        /// Whether it took in all of its input, as far as the pipe tells.
        received: bool,
    },
    /// Its time was over, and it was killed.
    Killed,
}

/// Starts a child with `input` on its standard input, and takes in what it prints on standard output, and on standard error
/// unless that is set to go elsewhere. It gets `limit` for all it does.
///
/// # Errors
/// When it can't be started, or a pipe not be used.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<End> {
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let done = Watch::new(&mut child, input)
        .and_then(|mut watch| Ok((watch.serve(&mut child, begin, limit)?, watch)));
    match done {
        Ok((true, watch)) => {
            let status = child.wait()?;
            let received = watch.received();
            let [stdout, stderr] = watch.texts;
            Ok(End::Exited {
                output: Output {
                    status,
                    stdout,
                    stderr,
                },
                received,
            })
        }
        Ok((false, _)) => {
            kill(&mut child);
            Ok(End::Killed)
        }
        Err(error) => {
            kill(&mut child);
            Err(error)
        }
    }
}

/// Kills a child and everything in its process group.
fn kill(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended this moment.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < KILLED {
        thread::sleep(LOOK);
    }
}

/// The pipes of a child.
struct Watch<'a> {
    stdin: Option<File>,
    input: &'a [u8],
    /// Standard output and standard error, while they are open.
    pipes: [Option<File>; 2],
    texts: [Vec<u8>; 2],
    /// Readable when the child has ended; none where the kernel has no such thing.
    end: Option<OwnedFd>,
}

impl<'a> Watch<'a> {
    fn new(child: &mut Child, input: &'a [u8]) -> io::Result<Self> {
        let stdin = child.stdin.take().map(OwnedFd::from);
        let pipes = [
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        for pipe in stdin.iter().chain(pipes.iter().flatten()) {
            let flags = OFlag::from_bits_truncate(fcntl(pipe, FcntlArg::F_GETFL)?);
            fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        let pid = i32::try_from(child.id()).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        Ok(Self {
            stdin: stdin.map(File::from),
            input,
            pipes: pipes.map(|pipe| pipe.map(File::from)),
            texts: [const { Vec::new() }; 2],
            end: pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
        })
    }

    /// Whether all input was written.
    fn received(&self) -> bool {
        self.input.is_empty()
    }

    /// Serves the pipes until the child has ended; false if it has not when the time is over.
    fn serve(&mut self, child: &mut Child, begin: Instant, limit: Duration) -> io::Result<bool> {
        loop {
            // First, so that everything a child has printed before its end is read after it.
            let ended = child.try_wait()?.is_some();
            self.write()?;
            for (pipe, text) in self.pipes.iter_mut().zip(&mut self.texts) {
                read(pipe, text)?;
            }
            if ended {
                return Ok(true);
            }
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.wait(left)?;
        }
    }

    /// Waits until something can be done, but no longer than this.
    fn wait(&self, left: Duration) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = self
            .pipes
            .iter()
            .flatten()
            .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
            .collect();
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        let left = match &self.end {
            Some(end) => {
                fds.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
                left
            }
            None => left.min(LOOK),
        };
        // Rounded up, lest it ends in a spin.
        let left = left + Duration::from_millis(1);
        match poll(
            &mut fds,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes what the pipe takes. It is closed when everything is written, or nobody reads.
    fn write(&mut self) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            if self.input.is_empty() {
                self.stdin = None;
                break;
            }
            match stdin.write(self.input) {
                Ok(length) => self.input = &self.input[length..],
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => break,
                    // A child that does not read its input says more with its answer than with a broken pipe.
                    io::ErrorKind::BrokenPipe => self.stdin = None,
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// Reads what there is, and forgets the pipe at its end.
fn read(pipe: &mut Option<File>, text: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 8 << 10];
    while let Some(file) = pipe {
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => break,
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, input: &[u8], limit: Duration) -> End {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stderr(Stdio::piped());
        run(&mut command, input, limit).unwrap()
    }

    fn exited(end: End) -> (Output, bool) {
        match end {
            End::Exited { output, received } => (output, received),
            End::Killed => panic!("it was killed"),
        }
    }

    #[test]
    fn everything_is_read_whichever_pipe_it_comes_out_of() {
        // More than fits a pipe, on both, before the input is read, which does not fit either.
        let (output, received) = exited(shell(
            "head -c 300000 /dev/zero >&2; head -c 200000 /dev/zero; cat; exit 3",
            &[b'x'; 400_000],
            LONG,
        ));
        assert!(received);
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (600_000, 300_000)
        );
    }

    #[test]
    fn input_that_nobody_reads_is_no_error_but_known() {
        let (output, received) = exited(shell("exec <&-; echo done", &[b'x'; 400_000], LONG));
        assert_eq!((output.stdout, received), (b"done\n".to_vec(), false));
    }

    #[test]
    fn a_child_that_hangs_is_killed_with_what_it_started() {
        // Neither reads its input, and the grandchild keeps the pipes open. On a busy machine they are late to begin.
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ >{}; sleep 1000", file.display());
        let pids = [300, 1_000, 3_000, 10_000, 30_000]
            .into_iter()
            .find_map(|limit| {
                let end = shell(&script, &[b'x'; 400_000], Duration::from_millis(limit));
                assert!(matches!(end, End::Killed), "{end:?}");
                let pids = std::fs::read_to_string(&file).ok()?;
                pids.ends_with('\n').then_some(pids)
            });
        let pids = pids.expect("two processes");
        let alive = |pid: &&str| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // A grandchild is reaped by whoever adopts it.
            !(state.is_empty() || state.contains(") Z ") || state.contains(") X "))
        };
        // On a busy machine who was killed comes to die a little later.
        for _ in 0..1_000 {
            if !pids.split_whitespace().any(|pid| alive(&pid)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still there: {pids}");
    }

    #[test]
    fn a_child_is_through_when_it_ends_though_another_process_has_its_pipes() {
        let (output, _) = exited(shell("sleep 1000 & echo $!", b"", LONG));
        let pid = String::from_utf8(output.stdout).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }
}
